#!/usr/bin/python3
"""10,000 messages from smtp-source over 50 sessions: each arrives exactly once, byte for byte plus one Received header;
1,000 more through a Postfix primary."""
import collections
import glob
import os
import re
import subprocess

from peers import *

tap = Tap("ten_thousand")
COUNT = 10000
source = need("smtp-source")
dns = Dns(tap, ["sender.test A 127.0.0.7"])
sink = Sink(tap).start()
LENGTH = 4096


def generate(port, count, recipient):
    return subprocess.run([source, "-s", "50", "-m", str(count), "-l", str(LENGTH), "-f", "bench@sender.test", "-t", recipient,
                           "-M", "client.sender.test", f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=600)


def normal(content):
    """What smtp-source varies from message to message, made equal."""
    content = re.sub(rb"(?m)^Date: .*\r$", b"Date: x\r", content, count=1)
    return re.sub(rb"(?m)^Message-Id: .*\r$", b"Message-Id: x\r", content, count=1)


generate(sink.port, 1, "user@example.com")
template = normal(sink.messages.pop()["content"])
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{sink.port}"]
[domains."postfix.test"]
primary = ["127.0.0.1:{free_port()}"]
[dns]
servers = ["{dns.endpoint}"]
[delivery]
probe_interval = "1s"
""").start()
done = generate(mx.smtp, COUNT, "user@example.com")
tap.equal(done.returncode, 0, "smtp-source has handed over 10,000 messages")
tap.check(wait_for(lambda: len(sink.messages) >= COUNT, 300), "all have arrived", len(sink.messages))
tap.check(wait_for(lambda: not mx.queue()), "the queue is empty")
tap.equal(len(sink.messages), COUNT, "exactly as many as were sent")
ids = collections.Counter(re.search(rb"(?m)^Message-Id: (.*)\r$", m["content"]).group(1) for m in sink.messages)
tap.equal(max(ids.values()), 1, "each once")
received = re.compile(rb"\AReceived: from client\.sender\.test \(.*?\r\n(?=\S)", re.S)
wrong = [m["content"] for m in sink.messages if normal(received.sub(b"", m["content"], count=1)) != template]
tap.equal(len(wrong), 0, "byte for byte plus one Received header")
tap.equal(len([m for m in sink.messages if len(re.findall(rb"(?m)^Received:", m["content"])) != 1]), 0, "and only one")

if os.geteuid() == 0:
    maildir = os.path.join(tap.directory, "mail")
    os.makedirs(maildir)
    shutil.chown(maildir, "nobody", "nogroup")
    postfix = Postfix(tap, "primary", {
        "virtual_mailbox_domains": "postfix.test", "virtual_mailbox_base": maildir, "virtual_mailbox_maps": "static:inbox/",
        "virtual_uid_maps": f"static:{pwd.getpwnam('nobody').pw_uid}", "virtual_gid_maps": f"static:{grp.getgrnam('nogroup').gr_gid}",
        "smtpd_recipient_restrictions": "reject_unauth_destination", "in_flow_delay": "0"}).start()
    mx.write(f"""
[domains."example.com"]
primary = ["127.0.0.1:{sink.port}"]
[domains."postfix.test"]
primary = ["127.0.0.1:{postfix.port}"]
[dns]
servers = ["{dns.endpoint}"]
""")
    mx.tool("reload", check=True)
    done = generate(mx.smtp, 1000, "user@postfix.test")
    tap.equal(done.returncode, 0, "1,000 more for a Postfix primary")
    tap.check(wait_for(lambda: len(glob.glob(f"{maildir}/inbox/new/*")) >= 1000, 300), "all are in its Maildir",
              len(glob.glob(f"{maildir}/inbox/new/*")))
    tap.check(wait_for(lambda: not mx.queue()), "the queue is empty again")
    tap.equal(len(glob.glob(f"{maildir}/inbox/new/*")), 1000, "each once")
tap.equal(mx.stop(), 0, "stops")
tap.done()

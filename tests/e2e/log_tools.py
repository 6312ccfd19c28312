#!/usr/bin/python3
"""The log is read by the tools admins have: pflogsumm's totals and fail2ban's filters equal what was sent."""
import os
import re
import subprocess

from peers import *

tap = Tap("log_tools")
dns = Dns(tap, ["sender.test A 127.0.0.7", "sender.test MX 10 sender.test", "2.0.0.127.bl.test A 127.0.0.2",
                "66.0.0.127.bl.test A 127.0.0.2"])
primary = Sink(tap).start()
log = os.path.join(tap.directory, "mx", "mail.log")
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{primary.port}"]
[access]
trusted_networks = ["127.0.0.9/32"]
[dns]
servers = ["{dns.endpoint}"]
timeout = "1s"
[[dnsbl.lists]]
zone = "bl.test"
[greylist]
delay = "1h"
[log]
target = "./mail.log"
tag = "postfix-greymx"
""", name="mx").start()
RELAYED, LISTED, DENIED, GREY, NOFQDN = 7, 5, 4, 6, 3


def attempt(source, sender, recipient):
    client = Smtp(mx.smtp, source=source)
    replies = client.mail(sender, [recipient], "Subject: x\n\nx\n", helo="mail.sender.test")
    client.command("QUIT")
    client.close()
    return replies[-1]


for n in range(RELAYED):
    tap.check(attempt("127.0.0.9", "alice@sender.test", f"user{n}@example.com").startswith("250"), f"trusted mail {n} is taken")
for n in range(LISTED):
    attempt("127.0.0.66", "a@sender.test", "bob@example.com")
for n in range(DENIED):
    attempt("127.0.0.20", "a@sender.test", "bob@elsewhere.test")
for n in range(GREY):
    attempt("127.0.0.21", f"a{'bcdefghi'[n]}@sender.test", "bob@example.com")
for n in range(NOFQDN):
    attempt("127.0.0.22", "a@nodots", "bob@example.com")
tap.check(wait_for(lambda: len(primary.messages) == RELAYED and not mx.queue()), "all that was taken is relayed")
mx.stop()
with open(log) as file:
    text = file.read()
tap.equal(len(re.findall(r"status=sent", text)), RELAYED, "as many lines say sent")

report = subprocess.run(["pflogsumm", "--syslog-name=postfix-greymx", log], capture_output=True, text=True).stdout
# pflogsumm wants traditional or ISO dates; ours are ISO
for what, count in (("received", RELAYED), ("delivered", RELAYED), ("rejected", LISTED + DENIED + GREY + NOFQDN)):
    found = re.search(rf"^ +(\d+) +{what}\b", report, re.M)
    tap.equal(int(found.group(1)) if found else report[:1500], count, f"pflogsumm counts {count} {what}")
regex = subprocess.run(["fail2ban-regex", log, "postfix[mode=aggressive]"], capture_output=True, text=True).stdout
found = re.search(r"Lines: \d+ lines, \d+ ignored, (\d+) matched", regex)
# the stock filter counts 450 4.2.0? no: only texts it knows
stock = int(found.group(1)) if found else -1
tap.check(stock >= LISTED + DENIED, f"fail2ban's stock postfix filter finds block list and relay refusals ({stock})", regex[-1500:])
with open(log) as file:
    ours = file.read().replace("postfix-greymx/", "greymx/")
own = os.path.join(tap.directory, "own.log")
with open(own, "w") as file:
    file.write(ours)
regex = subprocess.run(["fail2ban-regex", own, os.path.join(ROOT, "conf/fail2ban/greymx.conf")], capture_output=True, text=True).stdout
found = re.search(r"Lines: \d+ lines, \d+ ignored, (\d+) matched", regex)
tap.equal(int(found.group(1)) if found else regex[-1500:], LISTED + DENIED + NOFQDN, "our own filter finds each refusal, and no greylisting")
tap.done()

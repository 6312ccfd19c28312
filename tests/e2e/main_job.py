#!/usr/bin/python3
"""The main job: refuse, greylist, accept while the primary is down, survive kill -9, drain when it returns."""
import os
import re

from peers import *

tap = Tap("main_job")
dns = Dns(tap, ["2.0.0.127.bl.test A 127.0.0.2", "66.0.0.127.bl.test A 127.0.0.2",
                "66.0.0.127.bl.test TXT \"listed for the test\"", "sender.test MX 10 mail.sender.test",
                "mail.sender.test A 127.0.0.7", "7.0.0.127.in-addr.arpa PTR mail.sender.test.",
                "nullmx.test MX 0 .", "spam.test A 127.0.0.66"])
primary = Sink(tap)
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
delay = "2s"
[delivery]
probe_interval = "1s"
""").start()


def attempt(source, sender="alice@sender.test", recipient="bob@example.com", content="Subject: hello\n\nbody\n"):
    client = Smtp(mx.smtp, source=source)
    replies = client.mail(sender, [recipient], content, helo="mail.sender.test")
    client.close()
    return replies


replies = attempt("127.0.0.66", "seller@spam.test")
tap.equal(replies[2], "554 5.7.1 Service unavailable; Client host [127.0.0.66] blocked using bl.test; listed for the test",
          "a listed client gets 554 with the list's reason")
tap.equal(attempt("127.0.0.7", recipient="bob@elsewhere.test")[2], "554 5.7.1 <bob@elsewhere.test>: Relay access denied",
          "other domains are refused")
tap.equal(attempt("127.0.0.9", recipient="bob@elsewhere.test")[2], "554 5.7.1 <bob@elsewhere.test>: Relay access denied",
          "also for trusted clients")
tap.check(attempt("127.0.0.7", "x@nullmx.test")[2].startswith("550 5.7.27 "), "a sender domain with a null MX is refused")
tap.check(attempt("127.0.0.7", "x@nowhere.test")[2].startswith("450 4.1.8 "), "an unknown sender domain is 450 4.1.8")
first = attempt("127.0.0.7")[2]
tap.equal(first, "450 4.2.0 <bob@example.com>: Recipient address rejected: Greylisted, please try again later",
          "an unknown client is greylisted")
accepted = wait_for(lambda: (r := attempt("127.0.0.7")) and r[-1].startswith("250 2.0.0 Ok: queued as ") and r)
tap.check(accepted, "the same client is taken when it comes back, although the primary is down")
queue_id = accepted[-1].split()[-1] if accepted else "none"

entries = wait_for(lambda: (q := mx.queue()) and "refused" in str(q[0]["recipients"]) and q)
tap.check(entries and entries[0]["queue_id"] == queue_id, "mailq --json lists it", entries)
tap.check(entries and entries[0]["sender"] == "alice@sender.test" and entries[0]["recipients"][0]["address"] == "bob@example.com",
          "with sender and recipient", entries)
listing = mx.tool("mailq").stdout
tap.check(re.search(rf"^{queue_id}[* ]? +\d+ \w{{3}} \w{{3}} [ \d]\d \d\d:\d\d:\d\d +alice@sender.test$", listing, re.M),
          "mailq lists it in Postfix's layout", listing)
tap.check(re.search(r"^ *\(.*Connection refused.*\)$", listing, re.M), "with the reason", listing)
tap.check(re.search(r"^-- \d+ Kbytes in 1 Request\.$", listing, re.M), "and the closing line", listing)

mx.kill9()
offline = mx.tool("mailq")
tap.check(offline.returncode == 0 and queue_id in offline.stdout, "mailq works without the daemon", offline.stdout + offline.stderr)
tap.equal(mx.tool("flush").returncode, 75, "flush without the daemon exits 75")
mx.start()
tap.check(len(mx.queue()) == 1, "the message survives kill -9")

primary.start()
tap.check(wait_for(lambda: primary.messages), "the primary's return is noticed and the queue drains")
tap.check(wait_for(lambda: not mx.queue()), "the queue is empty")
tap.equal(mx.tool("mailq").stdout, "Mail queue is empty\n", "mailq says so")
message = primary.messages[0] if primary.messages else {"content": b"", "sender": "", "recipients": []}
tap.equal((message["sender"], message["recipients"]), ("alice@sender.test", ["bob@example.com"]), "envelope as sent")
head, _, rest = message["content"].partition(b"Subject: ")
tap.equal(rest, b"hello\r\n\r\nbody\r\n", "content byte for byte")
text = head.decode()
tap.check(re.search(r"^X-Greylist: delayed \d+ seconds by greymx-\S+ at mx2\.example\.net; ", text, re.M),
          "with the greylister's header", text)
tap.check(re.search(r"^Received: from mail\.sender\.test \(mail\.sender\.test \[127\.0\.0\.7\]\)\r\n\tby mx2\.example\.net "
                    rf"\(greymx\) with ESMTP id {queue_id}\r\n\tfor <bob@example\.com>; \w{{3}}, ", text, re.M),
          "and one Received line", text)
log = mx.log()
for pattern, what in ((r"greymx/smtpd\[\d+\]: connect from mail\.sender\.test\[127\.0\.0\.7\]$", "connect"),
                      (r"greymx/smtpd\[\d+\]: NOQUEUE: reject: RCPT from unknown\[127\.0\.0\.66\]: 554 5\.7\.1 .*; "
                       r"from=<seller@spam\.test> to=<bob@example\.com> proto=ESMTP helo=<mail\.sender\.test>$", "reject"),
                      (rf"greymx/smtp\[\d+\]: {queue_id}: to=<bob@example\.com>, relay=127\.0\.0\.1\[127\.0\.0\.1\]:{primary.port}, "
                       r"delay=[\d.]+, delays=[\d.]+/[\d.]+/[\d.]+/[\d.]+, dsn=2\.0\.0, status=sent \(250 2\.0\.0 Ok: kept\)$", "sent"),
                      (rf"greymx/qmgr\[\d+\]: {queue_id}: removed$", "removed")):
    tap.check(re.search(pattern, log, re.M), f"log line: {what}", log[-3000:])
tap.equal(mx.stop(), 0, "SIGTERM ends it with 0")
tap.done()

#!/usr/bin/python3
"""Postfix as sender: it is greylisted, retries by itself, and its DSN, SMTPUTF8 and 8BITMIME requests reach the
primary."""
import re

from peers import *

tap = Tap("postfix_sender")
if os.geteuid() != 0:
    tap.check(False, "a private Postfix needs root")
    tap.done()
dns = Dns(tap, ["sender.test A 127.0.0.1", "sender.test MX 10 sender.test", "1.0.0.127.in-addr.arpa PTR sender.test."])
primary = Sink(tap).start()
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.2:{primary.port}"]
[access]
trusted_networks = []
[dns]
servers = ["{dns.endpoint}"]
[greylist]
delay = "2s"
""")
# explicit primaries are not greylisted, and the sender comes from 127.0.0.1
primary.stop()
primary.address = "127.0.0.2"
primary.start()
mx.start()
postfix = Postfix(tap, "sender", {
    "relayhost": f"[127.0.0.1]:{mx.smtp}", "smtp_helo_name": "sender.test", "minimal_backoff_time": "1s",
    "maximal_backoff_time": "2s", "queue_run_delay": "1s", "myorigin": "sender.test", "smtp_tls_security_level": "none",
    "smtp_host_lookup": "native"}).start()

sent = postfix.run("sendmail", "-f", "alice@sender.test", "-N", "success,failure", "-V", "envid-1", "-R", "hdrs",
                   "bob@example.com", input="Subject: first\n\nhello\n")
tap.equal(sent.returncode, 0, "a local submission to Postfix")
tap.check(mx.wait_log(r"NOQUEUE: reject: RCPT from sender\.test\[127\.0\.0\.1\]: 450 4\.2\.0 <bob@example\.com>: Recipient "
                      r"address rejected: Greylisted"), "it is greylisted", mx.log()[-2000:])
tap.check(postfix.wait_log(r"status=deferred \(host 127\.0\.0\.1\[127\.0\.0\.1\] said: 450 4\.2\.0"), "Postfix defers it",
          postfix.log()[-2000:])
tap.check(wait_for(lambda: primary.messages), "and passes by its own retry", mx.log()[-2000:])
message = primary.messages[0] if primary.messages else {"mail": "", "rcpt": [""], "content": b""}
tap.check("RET=HDRS" in message["mail"] and "ENVID=envid-1" in message["mail"], "RET and ENVID reach the primary", message["mail"])
tap.check("NOTIFY=SUCCESS,FAILURE" in message["rcpt"][0] and "ORCPT=rfc822;bob@example.com" in message["rcpt"][0],
          "NOTIFY and ORCPT too", message["rcpt"])
tap.check(re.search(rb"(?m)^X-Greylist: delayed \d+ seconds by greymx", message["content"]), "with the header")
eight = postfix.run("sendmail", "-f", "alice@sender.test", "-B", "8BITMIME", "bob@example.com",
                    input="Subject: acht\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGrüße\n")
tap.check(wait_for(lambda: len(primary.messages) >= 2), "an 8-bit message arrives")
message = primary.messages[-1]
tap.check("BODY=8BITMIME" in message["mail"] and "Grüße".encode() in message["content"], "as 8BITMIME, bytes unchanged", message)
utf8 = postfix.run("sendmail", "-f", "alice@sender.test", "bøb@example.com", input="Subject: utf8\n\nx\n")
tap.check(wait_for(lambda: len(primary.messages) >= 3), "an internationalised recipient arrives", mx.log()[-1500:])
tap.check("SMTPUTF8" in primary.messages[-1]["mail"] and primary.messages[-1]["recipients"] == ["bøb@example.com"],
          "with SMTPUTF8", primary.messages[-1])
tap.check(wait_for(lambda: not mx.queue()), "nothing is left in the queue")
tap.done()

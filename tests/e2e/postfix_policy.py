#!/usr/bin/python3
"""A real Postfix asks greymx what to do with a mail: a real Postfix sender is deferred, comes back, and gets through with
the header; the answers are what Postfix's log shows."""
import re

from policy import *

tap = Tap("postfix_policy")
port = free_port()
sink = Sink(tap).start()
mx = Greymx(tap, """
[domains."greymx.test"]
primary = ["127.0.0.1:9"]
verify_recipients = false
[access]
trusted_networks = ["127.0.0.1/32"]
[greylist]
delay = "3s"
""", policy=[f"127.0.0.1:{port}"]).start()
receiver = Postfix(tap, "receiver", {
    "relay_domains": "example.com", "relay_transport": f"smtp:[127.0.0.1]:{sink.port}", "mynetworks": "127.0.0.200/32",
    "smtpd_recipient_restrictions": f"reject_unauth_destination, check_policy_service inet:127.0.0.1:{port}",
}).start()
sender = Postfix(tap, "sender", {
    "relayhost": f"[127.0.0.1]:{receiver.port}", "smtp_bind_address": "127.0.0.7", "mydestination": "",
    "minimal_backoff_time": "1s", "maximal_backoff_time": "1s", "queue_run_delay": "1s",
    "transport_retry_time": "1s", "smtp_connection_cache_on_demand": "no",
}).start()



def come_back(condition):
    """Waits for `condition` while the sender retries as fast as it can."""
    return wait_for(lambda: condition() or (sender.run("postqueue", "-f"), condition())[1], every=1)


client = Smtp(sender.port)
replies = client.mail("alice@sender.test", ["bob@example.com"], "Subject: hello\n\nbody\n")
tap.check(replies[-1].startswith("250 "), "a real Postfix takes a mail to send", replies)
text = r"450 4\.2\.0 <bob@example\.com>: Recipient address rejected: Greylisted, please try again later"
tap.check(receiver.wait_log(r"NOQUEUE: reject: RCPT from \S+\[127\.0\.0\.7\]: " + text + r"; from=<alice@sender\.test> to=<bob@example\.com> proto=ESMTP"),
          "the receiving Postfix defers it with our text", receiver.log()[-3000:])
tap.check(sender.wait_log(r"status=deferred .*" + text), "the sender sees it and keeps the mail", sender.log()[-3000:])
arrived = come_back(lambda: sink.messages)
tap.check(arrived, "it comes back and gets through", sender.log()[-3000:])
headers = arrived[0]["content"].decode() if arrived else ""
tap.check(len(re.findall(r"^X-Greylist: delayed \d+ seconds by greymx-\S+ at mx2\.example\.net; \w{3}, ", headers, re.M)) == 1,
          "with one X-Greylist header", headers)
tap.check(mx.wait_log(r"greylist\[\d+\]: action=greylist, reason=new, client_name=\S+, client_address=127\.0\.0\.7, sender=alice@sender\.test, recipient=bob@example\.com\n"),
          "our log has postgrey's line for the deferral", mx.log()[-3000:])
tap.check(mx.wait_log(r"greylist\[\d+\]: action=pass, reason=triplet found, delay=\d+, client_name=\S+, client_address=127\.0\.0\.7, sender=alice@sender\.test, recipient=bob@example\.com\n"),
          "and for the pass", mx.log()[-3000:])

sink.messages.clear()
client.mail("alice@sender.test", ["bob@example.com"], "Subject: again\n\nbody\n")
arrived = wait_for(lambda: sink.messages)
tap.check(arrived and b"X-Greylist" not in arrived[0]["content"], "the next mail of these two passes at once, without header")

sink.messages.clear()
client.mail("carol@sender.test", ["bob@example.com", "ann@example.com", "postmaster@example.com"], "Subject: three\n\nbody\n")
tap.check(come_back(lambda: sum(len(m["recipients"]) for m in sink.messages) == 3), "all recipients of a mail get it", sink.messages)
tap.check(all(m["content"].count(b"X-Greylist") <= 1 for m in sink.messages), "no copy carries two headers", sink.messages)
tap.check("Server configuration problem" not in receiver.log() + sender.log(), "at no time was there a configuration problem")

mx.stop()
stopped = Smtp(receiver.port, source="127.0.0.8")
tap.check("451 4.3.5" in stopped.mail("dave@sender.test", ["bob@example.com"], "x\n")[2], "without greymx Postfix says 451, as for postgrey")
mx.start()
# Postfix keeps its connections; after our restart it has to open new ones by itself.
again = Smtp(receiver.port, source="127.0.0.8")
tap.check("Greylisted" in again.mail("dave@sender.test", ["bob@example.com"], "x\n")[2], "and goes on with greymx when it is back")
tap.done()

#!/usr/bin/python3
"""A primary behind Postfix's postscreen with its slow greeting and its deep protocol tests, which defer every client's first
mail and hang up: nothing is lost, nothing bounces, and each message comes once."""
import collections
import re

from peers import *

tap = Tap("postscreen_primary")
COUNT = 30
dns = Dns(tap, ["sender.test A 127.0.0.7"])
recorder = Sink(tap).start()
port = free_port()
postfix = Postfix(tap, "primary", {
    "relay_domains": "example.com", "smtpd_relay_restrictions": "reject_unauth_destination", "smtpd_peername_lookup": "no",
    "relay_transport": f"smtp:[127.0.0.1]:{recorder.port}", "postscreen_greet_wait": "3s", "postscreen_greet_action": "enforce",
    "postscreen_access_list": "", "postscreen_pipelining_enable": "yes", "postscreen_pipelining_action": "enforce",
    "postscreen_non_smtp_command_enable": "yes", "postscreen_bare_newline_enable": "yes", "postscreen_bare_newline_action": "enforce",
    "mynetworks": "127.0.0.99/32"},
    services=[f"127.0.0.1:{port} inet n - n - 1 postscreen", "smtpd pass - - n - - smtpd", "dnsblog unix - - n - 0 dnsblog"]).start()
tap.check(wait_for(lambda: listening(port)), "postscreen listens")
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{port}"]
verify_recipients = false
[greylist]
mode = "off"
[dns]
servers = ["{dns.endpoint}"]
[queue]
retry_min = "2s"
retry_max = "4s"
[delivery]
probe_interval = "1s"
""").start()
client = Smtp(mx.smtp)
for number in range(COUNT):
    replies = client.mail("a@sender.test", ["b@example.com"], f"Subject: m{number}\n\nx\n")
    if not replies[-1].startswith("250"):
        tap.check(False, "mail is taken", replies)
client.close()
tap.check(wait_for(lambda: len(recorder.messages) >= COUNT and not mx.queue(), 180), "all of it arrives", (len(recorder.messages), mx.log()[-2000:]))
seen = collections.Counter(re.search(rb"Subject: (m\d+)", message["content"]).group(1) for message in recorder.messages)
tap.equal((len(seen), max(seen.values())), (COUNT, 1), "each message once")
tap.equal({message["sender"] for message in recorder.messages}, {"a@sender.test"}, "no bounce among it")
tap.check("450 4.3.2 Service currently unavailable" in mx.log(), "postscreen did defer us at first", mx.log()[-2000:])
tap.check(re.search(r"postscreen\[\d+\]: PASS NEW \[127\.0\.0\.1\]", postfix.log()), "and found us well-behaved", postfix.log()[-2000:])
tap.equal(mx.stop(), 0, "stops")
tap.done()

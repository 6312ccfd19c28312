#!/usr/bin/python3
"""nmap's open-relay probes, and its SMTP scripts, find nothing, from a trusted address too."""
import re
import subprocess

from peers import *

tap = Tap("open_relay")
dns = Dns(tap, ["nmap.scanme.org A 192.0.2.1"])
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{free_port()}"]
[dns]
servers = ["{dns.endpoint}"]
timeout = "1s"
""").start()
for script, bad in (("smtp-open-relay", "is an open relay"), ("smtp-vuln-cve2010-4344,smtp-vuln-cve2011-1720,smtp-vuln-cve2011-1764", "VULNERABLE:")):
    done = subprocess.run([need("nmap"), "-Pn", "-n", "-p", str(mx.smtp), "--script", script, "--script-timeout", "90s", "-sV", "--version-light", "127.0.0.1"],
                          capture_output=True, text=True, timeout=300)
    tap.check(f"{mx.smtp}/tcp open" in done.stdout, f"{script}: nmap saw the port", done.stdout + done.stderr)
    tap.check(bad not in done.stdout and "State: VULNERABLE" not in done.stdout, f"{script}: nothing found", done.stdout)
forms = ["user@elsewhere.test", "user%elsewhere.test@example.com", "@example.com:user@elsewhere.test", '"user@elsewhere.test"@example.com',
         "elsewhere.test!user@example.com", "user@elsewhere.test@example.com", "user@[127.0.0.1]", '"user@elsewhere.test"', "user@example.com.",
         "user@elsewhere.test%example.com", '"user%elsewhere.test"@example.com', "user@example.com@elsewhere.test"]
client = Smtp(mx.smtp)
client.command("EHLO client.test")
client.command("MAIL FROM:<alice@sender.test>")
for form in forms:
    reply = client.command(f"RCPT TO:<{form}>")
    if form == "user@example.com.":
        continue  # the domain itself, fully qualified
    tap.check(reply[:1] == "5", f"RCPT TO:<{form}> is refused for good", reply)
    if reply.startswith("421"):
        client = Smtp(mx.smtp)
        client.command("EHLO client.test")
        client.command("MAIL FROM:<alice@sender.test>")
tap.equal(mx.queue(), [], "the queue is empty")
tap.done()

#!/usr/bin/python3
"""swaks as the sender: plain, pipelined, BDAT-free TLS, XCLIENT, PROXY v1 and v2, dropped sessions; ETRN by msmtp."""
import os
import re
import subprocess

from peers import *

tap = Tap("swaks")
dns = Dns(tap, ["sender.test A 127.0.0.7", "sender.test MX 10 sender.test", "client.test A 192.0.2.10",
                "10.2.0.192.in-addr.arpa PTR client.test."])
primary = Sink(tap).start()
pem = [os.path.join(tap.directory, name) for name in ("cert.pem", "key.pem")]
subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                "-subj", "/CN=mx2.example.net", "-addext", "subjectAltName=DNS:mx2.example.net", "-out", pem[0], "-keyout", pem[1]],
               check=True, capture_output=True)
for path in pem:
    os.chmod(path, 0o644)
proxied = free_port()
mx = Greymx(tap, "", listen=False)
mx.write(f"""
[domains."example.com"]
primary = ["127.0.0.1:{primary.port}"]
[listen]
smtp = ["127.0.0.1:{mx.smtp}", {{ address = "127.0.0.1:{proxied}", proxy_protocol = true }}]
http = []
control = "control"
[tls]
certificate = "{pem[0]}"
key = "{pem[1]}"
[access]
trusted_networks = ["127.0.0.1/32"]
proxy_networks = ["127.0.0.3/32"]
[greylist]
mode = "off"
[dns]
servers = ["{dns.endpoint}"]
timeout = "1s"
""")
mx.start()


def swaks(*words, port=None, source="127.0.0.1"):
    done = subprocess.run([need("swaks"), "--server", "127.0.0.1", "--port", str(port or mx.smtp), "--local-interface", source,
                           "--helo", "client.sender.test", "--from", "alice@sender.test", "--to", "bob@example.com", *words],
                          capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def delivered(before):
    return wait_for(lambda: len(primary.messages) > before) and primary.messages[-1]


for what, words in (("plain", ()), ("pipelined", ("--pipeline",)), ("over STARTTLS", ("--tls",)),
                    ("TLS 1.2", ("--tls", "--tls-protocol", "tlsv1_2"))):
    before = len(primary.messages)
    code, output = swaks(*words)
    tap.equal(code, 0, f"{what}: taken")
    message = delivered(before)
    tap.check(message, f"{what}: relayed", output)
    if "--tls" in words and message:
        tap.check(re.search(rb"\(using TLSv1\.[23] with cipher \S+ \(\d+/\d+ bits\)\)", message["content"])
                  and b" with ESMTPS id " in message["content"], f"{what}: the Received header says so", message["content"])
before = len(primary.messages)
code, output = swaks("--xclient-addr", "192.0.2.10", "--xclient-name", "client.test", source="127.0.0.3")
tap.equal(code, 0, "XCLIENT from a proxy network is taken")
message = delivered(before)
tap.check(message and b"(client.test [192.0.2.10])" in message["content"], "and the client it names is the client", output)
code, output = swaks("--xclient-addr", "192.0.2.10", source="127.0.0.5")
tap.check(code != 0, "XCLIENT from anybody else is refused", output)
for version in ("1", "2"):
    before = len(primary.messages)
    code, output = swaks("--proxy-version", version, "--proxy-family", "TCP4" if version == "1" else "AF_INET", "--proxy-source", "192.0.2.10",
                         "--proxy-source-port", "4711", "--proxy-dest", "127.0.0.1", "--proxy-dest-port", "25",
                         *(("--proxy-protocol", "STREAM", "--proxy-command", "PROXY") if version == "2" else ()),
                         port=proxied, source="127.0.0.3")
    tap.equal(code, 0, f"PROXY v{version} is taken")
    message = delivered(before)
    tap.check(message and b"[192.0.2.10]" in message["content"], f"PROXY v{version}: the client it names is the client", output)
code, output = swaks("--proxy-version", "1", "--proxy-family", "TCP4", "--proxy-source", "192.0.2.10", "--proxy-source-port", "4711",
                     "--proxy-dest", "127.0.0.1", "--proxy-dest-port", "25", port=proxied, source="127.0.0.5")
tap.check(code != 0, "PROXY from anybody else is hung up on", output)
for where in ("CONNECT", "HELO", "MAIL", "RCPT"):
    swaks("--quit-after", where)
    swaks("--drop-after", where)
tap.check(wait_for(lambda: len(re.findall(r"lost connection after \w+ from", mx.log())) >= 3), "dropped sessions are logged")
code, output = swaks("--to", "root@elsewhere.test")
tap.check("554 5.7.1 <root@elsewhere.test>: Relay access denied" in output, "no relay", output)

held = len(primary.messages)
primary.stop()
swaks("--header", "Subject: waits")
tap.check(wait_for(lambda: len(mx.queue()) == 1), "mail waits while the primary is down")
primary.start()
msmtp = subprocess.run([need("msmtp"), "--host=127.0.0.1", f"--port={mx.smtp}", "--rmqs=example.com"], capture_output=True, text=True, timeout=60)
tap.equal(msmtp.returncode, 0, "msmtp --rmqs (ETRN) is answered well")
tap.check(delivered(held), "and the mail comes at once", msmtp.stdout + msmtp.stderr)
log = Smtp(mx.smtp)
log.command("EHLO x.sender.test")
tap.check(log.command("ETRN nowhere.test").startswith("459 "), "ETRN for a foreign domain is 459")
tap.check(log.command("ETRN example.com").startswith("251 "), "ETRN with an empty queue is 251")
tap.equal(mx.stop(), 0, "stops")
tap.done()

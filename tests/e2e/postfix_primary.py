#!/usr/bin/python3
"""Postfix as primary: XFORWARD shows the real client in its log, TLS at every level, its recipients and its size limit
are known, and its mail arrives after it was away. A second one takes few recipients and one connection at once."""
import hashlib
import ssl

from peers import *

tap = Tap("postfix_primary")
if os.geteuid() != 0:
    tap.check(False, "a private Postfix needs root")
    tap.done()


def certificate(name):
    key, pem = (os.path.join(tap.directory, f"{name}.{ending}") for ending in ("key", "pem"))
    subprocess.run([need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", pem, "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"],
                   check=True, capture_output=True)
    with open(pem) as file:
        return key, pem, hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read())).hexdigest()


levels = ("may", "encrypt", "verify", "pinned", "wrongpin", "wrongname")
domains = [f"{level}.example" for level in levels]
key, pem, fingerprint = certificate("mx1.example.com")
os.chmod(tap.directory, 0o755)
users = os.path.join(tap.directory, "users")
with open(users, "w") as file:
    file.writelines(f"user@{domain} x\n" for domain in domains + ["plain.example"])
dns = Dns(tap, ["sender.test A 127.0.0.5", "sender.test MX 10 sender.test", "5.0.0.127.in-addr.arpa PTR mail.sender.test.",
                "mail.sender.test A 127.0.0.5", "mx1.example.com A 127.0.0.1", "other.example.com A 127.0.0.1"])
postfix = Postfix(tap, "primary", {
    "virtual_mailbox_domains": " ".join(domains + ["plain.example"]), "virtual_mailbox_maps": f"texthash:{users}",
    "virtual_transport": "discard:", "smtpd_authorized_xforward_hosts": "127.0.0.0/8", "message_size_limit": "40960",
    "smtpd_tls_security_level": "may", "smtpd_tls_key_file": key, "smtpd_tls_cert_file": pem, "smtpd_tls_loglevel": "2",
    "smtpd_relay_restrictions": "reject_unauth_destination", "smtpd_peername_lookup": "no"}).start()
tiny = Postfix(tap, "tiny", {
    "virtual_mailbox_domains": "tiny.example", "virtual_mailbox_maps": "static:x", "virtual_transport": "discard:",
    "smtpd_relay_restrictions": "reject_unauth_destination", "smtpd_peername_lookup": "no",
    "smtpd_recipient_limit": "5", "smtpd_client_connection_count_limit": "1",
    "smtpd_client_event_limit_exceptions": ""}).start()
config = "".join(f"""
[domains."{level}.example"]
primary = ["{'other.example.com' if level == 'wrongname' else 'mx1.example.com'}:{postfix.port}"]
tls = "{'may' if level == 'may' else 'encrypt' if level == 'encrypt' else 'verify'}"
fingerprint = "{fingerprint if level == 'pinned' else 'ab' * 32 if level == 'wrongpin' else ''}"
unknown_while_down = "accept"
""" for level in levels)
mx = Greymx(tap, config + f"""
[domains."plain.example"]
primary = ["mx1.example.com:{postfix.port}"]
tls = "none"
xforward = false
[domains."tiny.example"]
primary = ["mx1.example.com:{tiny.port}"]
verify_recipients = false
[dns]
servers = ["{dns.endpoint}"]
timeout = "1s"
[greylist]
mode = "off"
[queue]
retry_min = "1s"
retry_max = "2s"
[delivery]
probe_interval = "1s"
""", env={"SSL_CERT_FILE": pem}).start()


def send(*recipients, content="Subject: x\n\nbody\n"):
    client = Smtp(mx.smtp, source="127.0.0.5")
    replies = client.mail("alice@sender.test", recipients, content, helo="helo.sender.test")
    client.close()
    return replies


def arrived(queue_id):
    """The line of Postfix's smtpd about our message."""
    wait_for(lambda: re.search(rf"{queue_id}: to=.*status=", mx.log()))
    sent = re.search(rf"{queue_id}: to=.*status=sent \(250 2\.0\.0 Ok: queued as (\w+)\)", mx.log())
    return postfix.wait_log(rf"{sent[1]}: client=.*") if sent else None


ids = {}
for domain in domains + ["plain.example"]:
    replies = wait_for(lambda: (r := send(f"user@{domain}")) and r[-1].startswith("250 2.0.0 Ok: queued as ") and r, every=0.5)
    tap.check(replies, f"mail for {domain} is accepted", mx.log()[-1500:])
    ids[domain] = replies[-1].split()[-1] if replies else "none"

for domain in ("may.example", "encrypt.example", "verify.example", "pinned.example"):
    line = arrived(ids[domain])
    tap.check(line and "orig_client=mail.sender.test[127.0.0.5]" in line[0],
              f"{domain}: delivered, and Postfix logs the real client by XFORWARD",
              (line[0] if line else "") + mx.log()[-2000:] + postfix.log()[-1500:])
line = arrived(ids["plain.example"])
tap.check(line and "orig_client" not in line[0], "plain.example: delivered without XFORWARD", line and line[0])
tap.check(postfix.log().count("TLS connection established") >= 4, "over TLS", postfix.log()[-1500:])
tap.check("Reusing old session" in postfix.log(), "whose sessions are resumed", postfix.log()[-3000:])

for domain, why in (("wrongpin.example", "has fingerprint " + fingerprint), ("wrongname.example", "hostname mismatch")):
    tap.check(wait_for(lambda: why in mx.tool("domains", "--json").stdout), f"{domain}: nothing is sent, and domains says why",
              mx.tool("domains", "--json").stdout)
    tap.check(ids[domain] in [entry["queue_id"] for entry in mx.queue()], f"{domain}: the mail waits")

replies = send("nobody@may.example")
tap.check(replies[2].startswith("550 5.1.1 <nobody@may.example>: Recipient address rejected: "),
          "an address that Postfix does not know is refused at RCPT", replies)
client = Smtp(mx.smtp, source="127.0.0.5")
client.command("EHLO helo.sender.test")
client.command("MAIL FROM:<alice@sender.test> SIZE=200000")
reply = client.command("RCPT TO:<user@may.example>")
tap.check(reply.startswith("552 5.3.4 "), "a message beyond Postfix's limit is refused before its content", reply)
client.close()

def missing(users):
    return [user for user in users if not re.search(rf"to=<{user}@tiny\.example>.*status=sent", tiny.log())]


tiny.stop()
many, each = [f"many{i}" for i in range(12)], [f"each{i}" for i in range(60)]
accepted = [send(*(f"{user}@tiny.example" for user in many))] + [send(f"{user}@tiny.example") for user in each]
tap.check(all(replies[-1].startswith("250 ") for replies in accepted), "mail for a primary with tiny limits is taken",
          [replies[-1] for replies in accepted])
tiny.start()
tap.check(wait_for(lambda: not missing(many + each)), "all of it arrives", missing(many + each))
tap.equal(len(set(re.findall(r"(\w+): to=<many", tiny.log()))), 3, "five recipients at a time")
tap.check("Connection concurrency limit exceeded" in tiny.log(), "over one connection more than it allows",
          tiny.log()[-2000:])
tap.check(wait_for(lambda: not any(r["address"].endswith("@tiny.example") for e in mx.queue() for r in e["recipients"])),
          "and the queue is done with it", mx.tool("mailq").stdout)

postfix.stop()
waiting = []
for _ in range(20):
    replies = send("user@may.example")
    if replies[-1].startswith("250"):
        waiting.append(replies[-1].split()[-1])
tap.equal(len(waiting), 20, "mail is taken while Postfix is away")
tap.check(wait_for(lambda: re.search(r"primary of \S+ is down: connect to mx1\.example\.com\[127\.0\.0\.1\]", mx.log())),
          "that is noticed", mx.log()[-1500:])
postfix.start()
gone = wait_for(lambda: not {e["queue_id"] for e in mx.queue()} & set(waiting))
tap.check(gone, "and all of it goes when it is back", mx.log()[-2000:])
tap.equal(sum(mx.log().count(f"{queue_id}: removed") for queue_id in waiting), 20, "each once")
tap.done()

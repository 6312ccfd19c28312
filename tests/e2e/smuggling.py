#!/usr/bin/python3
"""Sequences of CR, LF, dot and NUL around an end of data: what reaches the primary is one message a transaction.

The decoder's own property test covers every sequence up to length 7 and every split; here a sample of them goes over
real sockets, in the clear and in TLS, by DATA and by BDAT, to three primaries at once: one that records bytes, Postfix,
and with --full Exim. The last two hand on to recorders of their own. Each sees exactly the transactions that were
acknowledged, and none of the smuggled envelopes.
"""
import itertools
import random
import re
import ssl
import subprocess
import sys

from peers import *

tap = Tap("smuggling")
full = "--full" in sys.argv
dns = Dns(tap, ["sender.test A 127.0.0.7"])
recorders = {name: Sink(tap).start() for name in ("example.com", "postfix.test", *(["exim.test"] if full else []))}
postfix = Postfix(tap, "primary", {"relay_domains": "postfix.test", "smtpd_relay_restrictions": "reject_unauth_destination", "smtpd_peername_lookup": "no",
                                   "relay_transport": f"smtp:[127.0.0.1]:{recorders['postfix.test'].port}"}).start()


def start_exim():
    """Debian's Exim, which cannot be installed beside Postfix, from its package: takes all, hands on to the recorder."""
    home, port = os.path.join(tap.directory, "exim"), free_port()
    os.makedirs(os.path.join(home, "spool"))
    subprocess.run(["apt-get", "download", "-q", "exim4-daemon-light"], cwd=home, capture_output=True)
    (package,) = [name for name in os.listdir(home) if name.endswith(".deb")]
    subprocess.run(["dpkg", "-x", package, "."], cwd=home, check=True)
    shutil.chown(os.path.join(home, "spool"), "nobody", "nogroup")
    settings = os.path.join(home, "exim.conf")
    with open(settings, "w") as file:
        file.write(f"""exim_user = nobody
exim_group = nogroup
exim_path = {home}/usr/sbin/exim4
spool_directory = {home}/spool
log_file_path = {home}/spool/%slog
primary_hostname = exim.test
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
smtp_accept_max = 100
smtp_accept_queue_per_connection = 0
queue_run_max = 20
host_lookup =
acl_smtp_rcpt = accept
tls_advertise_hosts =
keep_environment =
begin routers
out:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = out
begin transports
out:
  driver = smtp
  port = {recorders["exim.test"].port}
  hosts_try_fastopen =
begin retry
* * F,1h,1s
""")
    Service(tap, "exim", [os.path.join(home, "usr/sbin/exim4"), "-bdf", "-q1s", "-C", settings])
    tap.check(wait_for(lambda: listening(port)), "Exim runs")
    return port


ports = {"example.com": recorders["example.com"].port, "postfix.test": postfix.port}
if full:
    ports["exim.test"] = start_exim()
key, certificate = os.path.join(tap.directory, "key.pem"), os.path.join(tap.directory, "cert.pem")
subprocess.run([need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                "-subj", "/CN=mx2.example.net", "-keyout", key, "-out", certificate], check=True, capture_output=True)
os.chmod(key, 0o644)
mx = Greymx(tap, "".join(f"""
[domains."{domain}"]
primary = ["127.0.0.1:{port}"]
verify_recipients = false
""" for domain, port in ports.items()) + f"""
[limits]
message_size = "64KiB"
min_free_space = "16MiB"
connections_per_client = 1000
rate_per_client = "100000/1m"
[tls]
certificate = "{certificate}"
key = "{key}"
[greylist]
mode = "off"
[dns]
servers = ["{dns.endpoint}"]
[delivery]
probe_interval = "1s"
""").start()
rng = random.Random(20261126)
# every sequence up to length 5, a sample of the longer ones
alphabet = [b"\r", b"\n", b".", b"\0"]
sequences = [b"".join(s) for n in range(1, 6) for s in itertools.product(alphabet, repeat=n)]
longer = [b"".join(s) for n in (6, 7) for s in itertools.product(alphabet, repeat=n)]
sequences += longer if full else rng.sample(longer, 400)
if not full:
    sequences = [s for i, s in enumerate(sequences) if len(s) < 4 or i % 3 == 0]
tap.note(f"{len(sequences)} sequences")

SMUGGLED = b"MAIL FROM:<evil@smuggled.test>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\nSubject: smuggled\r\n\r\nx"


def session(tls):
    client = Smtp(mx.smtp)
    client.command("EHLO client.sender.test")
    if tls:
        client.command("STARTTLS")
        client.socket = ssl._create_unverified_context().wrap_socket(client.socket)
        client.file = client.socket.makefile("rb")
        client.command("EHLO client.sender.test")
    return client


def envelope(client):
    replies = [client.command("MAIL FROM:<a@sender.test>"), *(client.command(f"RCPT TO:<b@{domain}>") for domain in ports)]
    return all(reply.startswith("250") for reply in replies)


def transact(client, content, bdat):
    """The last reply. DATA is sent as a correct sender would, so that only the sequence itself is in question."""
    cut = rng.randrange(1, len(content))
    if bdat:
        client.send(b"BDAT %d\r\n" % cut + content[:cut])
        client.reply()
        client.send(b"BDAT %d LAST\r\n" % (len(content) - cut) + content[cut:])
        return client.reply()
    client.command("DATA")
    head, end, _ = content.partition(b"\r\n.\r\n")  # a true end is one
    cut = min(cut, len(head))
    client.send(head[:cut])
    client.send(head[cut:] + b"\r\n.\r\n")
    return client.reply()


acknowledged, too_big, wrong = 0, 0, []
client = session(tls=False)
for number, sequence in enumerate(sequences):
    content = b"Subject: s%d\r\n\r\nbody" % number + sequence + SMUGGLED
    big = number % 50 == 49
    if big:  # beyond the limit
        content += b"x" * 70000
    if number % 200 == 199 or not envelope(client):
        client.close()
        client = session(tls=number % 400 > 200)
        if not envelope(client):
            wrong.append((sequence, "no new transaction"))
    reply = transact(client, content, bdat=number % 4 == 3)
    if reply[:3] == "250":
        acknowledged += 1
    elif big and reply[:1] == "5":
        too_big += 1
    else:
        wrong.append((sequence, reply))
client.close()
tap.equal(wrong[:5], [], "every transaction ends once and is taken (bare LF and CR are normalised), or is too big")
tap.check(too_big > 0, "some were too big", too_big)
tap.check(wait_for(lambda: not mx.queue(), 300), "the queue drains")
for name, recorder in recorders.items():
    tap.check(wait_for(lambda: len(recorder.messages) >= acknowledged, 300), f"{name}: all are relayed", (len(recorder.messages), acknowledged))
time.sleep(2)  # whatever was too much would come now
for name, recorder in recorders.items():
    tap.equal(len(recorder.messages), acknowledged, f"{name}: one message for each acknowledged transaction")
    tap.equal([m for m in recorder.messages if m["sender"] != "a@sender.test" or m["recipients"] != [f"b@{name}"]][:3], [],
              f"{name}: and no smuggled envelope")
stray = [m["content"][:200] for m in recorders["example.com"].messages if re.search(rb"(?<!\r)\n|\r(?!\n)", m["content"])]
tap.equal(stray[:3], [], "what we send has no bare CR or LF")
tap.equal(mx.stop(), 0, "stops")
tap.done()

#!/usr/bin/python3
"""Sequences of CR, LF, dot and NUL around an end of data: what reaches the primary is one message a transaction.

The decoder's own property test covers every sequence up to length 7 and every split; here a sample of them goes over
real sockets to a byte-recording primary, which sees exactly the transactions that were acknowledged, and none of the
smuggled envelopes. Where Postfix is installed and we are root the same mail goes through a Postfix primary.
"""
import itertools
import random
import re
import sys

from peers import *

tap = Tap("smuggling")
full = "--full" in sys.argv
dns = Dns(tap, ["sender.test A 127.0.0.7"])
primary = Sink(tap).start()
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{primary.port}"]
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


def session():
    client = Smtp(mx.smtp)
    client.command("EHLO client.sender.test")
    return client


acknowledged = 0
wrong = []
client = session()
for number, sequence in enumerate(sequences):
    bdat = number % 4 == 3
    content = b"Subject: s%d\r\n\r\nbody" % number + sequence + SMUGGLED
    if client.command("MAIL FROM:<a@sender.test>")[:3] != "250" or client.command("RCPT TO:<b@example.com>")[:3] != "250":
        client.close()
        client = session()
        client.command("MAIL FROM:<a@sender.test>")
        client.command("RCPT TO:<b@example.com>")
    if bdat:
        cut = rng.randrange(1, len(content))
        client.send(b"BDAT %d\r\n" % cut + content[:cut])
        first = client.reply()
        client.send(b"BDAT %d LAST\r\n" % (len(content) - cut) + content[cut:])
        reply = client.reply()
        true_end = False
    else:
        client.command("DATA")
        # dot-stuff what a correct sender would, so that only the sequence itself is in question
        true_end = b"\r\n.\r\n" in sequence
        if true_end:
            continue_ = content.split(b"\r\n.\r\n", 1)[0] + b"\r\n.\r\n"
            client.send(continue_)
        else:
            cut = rng.randrange(1, len(content))
            client.send(content[:cut])
            client.send(content[cut:] + b"\r\n.\r\n")
        reply = client.reply()
    if reply[:3] == "250":
        acknowledged += 1
    else:
        wrong.append((sequence, reply))
client.close()
tap.equal(wrong[:5], [], "every transaction ends once and is taken (bare LF and CR are normalised)")
tap.check(wait_for(lambda: len(primary.messages) >= acknowledged and not mx.queue(), 120), "all are relayed",
          (len(primary.messages), acknowledged))
tap.equal(len(primary.messages), acknowledged, "one message at the primary for each acknowledged transaction")
tap.equal([m for m in primary.messages if m["sender"] != "a@sender.test" or m["recipients"] != ["b@example.com"]], [],
          "and no smuggled envelope")
stray = [m["content"][:200] for m in primary.messages if re.search(rb"(?<!\r)\n|\r(?!\n)", m["content"])]
tap.equal(stray[:3], [], "what we send has no bare CR or LF")
tap.equal(mx.stop(), 0, "stops")
tap.done()

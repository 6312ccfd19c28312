#!/usr/bin/python3
"""kill -9 at random moments under load: every message that got 250 arrives at the primary at least once, byte for byte.
20 kills; 1,000 with --full. Duplicates are counted; each needs a kill to explain it: the result of its delivery was not
yet written, or never came."""
import bisect
import collections
import os
import random
import re
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from peers import *

tap = Tap("kill9")
KILLS = 1000 if "--full" in sys.argv else 20
seed = int(os.environ.get("SEED", time.time_ns() & 0xFFFFFF))
rng = random.Random(seed)
tap.note(f"seed {seed}, {KILLS} kills")
dns = Dns(tap, ["sender.test A 127.0.0.7"])
deliveries = []  # when


def note_delivery(verb, line, session):
    if verb == "DOT":
        deliveries.append(time.monotonic())


primary = Sink(tap, script=note_delivery).start()
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{primary.port}"]
[dns]
servers = ["{dns.endpoint}"]
[delivery]
probe_interval = "1s"
""").start()
acknowledged, lock, stop, rest, serial = {}, threading.Lock(), threading.Event(), threading.Event(), iter(range(1 << 60))


def sender(number):
    mine = random.Random(seed * 100 + number)
    while not stop.is_set():
        if rest.is_set():
            time.sleep(0.05)
            continue
        try:
            client = Smtp(mx.smtp, timeout=20)
            client.command("EHLO client.sender.test")
            for _ in range(mine.randrange(1, 20)):
                if rest.is_set():
                    break
                with lock:
                    name = f"m{next(serial)}"
                # a few are large: those live in a file of their own
                size = mine.choice([10, 500, 4000, 4000, 60000, 700000 if mine.random() < 0.05 else 2000])
                body = f"Message-ID: <{name}@sender.test>\r\n\r\n" + "".join(f"{mine.random()}\r\n" for _ in range(size // 20))
                client.send("MAIL FROM:<a@sender.test>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n")
                if not all(client.reply().startswith(code) for code in ("250", "250", "354")):
                    break
                client.send(body + ".\r\n")
                if client.reply().startswith("250 2.0.0"):
                    with lock:
                        acknowledged[name] = body.encode()
                if stop.is_set():
                    break
            client.close()
        except OSError:
            time.sleep(0.01)


threads = [threading.Thread(target=sender, args=(n,), daemon=True) for n in range(6)]
for thread in threads:
    thread.start()
UNWRITTEN = 0.4  # seconds: results are written within 0.1, on a slow machine a bit later
restarts = explained = 0
for kill in range(KILLS):
    # some live long enough that what they delivered is more than can be unwritten at their end
    time.sleep(2.5 if kill % 10 == 5 else rng.uniform(0.05, 0.6))
    # the primary comes and goes too, so that messages are queued, sent, and half sent when the axe falls
    if rng.random() < 0.3:
        explained += len(primary.open)
        primary.stop() if primary.server else primary.start()
    explained += len(primary.open)
    killed = time.monotonic()
    mx.kill9()
    explained += len(deliveries) - bisect.bisect(deliveries, killed - UNWRITTEN)
    mx.start()
    restarts += 1
    if kill % 25 == 24:  # else the backlog grows, and all the time goes into reading it back
        if not primary.server:
            primary.start()
        rest.set()
        wait_for(lambda: len(mx.queue()) < 100, 120)
        rest.clear()
stop.set()
for thread in threads:
    thread.join(60)
if not primary.server:
    primary.start()
mx.tool("flush")
tap.equal(restarts, KILLS, "the daemon came back after every kill")
tap.check(len(acknowledged) > KILLS, f"{len(acknowledged)} messages were acknowledged")


def name_of(content):
    return re.search(rb"(?m)^Message-ID: <(m\d+)@sender\.test>\r$", content).group(1).decode()


tap.check(wait_for(lambda: not mx.queue() and acknowledged.keys() <= {name_of(m["content"]) for m in list(primary.messages)}, 300),
          "everything drains")
arrived = collections.Counter()
damaged = []
for message in primary.messages:
    name = name_of(message["content"])
    arrived[name] += 1
    body = re.sub(rb"\AReceived: .*?\r\n(?=\S)", b"", message["content"], count=1, flags=re.S)
    if name in acknowledged and body != acknowledged[name]:
        damaged.append(name)
missing = sorted(set(acknowledged) - set(arrived))
tap.equal(missing, [], "every acknowledged message arrived")
tap.equal(damaged, [], "byte for byte")
twice = sum(count - 1 for count in arrived.values())
tap.note(f"{len(acknowledged)} acknowledged, {len(arrived)} arrived, {twice} copies more than one, "
         f"{len(set(arrived) - set(acknowledged))} arrived whose 250 was lost with the connection")
tap.check(twice <= explained, f"duplicates stay within the {explained} that kills can explain", twice)
verify = mx.tool("spool", "verify")
tap.equal(verify.returncode, 0, "greymx spool verify finds nothing wrong")
tap.check("the file ends" not in mx.log(), "no segment is said to have lost its end")
tap.equal(mx.stop(), 0, "stops")
tap.done()

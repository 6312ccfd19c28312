#!/usr/bin/python3
"""Ten minutes under load with 5,000 connections of good, bad, slow and broken clients at once: memory stays flat, no
accepted message is lost, good clients are served throughout. SOAK_SECONDS and SOAK_CONNECTIONS shorten it."""
import asyncio
import os
import random
import re
import resource
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from peers import *

SECONDS = int(os.environ.get("SOAK_SECONDS", "600"))
CONNECTIONS = int(os.environ.get("SOAK_CONNECTIONS", "5000"))
tap = Tap("soak")
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
dns = Dns(tap, ["sender.test A 127.0.0.7", "sender.test MX 10 sender.test"])
primary = Sink(tap).start()
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{primary.port}"]
[limits]
connections = {CONNECTIONS + 1000}
connections_per_client = 100
rate_per_client = "100000/1m"
min_free_space = "64MiB"
command_timeout = "30s"
data_timeout = "30s"
[access]
trusted_networks = ["127.1.0.0/16"]
[greylist]
mode = "off"
[dns]
servers = ["{dns.endpoint}"]
timeout = "1s"
""").start()
rng = random.Random(1)
acknowledged, served, waits = set(), [], []
serial = 0
end = time.monotonic() + SECONDS


async def open_from(source):
    return await asyncio.open_connection("127.0.0.1", mx.smtp, local_addr=(source, 0), limit=1 << 16)


async def reply(reader):
    while True:
        line = await asyncio.wait_for(reader.readline(), 120)
        if not line or line[3:4] != b"-":
            return line


async def good(number):
    """A polite sender; what it is told 250 for must arrive."""
    global serial
    while time.monotonic() < end:
        begin = time.monotonic()
        reader, writer = await open_from(f"127.1.{number // 200}.{number % 200 + 1}")
        try:
            await reply(reader)
            for line in ("EHLO sender.test", "MAIL FROM:<a@sender.test>", "RCPT TO:<b@example.com>", "DATA"):
                writer.write(line.encode() + b"\r\n")
                await reply(reader)
            serial += 1
            name = f"g{serial}"
            writer.write(f"Message-ID: <{name}@sender.test>\r\n\r\n".encode() + b"x" * rng.randrange(10, 2000) + b"\r\n.\r\n")
            if (await reply(reader)).startswith(b"250"):
                acknowledged.add(name)
                served.append(time.monotonic())
                waits.append(time.monotonic() - begin)
        except (OSError, asyncio.TimeoutError):
            pass
        finally:
            writer.close()
        await asyncio.sleep(rng.uniform(0.5, 2))


async def hostile(number):
    """Idle, slow, garbage, half a message, floods of commands, early talkers, TLS noise: again and again."""
    kind = number % 8
    while time.monotonic() < end:
        try:
            reader, writer = await open_from(f"127.{2 + number % 50}.{number // 50 % 250}.{number % 250 + 1}")
        except OSError:
            await asyncio.sleep(1)
            continue
        try:
            if kind == 0:
                await asyncio.sleep(rng.uniform(5, 40))
            elif kind == 1:
                for byte in b"EHLO slow.sender.test\r\nMAIL FROM:<a@sender.test>\r\n":
                    writer.write(bytes([byte]))
                    await asyncio.sleep(rng.uniform(0.2, 1))
            elif kind == 2:
                writer.write(rng.randbytes(rng.randrange(1, 5000)))
                await asyncio.wait_for(reader.read(1000), 20)
            elif kind == 3:
                writer.write(b"EHLO x.sender.test\r\nMAIL FROM:<a@sender.test>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nhalf a message")
                await asyncio.wait_for(reader.read(1000), 20)
            elif kind == 4:
                writer.write(b"NOOP\r\n" * 500)
                await asyncio.wait_for(reader.read(10000), 20)
            elif kind == 5:
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await asyncio.wait_for(reader.read(1000), 20)
            elif kind == 6:
                writer.write(b"A" * 100000 + b"\r\n")
                await asyncio.wait_for(reader.read(1000), 20)
            else:
                writer.write(b"EHLO y.sender.test\r\nMAIL FROM:<a@sender.test>\r\n" + b"RCPT TO:<nobody@elsewhere.test>\r\n" * 50)
                await asyncio.wait_for(reader.read(10000), 20)
        except (OSError, asyncio.TimeoutError):
            pass
        finally:
            writer.close()
        await asyncio.sleep(rng.uniform(0, 3))


def memory():
    with open(f"/proc/{mx.pid()}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) / 1024


samples = []


async def watch():
    while time.monotonic() < end:
        await asyncio.sleep(5)
        samples.append(memory())


async def main():
    tasks = [asyncio.create_task(good(n)) for n in range(CONNECTIONS // 50)]
    for n in range(CONNECTIONS - CONNECTIONS // 50):
        tasks.append(asyncio.create_task(hostile(n)))
        if n % 100 == 0:
            await asyncio.sleep(0.05)
    tasks.append(asyncio.create_task(watch()))
    await asyncio.gather(*tasks, return_exceptions=True)


asyncio.run(main())
tap.check(mx.service.running(), "the daemon lives", mx.log()[-2000:])
tap.check(wait_for(lambda: not mx.queue(), 120), "the queue drains")
arrived = {re.search(rb"Message-ID: <(g\d+)@", m["content"]).group(1).decode() for m in primary.messages if b"Message-ID: <g" in m["content"]}
tap.equal(sorted(acknowledged - arrived)[:10], [], f"all of {len(acknowledged)} acknowledged messages arrived")
gaps = max((b - a for a, b in zip(served, served[1:])), default=SECONDS)
waits.sort()
tap.check(gaps < 30, f"good clients are served throughout (longest gap {gaps:.1f} s, median {waits[len(waits) // 2] if waits else -1:.2f} s)")
half = len(samples) // 2
first, last = max(samples[half // 2:half] or [0]), max(samples[half:] or [0])
tap.note(f"memory in MB: {[round(s) for s in samples[::max(1, len(samples) // 20)]]}")
tap.check(samples and last < first * 1.25 + 20, f"memory stays flat ({first:.0f} MB, then {last:.0f} MB)")
tap.equal(mx.stop(), 0, "stops")
tap.done()

#!/usr/bin/python3
"""A million messages after an outage of almost two weeks: how long a start takes and what memory it needs, how soon `greymx mailq`
speaks, with and without a daemon, and how the drain ramps up once the primary is back.

  tests/bench/million.py SPOOL_PROGRAM [--messages N] [--size BYTES]

SPOOL_PROGRAM is the built tests/bench/bench_spool (any build with -Dtests=true).
"""
import argparse
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from peers import *
from meter import *

words = argparse.ArgumentParser()
words.add_argument("program")
words.add_argument("--messages", type=int, default=1_000_000)
words.add_argument("--size", type=int, default=2048)
options = words.parse_args()
tap = Tap("bench-million")
primary_port = free_port()
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{primary_port}"]
verify_recipients = false
[delivery]
probe_interval = "1s"
[log]
level = "warning"
""", workers=0)


def shell(command):
    return subprocess.run(command, shell=True, capture_output=True, text=True, timeout=600).stdout


def first_lines(how):
    begin = time.monotonic()
    head = shell(f"{BUILD}/greymx -c {mx.file} mailq | head -5")
    print(f"greymx mailq | head -5, {how}: {time.monotonic() - begin:.2f} s")
    if head.count("\n") != 5:
        raise SystemExit(f"mailq said: {head}")


queue = os.path.join(mx.directory, "queue")
print(subprocess.run([os.path.abspath(options.program), "fill", queue, str(options.messages), str(options.size), "13"],
                     capture_output=True, text=True, check=True).stdout.strip())
subprocess.run(["chown", "-R", "nobody:nogroup", mx.directory], check=True)
first_lines("no daemon")
begin = time.monotonic()
mx.start()
print(f"start: {time.monotonic() - begin:.2f} s, {memory(mx.pid()) // 1024} MB")
first_lines("daemon")
sink = Counter(tap, primary_port)
begin, ramp = time.monotonic(), [0]
while ramp[-1] < options.messages:
    time.sleep(1)
    ramp.append(sink.count())
print(f"drained in {time.monotonic() - begin:.0f} s, {memory(mx.pid()) // 1024} MB")
rates = [after - before for before, after in zip(ramp, ramp[1:])]
for second, rate in enumerate(rates, 1):
    if second <= 20 or second % 10 == 0:
        print(f"{second:>5} s {rate:>7}/s {'#' * (60 * rate // max(rates))}")
mx.stop()

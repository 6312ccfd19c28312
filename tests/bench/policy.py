#!/usr/bin/python3
"""Policy decisions a second: greymx, the real postgrey and a bare echo server, in one run on one machine.

  tests/bench/policy.py [--seconds N] [--rounds N] [--known PERCENT] [--stored N]

Half of the questions (--known) are about a triplet that has passed, the others about new ones. `sender_pools` is off, since
postgrey has nothing like it. --stored fills the store with N plain triplets first, a tenth of them due to expire while the
questions run, and shows start, memory and latency. Figures are only worth something as ratios within a run.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from policy import *
from meter import compiled

words = argparse.ArgumentParser()
words.add_argument("--seconds", type=float, default=2)
words.add_argument("--rounds", type=int, default=7)
words.add_argument("--known", type=int, default=50)
words.add_argument("--stored", type=int, default=0)
options = words.parse_args()
tap = Tap("bench-policy")
warm_memory()
program = compiled(tap, "policy_load")
port = free_port()
mx = Greymx(tap, """
[domains."example.com"]
primary = ["127.0.0.1:9"]
verify_recipients = false
[greylist]
sender_pools = false
delay = "1s"
[log]
level = "warning"
""", policy=[f"127.0.0.1:{port}"], workers=0)


def load(target, connections):
    done = subprocess.run([program, "load", str(target), str(connections), str(options.seconds), str(options.known)],
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def memory():
    with open(f"/proc/{mx.pid()}/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))


def stored(count):
    """Fills the store with `count` triplets, then measures a start and decisions while expiry runs."""
    mx.start()
    now = int(time.time())
    gone = now - 5 * 86400  # beyond two retry windows
    file = os.path.join(tap.directory, "triplets")
    with open(file, "w") as out:
        for i in range(count):
            ip = f"{100 + (i >> 24)}.{i >> 16 & 255}.{i >> 8 & 255}"
            late, passed = (gone, "false") if i % 10 == 0 else (now - 3600, "true")
            out.write(f'{{"key":"{ip}.0/sender{i & 255}@n{i % 9973}.example/user{i % 97}@example.com","passed":{passed},'
                      f'"first":{late - 400},"last":{late},"client":"{ip}.1"}}\n')
    begin = time.monotonic()
    command = [os.path.join(BUILD, "greymx"), "-c", mx.file, "greylist", "import", file]
    print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    print(f"{count} triplets imported in {time.monotonic() - begin:.0f} s")
    mx.stop()
    begin = time.monotonic()
    mx.start()
    wait_for(lambda: listening(port), every=0.01)
    print(f"start {time.monotonic() - begin:.2f} s")
    figures = load(port, 50)
    print(f"{'greymx, ' + str(count) + ' stored':<28} {figures}, memory {memory()} MB")


if options.stored:
    stored(options.stored)
else:
    mx.start()
    postgrey = Postgrey(tap, options=["--quiet", "--delay=1"]).start()
    echo = free_port()
    Service(tap, "echo", [program, "echo", str(echo)])
    wait_for(lambda: listening(port) and listening(echo))
    # By turns: where the scheduler puts client and server makes a factor of four on two cores, and lasts for seconds.
    targets = {"echo": echo, "postgrey": postgrey.port, "greymx": port}
    for connections in (1, 50):
        rounds = [{name: load(target, connections) for name, target in targets.items()} for _ in range(options.rounds)]
        rates = {name: sorted(one[name]["rate"] for one in rounds) for name in targets}
        middle = {name: statistics.median(rates[name]) for name in targets}
        for name in targets:
            print(f"{name:<9} {connections:>3} connections: median {middle[name]:.0f}/s of {rates[name]}, {rounds[-1][name]}")
        print(f"{connections} connections: {middle['greymx'] / middle['postgrey']:.1f} times postgrey, "
              f"{100 * middle['greymx'] / middle['echo']:.0f} % of a bare echo; greymx uses {memory()} MB")
tap.check(mx.service.running(), "the daemon lives")
tap.done()

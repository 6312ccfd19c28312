#!/usr/bin/python3
"""Databases that the real postgrey wrote, plain and with --privacy, running, stopped, killed, and without their log files:
greymx takes them over, and who had passed there passes here."""
import hashlib
import os
import re
import shutil
import time

from policy import *

tap = Tap("postgrey_import")
START = int(time.time()) - 20000
PASSED, WAITING = 60, 15


def sender(i):
    return f"s{chr(97 + i % 26)}{chr(97 + i // 26)}@sender.test"


def client(i):
    return f"192.0.2.{i % 3 + 1}" if i % 2 == 0 else f"2001:db8:1:{i % 3 + 1}::7"


def fill(postgrey):
    """Triplets that passed, some that wait, and one client that earned its automatic whitelisting."""
    policy = Policy(postgrey.port)
    for i in range(PASSED + WAITING):
        policy.ask(client(i), sender(i), time=START + i)
    for i in range(PASSED):
        policy.ask(client(i), sender(i), time=START + 400 + i)
    for i in range(5):
        for late in (0, 300):
            policy.ask("198.51.100.9", f"awl{'x' * i}@sender.test", time=START + i * 3700 + late)
    policy.close()


def tree(directory):
    return {name: hashlib.sha256(open(os.path.join(directory, name), "rb").read()).hexdigest()
            for name in sorted(os.listdir(directory)) if not name.startswith("__db.")}


def take_over(name, directory, wanted=r"80 triplet|155 read"):
    """A fresh greymx that imports `directory`: (its output, answers for those that passed, wait, are whitelisted)"""
    port = free_port()
    mx = Greymx(tap, """
[domains."example.com"]
primary = ["127.0.0.1:9"]
verify_recipients = false
[greylist]
sender_pools = false
""", name=name, policy=[f"127.0.0.1:{port}"], env={"GREYMX_TEST_CLOCK": "1"}).start()
    done = mx.tool("greylist", "import", directory, "--delay", "5m")
    policy = Policy(port)
    now = START + 20000
    passed = [policy.ask(client(i), sender(i), time=now) for i in range(PASSED)]
    waiting = [policy.ask(client(i), sender(i), time=now) for i in range(PASSED, PASSED + WAITING)]
    white = policy.ask("198.51.100.9", "never-seen@sender.test", time=now)
    stranger = policy.ask("198.51.100.10", "never-seen@sender.test", time=now)
    policy.close()
    mx.stop()
    return done, passed, waiting, white, stranger


def judge(name, directory, whole=True):
    done, passed, waiting, white, stranger = take_over(name, directory)
    output = done.stdout + done.stderr
    tap.check(done.returncode == 0 and re.search(r"\d+ read.*, \d+ imported", output), f"{name}: the import reports its counts", output)
    if whole:
        # 75 triplets and 5 of the whitelisted client; three IPv4 and three IPv6 addresses counted, and that client.
        tap.check(re.search(r"\b(\d+) read.*, \1 imported", output), f"{name}: all that was read is imported", output)
        tap.equal(passed, ["DUNNO"] * PASSED, f"{name}: {PASSED} triplets that had passed pass")
    tap.check(all((answer or "").startswith("PREPEND X-Greylist: delayed ") for answer in waiting),
              f"{name}: what waited has its wait counted", waiting[:2])
    tap.equal(white, "DUNNO", f"{name}: the client that was whitelisted is")
    tap.check((stranger or "").startswith("DEFER_IF_PERMIT"), f"{name}: a stranger waits", stranger)
    return output


for kind, options in (("plain", []), ("privacy", ["--privacy"])):
    postgrey = Postgrey(tap, f"postgrey-{kind}", options).start()
    fill(postgrey)
    # No request is on its way now, but the process has its database open and locked.
    before = tree(postgrey.dbdir)
    judge(f"{kind}-running", postgrey.dbdir)
    tap.equal(tree(postgrey.dbdir), before, f"{kind}-running: not a byte of it changed")
    tap.check(Policy(postgrey.port).ask(client(0), sender(0), time=START + 1000) == "DUNNO", f"{kind}-running: postgrey goes on")
    postgrey.service.kill()
    killed = os.path.join(tap.directory, f"{kind}-killed-db")
    shutil.copytree(postgrey.dbdir, killed)
    judge(f"{kind}-killed", killed)

    # Run it once more, so that it recovers, and end it in order: its files are complete then, with their log and without.
    postgrey.start()
    Policy(postgrey.port).ask("203.0.113.1", "x@sender.test", time=START + 1000)
    postgrey.stop()
    judge(f"{kind}-stopped", postgrey.dbdir)
    alone = os.path.join(tap.directory, f"{kind}-alone-db")
    os.makedirs(alone)
    for name in ("postgrey.db", "postgrey_clients.db"):
        shutil.copy(os.path.join(postgrey.dbdir, name), alone)
    recovered = judge(f"{kind}-without-logs", alone)
    tap.check("page by page" in recovered, f"{kind}-without-logs: and it says how it was read", recovered)

nowhere = take_over("nothing", os.path.join(tap.directory, "no-such-directory"))[0]
tap.check(nowhere.returncode == 1 and "no-such-directory" in nowhere.stderr, "a directory that is not there is an error", nowhere.stderr)
empty = os.path.join(tap.directory, "empty")
os.makedirs(empty)
nothing = take_over("empty-dir", empty)[0]
tap.check(nothing.returncode == 1 and "there is no postgrey.db" in nothing.stderr + nothing.stdout,
          "one without a database names what is expected", nothing.stderr)
tap.done()

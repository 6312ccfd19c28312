#!/usr/bin/python3
"""The greylist under bad luck: kill -9 in the middle of decisions, flipped bytes in every file, a full disk, a clock that
jumps. The server answers throughout, says what happened, and whoever had passed passes."""
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time

from policy import *

tap = Tap("greylist_faults")
FULL = "--full" in sys.argv
seed = int.from_bytes(os.urandom(4), "big")
tap.note(f"seed {seed}")
rng = random.Random(seed)
BASE = int(time.time()) - 20000


def greymx(name, state=None, extra=""):
    port = free_port()
    directory = os.path.join(tap.directory, name)
    paths = f'[paths]\nqueue = "{directory}/queue"\nstate = "{state or directory + "/state"}"\n'
    mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:9"]
verify_recipients = false
[greylist]
sender_pools = false
auto_whitelist_clients = 0
{extra}
{paths}""", name=name, policy=[f"127.0.0.1:{port}"], env={"GREYMX_TEST_CLOCK": "1"})
    mx.policy_port, mx.store = port, os.path.join(state or directory + "/state", "greylist")
    return mx


def network(i):
    return f"10.{i >> 14 & 255}.{i >> 7 & 127}.{i & 127 | 1}"


def ask_all(mx, numbers, time):
    policy = Policy(mx.policy_port)
    answers = {i: policy.ask(network(i), f"s{chr(97 + i % 26)}@n{i}.test", time=time) for i in numbers}
    policy.close()
    return answers


def passing(answers):
    return sum(1 for answer in answers.values() if answer == "DUNNO" or (answer or "").startswith("PREPEND"))


def store_works(mx):
    """Not in the middle of being opened again, when answers are greylist.on_error's."""
    return wait_for(lambda: "trouble" not in mx.tool("greylist", "stats", "--json", check=True).stdout)


def strangers_wait(mx, time, what):
    works = store_works(mx)
    answers = ask_all(mx, range(900000, 900020), time)
    tap.equal([a for a in answers.values() if not works or not (a or "").startswith("DEFER")], [], what)


# --- kill -9 in the middle of decisions ---------------------------------------------------------------------------------
wanted = 100_000 if FULL else 2_000
mx = greymx("killed").start()
passed, asked, rounds, lost = set(), 0, 0, []
while asked < wanted:
    rounds += 1
    numbers = range(asked, min(asked + wanted // 5, wanted))
    done = {}

    def stream():
        try:
            policy = Policy(mx.policy_port)
            for i in numbers:
                for late in (0, 300):
                    answer = policy.ask(network(i), f"s{chr(97 + i % 26)}@n{i}.test", time=BASE + late)
                    if answer is None:
                        return
                    done[i] = answer
            policy.close()
        except OSError:
            pass

    client = threading.Thread(target=stream)
    client.start()
    goal = rng.randrange(len(numbers) // 4, len(numbers))
    wait_for(lambda: len(done) >= goal or not client.is_alive(), limit=600)
    mx.kill9()
    client.join()
    passed |= {i for i, answer in done.items() if answer.startswith("PREPEND")}
    asked = numbers[-1] + 1
    mx.start()
answers = ask_all(mx, sorted(passed), BASE + 400)
tap.check(len(passed) > wanted // 5, f"{rounds} times kill -9 in the middle of {2 * wanted} decisions", len(passed))
tap.equal(passing(answers), len(passed), "every pass that was answered before a kill -9 is known after it")
strangers_wait(mx, BASE + 400, "strangers still wait")
tap.check("was damaged" not in mx.log() and "store failed" not in mx.log(), "recovery was enough each time", mx.log()[-2000:])
mx.stop()

# --- flipped bytes -------------------------------------------------------------------------------------------------------
COUNT = 200
healthy = greymx("healthy").start()
ask_all(healthy, range(COUNT), BASE)
ask_all(healthy, range(COUNT), BASE + 300)
# Ten seconds later a checkpoint has brought them from the log into their file; what is younger stands in the log alone.
tap.check(wait_for(lambda: os.path.getsize(os.path.join(healthy.store, "db/records.db")) > 20_000),
          "what passed reaches its file within seconds")
live = os.path.join(tap.directory, "live")
shutil.copytree(healthy.store, live)  # as kill -9 would leave it: recovery needs the log
healthy.stop()
rested = healthy.store                 # as an orderly end leaves it
for source, kind in ((rested, "after an orderly end"), (live, "after kill -9")):
    for file in sorted(os.listdir(os.path.join(source, "db"))):
        used = len(open(os.path.join(source, "db", file), "rb").read().rstrip(b"\0"))
        for where, offset in (("its first page", rng.randrange(12, 40)), ("its middle", rng.randrange(used // 2, used))):
            name = f"flip-{'live' if source == live else 'rested'}-{file}-{offset}"
            mx = greymx(name, extra='on_error = "defer"')  # so that whoever passes is known
            os.makedirs(os.path.dirname(mx.store), exist_ok=True)
            shutil.copytree(source, mx.store)
            with open(os.path.join(mx.store, "db", file), "r+b") as out:
                out.seek(offset)
                byte = out.read(1)[0]
                out.seek(offset)
                out.write(bytes([byte ^ 1 << rng.randrange(8)]))
            if os.geteuid() == 0:
                subprocess.run(["chown", "-R", "nobody:nogroup", os.path.dirname(mx.store)], check=True)
            mx.start()
            what = f"{file}, {where}, {kind}"
            # Damage may be met while they are asked for: then some wait for the store to be opened again.
            known, rounds = 0, 0
            while known < COUNT and rounds < 5:
                store_works(mx)
                known = max(known, passing(ask_all(mx, range(COUNT), BASE + 400)))
                rounds += 1
            told = re.search(r"was moved to|is unreadable after byte|store failed", mx.log())
            tap.check(known == COUNT or told, f"{what}: {COUNT - known} of {COUNT} passes lost, and it says so if any", mx.log()[-1500:])
            # A page holds a few dozen records.
            tap.check(known >= COUNT - 60, f"{what}: a page's worth at most", known)
            strangers_wait(mx, BASE + 400, f"{what}: no stranger passes silently")
            mx.stop()
            shutil.rmtree(mx.directory)

# --- a full disk ---------------------------------------------------------------------------------------------------------
disk = os.path.join(tap.directory, "disk")
os.makedirs(disk)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0777", "tmpfs", disk], check=True)
tap.cleanup(lambda: subprocess.run(["umount", "-l", disk]))
mx = greymx("full", state=os.path.join(disk, "state")).start()
ask_all(mx, range(COUNT), BASE)
ask_all(mx, range(COUNT), BASE + 300)
junk = os.path.join(disk, "junk")


def fill():
    with open(junk, "ab", buffering=0) as out:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while out.write(b"x" * size) == size:
                    pass
            except OSError:
                pass


fill()
policy = Policy(mx.policy_port)
for number in range(100_000, 140_000):
    answer = policy.ask(network(number), f"full@n{number}.test", time=BASE + 350)
    if answer != f"DEFER_IF_PERMIT 4.2.0 {TEXT}":
        break
tap.equal(answer, "DUNNO", "on a full disk mail passes")
tap.check(mx.wait_log(r"warning: no answer from the store \(.*No space left"), "and the log says so", mx.log()[-2000:])
tap.check(mx.service.running(), "the daemon lives")
tap.check(all(policy.ask(network(i), f"full@n{i}.test", time=BASE + 350) is not None for i in range(200_000, 200_200)),
          "and answers everything")
os.remove(junk)
tap.check(mx.wait_log(r"the store is back"), "when there is space again the store comes back", mx.log()[-2000:])
tap.equal(passing(ask_all(mx, range(COUNT), BASE + 400)), COUNT, "and knows all who had passed")
strangers_wait(mx, BASE + 400, "while strangers wait")
fill()
mx.kill9()
mx.start()
tap.check(policy_answers := Policy(mx.policy_port).ask("192.0.2.9", "x@y.test", time=BASE + 400), "started on a full disk it answers", policy_answers)
os.remove(junk)
tap.check(wait_for(lambda: passing(ask_all(mx, range(COUNT), BASE + 410)) == COUNT and
                   (Policy(mx.policy_port).ask("192.0.2.9", "z@y.test", time=BASE + 410) or "").startswith("DEFER"), every=1),
          "and is whole when there is space again", mx.log()[-2000:])
tap.equal([name for name in os.listdir(mx.store) if name.startswith("corrupt-")], [], "a full disk is not mistaken for damage")
mx.stop()

# --- a clock that jumps ----------------------------------------------------------------------------------------------------
mx = greymx("clock").start()
ask_all(mx, range(50), BASE)
ask_all(mx, range(50), BASE + 300)
ask_all(mx, range(50, 100), BASE + 300)
for jump in (-86400, 3600, -7200, 20 * 86400, -10 * 86400, 0):
    tap.equal(passing(ask_all(mx, range(50), BASE + 600 + jump)), 50, f"after a jump by {jump} s who had passed passes")
waits = ask_all(mx, range(50, 100), BASE + 600)
tap.check(passing(waits) + sum(1 for a in waits.values() if (a or "").startswith("DEFER")) == 50, "who waited is answered", waits)
back = ask_all(mx, range(50, 100), BASE + 900)
tap.equal(passing(back), 50, "and passes a delay later at the latest")
mx.stop()
tap.done()

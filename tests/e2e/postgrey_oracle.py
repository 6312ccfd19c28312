#!/usr/bin/python3
"""The real postgrey and greymx are asked the same questions at the same times: answers agree, and where they do not it
is a difference that is meant."""
import os
import random
import re
import time

from policy import *

tap = Tap("postgrey_oracle")
CLIENTS = """# shared by both
198.51.100.7
198.51.101.0/25
203.0.113
2001:db8:77::/48
big.pool.test
/^mail\\d+\\.list\\.test$/
"""
RECIPIENTS = """vip@example.com
anyone@
open.example.org
/^list-.*@lists\\.test$/
"""
postgrey = Postgrey(tap, clients=CLIENTS, recipients=RECIPIENTS).start()


def greymx(name, clients, recipients, extra=""):
    directory = os.path.join(tap.directory, name + "-lists")
    os.makedirs(directory)
    for file, content in (("clients", clients), ("recipients", recipients)):
        with open(os.path.join(directory, file), "w") as out:
            out.write(content)
    port = free_port()
    Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:9"]
verify_recipients = false
[greylist]
sender_pools = false
whitelist_clients = ["{directory}/clients"]
whitelist_recipients = ["{directory}/recipients"]
{extra}
""", name=name, policy=[f"127.0.0.1:{port}"], env={"GREYMX_TEST_CLOCK": "1"}).start()
    if not wait_for(lambda: listening(port)):
        raise RuntimeError("no policy port")
    return port


ours = greymx("greymx", CLIENTS, RECIPIENTS)


def normal(answer):
    """An answer without what is the servers' own: name, version and date in the header."""
    found = re.match(r"PREPEND X-Greylist: delayed (\d+) seconds by (?:postgrey|greymx)-\S+ at mx2\.example\.net; ", answer or "")
    return f"PREPEND delayed {found.group(1)}" if found else answer


# --- a month of mail ------------------------------------------------------------------------------------------------
seed = int.from_bytes(os.urandom(4), "big")
tap.note(f"seed {seed}")
rng = random.Random(seed)
networks = [f"10.{i}.{j}" for i in range(6) for j in range(4)] + ["2001:db8:1:2", "2001:db8:1:3"]
# Ten addresses a network at most, so that some clients earn their automatic whitelisting.
addresses = [f"{n}::{rng.randrange(1, 4):x}" if ":" in n else f"{n}.{rng.randrange(1, 5)}" for n in networks for _ in range(3)]
addresses += ["198.51.100.7", "198.51.101.5", "198.51.101.200", "203.0.113.9", "2001:db8:77::1"]
names = ["unknown"] * 6 + ["mx.sender.test", "x.big.pool.test", "bigpool.test", "mail7.list.test", "mailx.list.test", "MAIL8.List.Test"]
users = ["alice", "Bob", "carol+ext", "dave+a+b", "bounce-%d-x", "news-%d", "u%d", "prvs=1234abcdef=erin", "prvs=frank=0123456789",
         "prvs=x=y", "SRS0=HH=TT=o.test=u", "a/b", "100%%off", "list+%d=x.test", ""]
recipients = ["user@example.com", "User@Example.COM", "other+ext@example.com", "other@example.com", "vip@example.com", "vip+x@example.com",
              "anyone@any.test", "x@open.example.org", "x@sub.open.example.org", "list-1@lists.test", "x@notopen.example.org"]
now = int(time.time())
waiting, asked, different = [], 0, []
first, second = Policy(postgrey.port), Policy(ours)
kinds = {}
while asked < 5000:
    now += rng.choice([0, 1, 5, 60, 100, 299, 300, 301, 600]) if rng.random() < 0.97 else rng.choice([3600, 20000])
    if waiting and rng.random() < 0.6:
        mail = rng.choice(waiting)
        if rng.random() < 0.2:  # the same network, another address
            mail = {**mail, "client": mail["client"].rsplit(".", 1)[0] + ".250"} if "." in mail["client"] else mail
    else:
        user = rng.choice(users)
        user = user % rng.randrange(5) if "%d" in user else user.replace("%%", "%")
        sender = f"{user}@s{rng.randrange(8)}.test" if user else ""
        mail = {"client": rng.choice(addresses), "name": rng.choice(names), "sender": sender}
        waiting.append(mail)
        del waiting[:-60]
    instance = f"{asked:x}.{now:x}"
    for recipient in rng.sample(recipients, rng.choice([1, 1, 1, 2, 3])):
        question = {**mail, "recipient": recipient, "time": now, "instance": instance}
        theirs, mine = normal(first.ask(**question)), normal(second.ask(**question))
        asked += 1
        kind = (theirs or "none").split(" ")[0]
        kinds[kind] = kinds.get(kind, 0) + 1
        if theirs != mine:
            different.append((question, theirs, mine))
tap.equal(different[:3], [], f"{asked} answers agree")
tap.check(all(kinds.get(k, 0) > 50 for k in ("DUNNO", "PREPEND", "DEFER_IF_PERMIT")), "of every kind there were many", kinds)
tap.check(now - time.time() < 30 * 86400, "in less than the time after which either forgets", now)
base = now


def both(**question):
    return normal(first.ask(**question)), normal(second.ask(**question))


# --- the documented points of time --------------------------------------------------------------------------------
defer = f"DEFER_IF_PERMIT 4.2.0 {TEXT}"
steps = [(0, defer), (100, defer), (299, defer), (300, "PREPEND delayed 300"), (301, "DUNNO")]
answers = [both(client="192.0.2.77", sender="Bob+x@Ex.test", recipient="User+e@Dom.test", time=base + t, instance="one") for t, _ in steps]
tap.equal(answers, [(a, a) for _, a in steps], "a triplet waits 300 seconds to the second")
for late, wanted in ((172800, "PREPEND delayed 172800"), (172801, defer)):
    both(client="192.0.3.78", sender=f"w{late}@ex.test", time=base)
    tap.equal(both(client="192.0.3.78", sender=f"w{late}@ex.test", time=base + late), (wanted, wanted),
              f"a first retry after {late} seconds")
tap.equal(both(client="192.0.2.80", etrn_domain=None, time=base), (f"DEFER_IF_PERMIT {TEXT}",) * 2,
          "without etrn_domain no code is put before the text")
tap.equal(both(client="192.0.2.80", protocol_state="RCPT", recipient="b@example.com", sender=None, time=base), ("DUNNO",) * 2,
          "an attribute that is missing means no opinion")
for i in range(5):
    for t in (0, 300):
        both(client="192.0.4.9", sender=f"awl{'x' * i}@ex.test", time=base + i * 4000 + t)
tap.equal(both(client="192.0.4.9", sender="sixth@ex.test", time=base + 30000), ("DUNNO",) * 2, "five passes whitelist a client")
tap.equal(both(client="192.0.4.10", sender="sixth@ex.test", time=base + 30000), (defer,) * 2, "but not its neighbour")

# --- differences that are meant -----------------------------------------------------------------------------------
def differs(what, theirs, mine, **question):
    tap.equal(both(**question), (theirs, mine), f"meant to differ: {what}")


differs("postmaster@ is exempt without any file", defer, "DUNNO", recipient="postmaster@example.com", client="192.0.5.1", time=base)
differs("and bare Postmaster", defer, "DUNNO", recipient="Postmaster", client="192.0.5.1", time=base)
differs("and abuse@", defer, "DUNNO", recipient="abuse@example.com", client="192.0.5.1", time=base)
for t in (0, 300):
    both(client="192.0.6.1", sender="old@ex.test", time=base + t)
differs("max_age is looked at when it matters", "DUNNO", defer, client="192.0.6.1", sender="old@ex.test", time=base + 300 + 36 * 86400)
both(client="192.0.7.1", sender="slow@ex.test", time=base)
differs("an IPv4-mapped address is the IPv4 address", defer, "PREPEND delayed 300", client="::ffff:192.0.7.1",
        sender="slow@ex.test", time=base + 300)
messages = [f"m{i}" for i in range(30)]
for i, message in enumerate(messages):
    both(client=f"192.0.8.{i}", sender=f"many{'y' * i}@ex.test", recipient="one@example.com", time=base)
    both(client=f"192.0.8.{i}", sender=f"many{'y' * i}@ex.test", recipient="two@example.com", time=base)
for i, message in enumerate(messages):
    both(client=f"192.0.8.{i}", sender=f"many{'y' * i}@ex.test", recipient="one@example.com", time=base + 300, instance=message)
differs("more than ten messages at a time get one header each", "PREPEND delayed 300", "DUNNO", client="192.0.8.0",
        sender="many@ex.test", recipient="two@example.com", time=base + 300, instance="m0")
first.close()
second.close()

theirs = Postgrey(tap, "special-postgrey", ["--delay=0"]).start()
first, second = Policy(theirs.port), Policy(greymx("special", "", "", 'delay = "0s"'))
differs("delay 0 passes at once", defer, "DUNNO", client="192.0.2.1", time=base)
theirs.stop()
mine = greymx("lists", "10.20\n::/0\n/a#b/\n", "@at.test\npostmaster@\n")
theirs = Postgrey(tap, "lists-postgrey", [], "10.20\n::/0\n/a#b/\n", "@at.test\npostmaster@\n").start()
first, second = Policy(theirs.port), Policy(mine)
differs("::/0 does not whitelist IPv4", "DUNNO", defer, client="192.0.2.1", time=base)
theirs.stop()
theirs = Postgrey(tap, "more-postgrey", [], "10.20\n/a#b/\n", "@at.test\npostmaster@\n").start()
first = Policy(theirs.port)
differs("a.b is a /16", defer, "DUNNO", client="10.20.30.40", time=base)
differs("# does not end a regular expression", defer, "DUNNO", client="192.0.9.1", name="xa#b", time=base)
differs("@domain is a domain", defer, "DUNNO", client="192.0.9.1", recipient="user@at.test", time=base)
tap.equal(second.raw("request=other\n\n"), None, "meant to differ: an unknown request is hung up on, where postgrey keeps silent")
second = Policy(mine)
tap.equal(second.ask(client="unknown", time=base), "DUNNO", "meant to differ: an address that is none is no opinion")
tap.equal(first.ask(client="unknown", time=base), None, "where postgrey dies")
tap.equal(normal(second.ask(client="192.0.10.1")), defer, "without policy_test_time the clock is the system's")
tap.done()

#!/usr/bin/python3
"""promtool accepts our metrics and alert rules, and the rules speak of metrics that exist from the start."""
import os
import re
import subprocess
import sys
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from peers import *

tap = Tap("prometheus")
RULES = os.path.join(ROOT, "conf/alerts.rules.yml")
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{free_port()}"]
""").start()


def metrics():
    with urllib.request.urlopen(f"http://127.0.0.1:{mx.http}/metrics", timeout=LIMIT) as answer:
        return answer.read().decode()


fresh = metrics()
client = Smtp(mx.smtp)
client.mail("a@sender.test", ["b@example.com", "c@elsewhere.test"], "Subject: x\n\nx\n")
for text, when in ((fresh, "at the start"), (metrics(), "after some mail")):
    done = subprocess.run([need("promtool"), "check", "metrics"], input=text, capture_output=True, text=True)
    tap.equal((done.returncode, done.stdout + done.stderr), (0, ""), f"promtool check metrics, {when}")
done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True)
tap.equal(done.returncode, 0, "promtool check rules")
done = subprocess.run(["promtool", "test", "rules", os.path.join(ROOT, "tests/full/alerts.test.yml")], capture_output=True, text=True)
tap.equal((done.returncode, done.stderr), (0, ""), "the rules fire when they should")
with open(RULES) as file:
    named = set(re.findall(r"\bgreymx_\w+", file.read()))
known = set(re.findall(r"(?m)^(greymx_\w+)", fresh)) | set(re.findall(r"# TYPE (greymx_\w+)", fresh))
tap.equal(sorted(named - known - {"greymx_dnsbl_list_up"}), [], "the rules name only metrics that exist (but that of block lists, of which there is none here)")
tap.equal(mx.stop(), 0, "stops")
tap.done()

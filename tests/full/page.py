#!/usr/bin/python3
"""The status page in headless Chromium: it draws, it refreshes itself, no policy stops it, nothing is fetched from
elsewhere. The screenshots are kept in PAGE_SHOTS if that names a directory."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from peers import *

tap = Tap("page")
shots = os.environ.get("PAGE_SHOTS", tap.directory)
browser = need("chromium")
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{free_port()}"]
verify_recipients = false
[access]
trusted_networks = ["127.0.0.0/8"]
[delivery]
probe_interval = "1s"
""").start()
client = Smtp(mx.smtp)
for number in range(3):
    client.mail("a@sender.test", ["bob@example.com"], f"Subject: {number}\n\nx\n")
client.mail("a@sender.test", ["bob@example.net"], "x\n")
wait_for(lambda: "down" in mx.tool("domains").stdout)
url = f"http://127.0.0.1:{mx.http}/"


def chromium(*words):
    done = subprocess.run([browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
                           f"--user-data-dir={tap.directory}/profile", *words, url], capture_output=True, text=True, timeout=180)
    return done.stdout, done.stderr


dom, errors = chromium("--virtual-time-budget=25000", "--dump-dom")
tap.check("Mail is kept; primary not up: example.com" in dom, "the headline says what is the matter", dom[:3000])
tap.check(re.search(r"<b>3</b>", dom) and "messages waiting" in dom, "figures are there", dom[:3000])
tap.check("3 accepted" in dom and "relay_control" in dom, "so are counts and reasons", dom[:3000])
tap.check(not re.search(r"Refused to|Uncaught|SyntaxError", errors), "no script error and nothing refused by the policy", errors)
tap.check(not re.search(r'(?:src|href)="(?!data:)', dom), "nothing comes from elsewhere")
fetched = [line for line in mx.log().splitlines() if "panic" in line or "error" in line]
tap.equal(fetched, [], "the daemon has nothing to complain of")
for name, words in (("light", ["--window-size=1180,1250"]), ("dark", ["--window-size=1180,1250", "--blink-settings=preferredColorScheme=0"]),
                    ("phone", ["--window-size=500,1800"])):
    path = os.path.join(shots, f"page-{name}.png")
    chromium(f"--screenshot={path}", *words)
    tap.check(os.path.exists(path) and os.path.getsize(path) > 20000, f"a picture of it: {name}")
tap.done()

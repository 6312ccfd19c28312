#!/usr/bin/python3
"""The admin tool on a running daemon and on its files when it is down: what it prints, changes, and exits with."""
import json
import os
import re
import subprocess
import urllib.request

from peers import *

tap = Tap("admin_tool")
dns = Dns(tap, ["example.com MX 10 mx1.example.com", "example.com MX 20 mx2.example.net", "mx2.example.net A 127.0.0.1",
                "1.0.0.127.in-addr.arpa PTR mx2.example.net", "2.0.0.127.bl.test A 127.0.0.2", "2.0.0.127.bl.test TXT \"test point\"",
                "9.2.0.192.bl.test A 127.0.0.2", "9.2.0.192.bl.test TXT \"spam seen\""])
primary = Sink(tap)
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{primary.port}"]
verify_recipients = false
[domains."example.org"]
primary = ["127.0.0.1:{free_port()}"]
verify_recipients = false
[access]
trusted_networks = ["127.0.0.0/8"]
[[dnsbl.lists]]
zone = "bl.test"
[dns]
servers = ["{dns.endpoint}"]
timeout = "1s"
attempts = 1
[delivery]
probe_interval = "1s"
""")

# --- nobody there -----------------------------------------------------------------------------------------------
os.makedirs(f"{mx.directory}/queue", exist_ok=True)
for words in (["flush"], ["delete", "ALL"], ["status"], ["greylist", "list"], ["reload"], ["dnsbl", "192.0.2.1"]):
    done = mx.tool(*words)
    tap.check(done.returncode == 75 and "start it" in done.stderr, f"{' '.join(words)} without a daemon exits 75 and says what to do",
              done.stderr)
broken = os.path.join(mx.directory, "broken.conf")
with open(mx.file) as old, open(broken, "w") as new:
    new.write(old.read() + "[nonsense]\n")
done = subprocess.run([os.path.join(BUILD, "greymx"), "-c", broken, "reload"], capture_output=True, text=True)
tap.check(done.returncode == 75 and "broken.conf:" in done.stderr and "nonsense" in done.stderr,
          "reload without a daemon still tells what is wrong with relay.conf", done.stderr)
for words, said in (("frobnicate", 'unknown command "frobnicate"; see greymx --help'),
                    ("mailqq", 'unknown command "mailqq"; did you mean "mailq"? See greymx --help'),
                    ("greylist lst", 'unknown command "greylist lst"; did you mean "greylist list"? See greymx greylist --help'),
                    ("greylist pass", "subject is required; see greymx greylist pass --help")):
    done = mx.tool(*words.split())
    tap.equal((done.returncode, done.stderr), (2, f"greymx: {said}\n"), f"'{words}' is wrong usage")
for words in ([], ["greylist", "pass"]):
    done = mx.tool("help", *words)
    tap.check(done.returncode == 0 and done.stdout == mx.tool(*words, "--help").stdout, f"help {' '.join(words)} is --help", done)
done = mx.tool("mailq", "not-an-id")
tap.equal(done.returncode, 2, "what is no queue ID is wrong usage")

# --- a queue ----------------------------------------------------------------------------------------------------
mx.start()
tap.equal(mx.tool("mailq").stdout, "Mail queue is empty\n", "an empty queue")
client = Smtp(mx.smtp)
ids = []
for number, (sender, recipients) in enumerate([("a@sender.test", ["bob@example.com"]), ("", ["eve@example.com"]),
                                                ("c@sender.test", ["bob@example.org", "eve@example.com"])]):
    replies = client.mail(sender, recipients, f"Subject: number {number}\n\nbody {number} \xfc\n".encode("latin-1").replace(b"\n", b"\r\n"))
    ids.append(re.search(r"queued as (\S+)", replies[-1]).group(1))
wait_for(lambda: mx.tool("domains").stdout.count("down") >= 2)
text = mx.tool("mailq", check=True).stdout
tap.check(text.startswith("----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------\n"), "mailq's heading", text)
tap.check(re.search(rf"^{ids[1]}  +\d+ \w{{3}} \w{{3}} [ \d]\d \d\d:\d\d:\d\d MAILER-DAEMON$", text, re.M), "mailq shows the null sender", text)
tap.check("(delivery temporarily suspended: connect to 127.0.0.1" in text, "mailq says why mail waits", text)
tap.check(text.endswith("in 3 Requests.\n"), "mailq's last line", text)
entry = json.loads(mx.tool("mailq", "--json", ids[2]).stdout)
tap.equal(list(entry)[:7], ["queue_name", "queue_id", "arrival_time", "message_size", "forced_expire", "sender", "recipients"],
          "postqueue -j's fields come first")
tap.equal([r["address"] for r in entry["recipients"]], ["bob@example.org", "eve@example.com"], "both recipients wait")
tap.equal(entry["primary_state"], "down", "the primary is known to be down")
done = mx.tool("cat", "--envelope", ids[0])
tap.equal(json.loads(done.stdout)["client_address"], "127.0.0.1", "cat --envelope")
raw = subprocess.run([os.path.join(BUILD, "greymx"), "-c", mx.file, "cat", ids[0]], capture_output=True)
tap.check(raw.stdout.endswith(b"Subject: number 0\r\n\r\nbody 0 \xfc\r\n") and raw.stdout.startswith(b"Received: "), "cat gives the bytes as they are", raw)

# --- changes ----------------------------------------------------------------------------------------------------
mx.tool("hold", ids[0], check=True)
tap.check(f"{ids[0]}! " in mx.tool("mailq").stdout, "held mail is marked")
tap.equal(mx.tool("hold", "--from", "nobody@sender.test").returncode, 1, "a selection that matches nothing has failed")
for words, said in ((["delete", "ALL", "--older", ""], "not a time such as 90m, 12h or 3d"), (["delete", "ALL", "--older", "soon"], "not a time"),
                    (["delete", "ALL", "--from", ""], "<> for the null sender"), (["delete", "ALL", "--from="], "--from"),
                    (["delete", "ALL", "--to", ""], "give an address"), (["delete", "ALL", "--domain", ""], "give a domain"),
                    (["delete", ""], "neither a queue ID nor ALL"), (["flush", ""], "neither a queue ID nor ALL"),
                    (["export", "ALL", ""], "needs a directory"), (["export", "ALL"], "which messages?"), (["flush", ids[0], "example.com"], "not both"),
                    (["greylist", "pass", "example.org", "--for", ""], "not a time")):
    done = mx.tool(*words)
    tap.check(done.returncode == 2 and said in done.stderr, f"{words} is wrong usage", done)
tap.equal(len(mx.queue()), 3, "an empty word selects nothing")
tap.check(not os.path.exists("ALL"), "an export without a directory makes none")
tap.equal(mx.tool("hold").returncode, 2, "a change without a selection is wrong usage")
tap.equal(mx.tool("delete", "BCDFGHJKLMNP").returncode, 1, "an ID that is not there is not found")
out = os.path.join(tap.directory, "rescued")
done = mx.tool("export", "ALL", out)
tap.check(done.returncode == 0 and sorted(os.listdir(out)) == sorted([i + e for i in ids for e in (".eml", ".json")]), "export writes all", done)
with open(os.path.join(out, ids[0] + ".eml"), "rb") as file:
    tap.equal(file.read(), raw.stdout, "what export writes is the message")
tap.equal(mx.tool("export", "ALL", out).returncode, 1, "export overwrites nothing")
tap.check("Deleted: 1 message" in mx.tool("delete", "--from", "<>", "--to", "eve@example.com").stdout, "delete by sender and recipient")
tap.check(mx.wait_log(rf"postsuper\[\d+\]: {ids[1]}: removed"), "a deletion is logged as postsuper does")
tap.check(" 3 " in mx.tool("shape").stdout.splitlines()[1] + " ", "shape counts recipients", mx.tool("shape").stdout)
status = json.loads(mx.tool("status", "--json").stdout)
tap.check(status["accepting"] and status["queue"]["messages"] == 2 and status["hostname"] == "mx2.example.net", "status", status)

# --- looking into decisions ---------------------------------------------------------------------------------------
done = mx.tool("dnsbl", "192.0.2.9")
tap.check("listed" in done.stdout and "spam seen" in done.stdout and "blocked" in done.stdout, "dnsbl", done.stdout)
done = mx.tool("explain", "--client", "192.0.2.1", "--helo", "h.sender.test", "--from", "a@sender.test", "--to", "bob@example.net")
tap.check("reply: 554 5.7.1 <bob@example.net>: Relay access denied" in done.stdout, "explain shows the reply", done.stdout)
done = mx.tool("greylist", "pass", "192.0.2.0/24", "--for", "1h", "--comment", "partner")
tap.check(done.returncode == 0 and "192.0.2.0/24" in mx.tool("greylist", "list").stdout, "greylist pass shows in greylist list")
saved = os.path.join(tap.directory, "greylist.json")
with open(saved, "w") as file:
    file.write(mx.tool("greylist", "export", check=True).stdout + "nonsense\n")
mx.tool("greylist", "forget", "192.0.2.0/24", check=True)
done = mx.tool("greylist", "import", saved)
tap.check("1 imported" in done.stdout and "1 skipped" in done.stdout, "greylist import takes export's lines", done)
tap.check("192.0.2.0/24" in mx.tool("greylist", "list").stdout, "and what was forgotten is back")
tap.equal(mx.tool("greylist", "import", "/no/such/place").returncode, 1, "an import that cannot be read fails")
done = mx.tool("check")
tap.check(done.returncode == 1 and "ok   MX of example.com: 20 mx2.example.net, below 10 mx1.example.com" in done.stdout and
          "fail primary of example.com" in done.stdout and re.search(r"^ok +list bl.test", done.stdout, re.M), "check judges names, lists and primaries", done.stdout)
with urllib.request.urlopen(f"http://127.0.0.1:{mx.http}/metrics") as reply:
    tap.check('greymx_queue_messages{domain="example.com"} 2' in reply.read().decode(), "metrics agree with the queue")

# --- a reader that leaves, and files alone ------------------------------------------------------------------------
done = subprocess.run(f"{BUILD}/greymx -c {mx.file} mailq --json | head -n 1; echo ${{PIPESTATUS[*]}}", shell=True, executable="/bin/bash", capture_output=True, text=True)
tap.check(done.stderr == "", "a closed pipe ends the tool quietly", done)


def into_full(*words):
    with open("/dev/full", "w") as full:
        return subprocess.run([os.path.join(BUILD, "greymx"), "-c", mx.file, *words], stdout=full, stderr=subprocess.PIPE, text=True)


for words in (["mailq"], ["cat", ids[0]], ["greylist", "export"], ["status"]):
    done = into_full(*words)
    tap.check(done.returncode == 1 and "standard output: " in done.stderr, f"{words[0]} fails if its output is lost", done)
mx.kill9()
done = mx.tool("mailq")
tap.check(done.returncode == 0 and f"{ids[0]}! " in done.stdout and "in 2 Requests." in done.stdout, "mailq reads the files when the daemon is down", done)
again = subprocess.run([os.path.join(BUILD, "greymx"), "-c", mx.file, "cat", ids[0]], capture_output=True)
tap.equal(again.stdout, raw.stdout, "so does cat")
for words in (["mailq"], ["cat", ids[0]], ["spool", "dump"]):
    done = into_full(*words)
    tap.check(done.returncode == 1 and "standard output: " in done.stderr, f"{words[0]} on files fails if its output is lost", done)
done = mx.tool("export", ids[0], ids[0])
tap.check(done.returncode == 2 and not os.path.exists(ids[0]), "export takes no queue ID for its directory", done)
done = mx.tool("export", "ALL", out)
tap.check(done.returncode == 1 and "File exists; choose another directory" in done.stderr and "written to" not in done.stdout,
          "nor does export on files overwrite, or call that success", done)
tap.check(mx.tool("shape").returncode == 0 and mx.tool("domains").returncode == 0, "and shape and domains")
link = os.path.join(tap.directory, "mailq")
os.symlink(os.path.join(BUILD, "greymx"), link)
done = subprocess.run([link, "-c", mx.file], capture_output=True, text=True)
tap.check("in 2 Requests." in done.stdout, "the tool called as mailq lists the queue", done)
done = mx.tool("spool", "verify")
tap.check(done.returncode == 0 and "2 messages" in done.stdout, "spool verify", done)
dumped = [json.loads(line) for line in mx.tool("spool", "dump", check=True).stdout.splitlines()]
tap.check(len(dumped) >= 2 and all(dumped), "spool dump is JSON lines", dumped)

# --- delivered in the end -----------------------------------------------------------------------------------------
mx.start()
primary.start()
tap.check(wait_for(lambda: len(primary.messages) == 1), "the primary's return drains the queue")
mx.tool("release", ids[0], check=True)
tap.check(wait_for(lambda: len(primary.messages) == 2), "released mail goes out")
mx.tool("bounce", ids[2], check=True)
tap.check(wait_for(lambda: ids[2] not in mx.tool("mailq").stdout), "bounced mail is gone")
done = mx.tool("check")
tap.check(f"ok   primary of example.com: 127.0.0.1[127.0.0.1]:{primary.port} takes our mail" in done.stdout, "check is content with a primary that is up", done.stdout)
if os.geteuid() == 0:
    os.mkdir(f"{mx.directory}/queue/lost+found", 0o700)
    tap.check(f"ok   permissions: {mx.directory}/queue\n" in mx.tool("check").stdout, "a file system's lost+found is nothing foreign")
    logged = os.path.join(mx.directory, "logged.conf")
    with open(mx.file) as old, open(logged, "w") as new:
        new.write(old.read() + f'\n[log]\ntarget = "{tap.directory}/greymx.log"\n')
    for owner, asks, result in ((0, 0, "warn"), (65534, 0, "ok"), (65534, 1, "ok")):
        with open(os.open(f"{tap.directory}/greymx.log", os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            os.fchown(file.fileno(), owner, 65534)
        done = subprocess.run([os.path.join(BUILD, "greymx"), "-c", logged, "check"], capture_output=True, text=True,
                              user=asks, group=asks, extra_groups=[])
        tap.check(done.stdout.count("primary of") and ("warn log: " in done.stdout) == (result == "warn") and "fail log: " not in done.stdout,
                  f"a log file of user {owner} is {result} for greymxd's user, whoever asks ({asks})", done.stdout + done.stderr)
demanding = os.path.join(mx.directory, "demanding.conf")
with open(mx.file) as old, open(demanding, "w") as new:
    new.write(old.read().replace('[domains."example.com"]', '[domains."example.com"]\ntls = "encrypt"'))
done = subprocess.run([os.path.join(BUILD, "greymx"), "-c", demanding, "check"], capture_output=True, text=True)
tap.check(re.search(r"^fail primary of example.com: TLS is required, but was not offered by host .*; mend its TLS", done.stdout, re.M),
          "check asks for the TLS that a delivery would", done.stdout)
tap.done()

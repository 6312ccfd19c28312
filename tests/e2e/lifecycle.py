#!/usr/bin/python3
"""The daemon's life: -t, start, reload, SIGUSR1, privileges, SIGTERM in the middle of a message, locks."""
import errno
import os
import re
import signal
import subprocess
import threading
import time

from peers import *

tap = Tap("lifecycle")
dns = Dns(tap, ["sender.test A 127.0.0.7"])
primary = Sink(tap)
BASE = f"""
[domains."example.com"]
primary = ["127.0.0.1:{primary.port}"]
[dns]
servers = ["{dns.endpoint}"]
timeout = "1s"
[delivery]
probe_interval = "1h"
"""
mx = Greymx(tap, BASE)
daemon = os.path.join(BUILD, "greymxd")


def run(*words):
    return subprocess.run([daemon, *words], capture_output=True, text=True, timeout=60)


done = run("-t", "-c", mx.file)
tap.equal((done.returncode, done.stdout), (0, f"{mx.file}: ok\n"), "-t says ok on stdout")
bad = os.path.join(tap.directory, "bad.conf")
with open(bad, "w") as file:
    file.write('hostname = "mx2.example.net"\n[domains."example.com"]\nprimry = ["mx1.example.com"]\n[greylist]\ndelay = 5\n')
done = run("-t", "-c", bad)
tap.equal((done.returncode, done.stdout), (1, ""), "-t exits 1 on mistakes")
tap.check(re.search(rf"^{re.escape(bad)}:3:1: .*primry.*primary", done.stderr, re.M), "naming the nearest key", done.stderr)
tap.check(re.search(rf"^{re.escape(bad)}:5:\d+: .*delay", done.stderr, re.M), "and every mistake at once", done.stderr)
tap.check(re.match(r"greymxd \d+\.\d+", run("--version").stdout), "--version")
libraries = run("--version", "--verbose").stdout
tap.check(all(re.search(rf"\b{re.escape(name)} \d", libraries) for name in
              ("OpenSSL", "c-ares", "libpsl", "libidn2", "isa-l", "libsystemd", "prometheus-cpp", "nlohmann-json", "CLI11", "Boost")),
          "--version --verbose lists libraries", libraries)
tap.check(run("--help").returncode == 0 and "-t" in run("--help").stdout, "--help")
tap.equal(run("--no-such-option").returncode, 2, "unknown options are wrong usage")
lists = os.path.join(tap.directory, "lists")
with open(lists + ".conf", "w") as file:
    file.write(open(mx.file).read() + f'[greylist]\nwhitelist_clients = ["{lists}"]\n')
done = run("-t", "-c", lists + ".conf")
tap.check(done.returncode == 1 and lists + ": No such file" in done.stderr, "-t reads the whitelists: one that is not there is an error", done)
with open(lists, "w") as file:
    file.write("192.0.2.1\n192.0.2.300/24\n")
done = run("-t", "-c", lists + ".conf")
tap.check(done.returncode == 0 and f"{lists}:2: " in done.stderr, "a line of nonsense in one is warned of", done)
with open(lists, "w") as file:
    file.write("bob@listed.example\neve@lisetd.example\n")
with open(lists + ".conf", "w") as file:
    file.write(open(mx.file).read() + f'[domains."listed.example"]\nrecipients = "{lists}"\n')
done = run("-t", "-c", lists + ".conf")
tap.check(done.returncode == 0 and f"{lists}:2:1: not an address of a domain in relay.conf" in done.stderr,
          "so is a recipient whose domain is misspelt", done)

with open(lists + ".conf", "w") as file:
    file.write(open(mx.file).read() + '[tls]\ncertificate = "/no/certificate"\nkey = "/no/key"\n')
done = run("-t", "-c", lists + ".conf")
tap.check(re.search(r"^.*/lists\.conf:\d+:15: .*/no/certificate: No such file", done.stderr, re.M), "and where a file that is missing is named", done.stderr)

mx.start()
second = run("-c", mx.file)
tap.check(second.returncode != 0, "a second daemon does not start on the same queue or ports", second.stderr)
if os.geteuid() == 0:
    status = open(f"/proc/{mx.pid()}/status").read()
    nobody = pwd.getpwnam("nobody").pw_uid
    tap.equal(re.search(r"^Uid:\s+(.*)$", status, re.M).group(1).split(), [str(nobody)] * 4, "privileges are dropped for good")
    tap.check(re.search(r"^CapEff:\s+0+$", status, re.M), "no capability is left")
    threads = [open(f"/proc/{mx.pid()}/task/{thread}/status").read() for thread in os.listdir(f"/proc/{mx.pid()}/task")]
    tap.check(all(re.search(r"^NoNewPrivs:\s+1$", status, re.M) for status in threads), "and no thread can get new ones")
    missing = Greymx(tap, 'user = "no-such-user-here"\n' + BASE, name="missing")
    done = run("-c", missing.file)
    tap.check(done.returncode != 0 and "no-such-user-here" in done.stderr and "adduser" in done.stderr,
              "a missing user is an error that names the remedy", done.stderr)
    private = os.path.join(tap.directory, "private")
    os.mkdir(private, 0o700)
    for turn in ("that only root may write to", "again, where the last one was left behind"):
        bound = Greymx(tap, BASE, name="bound", policy=[f"unix:{private}/policy"]).start()
        with socket.socket(socket.AF_UNIX) as policy:
            policy.settimeout(30)
            policy.connect(f"{private}/policy")
            policy.sendall(b"request=smtpd_access_policy\nprotocol_state=CONNECT\n\n")
            tap.equal(policy.recv(100), b"action=DUNNO\n\n", "a policy socket is made in a directory " + turn)
        tap.equal(bound.stop(), 0, "and it stops")
    for lines in (f'[log]\ntarget = "{private}/log"\n', f'[paths]\nqueue = "{private}/queue"\nstate = "{private}/state"\n'):
        unusable = Greymx(tap, BASE + lines, name="unusable")
        for words in (["-t"], []):
            done = run(*words, "-c", unusable.file)
            tap.check(done.returncode == 1 and "Permission denied" in done.stderr,
                      f"{lines.split()[0]} where the user cannot go is refused by {words or 'the start'}", done)
    tap.equal(os.stat(os.path.join(mx.directory, "control")).st_uid, nobody, "the control socket is the user's")
    contained = Greymx(tap, "workers = 2\n" + BASE + '[log]\ntarget = "/dev/fd/1"\n', name="contained")
    for directory in ("queue", "state"):
        os.mkdir(os.path.join(contained.directory, directory), 0o700)
        os.chown(os.path.join(contained.directory, directory), nobody, grp.getgrnam("nogroup").gr_gid)
    contained.wrapper = ["setpriv", "--bounding-set", "-all,+setuid,+setgid,+net_bind_service", "--inh-caps", "-all"]
    for turn in ("in a container, without most of root's capabilities", "again, where the last socket was left behind"):
        contained.start()
        tap.check(contained.tool("status").returncode == 0, "it runs " + turn)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                other.bind((contained.address, contained.smtp))
                other.listen()
                shared = 0
            except OSError as error:
                shared = error.errno
        tap.equal(shared, errno.EADDRINUSE, "its port is its own, though its threads share it")
        contained.kill9()
    contained.start()
    reload = contained.tool("reload")
    tap.equal(reload.returncode, 0, "a log that only root could open stays open over a reload")
    tap.check("moved away" not in contained.log() and "is in effect" in contained.log(), "and is written", contained.log())
    tap.equal(contained.stop(), 0, "and it stops")
tap.check(os.stat(os.path.join(mx.directory, "control")).st_mode & 0o777 == 0o660, "the control socket is 0660")

session = Smtp(mx.smtp)
session.command("EHLO client.sender.test")
mx.write(BASE + '[smtp]\nbanner = "ESMTP reloaded"\n')
mx.signal(signal.SIGHUP)
tap.check(wait_for(lambda: "reloaded" in Smtp(mx.smtp).greeting), "SIGHUP takes the new config into effect")
tap.check(session.command("NOOP").startswith("250"), "without dropping a session")
mx.write(BASE.replace("probe_interval", "probe_intervall"))
reload = mx.tool("reload")
tap.check(reload.returncode == 1 and "probe_interval" in reload.stderr + reload.stdout, "a bad file is refused by greymx reload",
          reload.stdout + reload.stderr)
tap.check(mx.wait_log(r"the new configuration is refused"), "with an error in the log")
mailq = mx.tool("mailq")
tap.check(mailq.returncode == 0 and "probe_interval" in mailq.stderr, "what only asks the daemon goes on with a bad file", mailq)
mx.signal(signal.SIGHUP)
tap.check(mx.wait_log(r"relay\.conf:\d+:\d+: .*probe_interval"), "and on SIGHUP, in the log")
tap.check("reloaded" in Smtp(mx.smtp).greeting, "the old config stays")
mx.write("workers = 3\n" + BASE)
mx.signal(signal.SIGHUP)
tap.check(mx.wait_log(r"workers.*restart"), "keys that need a restart say so")
reload = mx.tool("reload")
tap.check(reload.returncode == 0 and "workers has changed: restart greymxd" in reload.stdout, "and again, until it comes", reload)
mx.write(BASE)
reload = mx.tool("reload")
tap.check(reload.returncode == 0 and "restart" not in reload.stdout, "or the change is taken back", reload)
mx.write(BASE + f'[greylist]\nwhitelist_clients = ["{lists}"]\n')
reload = mx.tool("reload")
tap.check(reload.returncode == 0 and f"warning: {lists}:2: " in reload.stdout, "a line of nonsense in a whitelist is only told", reload)
if os.geteuid() == 0:
    for lines, missing in (('user = "no-such-user-here"\n', "user"), ('user = "nobody"\ngroup = "no-such-group-here"\n', "group")):
        mx.write(lines + BASE)
        reload = mx.tool("reload")
        tap.check(reload.returncode == 1 and f'{missing} "no-such-{missing}-here" does not exist: make it' in reload.stderr,
                  f"a {missing} that the restart would not find is told", reload)
mx.write(BASE + '[log]\ntarget = "/no/such/directory/log"\n')
reload = mx.tool("reload")
tap.check(reload.returncode == 1 and "/no/such/directory/log" in reload.stderr, "a log that cannot be opened is told", reload)
mx.write(BASE)

replies = session.mail("alice@sender.test", ["bob@example.com"], "Subject: x\n\nx\n")
tap.check(replies[-1].startswith("250 2.0.0"), "a trusted client's mail is taken", replies)
tap.check(wait_for(lambda: "refused" in str(mx.queue())), "and waits")
primary.start()
mx.signal(signal.SIGUSR1)
tap.check(wait_for(lambda: primary.messages), "SIGUSR1 flushes the queue at once (the next probe is an hour away)")

session = Smtp(mx.smtp)
for line in ("EHLO client.sender.test", "MAIL FROM:<alice@sender.test>", "RCPT TO:<bob@example.com>", "DATA"):
    session.command(line)
idle = Smtp(mx.smtp)
idle.command("EHLO idle.sender.test")
session.send("Subject: in flight\r\n\r\n")
mx.signal(signal.SIGTERM)
tap.check(idle.reply().startswith("421 4.3.2"), "SIGTERM: an idle session gets 421")
tap.check("no longer accepted: greymxd is terminating" in mx.tool("status").stdout, "and status says why")
session.send("the rest\r\n.\r\n")
tap.check(session.reply().startswith("250 2.0.0"), "a message in flight is still taken")
tap.equal(mx.service.process.wait(60), 0, "and then it ends with 0")
mx.start()
tap.check(wait_for(lambda: any(b"in flight" in m["content"] for m in primary.messages)), "and that message is delivered")
tap.equal(mx.stop(), 0, "stops")

asked, go_on = threading.Event(), threading.Event()


def hang_at_the_dot(verb, line, session):
    if verb == "DOT":
        asked.set()
        go_on.wait(120)


primary.script = hang_at_the_dot
mx.write('shutdown_grace = "2s"\n' + BASE)
mx.start()
Smtp(mx.smtp).mail("alice@sender.test", ["bob@example.com"], "Subject: x\n\nnever answered\n")
tap.check(asked.wait(30), "a primary does not answer the dot")
began = time.monotonic()
tap.equal(mx.stop(), 0, "SIGTERM ends a delivery that hangs")
tap.check(time.monotonic() - began < 20, "after shutdown_grace", time.monotonic() - began)
tap.equal(len(mx.queue()), 1, "and the message stays queued")
go_on.set()
tap.done()

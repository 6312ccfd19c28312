#!/usr/bin/python3
"""The main job of greymx, shown with real parts: a DNS server with a block list, a client, a primary with a Maildir."""
import glob
import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STATE = os.path.join(ROOT, "build/demo-kept")  # not where others may write: --stop believes what it says
COLOUR = sys.stdout.isatty()
children = []


def say(text, code="1;36"):
    print(f"\033[{code}m{text}\033[0m" if COLOUR else text, flush=True)


def end(message):
    say(f"demo failed: {message}", "1;31")
    sys.exit(1)


def start(name, *command):
    log = open(os.path.join(directory, f"{name}.log"), "ab")
    child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                             start_new_session=True)
    children.append(child)
    return child


def wait_for(condition, what, limit=60):
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if (found := condition()):
            return found
        time.sleep(0.05)
    end(f"{what} took over {limit} s; logs are in {directory}")


def listening(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def free(port, kind=socket.SOCK_STREAM):
    """The port itself if nobody has it, else one that is free."""
    for candidate in (port, 0):
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
                return probe.getsockname()[1]
            except OSError:
                continue
    end("no free port")


def client(source, sender="alice@sender.test", subject="Hello from the demo"):
    """One delivery attempt as a mail server would make it, shown line by line; the last reply."""
    with smtplib.SMTP(timeout=30, source_address=(source, 0)) as smtp:
        smtp.connect("127.0.0.1", ports["smtp"])
        for command in ("EHLO mail.sender.test", f"MAIL FROM:<{sender}>", "RCPT TO:<bob@example.com>", "DATA"):
            code, text = smtp.docmd(command)
            print(f"   C: {command}\n   S: {code} {text.decode().splitlines()[-1]}", flush=True)
            if code >= 400:
                return code
        smtp.send(f"From: Alice <{sender}>\r\nTo: bob@example.com\r\nSubject: {subject}\r\n"
                  f"Message-ID: <demo-{time.time_ns()}@sender.test>\r\nDate: {time.strftime('%a, %d %b %Y %H:%M:%S +0000', time.gmtime())}\r\n"
                  "\r\nThis went through the secondary MX.\r\n.\r\n")
        code, text = smtp.getreply()
        print(f"   C: (the message) .\n   S: {code} {text.decode()}", flush=True)
        return code


def mailq(*words):
    done = subprocess.run([tool, "-c", config, "mailq", *words], capture_output=True, text=True)
    return done.stdout


def stop_all():
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
    for child in children:
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)


def stop_kept():
    if not os.path.exists(STATE):
        print("nothing was kept running")
        return
    with open(STATE) as file:
        kept, *pids = file.read().split()
    for pid in map(int, pids):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
    os.remove(STATE)
    shutil.rmtree(kept, ignore_errors=True)
    print("stopped")


def main():
    say("1. A DNS server with a block list, bl.demo.test, that lists 127.0.0.66 (dnsmasq)")
    start("dnsmasq", shutil.which("dnsmasq", path=os.environ["PATH"] + ":/usr/sbin"), "--keep-in-foreground",
          "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-daemon", f"--port={ports['dns']}",
          "--listen-address=127.0.0.1", "--bind-interfaces", "--local=/test/", "--local=/in-addr.arpa/",
          "--local=/invalid/",
          "--host-record=2.0.0.127.bl.demo.test,127.0.0.2",
          "--host-record=66.0.0.127.bl.demo.test,127.0.0.2",
          "--txt-record=66.0.0.127.bl.demo.test,this address sends spam (says the demo)",
          "--host-record=mail.sender.test,127.0.0.7", "--mx-host=sender.test,mail.sender.test,10",
          "--host-record=spam.test,127.0.0.66",
          "--ptr-record=7.0.0.127.in-addr.arpa,mail.sender.test")
    say(f"2. greymxd for example.com on 127.0.0.1:{ports['smtp']}; its primary, 127.0.0.1:{ports['primary']}, is down")
    daemon = start("greymxd", os.path.join(ROOT, "build/greymxd"), "-c", config)
    wait_for(lambda: listening(ports["smtp"]) or daemon.poll() is not None, "greymxd")
    if daemon.poll() is not None:
        with open(os.path.join(directory, "greymxd.log")) as log:
            end("greymxd ended: " + log.read()[-1000:])
    say("3. A client on the block list is refused before it can send a byte of content")
    if client("127.0.0.66", "seller@spam.test") != 554:
        end("expected 554")
    say("4. An unknown client is asked to come back later (greylisting) ...")
    if client("127.0.0.7") != 450:
        end("expected 450")
    say("   ... waits, as real mail servers do, and is taken, although the primary is down")
    time.sleep(3.2)
    if client("127.0.0.7") != 250:
        end("expected 250")
    say("5. The queue, and why the message waits ($ greymx mailq)")
    wait_for(lambda: "refused" in mailq(), "the first attempt")
    print(mailq())
    say("6. The primary comes back (aiosmtpd, writing a Maildir); greymxd notices by itself and drains the queue")
    start("primary", "/usr/bin/python3", "-m", "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Mailbox", "-l",
          f"127.0.0.1:{ports['primary']}", maildir)
    wait_for(lambda: "empty" in mailq(), "the drain")
    print(mailq())
    received = wait_for(lambda: glob.glob(os.path.join(maildir, "new", "*")), "the message")
    say("7. The message as the primary received it")
    with open(received[0]) as file:
        print("   " + file.read().replace("\n", "\n   "))
    say("8. What the log says of it")
    with open(os.path.join(directory, "greymxd.log")) as log:
        for line in log:
            if re.search(r"reject|status=|removed|primary", line):
                print("   " + line.rstrip())


def next_steps():
    say("Next: a real secondary MX")
    print("""   1. On the server: meson install -C build and
        adduser --system --group --home /var/spool/greymx greymx
      (or the Debian package, which does both), then edit /etc/greymx/relay.conf:
        hostname = "mx2.example.net"
        [domains."example.com"]
        primary = ["mx1.example.com"]
   2. greymxd -t -c /etc/greymx/relay.conf    checks it; greymx check    says whether the host is fit to be an MX
   3. systemctl enable --now greymx
   4. On the primary, trust the secondary's address (docs/primary.md)
   5. In DNS: example.com. MX 20 mx2.example.net.   (a higher number than the primary's)
   6. greymx mailq, greymx status, and http://127.0.0.1:8025/ show how it goes""")


if "--stop" in sys.argv:
    stop_kept()
    sys.exit(0)
if set(sys.argv[1:]) - {"--keep"}:
    print("usage: scripts/demo [--keep|--stop]", file=sys.stderr)
    sys.exit(2)
directory = tempfile.mkdtemp(prefix="greymx-demo-")
os.chmod(directory, 0o755)
maildir = os.path.join(directory, "Maildir")
for sub in ("new", "cur", "tmp"):
    os.makedirs(os.path.join(maildir, sub))
ports = {"smtp": free(2525), "primary": free(2526), "http": free(8025), "dns": free(5354, socket.SOCK_DGRAM)}
with open(os.path.join(ROOT, "conf/demo.conf")) as file:
    text = file.read()
for name, usual in (("smtp", 2525), ("primary", 2526), ("http", 8025), ("dns", 5354)):
    text = text.replace(f"127.0.0.1:{usual}", f"127.0.0.1:{ports[name]}")
config = os.path.join(directory, "demo.conf")
with open(config, "w") as file:
    file.write(text)
tool = os.path.join(ROOT, "build/greymx")
kept = False
try:
    main()
    kept = "--keep" in sys.argv
finally:
    if not kept:
        stop_all()
        if sys.exc_info()[0] is None:
            shutil.rmtree(directory, ignore_errors=True)
next_steps()
if kept:
    with open(STATE, "w") as file:
        file.write("\n".join([directory, *(str(child.pid) for child in children)]))
    say("Kept running. Try:")
    print(f"""   swaks --server 127.0.0.1:{ports['smtp']} --local-interface 127.0.0.7 --helo mail.sender.test --from alice@sender.test --to bob@example.com
   build/greymx -c {config} mailq
   scripts/demo --stop""")

#!/usr/bin/python3
"""Primaries that misbehave: smtp-sink with its flags and a scripted server. Whatever they do, no message is lost, and
each arrives once when they behave again."""
import collections

from peers import *

tap = Tap("bad_primaries")
port = free_port()
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{port}"]
verify_recipients = false
greylist = false
[access]
unknown_sender_domain = "off"
[dns]
servers = ["127.0.0.1:1"]
timeout = "1s"
attempts = 1
[queue]
retry_min = "1s"
retry_max = "2s"
[delivery]
probe_interval = "1s"
connect_timeout = "5s"
""").start()
sent = 0


def put(count):
    """Queues that many messages; their senders."""
    global sent
    senders = []
    client = Smtp(mx.smtp)
    client.command("EHLO client.example.org")
    for _ in range(count):
        sent += 1
        sender = f"m{sent}@sender.example"
        replies = [client.command(f"MAIL FROM:<{sender}>"), client.command("RCPT TO:<user@example.com>"), client.command("DATA")]
        client.send(f"Subject: {sent}\r\n\r\nbody\r\n.\r\n")
        replies.append(client.reply())
        if not replies[-1].startswith("250"):
            raise RuntimeError(f"not accepted: {replies}")
        senders.append(sender)
    client.close()
    return senders


def recover(senders, what):
    """A good server takes the port: all of them arrive, each once."""
    good = Sink(tap, port=port).start()
    done = wait_for(lambda: not mx.queue() or (mx.tool("flush") and False), every=0.5)
    arrived = collections.Counter(message["sender"] for message in good.messages)
    good.stop()
    wait_for(lambda: not listening(port))
    wanted = collections.Counter(senders)
    tap.check(done and arrived == wanted, what, f"arrived {arrived}\nwanted {wanted}\n{mx.log()[-3000:]}")


def sink(*flags):
    service = Service(tap, "sink", [need("smtp-sink"), *(["-u", "nobody"] if os.geteuid() == 0 else []), *flags, f"127.0.0.1:{port}", "100"])
    if not wait_for(lambda: listening(port) or not service.running()) or not service.running():
        raise RuntimeError("smtp-sink: " + service.log())
    return service


for flag, what in (("-q", "hangs up at"), ("-Q", "says 421 to"), ("-r", "says 4xx to")):
    for command in ("connect", "ehlo", "mail", "rcpt", "data", "."):
        if flag == "-r" and command == "connect":
            continue  # smtp-sink's 4xx greeting is its 421
        bad = sink(flag, command)
        senders = put(3)
        tap.check(wait_for(lambda: re.search(r"status=deferred|is down:", mx.log())),
                  f"smtp-sink {what} {command}: the mail waits", mx.log()[-2000:])
        bad.kill()
        recover(senders, f"smtp-sink {what} {command}: every message arrives once afterwards")

bad = sink("-f", "rcpt")
mx.tool("flush", check=True)
before = len(mx.log())
senders = put(3)
# straight after an outage a refusal only defers; the admin's flush lets it count
refused = wait_for(lambda: mx.tool("flush") and mx.log()[before:].count("status=bounced") >= 3, every=0.5)
tap.check(refused, "smtp-sink refuses RCPT for good: bounced", mx.log()[before:])
tap.check(wait_for(lambda: mx.log()[before:].count("held, no report: sender not verified") >= 3),
          "no report goes to senders that nobody verified")
tap.equal(len(mx.queue()), 3, "the mail is held")
bad.kill()
mx.tool("release", "ALL", check=True)
recover(senders, "released, it arrives")

# without pipelining: with it, smtp-sink mixes up the order of delayed replies
slow = sink("-p", "-W", "mail:2", "-W", "rcpt:2")
put(2)
tap.check(wait_for(lambda: not mx.queue()), "a slow server is waited for", mx.log()[-2000:])
slow.kill()
wait_for(lambda: not listening(port))

for what, script in {
    "garbage": lambda verb, line, session: "\x00\x01\x02 what?" if verb == "CONNECT" else None,
    "a line without end": lambda verb, line, session: "2" * 300000 if verb == "CONNECT" else None,
    "too many lines": lambda verb, line, session: "\r\n".join(["250-x"] * 500) if verb == "EHLO" else None,
    "250 to DATA": lambda verb, line, session: "250 2.0.0 what" if verb == "DATA" else None,
    "our own name": lambda verb, line, session: "220 mx2.example.net ESMTP" if verb == "CONNECT" else None,
}.items():
    bad = Sink(tap, port=port, script=script).start()
    before = len(mx.log())
    senders = put(2)
    tap.check(wait_for(lambda: re.search(r"status=deferred|is down:", mx.log()[before:])), f"{what}: the mail waits",
              mx.log()[before:])
    tap.equal(len(bad.messages), 0, f"{what}: nothing was delivered")
    bad.stop()
    wait_for(lambda: not listening(port))
    recover(senders, f"{what}: every message arrives once afterwards")

# The reply to the dot gets lost: this, and only this, may send a message twice, and the log says so.
lost = {"count": 0}


def lose_dot(verb, line, session):
    if verb == "DOT" and lost["count"] < 1:
        lost["count"] += 1
        return ""
    return None


flaky = Sink(tap, port=port, script=lose_dot).start()
put(1)
tap.check(wait_for(lambda: not mx.queue() or (mx.tool("flush") and False), every=0.5), "a lost reply to the dot: sent again")
tap.check("while sending end of data -- message may be sent more than once" in mx.log(), "with the risk named in the log")
flaky.stop()
tap.check(mx.service.running(), "the daemon is still there")
tap.done()

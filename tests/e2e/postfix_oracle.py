#!/usr/bin/python3
"""Debian's Postfix and greymx, with the same restrictions and the same DNS, are asked the same questions over XCLIENT.

Codes and enhanced codes agree, except where docs/postfix-differences.md says what each of them answers and why; every
difference listed there is seen here.
"""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from peers import ROOT, Dns, Greymx, Postfix, Smtp, Tap, free_port

tap = Tap("postfix-oracle")
NAMESERVER = "127.77.0.53"


def reversed_v4(address):
    return ".".join(reversed(address.split(".")))


# --- the world -------------------------------------------------------------------------------------------------------
ZONE = """
sender.test MX 10 mail.sender.test
mail.sender.test A 198.51.100.7
address.test A 198.51.100.7
v6.test AAAA 2001:db8::7
null.test MX 0 .
text.test TXT "nothing else"
servfail.test ANY SERVFAIL
mxfail.test MX SERVFAIL
mxfail.test A 198.51.100.7
afail.test A SERVFAIL
timeout.test ANY TIMEOUT
big.test MX TRUNCATED
big.test MX 10 mail.sender.test
alias.test CNAME sender.test
chain1.test CNAME chain2.test
chain2.test CNAME chain3.test
chain3.test CNAME chain4.test
chain4.test CNAME sender.test
loop1.test CNAME loop2.test
loop2.test CNAME loop1.test
dangling.test CNAME nowhere.test
nullalias.test CNAME null.test
ours.test MX 10 mx1.ours.test
ours.test MX 20 mx2.ours.test
dead.test ANY SERVFAIL
sub.test MX 10 mx1.ours.test
""".strip().splitlines()
LISTS = ("a.bl.test", "b.bl.test", "c.bl.test")
LISTINGS = {  # client: list, answers
    "203.0.113.1": ("a.bl.test", "A 127.0.0.2", 'TXT "spam"'),
    "203.0.113.2": ("b.bl.test", "A 127.0.0.4"),
    "203.0.113.3": ("c.bl.test", "A 127.0.0.11", 'TXT "two"', 'TXT "reasons"'),
    "203.0.113.4": ("a.bl.test", "A SERVFAIL"),
    "203.0.113.5": ("b.bl.test", "A TIMEOUT"),
    "203.0.113.6": ("a.bl.test", "CNAME entry.bl.test"),
    "203.0.113.7": ("a.bl.test", "A TRUNCATED", "A 127.0.0.2"),
    "203.0.113.8": ("a.bl.test", "A 127.0.0.2", "TXT SERVFAIL"),
    "203.0.113.9": ("c.bl.test", "TXT \"no address\""),
    "203.0.113.254": ("b.bl.test", "A 127.255.255.254"),
    "203.0.113.255": ("b.bl.test", "A 127.0.0.1"),
    "203.0.113.250": ("b.bl.test", "A 192.0.2.80"),
}
for client, (zone, *answers) in LISTINGS.items():
    ZONE += [f"{reversed_v4(client)}.{zone} {answer}" for answer in answers]
ZONE += ["entry.bl.test A 127.0.0.2",
         "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.a.bl.test A 127.0.0.2",
         "bl.test A 192.0.2.80"]
for client, name in {"198.51.100.7": "mail.sender.test", "203.0.113.1": "one.bad.test"}.items():
    ZONE += [f"{reversed_v4(client)}.in-addr.arpa PTR {name}", f"{name} A {client}"]

ACCESS = """
trap@ours.test        REJECT
text@ours.test        REJECT go away
code@ours.test        551 5.1.6 moved
class@ours.test       REJECT 4.1.6 moved
soft@ours.test        450 4.2.1 busy
four@ours.test        421 4.3.2 later
five@ours.test        521 5.3.2 never
defer@ours.test       DEFER
permit@ours.test      DEFER_IF_PERMIT not now
fine@ours.test        OK
relay@ours.test       RELAY
number@ours.test      1795449663
dunno@ours.test       DUNNO
warn@ours.test        WARN look
info@ours.test        INFO look
hold@ours.test        HOLD
discard@ours.test     DISCARD
prepend@ours.test     PREPEND X-Seen: yes
sub.test              REJECT no mail here
kept@sub.test         OK
ghost@                REJECT no ghosts
foreign.test          OK
"""
USERS = ("user grey trap text code class soft four five defer permit fine relay number dunno warn info hold discard prepend "
         "ghost o'brien a/b x+y under_score").split()

# --- the questions ---------------------------------------------------------------------------------------------------
GOOD = {"client": ("198.51.100.7", "mail.sender.test"), "helo": "mail.sender.test", "sender": "joe@sender.test",
        "rcpt": "user@ours.test", "verb": "EHLO", "pipelined": False}
CLIENTS = [("198.51.100.7", "mail.sender.test"), ("198.51.100.8", None), ("192.0.2.17", "desk.ours.test"),
           ("2001:db8::7", None), ("2001:db8::8", None)]
CLIENTS += [(address, None) for address in LISTINGS]
HELOS = ["mail.sender.test", "mail.sender.test.", "localhost", "a_b.test", "192.0.2.300", "198.51.100.7", "1.2.3", "123",
         "[198.51.100.7]", "[198.51.100]", "[IPv6:2001:db8::7]", "[ipv6:2001:db8::7]", "[2001:db8::7]", "[IPv6:198.51.100.7]",
         "[]", "[198.51.100.7].", "-x.test", "x-.test", "x..test", ".x.test", "x.test..", "#123", "a/b", "a@b", "x" * 64 + ".test",
         "2001:db8::7", "xn--bcher-kva.test", "ours.test", "a" * 200, "*", "x:y", "'x'"]
SENDERS = ["", "joe@sender.test", "JOE@Sender.Test", "joe@address.test", "joe@v6.test", "joe@null.test", "joe@text.test",
           "joe@absent.test", "joe@servfail.test", "joe@mxfail.test", "joe@afail.test", "joe@timeout.test", "joe@big.test",
           "joe@alias.test", "joe@chain1.test", "joe@loop1.test", "joe@dangling.test", "joe@nullalias.test", "joe@localhost",
           "joe@intern", "joe", "joe@[198.51.100.7]", "joe@[IPv6:2001:db8::7]", "joe@sender.test.", "joe@a_b.test",
           "user@ours.test", "user@dead.test", "\"joe x\"@sender.test", "joe+tag@sender.test", "joe@sub.sender.test",
           "prvs=1234=joe@sender.test", "@sender.test", "joe@-x.test", "joe@x..test", "joe@1.2.3.4", "joe joe@sender.test"]
RECIPIENTS = [f"{user}@ours.test" for user in USERS]
RECIPIENTS += ["USER@Ours.Test", "user@ours.test.", "\"user\"@ours.test", "nobody@ours.test", "postmaster", "Postmaster",
               "postmaster@ours.test", "abuse@ours.test", "user", "user@foreign.test", "user@sub.ours.test", "user@dead.test",
               "nobody@dead.test", "kept@sub.test", "other@sub.test", "nobody%foreign.test@ours.test", "foreign.test!user@ours.test",
               "\"user@foreign.test\"@ours.test", "user@foreign.test@ours.test", "@foreign.test:user@ours.test",
               "@ours.test:user@foreign.test", "user@[127.0.0.1]", "user@[198.51.100.7]", "user@ours", "@ours.test",
               "user@ours..test", "user@", "<user@ours.test>", "user@ours.test extra"]


def cases():
    seen = set()

    def case(**changes):
        one = {**GOOD, **changes}
        key = tuple(map(str, one.values()))
        if key in seen:
            return []
        seen.add(key)
        return [one]

    for client in CLIENTS:
        yield from case(client=client)
    for helo in HELOS:
        yield from case(helo=helo)
        yield from case(helo=helo, verb="HELO")
    for sender in SENDERS:
        yield from case(sender=sender)
    for rcpt in RECIPIENTS:
        yield from case(rcpt=rcpt)
    for verb in ("EHLO", "HELO"):
        for rcpt in ("user@ours.test", "nobody@ours.test", "user@foreign.test", "fine@ours.test", "trap@ours.test"):
            yield from case(verb=verb, pipelined=True, rcpt=rcpt)
    for client in (("198.51.100.8", None), ("203.0.113.1", "one.bad.test"), ("192.0.2.17", None), ("203.0.113.4", None)):
        for helo in ("mail.sender.test", "x..test"):
            for sender in ("joe@sender.test", "", "joe@intern", "joe@null.test", "joe@absent.test", "joe@servfail.test"):
                for rcpt in ("user@ours.test", "grey@ours.test", "nobody@ours.test", "trap@ours.test", "fine@ours.test",
                             "permit@ours.test", "user@foreign.test", "postmaster"):
                    yield from case(client=client, helo=helo, sender=sender, rcpt=rcpt)


def ask(port, case):
    """What is said to RCPT, as "250 2.1.5"; "MAIL 501 5.1.7" if it does not come to that."""
    session = Smtp(port)
    address, name = case["client"]
    shown = f"IPV6:{address}" if ":" in address else address
    greeting = session.command(f"XCLIENT NAME={name or '[UNAVAILABLE]'} ADDR={shown}")
    assert greeting.startswith("220"), greeting
    lines = [f"{case['verb']} {case['helo']}", f"MAIL FROM:<{case['sender']}>", f"RCPT TO:<{case['rcpt']}>"]
    if case["pipelined"]:
        session.send("".join(line + "\r\n" for line in lines))
    for line in lines:
        reply = session.reply() if case["pipelined"] else session.command(line)
        text = reply.splitlines()[-1] if reply else "closed"
        if not text.startswith("250") and not line.startswith("RCPT"):
            break
    session.close()
    found = re.match(r"\d{3}(?: [245]\.\d+\.\d+)?", text)
    verb = line.split()[0]
    return ("" if verb == "RCPT" else verb + " ") + (found.group() if found else text)


# --- what is meant to differ -----------------------------------------------------------------------------------------
def documented():
    """name -> (Postfix's answers, ours), from the table of the document."""
    with open(os.path.join(ROOT, "docs/postfix-differences.md")) as file:
        rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", file.read(), re.M)
    return {name: tuple(set(re.findall(r"(?:[A-Z]+ )?\d{3}(?: \d\.\d+\.\d+)?", cell)) for cell in (postfix, ours))
            for name, postfix, ours in rows}


def reason(case, postfix, ours, table):
    """The documented difference that explains these two answers to this question, or None."""
    address, _ = case["client"]
    rcpt, sender = case["rcpt"].lower(), case["sender"]
    local = rcpt.split("@")[0]
    applies = {
        "trusted-networks": address == "192.0.2.17" and rcpt.endswith("@foreign.test"),
        "own-dns": rcpt.endswith("@dead.test") or sender.endswith("@dead.test"),
        "access-files-first": local in ("trap", "fine", "permit"),
        "recipient-first": local == "nobody",
        "null-sender": sender == "" and local == "grey",
        "list-errors": address in ("203.0.113.254", "203.0.113.255", "203.0.113.250"),
        "subdomains": rcpt.endswith("@sub.ours.test"),
        "literals": rcpt == "user@[127.0.0.1]",
        "source-routes": rcpt.startswith("@foreign.test:"),
        "syntax": sender in ("@sender.test", "joe@1.2.3.4") or
                  rcpt in ("@ours.test", "<user@ours.test>", "user@foreign.test@ours.test"),
    }
    for name, fits in applies.items():
        if fits and name in table and postfix in table[name][0] and ours in table[name][1]:
            return name
    return None


# --- both servers ----------------------------------------------------------------------------------------------------
dns = Dns(tap, ZONE, NAMESERVER, 53)
access, recipients = os.path.join(tap.directory, "access"), os.path.join(tap.directory, "recipients")
with open(access, "w") as file:
    file.write(ACCESS)
valid = [f"{user}@ours.test" for user in USERS] + ["user@dead.test", "kept@sub.test", "other@sub.test", "abuse@ours.test"]
with open(recipients, "w") as file:
    file.write("".join(f"{address} x\n" for address in valid + ["postmaster@ours.test"]))
white = os.path.join(tap.directory, "whitelist")
with open(white, "w") as file:
    names = "|".join(re.escape(address.split("@")[0]).replace("/", ".") for address in valid if not address.startswith("grey@"))
    file.write(f'/^"?({names})"?@/\n')
for table in (access, recipients):
    subprocess.run(["/usr/sbin/postmap", f"hash:{table}"], check=True)

policy = free_port()
greymx = Greymx(tap, f"""
hostname = "mx2.ours.test"
[domains."ours.test"]
primary = ["127.77.0.25:2525"]
recipients = "{recipients}"
[domains."dead.test"]
primary = ["127.77.0.25:2525"]
recipients = "{recipients}"
[domains."sub.test"]
primary = ["127.77.0.25:2525"]
recipients = "{recipients}"
[access]
trusted_networks = ["127.0.0.0/8", "192.0.2.16/28"]
proxy_networks = ["127.0.0.1/32"]
recipients = "{access}"
[dns]
servers = ["{NAMESERVER}:53"]
timeout = "2s"
attempts = 1
[greylist]
whitelist_clients = []
whitelist_recipients = ["{white}"]
[limits]
min_free_space = "16MiB"
connections_per_client = 10000
rate_per_client = "1000000/1m"
errors = 10000
[[dnsbl.lists]]
zone = "a.bl.test"
self_test = false
[[dnsbl.lists]]
zone = "b.bl.test"
self_test = false
[[dnsbl.lists]]
zone = "c.bl.test"
self_test = false
""", policy=[f"127.0.0.1:{policy}"]).start()
restrictions = """permit_mynetworks, reject_unauth_destination, reject_invalid_hostname, reject_unauth_pipelining,
 reject_non_fqdn_sender, reject_unknown_sender_domain, reject_non_fqdn_recipient, reject_unknown_recipient_domain,
 check_recipient_access hash:{}, {}, check_policy_service inet:127.0.0.1:{}, permit""".format(
    access, ", ".join(f"reject_rbl_client {zone}" for zone in LISTS), policy).replace("\n", "")
postfix = Postfix(tap, "oracle", {
    "mynetworks": "192.0.2.16/28", "inet_protocols": "all", "smtpd_authorized_xclient_hosts": "127.0.0.1",
    "relay_domains": "ours.test, dead.test, sub.test", "relay_recipient_maps": f"hash:{recipients}",
    "relay_transport": "discard:", "smtpd_relay_restrictions": "", "smtpd_recipient_restrictions": restrictions,
    "smtpd_hard_error_limit": "10000", "smtpd_soft_error_limit": "10000", "smtpd_error_sleep_time": "0",
    "smtpd_peername_lookup": "no", "myorigin": "elsewhere.test", "smtpd_client_connection_rate_limit": "0",
    "append_dot_mydomain": "no",
}, nameserver=NAMESERVER).start()

# --- the comparison --------------------------------------------------------------------------------------------------
table, seen, asked, equal = documented(), set(), 0, 0
tap.check(len(table) > 3, f"docs/postfix-differences.md lists {len(table)} differences")
surprises = []
for case in cases():
    theirs, ours = ask(postfix.port, case), ask(greymx.smtp, case)
    asked += 1
    if theirs == ours:
        equal += 1
        continue
    why = reason(case, theirs, ours, table)
    seen.add(why)
    if not why:
        changed = {key: value for key, value in case.items() if value != GOOD[key]}
        surprises.append(f"{changed}: Postfix {theirs}, greymx {ours}")
tap.check(asked >= 500, f"{asked} questions were asked")
tap.check(not surprises, f"{equal} answers agree, the others differ as documented", "\n".join(surprises[:40]))
for name in table:
    tap.check(name in seen, f"the difference '{name}' exists")
tap.done()

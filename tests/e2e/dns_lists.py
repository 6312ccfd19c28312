#!/usr/bin/python3
"""Block lists as they are in the world: rbldnsd serves the lists, unbound resolves, `greymx dnsbl` asks, and a client
that is listed is refused."""
import json

from list_servers import start_rbldnsd, start_unbound
from peers import Greymx, Smtp, Tap, free_port, wait_for

KEY = "abcdefghij0123456789abcd"

# Zones and their rbldnsd data. $ in a text is the address or name asked for.
LISTS = {
    "bl.lists.example": [("ip4set", ":127.0.0.2:listed, see https://lists.example/$\n127.0.0.2\n127.9.9.0/24\n203.0.113.0/24\n"),
                         ("ip6trie", ":127.0.0.3:listed as $\n2001:db8:bad::/48\n")],
    "refusing.lists.example": [("ip4set", "127.0.0.2\n203.0.113.7 :127.255.255.254:query refused\n")],
    "closed.lists.example": [("ip4set", "192.0.2.77\n")],  # without its test point
    "world.lists.example": [("ip4set", ":127.0.0.2:all\n0.0.0.0/1\n128.0.0.0/1\n")],
    "allow.lists.example": [("ip4set", ":127.0.5.3:\n127.0.0.2\n203.0.113.9\n")],
    f"{KEY}.zen.lists.example": [("ip4set", f":127.0.0.4:https://lists.example/{KEY}/$\n127.0.0.2\n198.51.100.0/24\n")],
    "names.lists.example": [("dnset", ":127.0.1.2:bad name $\ntest\nspam.example\n")],
}
DEAD = "dead.lists.example"


def resolves(port, name):
    import dns.message
    import dns.query
    try:
        return bool(dns.query.udp(dns.message.make_query(name, "A"), "127.0.0.1", timeout=2, port=port).answer)
    except Exception:
        return False


def configuration(port):
    lists = "".join(f'[[dnsbl.lists]]\nzone = "{zone}"\n' + ("weight = -1\n" if zone.startswith("allow") else "")
                    for zone in [*LISTS, DEAD] if not zone.startswith("names"))
    return f"""
[domains."example.com"]
primary = ["127.0.0.1:{free_port()}"]
verify_recipients = false
[access]
trusted_networks = []
unknown_sender_domain = "off"
unknown_recipient_domain = "off"
[greylist]
mode = "off"
[dns]
servers = ["127.0.0.1:{port}"]
timeout = "2s"
[dnsbl]
threshold = 1
{lists}
[[dnsbl.domain_lists]]
zone = "names.lists.example"
check = ["sender"]
"""


class Answers:
    """What `greymx dnsbl ADDRESS --json` says: one object a list, then the score."""

    def __init__(self, greymx, address):
        self.done = greymx.tool("dnsbl", address, "--json")
        objects = [json.loads(line) for line in self.done.stdout.splitlines()]
        self.lists = {entry["zone"]: entry for entry in objects if "zone" in entry}
        self.score = next((entry for entry in objects if "score" in entry), {})

    def of(self, zone):
        return self.lists.get(zone, {})


def switched_off(greymx):
    done = greymx.tool("status", "--json")
    if done.returncode != 0:  # the control socket opens a moment after the listeners
        return {}
    return {entry["zone"]: entry["problem"] for entry in json.loads(done.stdout)["lists"] if entry["state"] == "off"}


def check_lists(tap, greymx):
    listed = Answers(greymx, "203.0.113.5")
    bl = listed.of("bl.lists.example")
    tap.equal(bl.get("result"), "listed", "a listed IPv4 client is listed")
    tap.equal(bl.get("answers"), ["127.0.0.2"], "with the list's answer")
    tap.equal(bl.get("reason"), "listed, see https://lists.example/203.0.113.5", "with the list's TXT as reason")
    clean = Answers(greymx, "192.0.2.1")
    tap.equal(clean.of("bl.lists.example").get("result"), "clean", "another client is not")
    tap.equal(clean.score.get("score"), 0, "and scores 0")
    tap.equal(Answers(greymx, "2001:db8:bad::1").of("bl.lists.example").get("result"), "listed", "a listed IPv6 client is listed")
    tap.equal(Answers(greymx, "2001:db8:600d::1").of("bl.lists.example").get("result"), "clean", "another IPv6 client is not")
    refused = Answers(greymx, "203.0.113.7").of("refusing.lists.example")
    tap.equal(refused.get("result"), "list_error", "127.255.255.254 is an error of the list, not a listing")
    tap.check("127.255.255.254" in refused.get("error", ""), "which is named", refused)
    tap.equal(Answers(greymx, "203.0.113.9").of("allow.lists.example").get("weight"), -1, "an allow list counts against")
    secret = Answers(greymx, "198.51.100.5")
    masked = secret.of("***.zen.lists.example")
    tap.equal(masked.get("result"), "listed", "a zone with a key is asked by its name")
    tap.equal(masked.get("reason"), "https://lists.example/***/198.51.100.5", "the key is masked in the reason")
    tap.check(KEY not in secret.done.stdout + greymx.log(), "and shown nowhere", secret.done.stdout)
    dead = listed.of(DEAD).get("result")
    tap.check(dead in ("list_error", "timeout", "disabled"), "a dead list lists nobody", dead)


def check_health(tap, greymx):
    expected = {"closed.lists.example", "world.lists.example"}
    off = wait_for(lambda: expected <= set(found := switched_off(greymx)) and found) or switched_off(greymx)
    tap.check("127.0.0.2 is not listed" in off.get("closed.lists.example", ""), "a list without its test point is off", off)
    tap.check("127.0.0.1 is listed" in off.get("world.lists.example", ""), "a list that lists the world is off", off)
    tap.equal(Answers(greymx, "192.0.2.77").of("closed.lists.example").get("result"), "disabled", "and is not asked")
    tap.check("bl.lists.example" not in off, "a healthy list stays on", off)


def check_dead_list(tap, greymx):
    # two tests in a row, a minute apart
    tap.check(wait_for(lambda: DEAD in switched_off(greymx), limit=240), "a list that does not answer is switched off",
              switched_off(greymx))
    tap.check(greymx.wait_log(r"dnsbl\[\d+\]: error: block list dead\.lists\.example is switched off"), "and the log says so",
              greymx.log())


def check_session(tap, greymx):
    client = Smtp(greymx.smtp, source="127.9.9.9")
    client.command("EHLO client.example.org")
    client.command("MAIL FROM:<a@sender.example>")
    reply = client.command("RCPT TO:<user@example.com>")
    tap.check(reply.startswith("554 5.7.1 Service unavailable; Client host [127.9.9.9] blocked using bl.lists.example; "
                               "listed, see https://lists.example/127.9.9.9"), "a listed client is refused at RCPT", reply)
    client.close()
    client = Smtp(greymx.smtp)
    client.command("EHLO client.example.org")
    client.command("MAIL FROM:<a@spam.example>")
    reply = client.command("RCPT TO:<user@example.com>")
    tap.check(reply.startswith("554 5.7.1 Service unavailable; Sender address ["), "a listed sender domain is refused", reply)
    client.command("RSET")
    client.command("MAIL FROM:<a@ham.example>")
    reply = client.command("RCPT TO:<user@example.com>")
    tap.check(reply.startswith("250 "), "another is not", reply)
    client.close()


def main():
    tap = Tap("dns_lists")
    lists_port, resolver_port = free_port(), free_port()
    start_rbldnsd(tap, lists_port, LISTS)
    start_unbound(tap, resolver_port, {**dict.fromkeys(LISTS, lists_port), DEAD: free_port()})
    ready = wait_for(lambda: resolves(resolver_port, "2.0.0.127.bl.lists.example"))
    if not tap.check(ready, "rbldnsd answers through unbound"):
        tap.done()
    greymx = Greymx(tap, configuration(resolver_port)).start()
    check_health(tap, greymx)
    check_session(tap, greymx)
    check_lists(tap, greymx)
    check_dead_list(tap, greymx)
    tap.done()


main()

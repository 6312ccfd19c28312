#!/usr/bin/python3
"""Unwelcome clients beside Postfix, with and without postscreen, in one run on one machine (root): rejected sessions a
second and a CPU second, and the memory of connections that say nothing.

  tests/bench/reject.py [--sessions N] [--idle N]

A session is connect, EHLO, MAIL, RCPT, QUIT from an address that one of three lists names, and is refused. Cold: each
comes from another address, so that the local resolver has to ask the lists' server; cached: all come from one.
"""
import argparse
import os
import resource
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from list_servers import *
from peers import *
from meter import *

words = argparse.ArgumentParser()
words.add_argument("--sessions", type=int, default=20000)
words.add_argument("--idle", type=int, default=10000)
options = words.parse_args()
ZONES = ["one.lists.example", "two.lists.example", "three.lists.example"]
NAMESERVER = "127.0.0.57"  # port 53, since Postfix knows no other
SOURCES = 60000
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

tap = Tap("bench-reject")
warm_memory()
load = compiled(tap, "load")


def fresh_dns():
    """unbound with an empty cache: it asks rbldnsd for the lists and knows the sender's domain."""
    resolver = start_unbound(tap, 53, dict.fromkeys(ZONES, lists_port), address=NAMESERVER, data=["sender.test. A 127.0.0.7"])
    wait_for(lambda: listening(53, NAMESERVER))
    return resolver


SHARED = {"mynetworks": "127.0.0.1/32", "relay_domains": "example.com", "relay_transport": "discard:", "local_transport": "error:none",
          "smtpd_relay_restrictions": "", "smtpd_error_sleep_time": "0", "smtpd_client_connection_count_limit": "0",
          "smtpd_client_connection_rate_limit": "0", "default_process_limit": "400"}


def start_postfix(number):
    restrictions = ["reject_unauth_destination", *[f"reject_rbl_client {zone}" for zone in ZONES], "permit"]
    server = Postfix(tap, f"postfix{number}", {**SHARED, "smtpd_recipient_restrictions": ", ".join(restrictions)}, nameserver=NAMESERVER)
    return server.start(), server.port


def start_postscreen(number, wait="2s"):
    port = free_port()
    settings = {**SHARED, "smtpd_recipient_restrictions": "reject_unauth_destination", "postscreen_dnsbl_sites": ", ".join(ZONES),
                "postscreen_dnsbl_action": "enforce", "postscreen_dnsbl_threshold": "1", "postscreen_greet_wait": wait,
                "postscreen_pre_queue_limit": "12000", "postscreen_post_queue_limit": "12000",
                "postscreen_client_connection_count_limit": "20000", "postscreen_access_list": "", "postscreen_watchdog_timeout": "300s"}
    services = [f"127.0.0.1:{port} inet n - n - 1 postscreen", "smtpd pass - - n - - smtpd", "dnsblog unix - - n - 0 dnsblog"]
    server = Postfix(tap, f"postscreen{number}", settings, services=services, nameserver=NAMESERVER).start()
    wait_for(lambda: listening(port))
    return server, port


def start_greymx(number):
    lists = "".join(f'[[dnsbl.lists]]\nzone = "{zone}"\n' for zone in ZONES)
    server = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{free_port()}"]
[dns]
servers = ["{NAMESERVER}:53"]
[access]
trusted_networks = ["127.0.0.1/32"]
[limits]
min_free_space = "16MiB"
connections = 20000
connections_per_client = 20000
rate_per_client = "10000000/1m"
[delivery]
probe_interval = "1h"
{lists}""", name=f"greymx{number}", workers=0).start()
    time.sleep(2)  # the self-test of the lists
    return server, server.smtp


def sessions():
    row("server", "answers", "sessions/s", "CPU s per 1,000", "refused")
    row(*["---"] * 5)
    number = 0
    for answers, sources in (("cold", SOURCES), ("cached", 1)):
        for name, start, connections in (("smtpd", start_postfix, 100), ("postscreen", start_postscreen, 2000), ("greymx", start_greymx, 100)):
            number += 1
            resolver = fresh_dns()
            server, port = start(number)
            subprocess.run([load, str(port), "reject", "100", "200", "0", "1"], capture_output=True)  # its processes have started
            meter = Meter(server.pid())
            done = subprocess.run([load, str(port), "reject", str(connections), str(options.sessions), "0", str(sources)],
                                  capture_output=True, text=True)
            cpu, _ = meter.end()
            result = json.loads(done.stdout)
            row(name, answers, f"{result['rate']:.0f}", f"{cpu * 1000 / result['messages']:.3f}", f"{result['refused']} of {result['messages']}")
            server.stop()
            resolver.kill()


def connected(port, number):
    connection = socket.socket()
    connection.bind((f"127.2.{number // 250}.{number % 250 + 1}", 0))
    connection.settimeout(30)
    connection.connect(("127.0.0.1", port))
    return connection


def idle():
    row("server", "idle connections", "memory a connection, KiB", "greeting to one more, ms")
    row(*["---"] * 4)
    resolver = fresh_dns()
    for name, start, count in (("smtpd", start_postfix, 200), ("postscreen", lambda number: start_postscreen(number, "200s"), options.idle),
                               ("greymx", start_greymx, options.idle)):
        server, port = start(f"idle-{name}")
        greets = name != "postscreen"  # which does so after its wait only
        held = [connected(port, 0)]
        if greets:
            held[0].recv(1000)
        time.sleep(1)
        before = memory(server.pid())
        held += [connected(port, number) for number in range(1, count)]
        if greets:
            for connection in held[1:]:
                connection.recv(1000)
        time.sleep(3)
        after = memory(server.pid())
        begin, took = time.monotonic(), "-"
        if greets:
            held.append(connected(port, count))
            held[-1].recv(1000)
            took = f"{(time.monotonic() - begin) * 1000:.1f}"
        row(name, count, f"{(after - before) / (count - 1):.2f}", took)
        for connection in held:
            connection.close()
        server.stop()
    resolver.kill()


lists_port = free_port()
listed = [":127.0.0.2:listed, $\n127.0.0.2\n"] * 2 + [":127.0.0.2:listed, $\n127.0.0.2\n127.1.0.0/16\n"]
start_rbldnsd(tap, lists_port, {zone: [("ip4set", text)] for zone, text in zip(ZONES, listed)}, ttl=3600)
sessions()
idle()

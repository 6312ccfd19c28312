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
load = compiled(tap, "load")


def start_dns():
    """rbldnsd with the lists behind unbound, which also knows the sender's domain."""
    lists, directory = free_port(), os.path.join(tap.directory, "rbldnsd")
    os.makedirs(directory)
    for number, zone in enumerate(ZONES):
        with open(os.path.join(directory, zone), "w") as file:
            file.write("$SOA 3600 ns.lists.example hostmaster.lists.example 0 60 60 600 60\n$NS 3600 ns.lists.example\n:127.0.0.2:listed, $\n"
                       "127.0.0.2\n" + ("127.1.0.0/16\n" if number == 2 else ""))
    Service(tap, "rbldnsd", [need("rbldnsd"), "-n", "-u", "nobody:nogroup", "-w", directory, "-b", f"127.0.0.1/{lists}", "-t", "3600",
                             *[f"{zone}:ip4set:{zone}" for zone in ZONES]])
    stubs = "".join(f'stub-zone:\n  name: "{zone}"\n  stub-addr: 127.0.0.1@{lists}\n' for zone in ZONES)
    with open(os.path.join(tap.directory, "unbound.conf"), "w") as file:
        file.write(f"""server:
  interface: {NAMESERVER}@53
  do-daemonize: no
  use-syslog: no
  username: ""
  chroot: ""
  directory: "{tap.directory}"
  pidfile: "{tap.directory}/unbound.pid"
  module-config: "iterator"
  num-threads: 1
  do-not-query-localhost: no
  access-control: 127.0.0.0/8 allow
  local-zone: "." static
  local-zone: "lists.example." transparent
  local-data: "sender.test. A 127.0.0.7"
remote-control:
  control-enable: no
{stubs}""")
    return Service(tap, "unbound", [need("unbound"), "-d", "-c", os.path.join(tap.directory, "unbound.conf")])


def fresh_dns():
    global resolver
    resolver.kill()
    resolver = Service(tap, "unbound", resolver.command)
    wait_for(lambda: listening(53, NAMESERVER))


SHARED = {"mynetworks": "127.0.0.1/32", "relay_domains": "example.com", "relay_transport": "discard:", "local_transport": "error:none",
          "smtpd_relay_restrictions": "", "smtpd_error_sleep_time": "0", "smtpd_client_connection_count_limit": "0",
          "smtpd_client_connection_rate_limit": "0", "default_process_limit": "400"}


def start_postfix(number):
    restrictions = ["reject_unauth_destination", *[f"reject_rbl_client {zone}" for zone in ZONES], "permit"]
    server = Postfix(tap, f"postfix{number}", {**SHARED, "smtpd_recipient_restrictions": ", ".join(restrictions)}, nameserver=NAMESERVER)
    return server.start(), server.port


def start_postscreen(number, wait="2s"):
    port = free_port()
    settings = {**SHARED, "smtpd_recipient_restrictions": "reject_unauth_destination", "postscreen_dnsbl_sites": ", ".join(ZONES), "postscreen_dnsbl_action": "enforce", "postscreen_greet_wait": wait,
                "postscreen_dnsbl_threshold": "1", "postscreen_pre_queue_limit": "12000", "postscreen_post_queue_limit": "12000",
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
{lists}""", name=f"greymx{number}").start()
    server.wait_log("block list self-test|self-test", 1)
    time.sleep(2)  # the self-test of the lists
    return server, server.smtp


def process_of(server):
    if isinstance(server, Greymx):
        return server.service.process.pid
    with open(os.path.join(server.directory, "spool/pid/master.pid")) as file:
        return int(file.read())


def sessions():
    row("server", "answers", "sessions/s", "CPU s per 1,000", "refused")
    row(*["---"] * 5)
    number = 0
    for answers, sources in (("cold", SOURCES), ("cached", 1)):
        for name, start, connections in (("smtpd", start_postfix, 100), ("postscreen", start_postscreen, 2000), ("greymx", start_greymx, 100)):
            number += 1
            fresh_dns()
            server, port = start(number)
            subprocess.run([load, str(port), "reject", "100", "200", "0", "1"], capture_output=True)  # its processes have started
            meter = Meter(process_of(server))
            done = subprocess.run([load, str(port), "reject", str(connections), str(options.sessions), "0", str(sources)],
                                  capture_output=True, text=True)
            cpu, _ = meter.end()
            result = json.loads(done.stdout)
            row(name, answers, f"{result['rate']:.0f}", f"{cpu * 1000 / result['messages']:.3f}", f"{result['refused']} of {result['messages']}")
            server.stop()


def greeted(port, number):
    connection = socket.socket()
    connection.bind((f"127.2.{number // 250}.{number % 250 + 1}", 0))
    connection.settimeout(30)
    connection.connect(("127.0.0.1", port))
    return connection


def idle():
    row("server", "idle connections", "memory a connection, KiB", "greeting to one more, ms")
    row(*["---"] * 4)
    for name, start, count in (("smtpd", start_postfix, 200), ("postscreen", lambda number: start_postscreen(number, "200s"), options.idle),
                               ("greymx", start_greymx, options.idle)):
        server, port = start(f"idle-{name}")
        meter = Meter(process_of(server))
        held = [greeted(port, 0)]
        if name != "postscreen":
            held[0].recv(1000)
        time.sleep(1)
        before = sum(pss(pid) for pid in meter.tree())
        for number in range(1, count):
            held.append(greeted(port, number))
        if name != "postscreen":  # which greets after its wait
            for connection in held[1:]:
                connection.recv(1000)
        time.sleep(3)
        after = sum(pss(pid) for pid in meter.tree())
        begin, took = time.monotonic(), "-"
        if name != "postscreen":
            more = greeted(port, count)
            more.recv(1000)
            took = f"{(time.monotonic() - begin) * 1000:.1f}"
        meter.end()
        row(name, count, f"{(after - before) / (count - 1):.2f}", took)
        for connection in held:
            connection.close()
        server.stop()


resolver = start_dns()
wait_for(lambda: listening(53, NAMESERVER))
sessions()
idle()

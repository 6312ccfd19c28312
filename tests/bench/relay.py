#!/usr/bin/python3
"""Accept and drain beside Postfix, in one run on one machine (root): messages a second, CPU, memory.

  tests/bench/relay.py [--quick] [--connections 1,16,64,256] [--sizes 4096,51200] [--messages N]

The queue of both lives on a journaled ext4 image of its own. Figures are only worth something as ratios within a run:
beside each stand the generator's own ceiling (into smtp-sink) and, once, the disk's (tests/bench/disk).
"""
import argparse
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from peers import *
from meter import *

words = argparse.ArgumentParser()
words.add_argument("--quick", action="store_true", help="64 connections of 4 KiB only")
words.add_argument("--connections", default="1,16,64,256")
words.add_argument("--sizes", default="4096,51200")
words.add_argument("--messages", type=int, default=20000)
words.add_argument("--only", default="", help="greymx or postfix")
options = words.parse_args()
if options.quick:
    options.connections, options.sizes = "64", "4096"

tap = Tap("bench-relay")
warm_memory()
load, disk_load = compiled(tap, "load"), compiled(tap, "disk")
image, mount = os.path.join(tap.directory, "image"), os.path.join(tap.directory, "disk0")
os.makedirs(mount)
subprocess.run(["truncate", "-s", "8G", image], check=True)
subprocess.run(["mkfs.ext4", "-q", "-N", "400000", image], check=True)
subprocess.run(["mount", "-o", "loop", image, mount], check=True)
tap.cleanup(lambda: subprocess.run(["umount", "-l", mount]))
os.chmod(mount, 0o755)


def generate(port, mode, connections, messages, size):
    done = subprocess.run([load, str(port), mode, str(connections), str(messages), str(size)], capture_output=True, text=True)
    result = json.loads(done.stdout)
    if result["refused"] or result["lost"]:
        tap.note(f"refused {result['refused']}, lost {result['lost']}")
    return result


def ceiling(mode, connections, messages, size):
    sink = Counter(tap, free_port())
    rate = generate(sink.port, mode, connections, messages, size)["rate"]
    sink.close()
    return rate


def postfix(name, delay, primary_port, number):
    settings = {"relay_domains": "example.com", "transport_maps": f"inline:{{example.com=smtp:[127.0.0.1]:{primary_port}}}",
                "smtpd_recipient_restrictions": "permit_mynetworks, reject_unauth_destination", "smtpd_error_sleep_time": "0",
                "smtpd_client_connection_count_limit": "0", "smtpd_client_connection_rate_limit": "0",
                "smtpd_client_message_rate_limit": "0", "default_process_limit": "300", "message_size_limit": "52428800",
                "queue_directory": os.path.join(mount, f"{name}{number}"), "qmgr_message_active_limit": "20000"}
    if delay is not None:
        settings["in_flow_delay"] = delay
    os.makedirs(settings["queue_directory"])
    return Postfix(tap, f"{name}{number}", settings).start()


disk = subprocess.run([disk_load, mount, "4096"], capture_output=True, text=True)
print(disk.stdout.strip())
row("server", "mode", "connections", "size", "accepted/s", "generator's ceiling", "CPU s per 1,000", "peak MB", "drained/s",
    "drain CPU s per 1,000")
row(*["---"] * 10)
dns = Dns(tap, ["sender.test A 127.0.0.7", "sender.test TXT v=spf1 ip4:127.0.0.1 -all",
                "1.0.0.127.in-addr.arpa PTR localhost.", "localhost A 127.0.0.1"])
number = 0
for size in map(int, options.sizes.split(",")):
    for connections in map(int, options.connections.split(",")):
        for mode in ("single", "pipelined"):
            messages = max(500, min(options.messages, options.messages * 4096 // size, connections * 2000))
            top = ceiling(mode, connections, messages, size)
            for name, delay in (("postfix", None), ("postfix-noflow", "0"), ("greymx", None)):
                if options.only and not name.startswith(options.only):
                    continue
                number += 1
                port = free_port()
                if name == "greymx":
                    server = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{port}"]
[dns]
servers = ["{dns.endpoint}"]
[paths]
queue = "{mount}/greymx{number}"
state = "{tap.directory}/state{number}"
[delivery]
probe_interval = "1h"
""", name=f"greymx{number}", workers=0).start()
                else:
                    server = postfix(name, delay, port, number)
                target = server.smtp if name == "greymx" else server.port
                meter = Meter(server.pid())
                accepted = generate(target, mode, connections, messages, size)
                cpu, memory = meter.end()
                if name != "greymx":  # what was tried once and deferred would wait for its next attempt
                    server.run("postqueue", "-f")
                sink = Counter(tap, port)
                meter = Meter(server.pid())
                begin = time.monotonic()
                if name == "greymx":
                    server.tool("flush", check=True)
                else:
                    server.run("postqueue", "-f")
                wanted, flushed = accepted["messages"] - accepted["refused"], begin

                def drained():
                    # what Postfix had in its active queue when the sink came up is deferred once more
                    global flushed
                    if name != "greymx" and time.monotonic() > flushed + 5:
                        flushed = time.monotonic()
                        server.run("postqueue", "-f")
                    return sink.count() >= wanted

                reached = wait_for(drained, 300, 0.02)
                seconds = time.monotonic() - begin
                drain_cpu, _ = meter.end()
                row(name, mode, connections, size, f"{accepted['rate']:.0f}", f"{top:.0f}", f"{cpu * 1000 / accepted['messages']:.3f}",
                    f"{memory:.0f}", f"{sink.count() / seconds:.0f}" + ("" if reached else " (not all)"),
                    f"{drain_cpu * 1000 / max(1, sink.count()):.3f}")
                sink.close()
                server.stop()

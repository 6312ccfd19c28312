#!/usr/bin/python3
"""The Debian package builds, lintian finds nothing, and it installs, starts, relays and is removed in a fresh root."""
import os
import re
import shutil
import subprocess

import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from peers import *

tap = Tap("package")
if os.geteuid() != 0:
    tap.check(False, "a fresh root needs root")
    tap.done()
source = os.path.join(tap.directory, "greymx")
subprocess.run(["git", "clone", "-q", ROOT, source], check=True)
built = subprocess.run(["dpkg-buildpackage", "-us", "-uc", "-b"], cwd=source, capture_output=True, text=True)
tap.equal(built.returncode, 0, "dpkg-buildpackage")
packages = [name for name in os.listdir(tap.directory) if re.match(r"greymx_.*\.deb$", name)]
if not tap.check(len(packages) == 1, "one package", built.stdout[-3000:] + built.stderr[-3000:]):
    tap.done()
package = os.path.join(tap.directory, packages[0])
scripts = subprocess.run(["dpkg-deb", "--ctrl-tarfile", package], capture_output=True).stdout.decode(errors="replace")
tap.check("try-restart 'greymx.service'" in scripts and "stop greymx.service" in scripts,
          "an upgrade restarts a running service, removal stops it", scripts)
lint = subprocess.run(["lintian", "--fail-on", "error,warning", package], capture_output=True, text=True)
tap.equal(lint.returncode, 0, "lintian finds no error and no warning")
tap.note(lint.stdout.strip().replace("\n", "; "))

root = os.path.join(tap.directory, "root")
# where this machine has its own Debian from
mirrors = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Codename: bookworm"],
                         capture_output=True, text=True).stdout.split()
made = subprocess.run(["debootstrap", "--variant=minbase", "--include=adduser", "bookworm", root, *mirrors[:1]],
                      capture_output=True, text=True)
if not tap.check(made.returncode == 0, "a fresh root by debootstrap", made.stdout[-1500:] + made.stderr[-1500:]):
    tap.done()
for name in ("etc/apt/sources.list", "etc/apt/sources.list.d", "etc/apt/apt.conf.d", "etc/apt/auth.conf.d", "etc/resolv.conf", "etc/hosts"):
    host, inside = "/" + name, os.path.join(root, name)
    if os.path.isdir(host):
        shutil.copytree(host, inside, dirs_exist_ok=True)
    elif os.path.exists(host):
        shutil.copy(host, inside)
for kind in ("proc", "dev"):
    subprocess.run(["mount", "--bind", f"/{kind}", os.path.join(root, kind)], check=True)
    tap.cleanup(lambda kind=kind: subprocess.run(["umount", "-l", os.path.join(root, kind)]))
shutil.copy(package, os.path.join(root, "tmp/greymx.deb"))


def inside(*words):
    done = subprocess.run(["chroot", root, *words], capture_output=True, text=True,
                          env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", **{k: v for k, v in os.environ.items() if "proxy" in k.lower()}})
    return done


os.makedirs(os.path.join(root, "var/spool/greymx/lost+found"))  # a disk of its own, mounted before
os.makedirs(os.path.join(root, "var/log/greymx"))
os.chown(os.path.join(root, "var/log/greymx"), 1, 1)  # as an admin wants it
inside("apt-get", "update", "-qq")
installed = inside("apt-get", "install", "-y", "-qq", "--no-install-recommends", "/tmp/greymx.deb")
tap.equal(installed.returncode, 0, "apt-get install")
tap.check(inside("getent", "passwd", "greymx").returncode == 0, "the user exists", installed.stdout[-1500:] + installed.stderr[-1500:])
tap.equal([inside("stat", "-c", "%U", f"/var/{name}").stdout.strip() for name in ("spool/greymx", "spool/greymx/lost+found", "lib/greymx", "log/greymx")],
          ["greymx", "root", "greymx", "daemon"], "the folders are greymx's, but for an owner that an admin chose")
tap.check(os.path.exists(os.path.join(root, "etc/greymx/relay.conf")), "the configuration is there")
tap.equal(inside("mailq", "--help").returncode, 0, "mailq is an alternative")
dns = Dns(tap, ["sender.test A 127.0.0.7"])
primary = Sink(tap).start()
port = free_port()
with open(os.path.join(root, "etc/greymx/relay.conf"), "w") as file:
    file.write(f"""hostname = "mx2.example.net"
[domains."example.com"]
primary = ["127.0.0.1:{primary.port}"]
[listen]
smtp = ["127.0.0.1:{port}"]
http = []
[dns]
servers = ["{dns.endpoint}"]
[limits]
min_free_space = "16MiB"
""")
checked = inside("greymxd", "-t", "-c", "/etc/greymx/relay.conf")
tap.equal((checked.returncode, checked.stdout), (0, "/etc/greymx/relay.conf: ok\n"), "greymxd -t")
service = Service(tap, "daemon", ["chroot", root, "/usr/sbin/greymxd", "-c", "/etc/greymx/relay.conf"])
tap.check(wait_for(lambda: listening(port)), "it starts", service.log())
client = Smtp(port)
tap.check(client.mail("a@sender.test", ["b@example.com"], "Subject: x\n\nx\n")[-1].startswith("250"), "it takes mail", service.log())
tap.check(wait_for(lambda: primary.messages), "and relays it", service.log())
primary.stop()
client.mail("a@sender.test", ["b@example.com"], "Subject: stays\n\nx\n")
service.stop()
again = inside("apt-get", "install", "-y", "-qq", "--reinstall", "/tmp/greymx.deb")
tap.check(again.returncode == 0 and "1 Request" in inside("mailq").stdout, "an upgrade keeps the queue", inside("mailq").stdout)
removed = inside("apt-get", "purge", "-y", "-qq", "greymx")
tap.equal(removed.returncode, 0, "purge")
tap.check(any(name.endswith(".log") for name in os.listdir(os.path.join(root, "var/spool/greymx"))), "a queue with mail in it is left in place")
mailq = os.path.join(root, "usr/bin/mailq")
tap.check(not os.path.lexists(mailq), "the alternative is gone")
os.symlink("../sbin/sendmail", mailq)  # as Postfix has it
for words in (["install", "/tmp/greymx.deb"], ["purge", "greymx"]):
    tap.equal(inside("apt-get", "-y", "-qq", "--no-install-recommends", *words).returncode, 0, f"{words[0]} beside another MTA")
    tap.check(os.path.islink(mailq) and os.readlink(mailq) == "../sbin/sendmail", f"whose mailq {words[0]} leaves alone")
tap.done()

#!/usr/bin/python3
"""`meson install` puts everything where the unit, the tool and the manual look for it."""
import os
import re
import subprocess

from peers import *

tap = Tap("install")
root = os.path.join(tap.directory, "root")


def install():
    return subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", root], capture_output=True).returncode


tap.equal(install(), 0, "meson install")
edited = os.path.join(root, "etc/greymx/relay.conf")
with open(edited, "a") as file:
    file.write("# ours\n")
tap.equal(install(), 0, "meson install again")
with open(edited) as file:
    tap.check(file.read().endswith("# ours\n"), "what an admin edited stays")
with open(os.path.join(root, "usr/lib/systemd/system/greymx.service")) as unit:
    named = {path for line in unit if line.startswith("Exec") for path in re.findall(r"/(?:usr|etc)/[\w./]*greymx[\w./]*", line)}
with open(os.path.join(root, "usr/lib/systemd/system/greymx.service")) as unit:
    text = unit.read()
kinds = {"ReadWritePaths=": "", "StateDirectory=": "/var/lib/", "LogsDirectory=": "/var/log/"}
writable = {start + path for kind, start in kinds.items() for path in re.findall(rf"^{kind}(\S+)$", text, re.M)}
with open(os.path.join(ROOT, "debian/greymx.postinst")) as script:
    made = set(re.findall(r"/var/\w+/greymx", re.search(r"for directory in .*", script.read()).group()))
tap.check(made and made <= writable, "the unit lets the daemon write where the package makes it folders", made - writable)
wanted = named | {"/etc/greymx/whitelist_clients", "/etc/greymx/whitelist_recipients", "/usr/bin/greymx", "/usr/share/man/man1/greymx.1",
                  "/usr/share/man/man5/relay.conf.5", "/usr/share/man/man5/greymx-spool.5", "/usr/share/man/man8/greymxd.8",
                  "/usr/share/bash-completion/completions/greymx", "/usr/share/zsh/vendor-completions/_greymx",
                  "/usr/share/doc/greymx/examples/alerts.rules.yml"}
tap.check({"/usr/sbin/greymxd", "/etc/greymx/relay.conf"} <= named, "the unit starts the daemon with its file", named)
tap.equal([path for path in sorted(wanted) if not os.path.exists(root + path)], [], "every file is where it is looked for")
tap.equal(subprocess.run([root + "/usr/sbin/greymxd", "--version"], capture_output=True).returncode, 0, "what is installed runs")
tap.done()

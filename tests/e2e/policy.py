"""What the greylist's tests share: a policy client and the real postgrey as a peer."""
import os
import pwd
import shutil
import socket

from peers import *

TEXT = "Greylisted, please try again later"
POSTGREY = "/usr/sbin/postgrey"


class Policy:
    """One connection to a policy server. ask() gives the action; None if the server hung up."""

    def __init__(self, port, address="127.0.0.1"):
        self.socket = socket.create_connection((address, port), LIMIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def ask(self, client="192.0.2.1", sender="a@sender.test", recipient="b@example.com", name="unknown", time=None,
            instance="", **more):
        attributes = {"request": "smtpd_access_policy", "protocol_state": "RCPT", "protocol_name": "ESMTP",
                      "helo_name": "mail.sender.test", "queue_id": "", "sender": sender, "recipient": recipient,
                      "recipient_count": "0", "client_address": client, "client_name": name,
                      "reverse_client_name": name, "instance": instance, "etrn_domain": ""}
        if time is not None:
            attributes["policy_test_time"] = str(time)
        attributes.update(more)
        lines = [f"{key}={value}\n" for key, value in attributes.items() if value is not None]
        return self.raw("".join(lines) + "\n")

    def raw(self, text):
        try:
            self.socket.sendall(text.encode("utf-8", "surrogateescape"))
            line = self.file.readline().decode("utf-8", "surrogateescape")
            end = self.file.readline()
        except OSError:
            return None
        return line[len("action="):-1] if line.startswith("action=") and end == b"\n" else None

    def close(self):
        self.socket.close()


def rights_for(user, *paths):
    for path in paths:
        if os.geteuid() == 0:
            shutil.chown(path, user, pwd.getpwnam(user).pw_gid)


class Postgrey:
    """The real one, in the foreground, on a port and a database of its own."""

    def __init__(self, tap, name="postgrey", options=(), clients="", recipients=""):
        need(POSTGREY)
        self.tap, self.name, self.port = tap, name, free_port()
        self.directory = os.path.join(tap.directory, name)
        self.dbdir = os.path.join(self.directory, "db")
        os.makedirs(self.dbdir)
        self.user = "postgrey" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        rights_for(self.user, self.dbdir)
        files = {"clients": clients, "recipients": recipients}
        for file, content in files.items():
            with open(os.path.join(self.directory, file), "w") as out:
                out.write(content)
        group = "postgrey" if os.geteuid() == 0 else str(os.getegid())
        self.command = [POSTGREY, f"--inet=127.0.0.1:{self.port}", f"--dbdir={self.dbdir}", f"--user={self.user}",
                        f"--group={group}", f"--greylist-text={TEXT}", "--hostname=mx2.example.net",
                        f"--whitelist-clients={self.directory}/clients",
                        f"--whitelist-recipients={self.directory}/recipients", *options]
        self.service = None

    def start(self):
        self.service = Service(self.tap, self.name, self.command, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        if not wait_for(lambda: not self.service.running() or listening(self.port)) or not self.service.running():
            raise RuntimeError("postgrey does not listen: " + self.service.log()[-2000:])
        return self

    def stop(self):
        self.service.stop()

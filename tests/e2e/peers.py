"""What the end-to-end tests share: TAP output, our daemon, and real peers in private instances on loopback.

Everything lives in one temporary directory a test, which is kept (and named) if a check failed. Nothing touches the
system's own services or /etc. Waits are for conditions, with generous limits; nothing sleeps for a fixed time.
"""
import atexit
import grp
import itertools
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("GREYMX_BUILD", os.path.join(ROOT, "build"))
LIMIT = 60.0  # seconds that a condition may take on a slow machine


class Tap:
    """Test Anything Protocol on stdout; exit code 1 if any check failed."""

    def __init__(self, name):
        self.name, self.count, self.failed, self.finished = name, 0, 0, False
        self.directory = tempfile.mkdtemp(prefix=f"greymx-{name}-")
        os.chmod(self.directory, 0o755)
        self._cleanups = []
        atexit.register(self._finish)

    def cleanup(self, function):
        self._cleanups.append(function)

    def check(self, ok, what, detail=""):
        self.count += 1
        if not ok:
            self.failed += 1
        print(f"{'ok' if ok else 'not ok'} {self.count} - {what}", flush=True)
        if not ok and detail != "":
            for line in str(detail).splitlines()[-40:]:
                print(f"# {line}", flush=True)
        return ok

    def equal(self, got, wanted, what):
        return self.check(got == wanted, what, f"got {got!r}, wanted {wanted!r}")

    def note(self, text):
        print(f"# {text}", flush=True)

    def _finish(self):
        for function in reversed(self._cleanups):
            try:
                function()
            except Exception as error:  # a clean-up must not hide the result
                print(f"# clean-up: {error}", flush=True)
        if self.failed or not self.finished:
            print(f"# kept: {self.directory}", flush=True)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def done(self):
        self.finished = True
        print(f"1..{self.count}", flush=True)
        sys.exit(1 if self.failed or not self.count else 0)


def wait_for(condition, limit=LIMIT, every=0.05):
    """The first true value of condition(), or its last one when the limit has passed."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(every)


# Below the range from which the kernel picks ports by itself, so that nobody else gets one between here and its use; scripts
# that run side by side begin at different places.
_ports = itertools.islice(itertools.cycle(range(10000, 32000)), os.getpid() * 97 % 22000, None)


def free_port(address="127.0.0.1"):
    while True:
        port = next(_ports)
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((address, port))
                udp.bind((address, port))
                return port
            except OSError:
                continue


def listening(port, address="127.0.0.1"):
    try:
        with socket.create_connection((address, port), 1):
            return True
    except OSError:
        return False


def need(path):
    """A peer program, or a loud end: scripts/test installs them all."""
    found = path if os.path.isabs(path) and os.path.exists(path) else shutil.which(path, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postfix/sbin")
    if not found:
        print(f"Bail out! {path} is not installed; scripts/test installs it")
        sys.exit(1)
    return found


class Service:
    """A child process in its own group, its output in a file, ended with the test."""

    def __init__(self, tap, name, command, env=None, cwd=None):
        self.name, self.command = name, command
        self.output = os.path.join(tap.directory, f"{name}.out")
        with open(self.output, "ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                            start_new_session=True, cwd=cwd, env={**os.environ, **(env or {})})
        tap.cleanup(self.kill)

    def running(self):
        return self.process.poll() is None

    def stop(self, limit=LIMIT):
        if self.running():
            self.process.terminate()
            try:
                self.process.wait(limit)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def log(self):
        with open(self.output, errors="replace") as file:
            return file.read()


class Greymx:
    """build/greymxd with a relay.conf of the test's. `config` is TOML text; {port}-like keys are the test's business."""

    def __init__(self, tap, config, name="greymxd", smtp=None, http=None, policy=(), env=None, address="127.0.0.1",
                 listen=True, workers=2):
        self.tap, self.name, self.env = tap, name, env or {}
        self.address = address
        self.workers = workers  # two network threads even on a small machine: what they share is tested, too
        self.directory = os.path.join(tap.directory, name)
        os.makedirs(self.directory, exist_ok=True)
        self.smtp = smtp or free_port()
        self.http = http or free_port()
        self.policy = list(policy)
        self.file = os.path.join(self.directory, "relay.conf")
        self.service = None
        self.wrapper = []  # what greymxd is started by
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(self.directory, user.pw_uid, grp.getgrnam("nogroup").gr_gid)
        self.write(config, listen)

    def write(self, config, listen=True):
        head = ""
        if "hostname" not in config.split("[")[0]:
            head += 'hostname = "mx2.example.net"\n'
        if "workers" not in config.split("[")[0]:
            head += f"workers = {self.workers}\n"
        if os.geteuid() == 0 and "user =" not in config.split("[")[0]:
            head += 'user = "nobody"\ngroup = "nogroup"\n'
        tail = ""
        if listen and "[listen]" not in config:
            policies = ", ".join(json.dumps(p) for p in self.policy)
            tail += (f'\n[listen]\nsmtp = ["{self.address}:{self.smtp}"]\nhttp = ["127.0.0.1:{self.http}"]\n'
                     f'policy = [{policies}]\ncontrol = "{self.directory}/control"\n')
        if "[paths]" not in config:
            tail += f'\n[paths]\nqueue = "{self.directory}/queue"\nstate = "{self.directory}/state"\n'
        # a smaller disk than a server's must do for a test
        if "min_free_space" not in config and "[limits]" not in config:
            tail += '\n[limits]\nmin_free_space = "16MiB"\nconnections_per_client = 1000\nrate_per_client = "100000/1m"\n'
        with open(self.file, "w") as file:
            file.write(head + config + tail)

    def start(self, wait=True):
        self.service = Service(self.tap, self.name, [*self.wrapper, os.path.join(BUILD, "greymxd"), "-c", self.file], self.env)
        if wait and not wait_for(lambda: not self.service.running() or self.ready()):
            raise RuntimeError("greymxd does not get ready: " + self.log()[-2000:])
        if wait and not self.service.running():
            raise RuntimeError("greymxd ended: " + self.log()[-2000:])
        return self

    def ready(self):
        """The admin socket is the last thing that opens."""
        try:
            with socket.socket(socket.AF_UNIX) as control:
                control.connect(os.path.join(self.directory, "control"))
            return listening(self.smtp, self.address)
        except OSError:
            return False

    def stop(self):
        return self.service.stop()

    def pid(self):
        return self.service.process.pid

    def kill9(self):
        os.kill(self.pid(), signal.SIGKILL)
        self.service.process.wait()

    def signal(self, number):
        os.kill(self.pid(), number)

    def log(self):
        time.sleep(0.02)  # a line may be some milliseconds late: they are written in batches
        return self.service.log()

    def wait_log(self, pattern, limit=LIMIT):
        return wait_for(lambda: re.search(pattern, self.log()), limit)

    def tool(self, *words, check=False, input=None):
        done = subprocess.run([os.path.join(BUILD, "greymx"), "-c", self.file, *words], capture_output=True, text=True,
                              timeout=120, input=input)
        if check and done.returncode != 0:
            raise RuntimeError(f"greymx {' '.join(words)}: {done.returncode} {done.stderr}")
        return done

    def queue(self):
        return [json.loads(line) for line in self.tool("mailq", "--json", check=True).stdout.splitlines()]


class Smtp:
    """A client that says exactly what it is told and hands back whole replies."""

    def __init__(self, port, address="127.0.0.1", source=None, timeout=LIMIT, greet=True):
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((address, port))
        self.file = self.socket.makefile("rb")
        self.greeting = self.reply() if greet else None

    def reply(self):
        lines = []
        while True:
            line = self.file.readline().decode("utf-8", "replace")
            if not line:
                return "\n".join(lines)
            lines.append(line.rstrip("\r\n"))
            if len(line) < 4 or line[3] != "-":
                return "\n".join(lines)

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def command(self, line):
        self.send(line + "\r\n")
        return self.reply()

    def mail(self, sender, recipients, content, helo="client.example.org"):
        """Whole transaction; the list of replies, ending early at the first refusal of MAIL or DATA."""
        replies = [self.command(f"EHLO {helo}"), self.command(f"MAIL FROM:<{sender}>")]
        replies += [self.command(f"RCPT TO:<{r}>") for r in recipients]
        replies.append(self.command("DATA"))
        if replies[-1].startswith("354"):
            body = content if isinstance(content, bytes) else content.replace("\n", "\r\n").encode()
            self.send(re.sub(rb"(?m)^\.", b"..", body) + (b"" if body.endswith(b"\r\n") else b"\r\n") + b".\r\n")
            replies.append(self.reply())
        return replies

    def close(self):
        self.socket.close()


class Dns:
    """A scripted name server on UDP and TCP. Zone lines: "name TYPE value"; values SERVFAIL, TIMEOUT, NXDOMAIN,
    TRUNCATED (ask again over TCP: the other lines of the name answer). Unknown names are NXDOMAIN."""

    def __init__(self, tap, lines=(), address="127.0.0.1", port=None):
        import dns.message, dns.name, dns.rrset, dns.rcode, dns.flags, dns.rdatatype  # python3-dnspython
        self.dns = dns
        self.records, self.asked = {}, []
        self.add(*lines)
        self.port = port or free_port(address)
        self.address = address
        self.endpoint = f"{address}:{self.port}"
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((address, self.port))
        self.tcp = socket.create_server((address, self.port))
        for target in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=target, daemon=True).start()

    def add(self, *lines):
        for line in lines:
            name, kind, value = line.split(None, 2)
            self.records.setdefault(name.lower().rstrip("."), []).append((kind.upper(), value))

    def remove(self, name):
        self.records.pop(name.lower().rstrip("."), None)

    def _answer(self, wire, tcp):
        dns = self.dns
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text().rstrip(".").lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        target, seen = name, 0
        while seen < 20:
            seen += 1
            entries = self.records.get(target)
            if entries is None:
                if target == name and not any(other.endswith("." + name) for other in self.records):
                    reply.set_rcode(dns.rcode.NXDOMAIN)
                break
            mine = [value for k, value in entries if k in (kind, "ANY")]
            if "TIMEOUT" in mine:
                return None
            if "SERVFAIL" in mine:
                reply.set_rcode(dns.rcode.SERVFAIL)
                break
            if "NXDOMAIN" in mine:
                reply.set_rcode(dns.rcode.NXDOMAIN)
                break
            if "TRUNCATED" in mine and not tcp:
                reply.flags |= dns.flags.TC
                break
            mine = [value for value in mine if value != "TRUNCATED"]
            if mine:
                reply.answer.append(dns.rrset.from_text_list(target + ".", 60, "IN", kind, mine, origin=dns.name.root,
                                                             relativize=False))
                break
            alias = [value for k, value in entries if k == "CNAME"]
            if not alias:
                break
            reply.answer.append(dns.rrset.from_text(target + ".", 60, "IN", "CNAME", alias[0].rstrip(".") + "."))
            target = alias[0].rstrip(".").lower()
        return reply.to_wire()

    def _serve_udp(self):
        while True:
            try:
                wire, peer = self.udp.recvfrom(4096)
                answer = self._answer(wire, False)
                if answer:
                    self.udp.sendto(answer, peer)
            except OSError:
                return
            except Exception as error:
                print(f"# dns: {error!r}", flush=True)

    def _serve_tcp(self):
        while True:
            connection, _ = self.tcp.accept()
            threading.Thread(target=self._tcp_session, args=(connection,), daemon=True).start()

    def _tcp_session(self, connection):
        with connection, connection.makefile("rb") as file:
            while True:
                head = file.read(2)
                if len(head) < 2:
                    return
                answer = self._answer(file.read(int.from_bytes(head, "big")), True)
                if answer:
                    connection.sendall(len(answer).to_bytes(2, "big") + answer)


class Sink:
    """A primary in this process that takes everything and keeps it byte for byte; `script` may answer differently:
    script(verb, line, session) -> reply text or None for the usual one."""

    def __init__(self, tap, port=None, address="127.0.0.1", script=None, extensions=("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE 104857600")):
        self.port, self.address = port or free_port(address), address
        self.script, self.extensions = script, extensions
        self.messages, self.lock, self.connections = [], threading.Lock(), 0
        self.server, self.open = None, set()
        tap.cleanup(self.stop)

    def start(self):
        self.server = socket.create_server((self.address, self.port), backlog=128)
        threading.Thread(target=self._accept, args=(self.server,), daemon=True).start()
        return self

    def stop(self):
        if self.server:
            server, self.server = self.server, None
            try:
                server.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            server.close()
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self, server):
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._session, args=(connection,), daemon=True).start()

    def _session(self, connection):
        self.open.add(connection)
        try:
            with connection, connection.makefile("rb") as file:
                self._talk(connection, file)
        except OSError:
            pass
        finally:
            self.open.discard(connection)

    def _talk(self, connection, file):
        def say(text):
            connection.sendall(text.encode() + b"\r\n")

        def scripted(verb, line):
            answer = self.script(verb, line, session) if self.script else None
            if answer is None:
                return False
            if answer == "":
                raise OSError("script closes")
            say(answer)
            return True

        session = {"sender": None, "recipients": [], "lines": []}
        if not scripted("CONNECT", ""):
            say("220 sink.example.com ESMTP")
        while True:
            raw = file.readline()
            if not raw:
                return
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            verb = line.split(" ")[0].upper()
            session["lines"].append(line)
            if scripted(verb, line):
                continue
            if verb == "EHLO":
                lines = ["sink.example.com", *self.extensions]
                say("\r\n".join(f"250{'-' if i < len(lines) - 1 else ' '}{text}" for i, text in enumerate(lines)))
            elif verb == "MAIL":
                session["sender"], session["mail"] = re.search(r"<(.*?)>", line).group(1), line
                session["recipients"], session["rcpt"] = [], []
                say("250 2.1.0 Ok")
            elif verb == "RCPT":
                session["recipients"].append(re.search(r"<(.*?)>", line).group(1))
                session["rcpt"].append(line)
                say("250 2.1.5 Ok")
            elif verb == "DATA":
                if not session["recipients"]:
                    say("554 5.5.1 no valid recipients")
                    continue
                say("354 go on")
                content = bytearray()
                while True:
                    row = file.readline()
                    if not row:
                        return
                    if row == b".\r\n":
                        break
                    content += row[1:] if row.startswith(b".") else row
                if scripted("DOT", ""):
                    continue
                with self.lock:
                    self.messages.append({**{k: session[k] for k in ("sender", "mail")}, "rcpt": list(session["rcpt"]),
                                          "recipients": list(session["recipients"]), "content": bytes(content)})
                say("250 2.0.0 Ok: kept")
            elif verb == "QUIT":
                say("221 2.0.0 Bye")
                return
            else:
                say("250 2.0.0 Ok")


class Postfix:
    """A Postfix instance of our own: own configuration, queue, data and log; needs root as Postfix does. `nameserver`
    (on port 53 of a loopback address) is the only one it knows: it runs in a mount namespace with a resolv.conf of its
    own, since the C library reads no other file."""

    def __init__(self, tap, name, settings, port=None, services=(), nameserver=None):
        need("/usr/sbin/postfix")
        self.nameserver = nameserver
        self.tap, self.name = tap, name
        self.port = port or free_port()
        self.directory = os.path.join(tap.directory, name)
        self.config = os.path.join(self.directory, "etc")
        queue, data = os.path.join(self.directory, "spool"), os.path.join(self.directory, "data")
        os.makedirs(self.config)
        os.makedirs(queue)
        os.makedirs(data)
        shutil.chown(data, "postfix")
        self.queue = settings.get("queue_directory", queue)
        self.maillog = os.path.join(self.directory, "maillog")
        defaults = {
            "compatibility_level": "3.6", "queue_directory": queue, "data_directory": data,
            "command_directory": "/usr/sbin", "daemon_directory": "/usr/lib/postfix/sbin",
            "mail_owner": "postfix", "setgid_group": "postdrop", "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4", "mynetworks": "127.0.0.1/32", "myhostname": f"{name}.example.com",
            "mydestination": "", "alias_maps": "", "local_recipient_maps": "", "smtp_host_lookup": "native",
            "maillog_file": self.maillog, "maillog_file_prefixes": tap.directory, "biff": "no",
            "master_service_disable": "", "shlib_directory": "/usr/lib/postfix", "meta_directory": "/etc/postfix",
            "import_environment": "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C", "smtputf8_enable": "yes",
            "syslog_name": "postfix",
        }
        with open(os.path.join(self.config, "main.cf"), "w") as file:
            for key, value in {**defaults, **settings}.items():
                file.write(f"{key} = {value}\n")
        with open(os.path.join(self.config, "master.cf"), "w") as file:
            rows = [f"127.0.0.1:{self.port} inet n - n - - smtpd", "pickup unix n - n 1 1 pickup",
                    "cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr", "tlsmgr unix - - n 1000? 1 tlsmgr",
                    "rewrite unix - - n - - trivial-rewrite", "bounce unix - - n - 0 bounce",
                    "defer unix - - n - 0 bounce", "trace unix - - n - 0 bounce", "verify unix - - n - 1 verify",
                    "flush unix n - n 1000? 0 flush", "proxymap unix - - n - - proxymap",
                    "proxywrite unix - - n - 1 proxymap", "smtp unix - - n - - smtp", "relay unix - - n - - smtp",
                    "showq unix n - n - - showq", "error unix - - n - - error", "retry unix - - n - - error",
                    "discard unix - - n - - discard", "local unix - n n - - local", "virtual unix - n n - - virtual",
                    "lmtp unix - - n - - lmtp", "anvil unix - - n - 1 anvil", "scache unix - - n - 1 scache",
                    "postlog unix-dgram n - n - 1 postlogd", *services]
            file.write("\n".join(rows) + "\n")
        tap.cleanup(self.stop)
        self.started = False

    def start(self):
        command = ["/usr/sbin/postfix", "-c", self.config, "start"]
        if self.nameserver:
            resolv = os.path.join(self.directory, "resolv.conf")
            with open(resolv, "w") as file:
                file.write(f"nameserver {self.nameserver}\noptions timeout:1 attempts:1\n")
            command = [need("unshare"), "-m", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', resolv, *command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        self.started = True
        if not wait_for(lambda: listening(self.port)):
            raise RuntimeError(f"postfix does not listen: {done.stdout}{done.stderr}\n{self.log()[-2000:]}")
        return self

    def stop(self):
        if self.started:
            self.started = False
            subprocess.run(["/usr/sbin/postfix", "-c", self.config, "stop"], capture_output=True, timeout=LIMIT)

    def pid(self):
        with open(os.path.join(self.queue, "pid/master.pid")) as file:
            return int(file.read())

    def run(self, program, *words, input=None):
        switch = "-C" if program == "sendmail" else "-c"
        return subprocess.run([need(program), switch, self.config, *words], capture_output=True, text=True,
                              timeout=LIMIT, input=input)

    def log(self):
        if not os.path.exists(self.maillog):
            return ""
        with open(self.maillog, errors="replace") as file:
            return file.read()

    def wait_log(self, pattern, limit=LIMIT):
        return wait_for(lambda: re.search(pattern, self.log()), limit)

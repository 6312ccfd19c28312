#!/usr/bin/python3
"""haproxy in front, with PROXY protocol v1 and v2: the client we see, log and judge is the true one, in the clear and after
STARTTLS; who comes without a header, or from elsewhere, gets nothing."""
import smtplib
import socket
import ssl
import subprocess

from peers import *

tap = Tap("haproxy")
dns = Dns(tap, ["sender.test A 127.0.0.7", "5.0.0.127.in-addr.arpa PTR client.sender.test", "client.sender.test A 127.0.0.5"])
primary = Sink(tap).start()
proxied, v1, v2 = free_port(), free_port(), free_port()
key, certificate = os.path.join(tap.directory, "key.pem"), os.path.join(tap.directory, "cert.pem")
subprocess.run([need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                "-subj", "/CN=mx2.example.net", "-addext", "subjectAltName=DNS:mx2.example.net", "-keyout", key, "-out", certificate],
               check=True, capture_output=True)
os.chmod(key, 0o644)
mx = Greymx(tap, f"""
[domains."example.com"]
primary = ["127.0.0.1:{primary.port}"]
[listen]
smtp = [{{ address = "127.0.0.1:{proxied}", proxy_protocol = true }}]
http = []
control = "{tap.directory}/greymxd/control"
[access]
proxy_networks = ["127.0.0.1/32"]
[tls]
certificate = "{certificate}"
key = "{key}"
[dns]
servers = ["{dns.endpoint}"]
[greylist]
mode = "off"
[limits]
min_free_space = "16MiB"
""", smtp=proxied).start()
settings = os.path.join(tap.directory, "haproxy.cfg")
with open(settings, "w") as file:
    file.write("defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n")
    for port, option in ((v1, "send-proxy"), (v2, "send-proxy-v2")):
        file.write(f"listen in{port}\n  bind 127.0.0.1:{port}\n  server mx 127.0.0.1:{proxied} {option}\n")
Service(tap, "balancer", [need("haproxy"), "-db", "-f", settings])
tap.check(wait_for(lambda: listening(v1) and listening(v2)), "haproxy runs")

for version, port in (("v1", v1), ("v2", v2)):
    client = smtplib.SMTP("127.0.0.1", port, "client.sender.test", source_address=("127.0.0.5", 0))
    client.sendmail("a@sender.test", ["b@example.com"], f"Subject: {version} clear\n\nx\n")
    client.starttls(context=ssl._create_unverified_context())
    client.sendmail("a@sender.test", ["b@example.com"], f"Subject: {version} tls\n\nx\n")
    client.quit()
    tap.check(wait_for(lambda: len(primary.messages) == 2), f"{version}: mail comes through, in the clear and in TLS", mx.log()[-1500:])
    traces = [message["content"] for message in primary.messages]
    tap.check(all(b"client.sender.test [127.0.0.5]" in trace for trace in traces), f"{version}: Received names the true client", traces)
    tap.check(any(b"with ESMTPS" in trace for trace in traces), f"{version}: and the TLS of the second", traces)
    primary.messages.clear()
tap.equal(mx.log().count("]: connect from client.sender.test[127.0.0.5]"), 2, "so does the log")

for name, source, header in (("without a header", "127.0.0.1", b"EHLO client.sender.test\r\n"),
                             ("from elsewhere", "127.0.0.9", b"PROXY TCP4 127.0.0.5 127.0.0.1 1 25\r\n")):
    with socket.create_connection(("127.0.0.1", proxied), LIMIT, source_address=(source, 0)) as stranger:
        try:
            stranger.sendall(header)
            answer = stranger.recv(1000)
        except ConnectionError:
            answer = b""
    tap.equal(answer, b"", f"who comes {name} is hung up on")
tap.check("refused: not in access.proxy_networks" in mx.log() and "no valid PROXY protocol header" in mx.log(), "and logged")
tap.equal(mx.stop(), 0, "stops")
tap.done()

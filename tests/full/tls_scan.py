#!/usr/bin/python3
"""testssl.sh over STARTTLS, with an ECDSA and an RSA certificate: nothing above LOW, but for what a laboratory's own
certificate cannot have (a chain of trust, a revocation address). openssl s_client gets what we offer, and nothing older."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from peers import *

tap = Tap("tls_scan")
NAME = "mx2.example.net"


def openssl(*words):
    subprocess.run([need("openssl"), *words], check=True, capture_output=True)


def path(name):
    return os.path.join(tap.directory, name)


openssl("req", "-x509", "-newkey", "rsa:3072", "-nodes", "-days", "85", "-subj", "/CN=Laboratory CA", "-keyout", path("ca.key"), "-out", path("ca.pem"))
for kind, algorithm in (("ec", ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]), ("rsa", ["rsa:3072"])):
    openssl("req", "-newkey", *algorithm, "-nodes", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}",
            "-keyout", path(f"{kind}.key"), "-out", path(f"{kind}.csr"))
    openssl("x509", "-req", "-in", path(f"{kind}.csr"), "-CA", path("ca.pem"), "-CAkey", path("ca.key"), "-CAcreateserial", "-days", "85",
            "-copy_extensions", "copy", "-out", path(f"{kind}.pem"))
for end in ("pem", "key"):
    with open(path(f"both.{end}"), "w") as both:
        both.writelines(open(path(f"{kind}.{end}")).read() for kind in ("ec", "rsa"))
    os.chmod(path(f"both.{end}"), 0o644)
mx = Greymx(tap, f"""
hostname = "{NAME}"
[domains."example.com"]
primary = ["127.0.0.1:{free_port()}"]
[tls]
certificate = "{path("both.pem")}"
key = "{path("both.key")}"
[access]
trusted_networks = ["127.0.0.1/32"]
[limits]
min_free_space = "16MiB"
connections_per_client = 1000
rate_per_client = "100000/1m"
""").start()

report = path("report.json")
done = subprocess.run([need("testssl"), "--starttls", "smtp", "--quiet", "--color", "0", "--warnings", "off", "--ip", "one",
                       "--add-ca", path("ca.pem"), "--jsonfile", report, f"127.0.0.1:{mx.smtp}"],
                      stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1800)
with open(report) as file:
    findings = json.load(file)
tap.check(len(findings) > 80, "testssl.sh looked at everything", done.stdout[-3000:])
tap.note(f"{len(findings)} findings")
# Of a certificate by a laboratory's own authority, asked for by address.
LABORATORY = ("cert_trust", "cert_chain_of_trust", "cert_revocation", "cert_crlDistributionPoints", "cert_ocspURL", "DNS_CAArecord",
              "cert_expirationStatus", "cert_validityPeriod", "overall_grade", "grade_cap",
              "engine_problem")  # the last is about the scanner itself
bad = [finding for finding in findings
       if finding["severity"] not in ("OK", "INFO", "LOW", "DEBUG") and not finding["id"].startswith(LABORATORY)]
tap.equal(bad, [], "nothing above LOW")


def s_client(*words):
    done = subprocess.run([need("openssl"), "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{mx.smtp}", "-servername", NAME,
                           "-CAfile", path("ca.pem"), "-verify_hostname", NAME, "-verify_return_error", *words],
                          input="QUIT\r\n", capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


for version, words in (("TLSv1.3", ["-tls1_3"]), ("TLSv1.2", ["-tls1_2"])):
    tap.check(f"Protocol version: {version}" in s_client("-brief", *words), f"openssl s_client: {version}", s_client("-brief", *words))
for signature, kind in (("rsa_pss_rsae_sha256", "RSA"), ("ecdsa_secp256r1_sha256", "ECDSA")):
    shown = s_client("-sigalgs", signature)
    tap.check("Verify return code: 0 (ok)" in shown and f"Peer signature type: {'RSA-PSS' if kind == 'RSA' else kind}" in shown,
              f"the {kind} certificate for who wants one", shown)
for old in ("-tls1_1", "-tls1"):
    tap.check("Protocol version" not in s_client("-brief", "-cipher", "ALL:@SECLEVEL=0", old), f"{old[1:]} is refused")
tap.equal(mx.stop(), 0, "stops")
tap.done()

#include "smtp/tls_server.hpp"

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <fstream>

#include "support/catch.hpp"
#include "support/certificate.hpp"
#include "support/fake_clock.hpp"
#include "support/recording_alerts.hpp"
#include "support/recording_log.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;
using namespace greymx::smtp;
using test::Certificate;
using test::KeyType;
using test::make_certificate;

namespace {

struct Rig {
  Rig() {
    settings.certificate = directory / "cert.pem";
    settings.key = directory / "key.pem";
    clock.set(std::chrono::floor<std::chrono::microseconds>(std::chrono::system_clock::now()));
  }
  void write(const std::string& certificate, const std::string& key) {
    std::ofstream(settings.certificate, std::ios::trunc) << certificate;
    std::ofstream(settings.key, std::ios::trunc) << key;
  }
  void write(const Certificate& pem) { write(pem.certificate, pem.key); }

  test::TempDir directory;
  config::Tls settings;
  test::FakeClock clock;
  test::RecordingLog log;
  Metrics metrics;
  test::RecordingAlerts alerts;
  TlsServer tls{clock, log, metrics, alerts};
};

// What a client sees: "TLSv1.3 EC mx2.example.net", or "failed".
struct Client {
  std::string sni;
  std::string signatures;  // allowed signature algorithms
  std::string ciphers;     // of TLS 1.2
  int version = 0;         // exactly this one
};

std::string shake_hands(const TlsServer& tls, const Client& wanted = {}) {
  const std::shared_ptr<SSL_CTX> server_context = tls.context();
  const std::shared_ptr<SSL_CTX> client_context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  SSL_CTX_set_security_level(client_context.get(), 0);
  if (wanted.version != 0) {
    SSL_CTX_set_min_proto_version(client_context.get(), wanted.version);
    SSL_CTX_set_max_proto_version(client_context.get(), wanted.version);
  }
  if (!wanted.signatures.empty()) {
    REQUIRE(SSL_CTX_set1_sigalgs_list(client_context.get(), wanted.signatures.c_str()) == 1);
  }
  if (!wanted.ciphers.empty()) REQUIRE(SSL_CTX_set_cipher_list(client_context.get(), wanted.ciphers.c_str()) == 1);
  const std::shared_ptr<SSL> server(SSL_new(server_context.get()), SSL_free);
  const std::shared_ptr<SSL> client(SSL_new(client_context.get()), SSL_free);
  if (!wanted.sni.empty()) SSL_set_tlsext_host_name(client.get(), wanted.sni.c_str());
  BIO* one = nullptr;
  BIO* other = nullptr;
  BIO_new_bio_pair(&one, 0, &other, 0);
  SSL_set_bio(server.get(), one, one);
  SSL_set_bio(client.get(), other, other);
  int client_done = 0;
  int server_done = 0;
  for (int i = 0; i < 20 && (client_done != 1 || server_done != 1); ++i) {
    client_done = SSL_connect(client.get());
    server_done = SSL_accept(server.get());
  }
  if (client_done != 1 || server_done != 1) return "failed";
  const std::shared_ptr<X509> shown(SSL_get1_peer_certificate(client.get()), X509_free);
  char name[100] = {};
  X509_NAME_get_text_by_NID(X509_get_subject_name(shown.get()), NID_commonName, name, sizeof name);
  const bool rsa = EVP_PKEY_get_base_id(X509_get0_pubkey(shown.get())) == EVP_PKEY_RSA;
  return std::string(SSL_get_version(client.get())) + (rsa ? " RSA " : " EC ") + name;
}

}  // namespace

TEST_CASE("without a certificate there is no TLS, and the log says so") {
  Rig rig;
  rig.settings.certificate.clear();
  CHECK(rig.tls.load(rig.settings));
  CHECK_FALSE(rig.tls.context());
  CHECK_FALSE(rig.tls.expiry());
  CHECK(rig.tls.load(rig.settings));
  CHECK(rig.log.count("tls: STARTTLS is not offered: tls.certificate is not set") == 1);
  CHECK(rig.alerts.raised().empty());
  CHECK(TlsServer::check(rig.settings));
}

TEST_CASE("TLS 1.2 and 1.3 with forward secrecy, nothing older or weaker") {
  Rig rig;
  rig.write(make_certificate("mx2.example.net"));
  REQUIRE(rig.tls.load(rig.settings));
  CHECK(shake_hands(rig.tls) == "TLSv1.3 EC mx2.example.net");
  CHECK(shake_hands(rig.tls, {"", "", "", TLS1_2_VERSION}) == "TLSv1.2 EC mx2.example.net");
  CHECK(shake_hands(rig.tls, {"", "", "", TLS1_1_VERSION}) == "failed");
  CHECK(shake_hands(rig.tls, {"", "", "ECDHE-ECDSA-AES128-SHA256", TLS1_2_VERSION}) == "failed");
  CHECK(shake_hands(rig.tls, {"", "", "ECDHE-ECDSA-CHACHA20-POLY1305", TLS1_2_VERSION}) ==
        "TLSv1.2 EC mx2.example.net");
}

TEST_CASE("ECDSA and RSA side by side: the client gets what it can verify") {
  Rig rig;
  const Certificate ec = make_certificate("mx2.example.net");
  const Certificate rsa = make_certificate("mx2.example.net", KeyType::rsa);
  rig.write(ec.certificate + rsa.certificate, rsa.key + ec.key);
  REQUIRE(rig.tls.load(rig.settings));
  CHECK(shake_hands(rig.tls) == "TLSv1.3 EC mx2.example.net");
  CHECK(shake_hands(rig.tls, {"", "RSA-PSS+SHA256", "", 0}) == "TLSv1.3 RSA mx2.example.net");
  CHECK(shake_hands(rig.tls, {"", "ECDSA+SHA256", "", TLS1_2_VERSION}) == "TLSv1.2 EC mx2.example.net");
}

TEST_CASE("SNI chooses among certificates for other names, the first is for all the rest") {
  Rig rig;
  const Certificate first = make_certificate("mx2.example.net");
  const Certificate second = make_certificate("mx.example.org");
  rig.write(first.certificate + second.certificate, first.key + second.key);
  REQUIRE(rig.tls.load(rig.settings));
  CHECK(shake_hands(rig.tls, {"mx.example.org", "", "", 0}) == "TLSv1.3 EC mx.example.org");
  CHECK(shake_hands(rig.tls, {"mx2.example.net", "", "", 0}) == "TLSv1.3 EC mx2.example.net");
  CHECK(shake_hands(rig.tls, {"unknown.example", "", "", 0}) == "TLSv1.3 EC mx2.example.net");
  CHECK(shake_hands(rig.tls) == "TLSv1.3 EC mx2.example.net");
}

TEST_CASE("files that do not do are errors that name the file") {
  Rig rig;
  const Certificate pem = make_certificate("mx2.example.net");
  const auto problem = [&] {
    const auto checked = TlsServer::check(rig.settings);
    const Result<> loaded = rig.tls.load(rig.settings);
    REQUIRE_FALSE(checked);
    REQUIRE_FALSE(loaded);
    CHECK(checked.error().text == loaded.error().text);
    return checked.error().text;
  };
  CHECK(problem().find("cert.pem") != std::string::npos);
  rig.write("", "");
  CHECK(problem() == rig.settings.certificate + ": no certificate in PEM form in it");
  rig.write(pem.certificate, "");
  CHECK(problem() == rig.settings.key + ": no unencrypted private key in PEM form in it");
  rig.write(pem.certificate, make_certificate("x.example").key);
  CHECK(problem() == rig.settings.key + ": no key for the certificate in " + rig.settings.certificate);
  CHECK(rig.alerts.raised().size() == 4);
  CHECK(rig.alerts.contains("STARTTLS is not offered."));
  CHECK_FALSE(rig.tls.context());
}

TEST_CASE("changed files are read again once they are still; a bad pair keeps the old one and raises an alert") {
  Rig rig;
  rig.write(make_certificate("old.example"));
  REQUIRE(rig.tls.load(rig.settings));
  rig.tls.refresh();
  CHECK(shake_hands(rig.tls) == "TLSv1.3 EC old.example");
  rig.write(make_certificate("renewed.example"));
  rig.tls.refresh();
  CHECK(shake_hands(rig.tls) == "TLSv1.3 EC old.example");
  rig.tls.refresh();
  CHECK(shake_hands(rig.tls) == "TLSv1.3 EC renewed.example");
  CHECK(rig.log.contains("certificate read again"));
  rig.write(make_certificate("a.example").certificate, make_certificate("b.example").key);
  rig.tls.refresh();
  rig.tls.refresh();
  CHECK(shake_hands(rig.tls) == "TLSv1.3 EC renewed.example");
  CHECK(rig.alerts.raised().size() == 1);
  CHECK(rig.alerts.contains("The previous one stays in service."));
  rig.tls.refresh();
  CHECK(rig.alerts.raised().size() == 1);
}

TEST_CASE("the time left is a metric, of the certificate that expires first") {
  Rig rig;
  const Certificate longer = make_certificate("mx2.example.net", KeyType::ecdsa, std::chrono::hours(1000));
  const Certificate shorter = make_certificate("mx.example.org", KeyType::ecdsa, std::chrono::hours(100));
  rig.write(longer.certificate + shorter.certificate, longer.key + shorter.key);
  REQUIRE(rig.tls.load(rig.settings));
  CHECK(rig.metrics.value("certificate_expiry_seconds") == Approx(360000).margin(100));
  rig.clock.advance(std::chrono::hours(200));
  rig.tls.refresh();
  CHECK(rig.metrics.value("certificate_expiry_seconds") == Approx(-360000).margin(100));
}

TEST_CASE("of a certificate that expires within two weeks there is an alert a day, and at once when it has expired") {
  using std::chrono::hours;
  Rig rig;
  rig.write(make_certificate("mx2.example.net", KeyType::ecdsa, hours(24 * 15 + 1)));
  CHECK(TlsServer::check(rig.settings)->empty());
  REQUIRE(rig.tls.load(rig.settings));
  const auto alerts_after = [&](hours time) {
    rig.clock.advance(time);
    rig.tls.refresh();
    rig.tls.refresh();
    return rig.alerts.raised().size();
  };
  CHECK(alerts_after(hours(24)) == 0);
  CHECK(alerts_after(hours(2)) == 1);
  CHECK(alerts_after(hours(23)) == 1);
  CHECK(alerts_after(hours(1)) == 2);
  CHECK(rig.alerts.raised().back().first == "TLS certificate expires soon");
  CHECK(rig.alerts.contains(rig.settings.certificate + ": it expires in 12d22h"));
  CHECK(alerts_after(hours(24 * 12)) == 3);
  CHECK(alerts_after(hours(23)) == 4);  // it had 22 hours and some minutes
  CHECK(rig.alerts.raised().back().first == "TLS certificate has expired");
  CHECK(alerts_after(hours(24)) == 5);
  rig.write(make_certificate("mx2.example.net", KeyType::ecdsa, hours(24 * 90)));
  CHECK(alerts_after(hours(0)) == 5);
  CHECK(alerts_after(hours(48)) == 5);
  rig.write(make_certificate("mx2.example.net", KeyType::ecdsa, hours(24)));
  CHECK(TlsServer::check(rig.settings)->find(": it expires in ") != std::string::npos);
  rig.write(make_certificate("mx2.example.net", KeyType::ecdsa, hours(-1)));
  CHECK(TlsServer::check(rig.settings) == rig.settings.certificate + ": it has expired");
}

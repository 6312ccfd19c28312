// The certificate we show, as OpenSSL contexts that sessions share.
//
// The PEM files may hold several chains and several keys: chains for the same name (ECDSA and RSA side by side) go
// into one context, where OpenSSL picks what the client can verify; chains for other names into contexts of their own,
// chosen by SNI. TLS 1.2 and 1.3, forward secrecy and AEAD ciphers only, no renegotiation, no compression, session
// tickets without a cache on our side, ALPN ignored.
//
// Threads: context() from any; load() and refresh() block on disk and are called by one thread at a time, off the
// network threads. A pair that cannot be used keeps the old one in service and raises an alert.
// Spec: RFC 3207, RFC 8446, RFC 9325.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/alerts.hpp"
#include "base/clock.hpp"
#include "base/files.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "base/result.hpp"
#include "config/config.hpp"

typedef struct ssl_ctx_st SSL_CTX;

namespace greymx::smtp {

class TlsServer {
 public:
  struct Pair;  // what one reading of the files gave

  TlsServer(const Clock& clock, Log& log, Metrics& metrics, Alerts& alerts);
  ~TlsServer();

  // Would these files do? For `-t`; the error names file and remedy. What it gives is a warning, empty if there is
  // none.
  static Result<std::string> check(const config::Tls& tls);
  // At start and on reload. No certificate configured: no TLS, said once.
  Result<> load(const config::Tls& tls);
  // Now and then (a minute): reads the files again if they have changed and are still, updates the time left.
  void refresh();
  // Null: STARTTLS cannot be offered. Valid as long as it is held.
  std::shared_ptr<SSL_CTX> context() const;
  std::optional<WallTime> expiry() const;  // of the certificate that expires first

 private:
  void show_expiry();  // in the metrics, and by an alert when it comes near

  const Clock& clock_;
  Log& log_;
  Metrics& metrics_;
  Alerts& alerts_;
  config::Tls tls_;
  std::vector<FileStamp> seen_;       // what the files looked like when last read
  std::vector<FileStamp> last_look_;  // and at the last refresh()
  SteadyTime next_warning_;           // of a certificate that is about to expire
  mutable std::mutex mutex_;
  std::shared_ptr<const Pair> pair_;
};

}  // namespace greymx::smtp

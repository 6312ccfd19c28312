// Accepts SMTP connections: each network thread has sockets of its own on every port, between which the kernel spreads
// the clients, so that no connection is handed from thread to thread.
//
// Threads: open() before the threads run; start(), stop() and reload() on any. Each worker's policy and sessions live
// on that worker's executor. Everything passed in must outlive the listener, which must be stopped before it is
// destroyed.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/account.hpp"
#include "smtp/server_session.hpp"

namespace greymx::smtp {

struct Worker {
  asio::any_io_executor executor;
  Policy* policy = nullptr;
};

class Listener {
 public:
  Listener(std::vector<Worker> workers, config::ConfigPtr config, Intake& intake, const TlsServer& tls,
           const Clock& clock, Log& log, Metrics& metrics);
  ~Listener();

  // Binds listen.smtp; needs the right to, so before privileges are dropped to `identity`. An error names the remedy; a
  // host without IPv6 is only a warning.
  Result<> open(const std::optional<Account>& identity = {});
  std::vector<Endpoint> endpoints() const;
  void start();
  void reload(config::ConfigPtr config);  // for sessions that begin from now on
  // No new connections; idle sessions are told to come back (421), those that bring content have until `deadline`.
  Task<> stop(SteadyTime deadline);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace greymx::smtp

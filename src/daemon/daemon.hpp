// The whole of a running greymx: makes the parts, plugs them together, reloads them, stops them in order.
//
// Thread: start(), run() and the destructor on the main one.
#pragma once

#include <memory>
#include <string>

#include "base/log.hpp"
#include "base/result.hpp"
#include "config/config.hpp"
#include "daemon/privileges.hpp"

namespace greymx::daemon {

// SIGHUP and SIGUSR1 wait for Daemon::run() from here on: until then they would end the process. Before any thread.
void hold_signals();

class Daemon {
 public:
  // Binds, gives up root (`identity`), opens queue and stores, starts the threads. Errors name the remedy.
  static Result<std::unique_ptr<Daemon>> start(config::ConfigPtr config, std::optional<Account> identity,
                                               TargetLog& log);
  ~Daemon();
  // Until SIGTERM or SIGINT: then finishes what is in flight, within shutdown_grace. SIGHUP reloads, SIGUSR1 flushes.
  void run();

 private:
  struct Parts;
  explicit Daemon(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace greymx::daemon

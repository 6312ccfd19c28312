// The admin socket: one request a connection, in the protocol of admin/protocol.hpp. Its rights are those of the
// file: mode 0660, owner and group of the daemon.
//
// Thread: the executor. Bounded: connections at once, the size of a request, the time until it is there, and how long
// either side of a long transfer may stall (an hour: somebody looks at the queue in a pager).
#pragma once

#include <memory>
#include <string>

#include "admin/services.hpp"
#include "base/async.hpp"
#include "base/sockets.hpp"

namespace greymx::admin {

class ControlServer {
 public:
  // Binds; who asks before start() is told that no daemon runs. A socket that nobody listens on is replaced; one that
  // answers means another daemon runs (permanent). `owner`: whom root becomes afterwards.
  static Result<std::unique_ptr<ControlServer>> open(asio::any_io_executor executor, const std::string& path,
                                                     std::optional<Account> owner = {});
  ~ControlServer();  // after stop(); removes the socket, if it may
  void start(Services& services);
  Task<> stop();

 private:
  struct Impl;
  explicit ControlServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace greymx::admin

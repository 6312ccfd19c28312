// The HTTP listener: the status page at /, /status.json, /metrics (Prometheus), /healthz (for a load balancer).
//
// It reads only: GET and HEAD, no request body, nothing it does changes anything. Bounded: connections, header size,
// time for a request and for an answer. Thread: the executor; answers are made on the services' pool.
#pragma once

#include <memory>
#include <vector>

#include "admin/services.hpp"
#include "base/async.hpp"

namespace greymx::admin {

class HttpServer {
 public:
  // Binds all endpoints. Errors name the endpoint.
  static Result<std::unique_ptr<HttpServer>> open(asio::any_io_executor executor,
                                                  const std::vector<Endpoint>& endpoints, Log& log);
  ~HttpServer();                         // after stop()
  void start(const Services& services);  // also keeps the history, without any endpoint too
  Task<> stop();
  std::vector<Endpoint> endpoints() const;  // with the ports that were given for port 0

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace greymx::admin

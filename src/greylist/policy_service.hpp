// The greylist for other mail servers: Postfix's policy delegation protocol on listen.policy, TCP and Unix sockets.
//
// TCP peers must be in access.trusted_networks; a Unix socket goes by the rights of the directory it is in. In trouble
// nothing is sent and the connection is closed, as the protocol wants it; Postfix then tries again. A connection is
// closed after 300 s without a request; at 1,000 connections the one idle for longest makes way.
//
// Thread: its executor's, but open() and endpoints().
#pragma once

#include <memory>
#include <vector>

#include "greylist/greylister.hpp"

namespace greymx::greylist {

struct PolicySettings {
  bool test_clock = false;  // GREYMX_TEST_CLOCK=1: believe the attribute policy_test_time
  std::size_t connections = 1000;
  std::chrono::seconds idle{300};
  Greylister::SpfDomain spf_domain{};  // see Greylister::check; empty: pool keys go by client name alone
  std::function<bool(const IpAddress&)> is_primary = [](const IpAddress&) { return false; };  // exempt, as in SMTP
};

class PolicyService {
 public:
  // Binds all of listen.policy; what cannot be bound is an error with its address. All references outlive the service.
  static Result<std::unique_ptr<PolicyService>> open(asio::any_io_executor executor, config::ConfigPtr config, Log& log,
                                                     PolicySettings settings = {});
  ~PolicyService();                         // after stop(), or never started
  void start(Greylister& greylister);       // accepts from now on
  void reload(config::ConfigPtr config);    // trusted networks and domains; listeners need a restart
  Task<> stop();                            // answers what was asked, for two seconds at most, then closes
  std::vector<Endpoint> endpoints() const;  // TCP, as bound (tests bind port 0)

 private:
  struct Impl;
  explicit PolicyService(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace greymx::greylist

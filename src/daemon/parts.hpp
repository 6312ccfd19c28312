// What a running daemon consists of, in the order in which it is made; destroyed in the opposite one.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "access/recipient_memory.hpp"
#include "access/tables.hpp"
#include "admin/alerts.hpp"
#include "admin/control.hpp"
#include "admin/history.hpp"
#include "admin/http.hpp"
#include "admin/services.hpp"
#include "base/clock.hpp"
#include "base/files.hpp"
#include "base/metrics.hpp"
#include "daemon/adapters.hpp"
#include "daemon/daemon.hpp"
#include "daemon/network_thread.hpp"
#include "dns/ares_resolver.hpp"
#include "dnsbl/health.hpp"
#include "greylist/greylister.hpp"
#include "greylist/policy_service.hpp"
#include "queue/spool.hpp"
#include "relay/relay.hpp"
#include "smtp/listener.hpp"
#include "smtp/tls_server.hpp"

namespace greymx::daemon {

// A network thread on which sessions live, with its own resolver, block lists and pipeline.
struct Worker {
  Worker(const std::string& name, Log& log, Metrics& metrics) : thread(name, log, metrics) {}
  NetworkThread thread;
  ResolverSwitch resolver;
  std::shared_ptr<dnsbl::Lists> lists;
  std::unique_ptr<access::Pipeline> pipeline;
  Policy policy;
};

// The parts of a reloadable state that workers share; swapped as a whole.
struct Shared {
  config::ConfigPtr config;
  std::shared_ptr<const access::Tables> tables;
  std::shared_ptr<dnsbl::Health> health;
};

struct Daemon::Parts {
  Parts(config::ConfigPtr config, TargetLog& log);

  // In the order of start-up.
  Result<> bind(const std::optional<Account>& identity);  // sockets, while we may
  Result<> open();                                        // queue, stores, files; as the user we run as
  void begin();                                           // threads run, mail is taken
  void stop();
  // Reads the file again; what is wrong is logged, and handed back. Blocks.
  Result<admin::Reloaded> reload(access::Reload how);

  config::ConfigPtr config() const { return shared().config; }
  Shared shared() const;

  TargetLog& log;
  SystemClock clock;
  Metrics metrics;
  admin::History history;
  std::unique_ptr<Files> files = system_files();
  asio::thread_pool pool{2};  // for what blocks: control commands, HTTP, reloads
  NetworkThread admin_thread;
  NetworkThread relay_thread;
  std::vector<std::unique_ptr<Worker>> workers;
  admin::MailAlerts alerts;
  smtp::TlsServer tls;
  PrimaryBridge bridge;
  ResolverSwitch relay_resolver;
  std::unique_ptr<queue::Spool> spool;
  Intake intake;
  std::unique_ptr<relay::Relay> relay;
  std::unique_ptr<access::RecipientMemory> memory;
  std::unique_ptr<greylist::Greylister> greylister;
  std::unique_ptr<access::TableWatcher> watcher;
  std::unique_ptr<smtp::Listener> listener;
  std::unique_ptr<greylist::PolicyService> policy_service;
  std::unique_ptr<admin::HttpServer> http;
  std::unique_ptr<admin::ControlServer> control;
  std::optional<admin::Services> admin_services;
  WallTime started = clock.now();
  std::atomic<bool> terminating = false;

 private:
  Result<> bind_policy();
  void find_left_behind();
  void spread();  // makes the workers use what shared_ holds
  std::shared_ptr<const access::Shared> access_parts() const;
  void use_resolvers(const config::Config& config);
  Result<config::ConfigPtr> read_again();
  std::unexpected<Error> refuse_reload(Error why);
  std::vector<IpAddress> control_addresses() const;
  admin::Services services();
  Task<access::Explained> explain(Facts facts, Mailbox recipient);
  Task<dnsbl::Score> ask_lists(IpAddress address);
  Task<std::string> spf_domain(greylist::Request request);
  Task<> self_tests();
  Task<> refresh_certificate();

  mutable std::mutex mutex_;  // of shared_
  Shared shared_;
  config::ConfigPtr started_with_;
  bool was_root_ = false;                // so the next start wants `user` and `group`, too
  std::mutex reloading_;                 // held through reload(), and by who else touches what it loads
  std::optional<dns::DnsSettings> dns_;  // in use
};

}  // namespace greymx::daemon

// What all of the relay shares: the world it was given, and the gate that owns its coroutines.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <random>

#include "base/alerts.hpp"
#include "base/async.hpp"
#include "base/clock_watch.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "config/config.hpp"
#include "dns/resolver.hpp"
#include "queue/spool.hpp"
#include "relay/arrivals.hpp"
#include "relay/relay.hpp"
#include "relay/route.hpp"
#include "smtp/tls_client.hpp"

namespace greymx::relay {

// The time in which a spool domain's primary was not up; null = unknown, none.
using DowntimeOf = std::function<const Downtime*(const std::string& domain)>;

struct Parts {
  asio::any_io_executor executor;
  config::ConfigPtr config;  // changes on reload: take a copy over an await
  Identity identity;
  smtp::ClientTimeouts timeouts;
  queue::Spool& spool;
  dns::Resolver& resolver;
  const Clock& clock;
  Log& log;
  Metrics& metrics;
  Alerts& alerts;
  RecipientObserver* observer;
  std::function<void()> changed;                                     // what is remembered of our primaries
  DowntimeOf downtime_of;                                            // Destinations::downtime_of()
  std::function<std::string(const std::string& domain)> trouble_of;  // Destinations::trouble_of()
  Gate gate;                                                         // deliveries and reports: finished before we stop
  Gate background;                                                   // probes and farewells: cut off then
  asio::thread_pool disk{1};
  std::mt19937 random{std::random_device{}()};
  bool stopping = false;
  unsigned report_workers = 0;                         // deliveries to strangers, all together
  unsigned unnamed_workers = 0;                        // to ours that relay.conf does not name
  static constexpr std::chrono::hours again_after{1};  // an alert about what goes on
  std::map<std::string, WallTime> no_route_told{};     // when last, by label
  std::map<std::string, WallTime> stray_told{};        // the same, by domain
  // By what is checked; shared, since each takes a while to make and much memory.
  std::map<std::pair<smtp::CertificateCheck, std::string>, std::weak_ptr<smtp::TlsClient>> tls_clients{};
  ClockWatch watch{clock};
  Arrivals arrivals{clock};
  SteadyTime expiry_from{};  // a reload that gives mail less time leaves some to take that back

  bool may_expire() { return clock_is_sure() && clock.steady() >= expiry_from; }
  // Nothing expires, and no outage is forgotten, by a clock that may be wrong.
  bool clock_is_sure() { return watch.settled(shortest_lifetime()); }
  std::chrono::seconds shortest_lifetime() const {
    return std::min({config->queue.lifetime, config->queue.lifetime_max, config->queue.bounce_lifetime});
  }
};

// A message that the spool keeps active for us in one domain until this dies.
class Taken {
 public:
  Taken(queue::Spool& spool, QueueId id, std::string domain) : spool_(&spool), id_(id), domain_(std::move(domain)) {}
  Taken(Taken&& other) noexcept
      : spool_(std::exchange(other.spool_, nullptr)), id_(other.id_), domain_(std::move(other.domain_)) {}
  Taken& operator=(Taken&&) = delete;
  ~Taken() {
    if (spool_ != nullptr) spool_->release(id_, domain_);
  }
  QueueId id() const { return id_; }
  const std::string& domain() const { return domain_; }

 private:
  queue::Spool* spool_;
  QueueId id_;
  std::string domain_;
};

}  // namespace greymx::relay

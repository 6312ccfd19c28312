// Getting queued mail to its primaries: route, health, drain, delivery, reports.
//
// Thread: one executor of its own (run() and everything inside); the methods marked "any thread" may be called from
// anywhere. `spool`, `resolver` and the rest must outlive it; `resolver` belongs to the same executor.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/alerts.hpp"
#include "base/async.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "config/config.hpp"
#include "dns/resolver.hpp"
#include "queue/spool.hpp"
#include "relay/health.hpp"
#include "smtp/client_session.hpp"

namespace greymx::relay {

struct PrimaryStatus {
  std::string domain;  // configured name ("*.example.com" for wildcards), or a report's destination
  std::vector<std::string> hosts;
  Health health = Health::up;
  WallTime since{};
  std::string last_error;    // printable(); empty if none
  WallTime next_attempt{};   // next probe or delivery; none if nothing waits
  unsigned concurrency = 0;  // current limit
  unsigned connections = 0;
  std::uint64_t size_limit = 0;  // SIZE last offered; 0 = none or unknown
  Downtime downtime;             // for expires_at() (relay/retry.hpp)
  std::string wildcard;          // the entry, if `domain` is a subdomain that goes its own way by MX
};

// A callout: would the primary take RCPT TO this address? (RFC 5321 7.3 has no better way)
enum class ProbeOutcome : std::uint8_t { accepted, refused, inconclusive };
struct ProbeResult {
  ProbeOutcome outcome = ProbeOutcome::inconclusive;
  std::string detail;  // the primary's reply or the trouble, printable()
};

// What deliveries teach about recipients; called on the relay's thread, must not block.
class RecipientObserver {
 public:
  virtual ~RecipientObserver() = default;
  virtual void accepted(const std::string& address) = 0;
  virtual void refused(const std::string& address) = 0;  // true recipient refusals only
};

struct RelaySettings {
  config::ConfigPtr config;
  std::vector<Endpoint> listeners;  // ours: a primary that is one of them is a loop
  smtp::ClientTimeouts timeouts;    // RFC 5321 4.5.3.2
};

class Relay {
 public:
  Relay(asio::any_io_executor executor, RelaySettings settings, queue::Spool& spool, dns::Resolver& resolver,
        const Clock& clock, Log& log, Metrics& metrics, Alerts& alerts, RecipientObserver* observer);
  ~Relay();

  void start();  // on the executor: probes and deliveries begin
  // Finishes what is in flight, cancels at the deadline what still is (messages stay queued), joins everything.
  Task<> stop(SteadyTime deadline);

  // --- any thread ------------------------------------------------------------------------------------------------
  void reload(config::ConfigPtr config);
  void flush();  // everything due now, primaries tried now, SUSPECT lifted
  void flush_domain(std::string domain);
  // `domains`: those of its recipients, where SUSPECT is lifted, too.
  void flush_message(QueueId id, std::set<std::string> domains);
  std::vector<PrimaryStatus> status() const;                  // snapshot
  Health health(const std::string& domain) const;             // of the entry that covers it; up if unknown
  std::uint64_t size_limit(const std::string& domain) const;  // SIZE last offered; 0 = none or unknown
  std::uint64_t largest_size_limit() const;                   // of all our domains; 0: one has none, or it is unknown
  std::set<IpAddress> own_addresses() const;                  // of all our primaries, as far as they are known
  bool is_primary_address(const IpAddress& ip) const;         // an address of an explicit primary
  // Of its primary, as relay.conf names them; "mx" and the port where it does not.
  std::string hosts(const std::string& domain) const;
  Task<ProbeResult> probe(std::string address, SteadyTime deadline);  // resumes on the caller's executor
  // RFC 1985: "example.com", "@example.com" (and what is below it), "#example.com". 459 unless the client is trusted or
  // an address of that domain's primary. Due and tried now, as a primary that may be half dead is tried.
  Task<Reply> etrn(std::string node, Client client);
  // The admin's `bounce`: ends the message's open recipients with a report to its sender (or without one for null
  // senders). not_found; temporary: it is being delivered, or the report could not be queued.
  Task<Result<>> bounce(QueueId id, std::string reason);
  // Queues a message of our own (alerts): null sender, through smarthost or MX.
  Task<Result<QueueId>> submit_report(std::string recipient, std::string content);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace greymx::relay

// Everything decided before a byte of content is read: one ordered pipeline, once for SMTP sessions, once as a dry
// run for `greymx explain`.
//
// Shared (any thread): Tables (access files, recipient lists), RecipientMemory, the Greylister, dnsbl::Health.
// Per network thread: a Pipeline with that thread's resolver and dnsbl::Lists. Per session: SessionChecks.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/alerts.hpp"
#include "base/async.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/mail.hpp"
#include "base/metrics.hpp"
#include "config/config.hpp"
#include "dns/resolver.hpp"
#include "dnsbl/dnsbl.hpp"
#include "greylist/greylister.hpp"

namespace greymx::access {

// What access needs to know of the primaries; the relay knows it. Any thread.
enum class Callout : std::uint8_t { accepted, refused, inconclusive };
class Primaries {
 public:
  virtual ~Primaries() = default;
  virtual bool is_up(const std::string& domain) const = 0;
  virtual bool is_down(const std::string& domain) const = 0;
  virtual bool is_primary_address(const IpAddress& ip) const = 0;
  virtual std::string hosts(const std::string& domain) const = 0;  // of its primary, as relay.conf names them
  struct Answer {
    Callout outcome = Callout::inconclusive;
    std::string detail;
  };
  virtual Task<Answer> call(std::string address, SteadyTime deadline) = 0;  // resumes on the caller's executor
};

class Tables;           // access/tables.hpp: access(5) files and recipient lists, reread when they change
class RecipientMemory;  // access/recipient_memory.hpp: callout answers on disk

struct Shared {
  config::ConfigPtr config;
  std::shared_ptr<const Tables> tables;
  RecipientMemory* memory = nullptr;
  greylist::Greylister* greylister = nullptr;
  Primaries* primaries = nullptr;
  const Clock* clock = nullptr;
  Log* log = nullptr;
  Metrics* metrics = nullptr;
  Alerts* alerts = nullptr;
};

// One line of `greymx explain`.
struct Step {
  std::string check;  // "relay_control", "invalid_helo", "dnsbl", "greylist", …
  std::string input;
  std::string result;  // "pass", "reject", "defer", "warn", "skipped", "unknown"
  std::string detail;  // DNS answers, cache age, list scores, reason
};
struct Explained {
  std::vector<Step> steps;
  Verdict verdict;
};

class SessionChecks {
 public:
  virtual ~SessionChecks() = default;
  virtual Task<std::string> client_name() = 0;
  virtual std::optional<std::string> known_client_name() const = 0;  // without waiting
  virtual void mail(const Facts& facts) = 0;
  virtual Task<Verdict> recipient(Facts facts, Mailbox recipient) = 0;
  virtual Task<Verdict> data(Facts facts, std::vector<Mailbox> recipients) = 0;
  virtual Task<Authorised> authorised(Facts facts) = 0;
};

class Pipeline {
 public:
  // The resolver outlives the pipeline; lookups that outlive a session belong to the pipeline's gate. No lists yet.
  Pipeline(asio::any_io_executor executor, std::shared_ptr<const Shared> shared, dns::Resolver& resolver);
  ~Pipeline();
  Task<> stop();
  // After a reload, or when access files have changed: sessions that begin from now on use these, others keep theirs.
  // `lists` may be null (no DNSBL configured).
  void update(std::shared_ptr<const Shared> shared, std::shared_ptr<dnsbl::Lists> lists);
  std::unique_ptr<SessionChecks> begin(const Client& client);
  // The whole decision as a dry run: nothing is stored, no callout is made unless the memory has none and
  // `facts.client` would get that far. Every check appears, in order.
  Task<Explained> explain(Facts facts, Mailbox recipient);

  struct Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace greymx::access

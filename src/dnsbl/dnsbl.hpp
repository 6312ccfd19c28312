// DNS block and allow lists (RFC 5782): asks all lists at once under one deadline, adds up weights, and keeps lists
// that lie or died from doing harm.
//
// Two objects: `Health` is shared by all threads (which lists are on, and why not); a `Lists` belongs to one network
// thread and its resolver. A list whose lookup fails counts as "not listed" and is logged, never as listed.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/alerts.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "config/config.hpp"
#include "dns/resolver.hpp"

namespace greymx::dnsbl {

enum class Outcome : std::uint8_t { clean, listed, list_error, timeout, disabled };
std::string_view to_string(Outcome outcome);

struct ListResult {
  std::string zone;     // shown form: a secret key label is masked
  std::string query;    // shown form of what was asked
  std::string subject;  // "Client host [192.0.2.1]", "Helo command [x]", "Sender address [x]"
  Outcome outcome = Outcome::clean;
  int weight = 0;  // counted only if listed
  std::vector<IpAddress> answers;
  std::string reason;  // TXT or template, printable(); only if listed
  std::string error;
  std::chrono::seconds age{0};
};

struct Score {
  int total = 0;
  std::vector<ListResult> results;
  // "Service unavailable; Client host [192.0.2.1] blocked using zone; reason" for the first list that counts;
  // empty while total < threshold.
  std::string reply_text;
};

class Health;  // dnsbl/health.hpp

// A check may take so much longer than its deadline, to ask the list that decides for its reason.
inline constexpr std::chrono::seconds reason_time{1};

class Lists {
 public:
  Lists(config::ConfigPtr config, dns::Resolver& resolver, std::shared_ptr<Health> health, Log& log, Metrics& metrics);
  ~Lists();
  // All address lists, asked when this is called, awaited when the task is. Private and loopback addresses are looked
  // up too (only trusted networks are exempt, and that is the caller's business).
  Task<Score> check_client(IpAddress client, SteadyTime deadline);
  // Domain lists for one name; `what` is "sender" (the name is an address, whose domain is asked about), "helo" or
  // "client".
  Task<Score> check_domain(std::string what, std::string name, SteadyTime deadline);
  bool ask_about(std::string_view what) const;  // is there any list for check_domain(what, …)?

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One Score of several, with the threshold applied to the sum.
Score combine(const std::vector<const Score*>& scores, int threshold);

}  // namespace greymx::dnsbl

// The state of everything at one moment: `greymx status`, the status page and its /status.json; and the gauges of
// /metrics that are read rather than counted.
#pragma once

#include "admin/history.hpp"
#include "admin/services.hpp"
#include "admin/views.hpp"

namespace greymx::admin {

struct Charts {  // oldest first
  std::vector<std::uint64_t> accepted, delivered, rejected, greylisted;
};

struct CountRow {
  std::string name;
  std::uint64_t hour = 0, day = 0;
};

struct Status {
  std::string hostname, version;
  WallTime now{}, started{};
  queue::Totals totals;
  bool terminating = false;  // which is then why `totals` do not accept
  std::vector<DomainLine> domains;
  std::vector<dnsbl::ListStatus> lists;
  std::uint64_t connections = 0, greylist_records = 0;
  std::optional<std::int64_t> certificate_days;
  Charts hour;                         // 60 minutes
  Charts day;                          // 96 quarters of an hour
  std::vector<CountRow> rejects;       // by check, most first
  std::vector<CountRow> greylist;      // by verdict
  std::vector<History::Event> events;  // newest first

  WallTime oldest() const;  // arrival; `now` if nothing waits
};

Status gather(const Services& services);  // takes locks for a moment; any thread, better not a network one
Json to_json(const Status& status);
std::string to_text(const Status& status, Style style);
std::string certificate_text(std::int64_t days);  // "61 days left", "expired"
std::uint64_t sum(const std::vector<std::uint64_t>& counts);

// What is done before each scrape and every few seconds: gauges are set; counters go into the history, primaries that
// changed their state become events. One thread at a time.
class Sampler {
 public:
  explicit Sampler(const Services& services) : services_(services) {}
  void refresh_gauges();
  void sample();

 private:
  const Services& services_;
  std::map<std::string, relay::Health> states_;
  std::vector<std::string> shown_;  // domains that have gauges
};

}  // namespace greymx::admin

// What sessions, the status and the tools may know of the primaries: taken by the relay's thread once a second and
// never changed after, so that any thread may read it.
#pragma once

#include <map>
#include <set>
#include <unordered_map>

#include "relay/destination.hpp"

namespace greymx::relay {

class View {
 public:
  struct Seen {
    Health health = Health::up;
    std::uint64_t size_limit = 0;
  };

  View(config::ConfigPtr config, const std::map<std::string, std::shared_ptr<Destination>>& by_key);

  Seen look(const std::string& domain) const;
  std::string hosts(const std::string& domain) const;
  // The largest that some primary takes; 0: one has no limit, or its limit is not known.
  std::uint64_t largest_size_limit() const { return largest_size_limit_; }
  bool is_primary_address(const IpAddress& ip) const { return primary_addresses_.contains(ip); }
  const std::set<IpAddress>& own_addresses() const { return own_addresses_; }  // found by MX, too
  std::vector<PrimaryStatus> status(const std::vector<queue::DomainSummary>& queued) const;

 private:
  void add_destinations(const std::map<std::string, std::shared_ptr<Destination>>& by_key);
  void add_subdomain(const Destination& one);
  using Worst = std::map<std::string, const PrimaryStatus*>;  // by the shown name of the entry
  Worst worst_of(const std::set<std::string>& waiting) const;

  config::ConfigPtr config_;
  std::unordered_map<std::string, Seen> by_key_;
  std::unordered_map<const config::Domain*, Seen> by_entry_;  // of config_, with one destination
  std::uint64_t largest_size_limit_ = 0;
  std::set<IpAddress> primary_addresses_, own_addresses_;
  std::vector<PrimaryStatus> status_;  // without what depends on the queue
};

}  // namespace greymx::relay

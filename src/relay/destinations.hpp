// All destinations there are, and what is remembered of ours: an outage goes on over a reload and a restart, whatever
// primary the configuration names now.
//
// Thread: the relay's.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "relay/destination.hpp"
#include "relay/memory.hpp"

namespace greymx::relay {

class Destinations {
 public:
  using Pointer = std::shared_ptr<Destination>;
  using Map = std::map<std::string, Pointer>;

  explicit Destinations(Parts& parts);

  void start();       // with what the state file remembers; blocks
  Task<bool> save();  // false: it failed, and is to be tried again
  void reload(config::ConfigPtr config);
  void tick();           // every second
  void clock_is_back();  // it was ahead
  void retire();

  Pointer of(const std::string& domain);          // of the spool; made if it is missing
  Pointer find(const std::string& domain) const;  // null if it is missing
  // The time in which the domain's primary was not up, also of one that relay.conf names no more; null = unknown.
  const Downtime* downtime_of(const std::string& domain) const;
  std::string trouble_of(const std::string& domain) const;  // why nothing is delivered there; empty = it is
  bool crowded() const;                                     // too many of ours that relay.conf does not name
  const Map& by_key() const { return by_key_; }
  const Map& by_name() const { return by_name_; }

 private:
  std::set<std::string> named_keys() const;
  void add_known();
  void tick_all();
  void drop(const std::set<std::string>& needed, bool in_use_too);
  void remember();
  void set_memory_back();
  void assume_outage();
  // What is remembered by this name, or by that of the wildcard that covered it; end() if nothing is.
  Memory::const_iterator before(const std::string& name) const;

  Parts& parts_;
  const std::string state_file_;  // a reload does not move it
  Memory memory_;
  bool saved_ = true;
  Map by_key_;   // DestinationSettings::key
  Map by_name_;  // name_of() a domain
};

}  // namespace greymx::relay

// What is known of primaries over a restart of ours: paths.state/primaries.json. Pure but for load_memory().
#pragma once

#include <map>
#include <string>
#include <vector>

#include "relay/health.hpp"
#include "relay/outcome.hpp"

namespace greymx::relay {

struct Remembered {
  std::string key;  // DestinationSettings::key: `hosts` and `size_limit` are of no use to another
  Health health = Health::up;
  WallTime since{};
  std::string reason;
  bool on_trial = false;
  Downtime downtime;
  std::vector<Host> hosts;       // of the last good route
  std::uint64_t size_limit = 0;  // SIZE last offered; 0 = none or unknown
};
using Memory = std::map<std::string, Remembered>;  // by name_of() a domain

std::string to_json(const Memory& memory);
Result<Memory> memory_from_json(const std::string& text);
// No file is an error (not_found), for only one that is there can say that there was no outage. Blocks.
Result<Memory> load_memory(const std::string& path);

}  // namespace greymx::relay

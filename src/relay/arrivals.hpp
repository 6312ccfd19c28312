// When messages came, by their IDs.
//
// A clock that was ahead for a while has dated some messages into the future, and with them all that came later, since
// IDs only grow. Those are as old as the time for which they have been known here.
//
// Thread: the relay's.
#pragma once

#include <algorithm>
#include <unordered_map>

#include "base/clock.hpp"
#include "queue/spool.hpp"

namespace greymx::relay {

class Arrivals {
 public:
  explicit Arrivals(const Clock& clock) : clock_(clock) {}

  WallTime of(QueueId id) {
    const WallTime now = clock_.now();
    const SteadyTime steady = clock_.steady();
    const auto known = id.time() > now ? first_seen_.try_emplace(id, steady).first : first_seen_.find(id);
    if (known == first_seen_.end()) return id.time();
    return std::min(id.time(), now - std::chrono::floor<WallTime::duration>(steady - known->second));
  }
  void forget_ended(const queue::Spool& spool) {
    std::erase_if(first_seen_, [&spool](const auto& entry) { return !spool.contains(entry.first); });
  }

 private:
  const Clock& clock_;
  std::unordered_map<QueueId, SteadyTime> first_seen_;
};

}  // namespace greymx::relay

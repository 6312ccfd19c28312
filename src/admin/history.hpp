// The last day in counts a minute, and the last events: what the status page draws. Bounded; any thread.
#pragma once

#include <array>
#include <chrono>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/id.hpp"

namespace greymx::admin {

using Counters = std::map<std::string, double>;

// The counters worth drawing, from the metrics' text: "accepted", "delivered", "deferred", "reject/CHECK",
// "greylist/VERDICT". Pure.
Counters counters_of(std::string_view exposition);

class History {
 public:
  static constexpr std::size_t minutes = 24 * 60;
  static constexpr std::size_t max_series = 100;
  static constexpr std::size_t max_events = 50;

  struct Event {
    WallTime time;
    std::string text;
  };

  // The counters as they stand; what they grew by since the last call belongs to `now`'s minute. A clock that was set
  // back a little adds to the last minute known; one that was set back farther takes the future with it.
  void sample(WallTime now, const Counters& counters);
  // Sums over `bars` spans of `each` minutes, oldest first; the last one ends with the minute of `now`. A name that
  // ends in "/" takes all series that begin so.
  std::vector<std::uint64_t> bars(std::string_view name, WallTime now, std::size_t bars, std::size_t each) const;
  std::uint64_t sum(std::string_view name, WallTime now, std::size_t over_minutes) const;
  std::vector<std::string> names(std::string_view prefix) const;

  void event(WallTime time, std::string text);
  std::vector<Event> events() const;  // newest first

 private:
  struct Series {
    double last = 0;
    std::array<std::uint32_t, minutes> counts{};  // by minute modulo a day
  };
  void clear(std::int64_t after, std::int64_t until);
  void advance(std::int64_t minute);

  mutable std::mutex mutex_;
  std::map<std::string, Series, std::less<>> series_;
  std::int64_t minute_ = 0;  // the newest; 0 = none yet
  std::deque<Event> events_;
};

}  // namespace greymx::admin

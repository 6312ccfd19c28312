// Time is passed in, so that tests turn days into microseconds.
#pragma once

#include <chrono>
#include <string>

#include "base/id.hpp"

namespace greymx {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual WallTime now() const = 0;       // any thread
  virtual SteadyTime steady() const = 0;  // any thread
};

class SystemClock final : public Clock {
 public:
  WallTime now() const override;
  SteadyTime steady() const override;
};

std::string rfc5322_date(WallTime time);  // "Mon, 23 Nov 2026 16:01:03 +0000" (local zone)
std::string iso8601(WallTime time);       // "2026-11-23T16:01:03.123456+00:00" (local zone)
std::string mailq_time(WallTime time);    // "Mon Nov 23 16:01:03"
// "5m", "1h30m", "2d": the short form of a duration for people.
std::string human_duration(std::chrono::seconds duration);

}  // namespace greymx

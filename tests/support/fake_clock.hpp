// Time that moves only when told. Any thread.
#pragma once

#include <atomic>

#include "base/clock.hpp"

namespace greymx::test {

class FakeClock final : public Clock {
 public:
  // Monday, 23 November 2026, 16:01:03 UTC, as in the examples of the documentation.
  explicit FakeClock(WallTime wall = WallTime(std::chrono::seconds(1795449663))) { set(wall); }

  WallTime now() const override { return WallTime(std::chrono::microseconds(wall_.load())); }
  SteadyTime steady() const override { return SteadyTime(std::chrono::microseconds(steady_.load())); }

  void advance(std::chrono::microseconds by) {  // both
    wall_ += by.count();
    steady_ += by.count();
  }
  void set(WallTime wall) { wall_ = wall.time_since_epoch().count(); }  // a jump of the wall clock alone
  void set_steady(SteadyTime steady) {
    steady_ = std::chrono::floor<std::chrono::microseconds>(steady.time_since_epoch()).count();
  }

 private:
  std::atomic<std::int64_t> wall_{0};
  std::atomic<std::int64_t> steady_{1'000'000'000'000};
};

}  // namespace greymx::test

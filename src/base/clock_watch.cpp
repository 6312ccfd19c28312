#include "base/clock_watch.hpp"

#include <algorithm>
#include <utility>

namespace greymx {

namespace {

constexpr std::chrono::seconds tolerance{60};
constexpr std::chrono::seconds long_enough{3600};

}  // namespace

ClockWatch::ClockWatch(const Clock& clock)
    : clock_(clock), wall_(clock.now()), steady_(clock.steady()), since_(steady_) {}

void ClockWatch::look() {
  const WallTime wall = clock_.now();
  const SteadyTime steady = clock_.steady();
  const auto step = (wall - wall_) - std::chrono::floor<WallTime::duration>(steady - steady_);
  wall_ = wall;
  steady_ = steady;
  if (step <= tolerance && step >= -tolerance) return;
  since_ = steady;
  step_ += step;
}

WallTime::duration ClockWatch::step() {
  look();
  return std::exchange(step_, {});
}

bool ClockWatch::settled(std::chrono::seconds shortest) {
  look();
  return steady_ - since_ >= std::min(shortest, long_enough);
}

}  // namespace greymx

#include "relay/drain.hpp"

#include <algorithm>

namespace greymx::relay {

namespace {

constexpr auto second = std::chrono::seconds(1);
constexpr unsigned storm = 10;  // fewer 4yz in a second say nothing

}  // namespace

void Drain::set(unsigned start, unsigned most) {
  start_ = start;
  most_ = most;
  limit_ = std::min(limit_, most);
}

void Drain::restart(SteadyTime now) {
  limit_ = start_;
  taken_ = deferred_ = 0;
  second_began_ = now;
}

void Drain::trouble(SteadyTime now) {
  taken_ = deferred_ = 0;
  second_began_ = now;
  // All connections tend to fail together; that is one trouble.
  if (now - last_trouble_ < second) return;
  last_trouble_ = now;
  limit_ = std::max(1U, limit_ / 2);
}

void Drain::count(SteadyTime now, unsigned& counter) {
  ++counter;
  if (deferred_ >= storm && deferred_ > taken_) return trouble(now);
  if (now - second_began_ < second) return;
  if (deferred_ <= taken_) limit_ = std::min(most_, limit_ * 2);
  taken_ = deferred_ = 0;
  second_began_ = now;
}

void Drain::taken(SteadyTime now) {
  count(now, taken_);
}

void Drain::deferred(SteadyTime now) {
  count(now, deferred_);
}

}  // namespace greymx::relay

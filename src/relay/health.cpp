#include "relay/health.hpp"

#include <algorithm>

namespace greymx::relay {

namespace {

constexpr unsigned trial_messages = 20;
constexpr unsigned trial_limit = trial_messages / 2;
constexpr std::size_t most_spans = 1000;  // a primary that flaps for years

}  // namespace

std::string_view to_string(Health health) {
  if (health == Health::up) return "up";
  return health == Health::down ? "down" : "suspect";
}

void Downtime::begin(WallTime now) {
  if (!spans_.empty() && spans_.back().second == WallTime::max()) return;
  if (spans_.size() == most_spans) {  // two neighbours become one: too much downtime keeps mail longer, never shorter
    spans_[1].first = spans_[0].first;
    spans_.erase(spans_.begin());
  }
  spans_.emplace_back(now, WallTime::max());
}

void Downtime::end(WallTime now) {
  if (!spans_.empty() && spans_.back().second == WallTime::max()) spans_.back().second = now;
}

void Downtime::forget_before(WallTime time) {
  std::erase_if(spans_, [time](const auto& span) { return span.second < time; });
}

std::chrono::seconds Downtime::within(WallTime from, WallTime to) const {
  WallTime::duration sum{};
  for (const auto& [begin, end] : spans_) {
    const auto overlap = std::min(end, to) - std::max(begin, from);
    sum += std::max(overlap, WallTime::duration::zero());
  }
  return std::chrono::floor<std::chrono::seconds>(sum);
}

bool HealthTracker::enter(Health health, WallTime now) {
  if (health_ == health) return false;
  health_ = health;
  since_ = now;
  if (health == Health::up) {
    downtime_.end(now);
  } else {
    downtime_.begin(now);
  }
  return true;
}

void HealthTracker::begin_trial() {
  trial_left_ = trial_messages;
  trial_refused_ = 0;
}

void HealthTracker::end_turn() {
  if (trial_left_ > 0) --trial_left_;
}

bool HealthTracker::unreachable(WallTime now, std::string reason) {
  reason_ = std::move(reason);
  return enter(Health::down, now);
}

bool HealthTracker::reachable(WallTime now) {
  if (health_ != Health::down) return false;
  begin_trial();
  return enter(Health::up, now);
}

bool HealthTracker::delivered(WallTime now) {
  if (health_ == Health::suspect) {
    begin_trial();
    return enter(Health::up, now);
  }
  end_turn();
  return false;
}

bool HealthTracker::refused(WallTime now, std::string reason) {
  if (health_ != Health::up || trial_left_ == 0) return false;
  reason_ = std::move(reason);
  end_turn();
  return ++trial_refused_ >= trial_limit && enter(Health::suspect, now);
}

bool HealthTracker::flush(WallTime now) {
  if (health_ == Health::down) return false;
  trial_left_ = 0;
  return enter(Health::up, now);
}

void HealthTracker::restore(Health health, WallTime since, std::string reason, bool on_trial, Downtime downtime) {
  health_ = health;
  since_ = since;
  reason_ = std::move(reason);
  downtime_ = std::move(downtime);
  if (on_trial) begin_trial();
}

}  // namespace greymx::relay

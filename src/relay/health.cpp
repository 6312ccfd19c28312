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
  spans_.emplace_back(now, WallTime::max());
  limit();
}

void Downtime::end(WallTime now) {
  if (!spans_.empty() && spans_.back().second == WallTime::max()) spans_.back().second = now;
}

void Downtime::begun_by(WallTime now) {
  if (spans_.empty() || spans_.back().second != WallTime::max()) return;
  spans_.back().first = std::min(spans_.back().first, now);
}

void Downtime::forget_before(WallTime time) {
  std::erase_if(spans_, [time](const auto& span) { return span.second < time; });
}

void Downtime::add(const Downtime& other) {
  spans_.insert(spans_.end(), other.spans_.begin(), other.spans_.end());
  std::sort(spans_.begin(), spans_.end());
  Spans joined;
  for (const auto& [begin, end] : spans_) {
    if (!joined.empty() && begin <= joined.back().second) {
      joined.back().second = std::max(joined.back().second, end);
    } else {
      joined.emplace_back(begin, end);
    }
  }
  spans_ = std::move(joined);
  limit();
}

// The oldest become one: too much downtime keeps mail longer, never shorter.
void Downtime::limit() {
  if (spans_.size() <= most_spans) return;
  const auto last = spans_.begin() + static_cast<std::ptrdiff_t>(spans_.size() - most_spans);
  last->first = spans_.front().first;
  spans_.erase(spans_.begin(), last);
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
  counted_.clear();
}

// False for a message that was tried before in this trial: one that is refused for ever says no more than once.
bool HealthTracker::count(QueueId id) {
  if (trial_left_ == 0 || !counted_.insert(id).second) return false;
  --trial_left_;
  return true;
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

bool HealthTracker::delivered(QueueId id, WallTime now) {
  if (health_ == Health::suspect) {
    begin_trial();
    return enter(Health::up, now);
  }
  count(id);
  return false;
}

bool HealthTracker::refused(QueueId id, WallTime now, std::string reason) {
  if (health_ != Health::up || !count(id)) return false;
  reason_ = std::move(reason);
  return ++trial_refused_ >= trial_limit && enter(Health::suspect, now);
}

bool HealthTracker::flush(WallTime now) {
  if (health_ == Health::down) return false;
  trial_left_ = 0;
  return enter(Health::up, now);
}

void HealthTracker::clock_is_back(WallTime now) {
  since_ = std::min(since_, now);
  downtime_.begun_by(now);
}

void HealthTracker::inherit(Health health, WallTime since, std::string reason, bool on_trial,
                            const Downtime& downtime) {
  Downtime known = downtime;
  if (health != Health::up) known.begin(since);  // what is remembered may lack it
  downtime_.add(known);
  if (health_ != Health::up) return;
  health_ = health;
  since_ = std::max(since_, since);
  if (!reason.empty()) reason_ = std::move(reason);
  if (on_trial && trial_left_ == 0) begin_trial();
}

}  // namespace greymx::relay

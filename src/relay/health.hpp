// Is a primary up? Learnt from connections, deliveries and probes; remembered with all its outages. Pure.
//
//   UP       --no host answers-->                         DOWN      nothing is tried but probes
//   DOWN     --a host greets and answers EHLO-->          UP, on trial: the first 20 messages, each at its first try
//   on trial --10 of them refused before DATA-->          SUSPECT   one message a probe interval is tried
//   SUSPECT  --a message is delivered-->                  UP, on trial again
//   SUSPECT  --flush-->                                   UP, its refusals count
//
// On trial and in SUSPECT a 5yz before DATA only defers, and teaches nothing: a primary that came back without its
// user database must not bounce the backlog.
#pragma once

#include <chrono>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/id.hpp"

namespace greymx::relay {

enum class Health : std::uint8_t { up, suspect, down };
std::string_view to_string(Health health);

// The times in which a primary was not up.
class Downtime {
 public:
  void begin(WallTime now);
  void end(WallTime now);
  // What goes on began by a clock that was ahead. What is over may stay: it keeps mail longer, never shorter.
  void begun_by(WallTime now);
  void forget_before(WallTime time);
  void add(const Downtime& other);
  std::chrono::seconds within(WallTime from, WallTime to) const;

  using Spans = std::vector<std::pair<WallTime, WallTime>>;  // in order; max() = not over
  const Spans& spans() const { return spans_; }
  void restore(Spans spans) { spans_ = std::move(spans); }

 private:
  void limit();
  Spans spans_;
};

class HealthTracker {
 public:
  Health health() const { return health_; }
  WallTime since() const { return since_; }
  const std::string& reason() const { return reason_; }  // of the last trouble
  bool on_trial() const { return trial_left_ > 0; }
  unsigned trial_refused() const { return on_trial() ? trial_refused_ : 0; }  // messages
  bool refusals_count() const { return health_ == Health::up && trial_left_ == 0; }
  const Downtime& downtime() const { return downtime_; }

  // Each returns whether health() changed.
  bool unreachable(WallTime now, std::string reason);
  bool reachable(WallTime now);
  bool delivered(QueueId id, WallTime now);
  bool refused(QueueId id, WallTime now, std::string reason);  // before DATA, while refusals do not count
  bool flush(WallTime now);

  void clock_is_back(WallTime now);  // `since` was read off a clock that was ahead, perhaps

  // What was known of it over a restart of ours, or elsewhere: its outage and its trial go on here. The worse health
  // wins, a trial begins anew.
  void inherit(Health health, WallTime since, std::string reason, bool on_trial, const Downtime& downtime);

 private:
  bool enter(Health health, WallTime now);
  void begin_trial();
  bool count(QueueId id);

  Health health_ = Health::up;
  WallTime since_{};
  std::string reason_;
  unsigned trial_left_ = 0;
  unsigned trial_refused_ = 0;
  std::set<QueueId> counted_;  // in this trial
  Downtime downtime_;
};

}  // namespace greymx::relay

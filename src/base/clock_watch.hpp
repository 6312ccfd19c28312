// Whether the wall clock can be trusted with what cannot be undone: a machine may start with a clock that is days off,
// and NTP may set it, or a mistake move it, while we run.
//
// Thread: one.
#pragma once

#include "base/clock.hpp"

namespace greymx {

class ClockWatch {
 public:
  explicit ClockWatch(const Clock& clock);

  // How far the wall clock has stepped, ahead or (below zero) back, since this was asked last; 0 = it has not.
  WallTime::duration step();
  WallTime wall() const { return wall_; }  // as the last call saw it
  // Has it kept pace with the steady clock since the start and since its last step, for an hour, or for `shortest`
  // where what expires lives no longer than that?
  bool settled(std::chrono::seconds shortest);

 private:
  void look();

  const Clock& clock_;
  WallTime wall_;
  SteadyTime steady_;
  SteadyTime since_;  // the start, or the last step
  WallTime::duration step_{};
};

}  // namespace greymx

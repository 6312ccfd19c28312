// How many connections a primary is given at once: slow after an outage, more with every clean second, half on
// trouble. Pure.
#pragma once

#include "base/id.hpp"

namespace greymx::relay {

class Drain {
 public:
  Drain(unsigned start, unsigned most) : start_(start), most_(most), limit_(start) {}

  unsigned limit() const { return limit_; }
  void set(unsigned start, unsigned most);  // a reload
  void restart(SteadyTime now);             // after an outage
  void taken(SteadyTime now);               // a message was delivered or refused for good
  void deferred(SteadyTime now);            // a message got a 4yz; a storm of them counts as trouble
  void trouble(SteadyTime now);             // 421, timeout, lost connection

 private:
  void count(SteadyTime now, unsigned& counter);

  unsigned start_;
  unsigned most_;
  unsigned limit_;
  SteadyTime second_began_{};
  SteadyTime last_trouble_{};
  unsigned taken_ = 0, deferred_ = 0;  // in this second
};

}  // namespace greymx::relay

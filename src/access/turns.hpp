// A bounded number of lookups at once: one under way weighs more than the idle session that began it, and a name
// server that is asked tens of thousands of questions in a burst loses most of them.
//
// Thread: the gate's.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <utility>

#include "base/async.hpp"

namespace greymx::access {

// Runs lookups of one kind. The gate must have let go of all of them before this dies.
class Turns {
 public:
  Turns(Gate& gate, const char* name) : gate_(gate), name_(name) {}
  void add(std::function<Task<>()> lookup) {  // begins at once if nothing waits
    waiting_.push_back(std::move(lookup));
    next();
  }
  void clear() { waiting_.clear(); }

 private:
  static constexpr std::size_t at_once = 250;

  void next() {
    if (std::exchange(in_next_, true)) return;  // one that ended at once, below
    while (!waiting_.empty() && running_ < at_once) {
      const std::function<Task<>()> lookup = std::move(waiting_.front());
      waiting_.pop_front();
      ++running_;
      if (!gate_.spawn(name_, run(lookup()))) --running_;
    }
    in_next_ = false;
  }
  Task<> run(Task<> lookup) {
    struct Turn {
      Turns& turns;
      ~Turn() {
        --turns.running_;
        turns.next();
      }
    } const turn{*this};
    co_await std::move(lookup);
  }

  Gate& gate_;
  const char* name_;
  std::deque<std::function<Task<>()>> waiting_;
  std::size_t running_ = 0;
  bool in_next_ = false;
};

// What one session has of the turns: one at a time, for the latest lookup that it added; what waited before has been
// replaced. So a session that names a thousand senders in a row takes no turn from others.
class Place : public std::enable_shared_from_this<Place> {
 public:
  explicit Place(Turns& turns) : turns_(turns) {}
  void add(std::function<Task<>()> lookup) {
    latest_ = std::move(lookup);
    if (!std::exchange(taken_, true)) take_turn();
  }

 private:
  void take_turn() {
    turns_.add([self = shared_from_this()] { return run(self); });
  }
  static Task<> run(std::shared_ptr<Place> self) {
    struct Turn {
      Place& place;
      ~Turn() {
        place.taken_ = place.latest_ != nullptr;
        if (place.taken_) place.take_turn();
      }
    } const turn{*self};
    const std::function<Task<>()> lookup = std::exchange(self->latest_, nullptr);
    co_await lookup();
  }

  Turns& turns_;
  std::function<Task<>()> latest_;
  bool taken_ = false;
};

}  // namespace greymx::access

// A bounded number of lookups at once: one under way weighs more than the idle session that began it, and a name
// server that is asked tens of thousands of questions in a burst loses most of them.
//
// Thread: the gate's.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <unordered_map>
#include <utility>

#include "base/async.hpp"
#include "base/ip.hpp"

namespace greymx::access {

// Runs lookups of one kind. Networks of clients (IPv4 /24, IPv6 /48) are served in rotation, and none may have more
// than a share of the turns that are still free: so whoever names slow domains in masses leaves some to everybody else.
// The gate must have let go of all lookups before this dies.
class Turns {
 public:
  Turns(Gate& gate, const char* name) : gate_(gate), name_(name) {}
  void add(const IpAddress& client, std::function<Task<>()> lookup) {  // begins at once if its network may have a turn
    const IpAddress network = client.masked(client.is_v4() ? 24 : 48);
    auto& waiting = crowds_[network].waiting;
    waiting.push_back(std::move(lookup));
    if (waiting.size() == 1) rotation_.push_back(network);
    next();
  }
  void clear() {
    rotation_.clear();
    for (auto& [network, crowd] : crowds_) crowd.waiting.clear();
    std::erase_if(crowds_, [](const auto& entry) { return entry.second.running == 0; });
  }

 private:
  static constexpr std::size_t at_once = 250;
  static constexpr std::size_t share = 8;  // one network's is an eighth of what is free: 28 if it is alone

  struct Crowd {  // of one network
    std::deque<std::function<Task<>()>> waiting;
    std::size_t running = 0;
  };

  bool may_run(const IpAddress& network) const {
    return crowds_.at(network).running < std::max<std::size_t>((at_once - running_) / share, 1);
  }
  void next() {
    if (std::exchange(in_next_, true)) return;  // one that ended at once, below
    while (running_ < at_once) {
      const auto turn = std::ranges::find_if(rotation_, [this](const IpAddress& network) { return may_run(network); });
      if (turn == rotation_.end()) break;
      const IpAddress network = *turn;
      rotation_.erase(turn);
      begin(network);
    }
    in_next_ = false;
  }
  void begin(const IpAddress& network) {
    Crowd& crowd = crowds_[network];
    const std::function<Task<>()> lookup = std::move(crowd.waiting.front());
    crowd.waiting.pop_front();
    if (!crowd.waiting.empty()) rotation_.push_back(network);
    ++crowd.running;
    ++running_;
    if (!gate_.spawn(name_, run(lookup(), network))) end(network);
  }
  void end(const IpAddress& network) {
    --running_;
    const auto crowd = crowds_.find(network);
    if (--crowd->second.running == 0 && crowd->second.waiting.empty()) crowds_.erase(crowd);
  }
  Task<> run(Task<> lookup, IpAddress network) {
    struct Turn {
      Turns& turns;
      IpAddress network;
      ~Turn() {
        turns.end(network);
        turns.next();
      }
    } const turn{*this, network};
    co_await std::move(lookup);
  }

  Gate& gate_;
  const char* name_;
  std::unordered_map<IpAddress, Crowd> crowds_;
  std::deque<IpAddress> rotation_;  // those with something waiting
  std::size_t running_ = 0;
  bool in_next_ = false;
};

// What one session has of the turns: one at a time, for the latest lookup that it added; what waited before has been
// replaced. So a session that names a thousand senders in a row takes no turn from others.
class Place : public std::enable_shared_from_this<Place> {
 public:
  Place(Turns& turns, const IpAddress& client) : turns_(turns), client_(client) {}
  void add(std::function<Task<>()> lookup) {
    latest_ = std::move(lookup);
    if (!std::exchange(taken_, true)) take_turn();
  }

 private:
  void take_turn() {
    turns_.add(client_, [self = shared_from_this()] { return run(self); });
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
  IpAddress client_;
  std::function<Task<>()> latest_;
  bool taken_ = false;
};

}  // namespace greymx::access

// What time does to queued mail, tried or not: expiry, delay reports, the end of held mail; and the admin's bounce.
//
// Thread: the relay's.
#pragma once

#include <map>
#include <string>

#include "relay/endings.hpp"

namespace greymx::relay {

// What is due for one message. Pure.
struct Due {
  std::vector<std::size_t> expired;  // pending, too old
  std::vector<std::size_t> held_too_long;
  bool no_room = false;              // …but not by its age
  std::vector<std::size_t> delayed;  // a delay report is wanted
  WallTime first_expiry = WallTime::max();
  std::size_t first_to_expire = 0;  // the recipient
  bool empty() const { return expired.empty() && held_too_long.empty() && delayed.empty(); }
};
Due due_of(const queue::Message& message, WallTime arrival, WallTime now, const config::Queue& rules,
           const DowntimeOf& downtime_of);

class Sweep {
 public:
  explicit Sweep(Parts& parts) : parts_(parts) {}

  std::chrono::seconds interval() const;  // until the next once()
  Task<> once();
  Task<Result<>> bounce(QueueId id, std::string reason);

 private:
  Task<> look_at(queue::Message seen);
  Due find(const queue::Message& message) const;
  void drop_held(const queue::Message& message, const Due& due);
  Task<> report_delay(const queue::Loaded& loaded, std::vector<std::size_t> recipients, WallTime retry_until);
  std::chrono::seconds youngest() const;
  std::optional<std::vector<Taken>> claim(const queue::Message& message, const std::vector<std::size_t>& recipients);
  bool crowded() const;
  void note_near(const queue::Message& message, const Due& due);
  void warn_before();
  Task<> walk();

  // What is about to expire, by domain, as the walk finds it.
  struct Near {
    std::size_t messages = 0;
    QueueId first;
    WallTime expires = WallTime::max();
  };

  Parts& parts_;
  std::map<std::string, Near> near_;
  std::size_t shed_ = 0;  // held mail for which there was no room, by this walk
};

}  // namespace greymx::relay

// Room for mail, on the disk and in memory.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/alerts.hpp"
#include "base/log.hpp"

namespace greymx::queue {

// As all who take mail see it. Any thread.
struct Space {
  std::atomic<std::int64_t> free = 0;       // bytes of the file system as last looked at, less what was written since
  std::atomic<std::uint64_t> buffered = 0;  // bytes of bodies in memory: promised to their senders
  std::atomic<std::uint64_t> reserve = 0;   // min_free_space
  std::atomic<std::uint64_t> memory = 0;    // buffer_memory

  bool room(std::uint64_t size) const { return free >= static_cast<std::int64_t>(reserve + buffered + size); }
};

// Tells the admin before mail is refused, while an alert can still be queued, and when it is. With twice the reserve it
// is over. One thread.
class SpaceWarning {
 public:
  // `directory` of the spool, for the texts. References must live longer.
  SpaceWarning(const Space& space, const std::string& directory, Log& log, Alerts& alerts)
      : space_(space), directory_(directory), log_(log), alerts_(alerts) {}
  void look();  // after space.free has been set

 private:
  enum class Room : std::uint8_t { enough, low, none };
  const Space& space_;
  const std::string& directory_;
  Log& log_;
  Alerts& alerts_;
  Room told_ = Room::enough;
};

}  // namespace greymx::queue

#include "queue/space.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace greymx::queue {

void SpaceWarning::look() {
  const std::uint64_t reserve = space_.reserve;
  const Room now = !space_.room(0) ? Room::none : !space_.room(reserve / 2) ? Room::low : Room::enough;
  const Room told = told_;
  if (space_.room(reserve)) {
    told_ = Room::enough;
  } else {
    told_ = now == Room::enough ? std::min(told, Room::low) : std::max(told, now);
  }
  if (told_ == told || (told_ < told && told_ != Room::enough)) return;
  const std::string numbers = fmt::format("{} MiB are free in {}, limits.min_free_space is {} MiB",
                                          std::max<std::int64_t>(0, space_.free) >> 20, directory_, reserve >> 20);
  if (told_ == Room::none) {
    alerts_.raise("no space for the queue", numbers + ". New mail is answered with 452. Make room.");
  } else if (told_ == Room::low) {
    alerts_.raise("space for the queue is low", numbers + ": below that new mail is answered with 452. Make room.");
  } else {
    log_.info("spool", "there is space for the queue again: " + numbers);
  }
}

}  // namespace greymx::queue

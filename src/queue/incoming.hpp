// A message on its way in: in memory while it is small and all of them together fit limits.buffer_memory, else in a
// file of its own, written and synced off the network threads.
#pragma once

#include "queue/writer.hpp"

namespace greymx::queue {

// Room on the disk and in memory, as all who take mail see it. Any thread.
struct Space {
  std::atomic<std::int64_t> free = 0;       // bytes of the file system as last looked at, less what was written since
  std::atomic<std::uint64_t> buffered = 0;  // bytes of bodies in memory: promised to their senders
  std::atomic<std::uint64_t> reserve = 0;   // min_free_space
  std::atomic<std::uint64_t> memory = 0;    // buffer_memory

  bool room(std::uint64_t size) const { return free >= static_cast<std::int64_t>(reserve + buffered + size); }
};

struct IntakeParts {
  const SpoolSettings& settings;
  Files& files;
  const Clock& clock;
  Space& space;
  Writer& writer;
  asio::thread_pool& pool;
};

std::unique_ptr<Incoming> make_incoming(const IntakeParts& parts, QueueId id);

}  // namespace greymx::queue

// A message on its way in: in memory while it is small and all of them together fit limits.buffer_memory, else in a
// file of its own, written and synced off the network threads.
#pragma once

#include "queue/space.hpp"
#include "queue/writer.hpp"

namespace greymx::queue {

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

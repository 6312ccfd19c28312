// A record on its way into the log, and who waits until it is durable.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "queue/index.hpp"

namespace greymx::queue {

// Resumes what waits for a result: on its own executor, or, without one, on the writer's thread.
struct Waiter {
  asio::any_io_executor home;
  std::move_only_function<void(Result<>)> resume;
};

struct Append {
  Entry entry;  // its offset is still open
  std::string head;
  std::vector<std::vector<char>> body;  // pieces
  std::uint32_t body_length = 0;
  std::uint32_t body_crc = 0;
  std::string arrival;            // what the log says of a new message
  std::optional<Places> only_if;  // compaction: dropped if the message has changed its places meanwhile
  std::optional<Waiter> waiter;
};

Append make_append(Entry entry, std::uint32_t previous, std::string head = {});

std::uint64_t length_of(const Append& append);  // of the record, in bytes

// Resumes all: those of one executor with one post.
void wake(std::vector<Waiter> waiters, const Result<>& result);

}  // namespace greymx::queue

// Mail in a directory that was paths.queue in an earlier run, or in one that was moved into the queue: no command shows
// it and nobody delivers it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace greymx::daemon {

using CountMessages = std::function<Result<std::uint64_t>(const std::string& queue_path)>;

// "12 messages are in OLD: stop greymxd, move OLD to NEW, start". Where NEW exists, it is to be moved aside before.
std::string move_advice(std::uint64_t messages, const std::string& from, const std::string& to);

struct LeftBehind {
  std::vector<std::string> texts;  // one for each earlier queue in which mail waits
  Result<> remembered;             // whether the memory could be written
};

// `memory` is the file, in paths.state, that remembers earlier queues with the present one. An empty queue is
// forgotten; one that is not there may be on a file system that is not mounted now. Blocks.
LeftBehind mail_left_behind(const std::string& queue_path, const std::string& memory, const CountMessages& count);

}  // namespace greymx::daemon

#include "daemon/earlier_queues.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <sstream>

#include "base/files.hpp"

namespace greymx::daemon {

std::string move_advice(std::uint64_t messages, const std::string& from, const std::string& to) {
  return fmt::format("{} message{} in {}: stop greymxd, move {} to {}, start", messages,
                     messages == 1 ? " is" : "s are", from, from, to);
}

LeftBehind mail_left_behind(const std::string& queue_path, const std::string& memory, const CountMessages& count) {
  const std::string known = read_file(memory).value_or("");
  std::string kept = queue_path + "\n";
  LeftBehind left;
  std::istringstream lines(known);
  for (std::string path; std::getline(lines, path);) {
    std::error_code none;
    if (path == queue_path || std::filesystem::equivalent(path, queue_path, none)) continue;
    const bool there = std::filesystem::exists(path + "/lock", none);
    const auto messages = there ? count(path) : Result<std::uint64_t>(0);
    if (there && messages && *messages == 0) continue;
    kept += path + "\n";
    if (!there) continue;
    if (messages) {
      left.texts.push_back(move_advice(*messages, path, queue_path) + "; if mail is in " + queue_path +
                           " by now, let it be delivered first");
    } else {
      left.texts.push_back("whether mail is left in " + path + " cannot be told: " + messages.error().text);
    }
  }
  if (kept != known) left.remembered = replace_file(memory, kept);
  return left;
}

}  // namespace greymx::daemon

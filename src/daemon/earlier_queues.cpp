#include "daemon/earlier_queues.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <set>
#include <sstream>

#include "base/files.hpp"

namespace greymx::daemon {

namespace {

// Where `mv OLD NEW` has put OLD while NEW existed.
std::vector<std::string> queues_within(const std::string& queue_path) {
  std::vector<std::string> found;
  std::error_code none;
  for (std::filesystem::directory_iterator at(queue_path, none), end; at != end; at.increment(none)) {
    if (std::filesystem::exists(at->path() / "lock", none)) found.push_back(at->path());
  }
  return found;
}

}  // namespace

std::string move_advice(std::uint64_t messages, const std::string& from, const std::string& to) {
  const std::string found = fmt::format("{} message{} in {}: ", messages, messages == 1 ? " is" : "s are", from);
  const std::string target = to.substr(0, to.find_last_not_of('/') + 1);
  std::error_code none;
  if (!std::filesystem::exists(target, none)) {
    return fmt::format("{}stop greymxd, move {} to {}, start", found, from, target);
  }
  std::string aside = target + ".aside";
  while (std::filesystem::exists(aside, none)) aside += "2";  // which mv would move into
  const bool within = from.starts_with(target + "/");
  return fmt::format("{0}when no mail is left in {1} itself, stop greymxd, move {1} to {2}, move {3} to {1}, start",
                     found, target, aside, within ? aside + from.substr(target.size()) : from);
}

LeftBehind mail_left_behind(const std::string& queue_path, const std::string& memory, const CountMessages& count) {
  const std::string known = read_file(memory).value_or("");
  std::string kept = queue_path + "\n";
  LeftBehind left;
  std::set<std::string> paths;
  std::istringstream lines(known);
  for (std::string path; std::getline(lines, path);) paths.insert(path);
  for (const std::string& path : queues_within(queue_path)) paths.insert(path);
  for (const std::string& path : paths) {
    std::error_code none;
    if (path == queue_path || std::filesystem::equivalent(path, queue_path, none)) continue;
    const bool there = std::filesystem::exists(path + "/lock", none);
    const auto messages = there ? count(path) : Result<std::uint64_t>(0);
    if (there && messages && *messages == 0) continue;
    kept += path + "\n";
    if (!there) continue;
    if (messages) {
      left.texts.push_back(move_advice(*messages, path, queue_path));
    } else {
      left.texts.push_back("whether mail is left in " + path + " cannot be told: " + messages.error().text);
    }
  }
  if (kept != known) left.remembered = replace_file(memory, kept);
  return left;
}

}  // namespace greymx::daemon

// What goes over the control socket: one JSON object a line. The tool sends one request; the daemon answers with
//   {"text":"…"}              for standard output, as it is
//   {"file":"ID.eml"}         what follows belongs into this file (export)
//   {"data":"base64"}         bytes of a message
//   {"done":12,"total":40}    progress
//   {"exit":0} or {"exit":1,"error":"…"}   the last line
// Pure. The peer is root or a member of our group, yet everything it sends is bounded and checked.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>

#include "admin/select.hpp"
#include "base/result.hpp"

namespace greymx::admin {

inline constexpr std::size_t max_request = 1 << 20;  // some 60,000 queue IDs

struct Request {
  std::string command;  // "mailq", "greylist list", …
  bool json = false;
  bool color = false;  // the tool writes to a terminal
  Selection select;
  std::map<std::string, std::string> args;

  const std::string& arg(const std::string& name) const;  // empty if not given
};

std::string to_line(const Request& request);
Result<Request> parse_request(std::string_view line);

struct Ending {
  int exit = 0;  // 0 done, 1 failed or not found, 2 wrong usage, 75 the daemon cannot answer
  std::string error;
};
inline Ending failed(std::string error) {
  return {1, std::move(error)};
}

namespace reply {
std::string text(std::string_view text);
std::string file(std::string_view name);
std::string data(std::span<const char> bytes);
std::string progress(std::uint64_t done, std::uint64_t total);
std::string end(const Ending& ending);
}  // namespace reply

std::string decode_base64(std::string_view text);  // empty if it is none

}  // namespace greymx::admin

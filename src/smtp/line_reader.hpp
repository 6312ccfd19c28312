// Command lines out of a stream of bytes (RFC 5321 2.3.8: only CRLF ends a line). Pure; fuzzed.
//
// A line with a bare CR, a bare LF or a NUL in it is an error, not two lines: what another server took for one line
// must never become a command of its own here. A line that is too long is skipped to its end, so that the session
// stays in step.
#pragma once

#include <cstdint>
#include <string_view>

namespace greymx::smtp {

class LineReader {
 public:
  static constexpr std::size_t max_line = 2048;  // with CRLF; RFC 5321 asks for 512, extensions add up to 1,100

  enum class Status : std::uint8_t { need_more, line, too_long, bare_lf, bare_cr, nul };
  struct Event {
    Status status;
    std::string_view line;  // without CRLF, a part of the input; only if status is `line`
  };

  // Takes one line from the front of `input`, or as much of an endless one as there is. What it leaves (with
  // need_more: less than max_line bytes) must be there again, with more behind it, at the next call.
  Event next(std::string_view& input);

 private:
  bool skipping_ = false;
};

}  // namespace greymx::smtp

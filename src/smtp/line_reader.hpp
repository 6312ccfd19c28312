// Command lines out of a stream of bytes. Pure; fuzzed.
//
// CRLF ends a line, and so does a bare LF, of simple clients, unless that is forbidden (RFC 5321 2.3.8): then it is an
// error, behind which nothing may be taken for a command. A line with a bare CR or a NUL in it is an error, not two
// lines. One that is too long is skipped to its end, so that the session stays in step.
#pragma once

#include <cstdint>
#include <string_view>

namespace greymx::smtp {

class LineReader {
 public:
  static constexpr std::size_t max_line = 2048;  // with its end; RFC 5321 asks for 512, extensions add up to 1,100

  enum class Status : std::uint8_t { need_more, line, too_long, bare_lf, bare_cr, nul };
  struct Event {
    Status status;
    std::string_view line;  // without its end, a part of the input; only if status is `line`
  };

  explicit LineReader(bool forbid_bare_lf) : forbid_bare_lf_(forbid_bare_lf) {}

  // Takes one line from the front of `input`, or as much of an endless one as there is. What it leaves (with
  // need_more: less than max_line bytes) must be there again, with more behind it, at the next call.
  Event next(std::string_view& input);

 private:
  bool forbid_bare_lf_;
  bool skipping_ = false;
};

}  // namespace greymx::smtp

// What a server answers (RFC 5321 4.2), read from whatever bytes it sends. Pure.
//
// A hostile server costs at most 64 KiB and 100 lines a reply; what is kept of a line is 512 octets, made printable.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace greymx::smtp {

struct ServerReply {
  int code = 0;                    // 200..599
  std::string enhanced;            // RFC 2034 code, the first one whose class is that of `code`
  std::vector<std::string> lines;  // without the code, printable(); at least one

  bool positive() const { return code / 100 == 2; }
  bool temporary() const { return code / 100 == 4; }
  bool permanent() const { return code / 100 == 5; }
  std::string text() const;  // "550 5.1.1 no such user", lines joined by a space, at most 512 octets
  bool operator==(const ServerReply&) const = default;
};

class ReplyParser {
 public:
  enum class Status : std::uint8_t { more, complete, malformed };

  // Takes bytes up to the end of one reply at most and returns how many; what is left belongs to the next one.
  std::size_t feed(std::string_view bytes);
  Status status() const { return status_; }
  ServerReply take();  // after `complete`; ready for the next reply

 private:
  void end_line();

  Status status_ = Status::more;
  ServerReply reply_;
  std::string line_;       // what is kept of the current line
  std::size_t total_ = 0;  // octets of this reply so far
};

}  // namespace greymx::smtp

#include "smtp/client_reply.hpp"

#include <algorithm>
#include <utility>

#include "base/mailbox.hpp"
#include "base/text.hpp"

namespace greymx::smtp {

namespace {

constexpr std::size_t kept_line = 4 + 512;
constexpr std::size_t max_lines = 100;
constexpr std::size_t max_reply = 64UL << 10;

// "5.1.1 text" -> "5.1.1" (RFC 3463 2: class, then up to three digits each).
std::string enhanced_code(std::string_view text, int code) {
  text = trim(text);
  const std::string_view word = text.substr(0, text.find(' '));
  int dots = 0;
  std::size_t digits = 0;
  for (const char c : word) {
    if (c == '.' && digits > 0) {
      ++dots;
      digits = 0;
    } else if (!is_digit(c) || ++digits > 3) {
      return {};
    }
  }
  const bool right = dots == 2 && digits > 0 && word[0] - '0' == code / 100 && word[1] == '.';
  return right ? std::string(word) : std::string();
}

}  // namespace

std::string ServerReply::text() const {
  std::string all = std::to_string(code);
  for (const std::string& line : lines) {
    if (!line.empty()) all += " " + line;
  }
  return printable(all, 512);
}

std::size_t ReplyParser::feed(std::string_view bytes) {
  std::size_t used = 0;
  while (used < bytes.size() && status_ == Status::more) {
    const std::string_view rest = bytes.substr(used);
    const std::size_t end = rest.find('\n');
    const std::string_view part = rest.substr(0, end);
    line_.append(part.substr(0, kept_line - std::min(kept_line, line_.size())));
    const std::size_t taken = end == std::string_view::npos ? rest.size() : end + 1;
    used += taken;
    total_ += taken;
    if (end != std::string_view::npos) end_line();
    if (total_ > max_reply && status_ == Status::more) status_ = Status::malformed;
  }
  return used;
}

void ReplyParser::end_line() {
  if (line_.ends_with('\r')) line_.pop_back();
  const bool coded = line_.size() >= 3 && line_[0] >= '2' && line_[0] <= '5' && is_digit(line_[1]) &&
                     is_digit(line_[2]) && (line_.size() == 3 || line_[3] == ' ' || line_[3] == '-');
  if (!coded || reply_.lines.size() == max_lines) {
    status_ = Status::malformed;
    return;
  }
  // All lines must carry the same code; where they do not, the last one ends the reply and counts.
  reply_.code = (line_[0] - '0') * 100 + (line_[1] - '0') * 10 + (line_[2] - '0');
  reply_.lines.push_back(printable(std::string_view(line_).substr(std::min<std::size_t>(4, line_.size())), 512));
  if (line_.size() == 3 || line_[3] == ' ') {
    // RFC 2034 3 wants it in every line; not all servers know.
    for (std::size_t i = 0; i < reply_.lines.size() && reply_.enhanced.empty(); ++i) {
      reply_.enhanced = enhanced_code(reply_.lines[i], reply_.code);
    }
    status_ = Status::complete;
  }
  line_.clear();
}

ServerReply ReplyParser::take() {
  status_ = Status::more;
  total_ = 0;
  return std::exchange(reply_, {});
}

}  // namespace greymx::smtp

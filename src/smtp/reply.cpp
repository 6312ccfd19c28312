#include "smtp/reply.hpp"

#include <fmt/format.h>

#include <iterator>

namespace greymx::smtp {

namespace {

constexpr std::size_t max_line = 510;  // without CRLF
constexpr std::size_t max_argument = 256;

void append_line(std::string& out, int code, char separator, std::string_view enhanced, std::string_view text) {
  const char digits[] = {static_cast<char>('0' + code / 100), static_cast<char>('0' + code / 10 % 10),
                         static_cast<char>('0' + code % 10), separator};
  out.append(digits, sizeof digits);
  if (!enhanced.empty()) out.append(enhanced) += ' ';
  out.append(text) += "\r\n";
}

// Where to break a text of which only `room` bytes fit: after a space if there is one in the last half, else on a
// character border.
std::size_t break_at(std::string_view text, std::size_t room) {
  const std::size_t space = text.rfind(' ', room);
  if (space != std::string_view::npos && space > room / 2) return space;
  while (room > 1 && (static_cast<unsigned char>(text[room]) & 0xc0) == 0x80) --room;
  return room;
}

void append(std::string& out, int code, std::string_view enhanced, std::string_view text) {
  const std::size_t room = max_line - 4 - (enhanced.empty() ? 0 : enhanced.size() + 1);
  while (text.size() > room) {
    const std::size_t cut = break_at(text, room);
    append_line(out, code, '-', enhanced, text.substr(0, cut));
    text.remove_prefix(text[cut] == ' ' ? cut + 1 : cut);
  }
  append_line(out, code, ' ', enhanced, text);
}

}  // namespace

Reply make_reply(const ReplyText& text, std::string_view host, std::string_view argument) {
  Reply reply{text.code, std::string(text.enhanced), {}};
  for (std::size_t i = 0; i < text.text.size(); ++i) {
    const std::string_view two = text.text.substr(i, 2);
    if (two == "%h") {
      reply.text += host;
      ++i;
    } else if (two == "%s") {
      reply.text += printable(argument, max_argument);
      ++i;
    } else {
      reply.text += text.text[i];
    }
  }
  return reply;
}

void append_reply(std::string& out, const Reply& reply) {
  append(out, reply.code, reply.enhanced, reply.text);
}

void append_reply(std::string& out, const ReplyText& reply) {
  append(out, reply.code, reply.enhanced, reply.text);
}

}  // namespace greymx::smtp

#include "smtp/reply.hpp"

#include "base/text.hpp"

namespace greymx::smtp {

namespace {

constexpr std::size_t max_line = 510;  // without CRLF
constexpr std::size_t max_argument = 256;

void append_line(std::string& out, const Reply& reply, char separator, std::string_view text) {
  out.append(std::to_string(reply.code)) += separator;
  if (!reply.enhanced.empty()) out.append(reply.enhanced) += ' ';
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

}  // namespace

Reply make_reply(const ReplyText& text, std::string_view host, std::string_view argument) {
  Reply reply{text.code, std::string(text.enhanced), {}};
  std::string_view rest = text.text;
  for (std::size_t at = rest.find('%'); at != std::string_view::npos; at = rest.find('%')) {
    const std::string_view mark = rest.substr(at, 2);
    reply.text += rest.substr(0, at);
    reply.text += mark == "%h"   ? std::string(host)
                  : mark == "%s" ? printable(argument, max_argument)
                                 : std::string(mark);
    rest.remove_prefix(at + mark.size());
  }
  reply.text += rest;
  return reply;
}

void append_reply(std::string& out, const Reply& reply, bool utf8) {
  if (!utf8 && !is_ascii(reply.text)) return append_reply(out, {reply.code, reply.enhanced, to_ascii(reply.text)});
  std::string_view text = reply.text;
  const std::size_t room = max_line - 4 - (reply.enhanced.empty() ? 0 : reply.enhanced.size() + 1);
  while (text.size() > room) {
    const std::size_t cut = break_at(text, room);
    append_line(out, reply, '-', text.substr(0, cut));
    text.remove_prefix(text[cut] == ' ' ? cut + 1 : cut);
  }
  append_line(out, reply, ' ', text);
}

}  // namespace greymx::smtp

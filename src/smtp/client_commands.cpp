#include "smtp/client_commands.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "smtp/command.hpp"

namespace greymx::smtp {

namespace {

std::vector<std::string> words(std::string_view line) {
  std::vector<std::string> result;
  for (std::size_t start = 0; start < line.size();) {
    const std::size_t end = std::min(line.find(' ', start), line.size());
    if (end > start) result.emplace_back(line.substr(start, end - start));
    start = end + 1;
  }
  return result;
}

std::string to_upper(std::string word) {
  std::transform(word.begin(), word.end(), word.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return word;
}

std::string xforward_value(const std::string& attribute, const Envelope& envelope) {
  const Client& client = envelope.client;
  std::string value;
  if (attribute == "NAME" && client.name != "unknown") value = client.name;
  if (attribute == "ADDR") value = (client.address.is_v4() ? "" : "IPV6:") + client.address.to_string();
  if (attribute == "PORT" && client.port != 0) value = std::to_string(client.port);
  if (attribute == "PROTO") value = envelope.protocol == "SMTP" ? "SMTP" : "ESMTP";
  if (attribute == "HELO") value = envelope.helo;
  if (attribute == "SOURCE") value = "REMOTE";
  if (value.empty()) return "[UNAVAILABLE]";
  // An attribute is at most 255 octets, or a command would not fit into 512.
  value.resize(std::min<std::size_t>(value.size(), 255));
  while (xtext(value).size() > 255) value.pop_back();
  return xtext(value);
}

// "\x{FC}" for "ü", as an ORCPT has it where SMTPUTF8 is not in force (RFC 6533 3). What is given is valid UTF-8.
std::string without_utf8(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i++]);
    if (lead < 0x80) {
      result += static_cast<char>(lead);
      continue;
    }
    unsigned code = lead >= 0xf0 ? lead & 0x07 : lead >= 0xe0 ? lead & 0x0f : lead & 0x1f;
    while (i < text.size() && (static_cast<unsigned char>(text[i]) & 0xc0) == 0x80)
      code = code << 6 | (static_cast<unsigned char>(text[i++]) & 0x3f);
    result += fmt::format("\\x{{{:X}}}", code);
  }
  return result;
}

}  // namespace

Capabilities parse_capabilities(const ServerReply& ehlo) {
  Capabilities result;
  for (std::size_t i = 0; i < ehlo.lines.size(); ++i) {
    std::vector<std::string> line = words(ehlo.lines[i]);
    if (line.empty()) continue;
    if (i == 0) {
      result.name = to_lower(line[0]);
      continue;
    }
    const std::string keyword = to_upper(line[0]);
    if (keyword == "PIPELINING") result.pipelining = true;
    if (keyword == "8BITMIME") result.eight_bit_mime = true;
    if (keyword == "SMTPUTF8") result.smtputf8 = true;
    if (keyword == "DSN") result.dsn = true;
    if (keyword == "STARTTLS") result.starttls = true;
    if (keyword == "SIZE") {
      result.size = true;
      if (line.size() > 1) std::from_chars(line[1].data(), line[1].data() + line[1].size(), result.size_limit);
    }
    if (keyword == "XFORWARD") {
      for (std::size_t w = 1; w < line.size() && w <= 16; ++w) result.xforward.push_back(to_upper(line[w]));
    }
  }
  return result;
}

std::string command(std::string_view line) {
  std::string result(line);
  std::replace_if(result.begin(), result.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return result + "\r\n";
}

std::string mail_command(const Envelope& envelope, std::uint64_t size, bool utf8, const Capabilities& server) {
  std::string line = "MAIL FROM:<" + envelope.reverse_path + ">";
  if (server.size && size > 0) line += fmt::format(" SIZE={}", size);
  if (server.eight_bit_mime && envelope.body == BodyType::eight_bit_mime) line += " BODY=8BITMIME";
  if (server.smtputf8 && utf8) line += " SMTPUTF8";
  if (server.dsn && envelope.ret != DsnReturn::unset) {
    line += envelope.ret == DsnReturn::full ? " RET=FULL" : " RET=HDRS";
  }
  if (server.dsn && !envelope.envid.empty()) line += " ENVID=" + envelope.envid;
  return command(line);
}

std::string rcpt_command(const EnvelopeRecipient& recipient, bool utf8, const Capabilities& server) {
  std::string line = "RCPT TO:<" + recipient.address + ">";
  if (server.dsn && recipient.notify.given()) line += " NOTIFY=" + recipient.notify.to_string();
  const std::string& original = recipient.original_recipient;
  if (server.dsn && !original.empty())
    line += " ORCPT=" + (server.smtputf8 && utf8 ? original : without_utf8(original));
  return command(line);
}

std::vector<std::string> xforward_commands(const Envelope& envelope, const Capabilities& server) {
  static const std::vector<std::string> known = {"NAME", "ADDR", "PORT", "PROTO", "HELO", "SOURCE"};
  std::vector<std::string> commands;
  std::string line;
  for (const std::string& attribute : known) {
    if (std::find(server.xforward.begin(), server.xforward.end(), attribute) == server.xforward.end()) continue;
    const std::string word = " " + attribute + "=" + xforward_value(attribute, envelope);
    if (!line.empty() && line.size() + word.size() + 2 > 512) commands.push_back(command(std::exchange(line, "")));
    if (line.empty()) line = "XFORWARD";
    line += word;
  }
  if (!line.empty()) commands.push_back(command(line));
  return commands;
}

void ContentEncoder::add(std::string_view bytes, std::string& out) {
  out.reserve(out.size() + bytes.size() + bytes.size() / 32 + 16);
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    add_text(bytes.substr(0, end), out);
    if (end == std::string_view::npos) break;
    out += "\r\n";
    after_cr_ = false;
    line_start_ = true;
    bytes.remove_prefix(end + 1);
  }
}

void ContentEncoder::add_text(std::string_view text, std::string& out) {
  while (!text.empty()) {
    if (after_cr_) {  // it ended no line
      out += ' ';
      line_start_ = false;
    }
    if (line_start_ && text.front() == '.') out += '.';
    const std::size_t cr = std::min(text.find('\r'), text.size());
    out.append(text.substr(0, cr));
    if (cr > 0) line_start_ = false;
    after_cr_ = cr < text.size();
    text.remove_prefix(std::min(cr + 1, text.size()));
  }
}

void ContentEncoder::finish(std::string& out) {
  if (after_cr_ || !line_start_) out += "\r\n";
  out += ".\r\n";
  *this = {};
}

}  // namespace greymx::smtp

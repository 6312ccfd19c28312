#include "spf/macro.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <ranges>
#include <vector>

#include "base/mailbox.hpp"
#include "base/text.hpp"

namespace greymx::spf {
namespace {

constexpr std::size_t enough_text = 4096;  // of an explanation, which is cut far below that

// A run of literal text, or one macro.
struct Token {
  std::string_view literal;
  char letter = 0;  // lower-case; 0 = literal
  bool url = false;
  std::size_t parts = 0;  // right-hand parts to keep; 0 = all
  bool reverse = false;
  std::string_view delimiters = ".";
};

// What stands between the braces: macro-letter *DIGIT ["r"] *delimiter.
std::optional<Token> parse_macro(std::string_view body) {
  Token token;
  if (body.empty() || !is_alpha(body[0])) return std::nullopt;
  token.letter = lower(body[0]);
  token.url = token.letter != body[0];
  body.remove_prefix(1);
  const bool counted = !body.empty() && is_digit(body[0]);
  while (!body.empty() && is_digit(body[0])) {
    constexpr std::size_t enough = 1000;  // no name has more parts
    token.parts = std::min<std::size_t>(token.parts * 10 + static_cast<std::size_t>(body[0] - '0'), enough);
    body.remove_prefix(1);
  }
  if (counted && token.parts == 0) return std::nullopt;
  if (!body.empty() && lower(body[0]) == 'r') {
    token.reverse = true;
    body.remove_prefix(1);
  }
  if (body.find_first_not_of(".-+,/_=") != std::string_view::npos) return std::nullopt;
  if (!body.empty()) token.delimiters = body;
  return token;
}

// Takes the next token off `rest`, which is not empty; nullopt: a syntax error.
std::optional<Token> next_token(std::string_view& rest) {
  Token token;
  if (rest[0] != '%') {
    token.literal = rest.substr(0, rest.find('%'));
    rest.remove_prefix(token.literal.size());
    return token;
  }
  if (rest.size() < 2) return std::nullopt;
  const char kind = rest[1];
  if (kind == '{') {
    const std::size_t end = rest.find('}');
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view body = rest.substr(2, end - 2);
    rest.remove_prefix(end + 1);
    return parse_macro(body);
  }
  if (kind == '%') token.literal = "%";
  if (kind == '_') token.literal = " ";
  if (kind == '-') token.literal = "%20";
  if (token.literal.empty()) return std::nullopt;
  rest.remove_prefix(2);
  return token;
}

std::string dotted(const IpAddress& ip) {
  if (ip.is_v4()) return ip.to_string();
  std::string nibbles;
  for (const std::uint8_t byte : ip.bytes()) nibbles += fmt::format(".{:x}.{:x}", byte >> 4, byte & 0xf);
  return nibbles.substr(1);
}

std::string value_of(char letter, const MacroValues& values) {
  switch (letter) {
    case 's':
      return values.local + '@' + values.sender_domain;
    case 'l':
      return values.local;
    case 'o':
      return values.sender_domain;
    case 'd':
      return values.domain;
    case 'i':
      return dotted(values.client);
    case 'p':
      return values.validated;
    case 'v':
      return values.client.is_v4() ? "in-addr" : "ip6";
    case 'h':
      return values.helo;
    case 'c':
      return values.client.to_string();
    case 'r':
      return values.receiver.empty() ? "unknown" : values.receiver;
    default: {  // 't'
      const auto now = std::chrono::system_clock::now().time_since_epoch();
      return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(now).count());
    }
  }
}

std::string transform(const std::string& value, const Token& token) {
  std::vector<std::string> parts(1);
  for (const char c : value) {
    if (token.delimiters.find(c) == std::string_view::npos) {
      parts.back() += c;
    } else {
      parts.emplace_back();
    }
  }
  if (token.reverse) std::ranges::reverse(parts);
  const std::size_t keep = token.parts == 0 ? parts.size() : std::min(token.parts, parts.size());
  return fmt::format("{}", fmt::join(parts.end() - static_cast<std::ptrdiff_t>(keep), parts.end(), "."));
}

std::string url_escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (is_alnum(c) || std::string_view{"-._~"}.find(c) != std::string_view::npos) {
      escaped += c;
    } else {
      escaped += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return escaped;
}

std::string expanded(const Token& token, const MacroValues& values) {
  if (!token.letter) return std::string(token.literal);
  const std::string value = transform(value_of(token.letter, values), token);
  return token.url ? url_escaped(value) : value;
}

bool is_top_label(std::string_view label) {
  const auto allowed = [](char c) { return is_alnum(c) || c == '-'; };
  return !label.empty() && label.front() != '-' && label.back() != '-' && std::ranges::all_of(label, allowed) &&
         !std::ranges::all_of(label, is_digit);
}

}  // namespace

bool is_macro_string(std::string_view text, bool explanation) {
  const std::string_view letters = explanation ? "slodiphvcrt" : "slodiphv";
  while (!text.empty()) {
    const auto token = next_token(text);
    if (!token || (token->letter && letters.find(token->letter) == std::string_view::npos)) return false;
  }
  return true;
}

bool is_domain_spec(std::string_view text) {
  if (text.empty() || !is_macro_string(text, false)) return false;
  std::string_view last;  // literal run at the end; empty if it ends in %…
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view before = rest;
    next_token(rest);
    last = before[0] == '%' ? std::string_view{} : before.substr(0, before.size() - rest.size());
  }
  if (last.empty()) return true;
  if (last.ends_with('.')) last.remove_suffix(1);
  const std::size_t dot = last.rfind('.');
  return dot != std::string_view::npos && is_top_label(last.substr(dot + 1));
}

bool needs_validated_name(std::string_view text) {
  while (!text.empty()) {
    const auto token = next_token(text);
    if (!token) return false;
    if (token->letter == 'p') return true;
  }
  return false;
}

std::string expand(std::string_view text, const MacroValues& values) {
  std::string result;
  while (!text.empty() && result.size() < enough_text) {
    const auto token = next_token(text);
    if (!token) break;
    result += expanded(*token, values);
  }
  return result;
}

std::string expand_domain(std::string_view text, const MacroValues& values) {
  constexpr std::size_t max_name = 253;
  std::vector<Token> tokens;
  while (!text.empty()) {
    const auto token = next_token(text);
    if (!token) break;
    tokens.push_back(*token);
  }
  // From the right: a record of some KB can expand to megabytes, of which only the end is wanted.
  std::string name;
  for (auto token = tokens.rbegin(); token != tokens.rend() && name.size() <= max_name + 1; ++token) {
    name.insert(0, expanded(*token, values));
  }
  if (name.ends_with('.')) name.pop_back();
  if (name.size() <= max_name) return name;
  const std::size_t dot = name.find('.', name.size() - max_name - 1);
  return dot == std::string::npos ? name : name.substr(dot + 1);
}

}  // namespace greymx::spf

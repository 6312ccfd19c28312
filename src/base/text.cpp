#include "base/text.hpp"

#include <algorithm>
#include <charconv>
#include <random>

namespace greymx {

std::string_view trim(std::string_view text, std::string_view blanks) {
  text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
  return text.substr(0, text.find_last_not_of(blanks) + 1);
}

std::optional<unsigned> plain_number(std::string_view text, unsigned max) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  const bool leading_zero = text.size() > 1 && text.front() == '0';
  if (!whole || leading_zero || value > max) return std::nullopt;
  return value;
}

std::string to_ascii(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) result += c;
    if (byte >= 0xc0) result += '?';  // the first of a character's bytes
  }
  return result;
}

std::string random_hex(std::size_t digits) {
  std::random_device random;
  std::string text(digits, '0');
  for (char& digit : text) digit = "0123456789abcdef"[random() % 16];
  return text;
}

}  // namespace greymx

// Small things about text. Letters are those of ASCII, whatever the locale.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace greymx {

constexpr bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
constexpr bool is_alpha(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
constexpr bool is_alnum(char c) {
  return is_digit(c) || is_alpha(c);
}
constexpr char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

inline constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";  // at the head of a file: ignored

std::string_view trim(std::string_view text, std::string_view blanks = " \t");  // at both ends
// Digits only: no sign, no leading zero, nothing after.
std::optional<unsigned> plain_number(std::string_view text, unsigned max);
std::string to_ascii(std::string_view text);  // of UTF-8: each character that is not becomes '?'
std::string random_hex(std::size_t digits);

}  // namespace greymx

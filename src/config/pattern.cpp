#include "config/pattern.hpp"

#include <charconv>

namespace greymx::config {
namespace {

// Takes a number up to 255, of up to three digits, off `text`.
std::optional<std::size_t> take_number(std::string_view& text) {
  std::uint8_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end - text.data() > 3) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

bool take(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

bool take_octet(std::string_view& text, std::bitset<256>& octet) {
  const bool bracket = take(text, "[");
  do {
    const auto first = take_number(text);
    if (!first) return false;
    const auto last = bracket && take(text, "..") ? take_number(text) : first;
    if (!last || *last < *first) return false;
    for (std::size_t value = *first; value <= *last; ++value) octet.set(value);
  } while (bracket && take(text, ";"));
  return !bracket || take(text, "]");
}

}  // namespace

std::optional<Pattern> Pattern::parse(std::string_view text) {
  Pattern pattern;
  for (std::size_t i = 0; i < pattern.octets_.size(); ++i) {
    if (i > 0 && !take(text, ".")) return std::nullopt;
    if (!take_octet(text, pattern.octets_[i])) return std::nullopt;
  }
  if (!text.empty()) return std::nullopt;
  return pattern;
}

bool Pattern::can_list() const {
  const auto only = [&](std::size_t place, std::size_t value) {
    return octets_.at(place).count() == 1 && octets_.at(place).test(value);
  };
  const bool errors = (only(1, 255) && only(2, 255)) || (only(1, 0) && only(2, 0) && only(3, 1));
  return octets_[0].test(127) && !errors;
}

bool Pattern::matches(const IpAddress& address) const {
  if (!address.is_v4()) return false;
  for (std::size_t i = 0; i < octets_.size(); ++i) {
    if (!octets_[i].test(address.bytes()[i])) return false;
  }
  return true;
}

}  // namespace greymx::config

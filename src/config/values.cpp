#include "config/values.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <numeric>

#include "base/mailbox.hpp"

namespace greymx::config {

namespace {

// Far beyond any sensible setting, and safe to multiply and add.
constexpr std::uint64_t max_seconds = 100ULL * 365 * 86400;

constexpr std::uint64_t max_bytes = 1ULL << 62;

// Takes a number from the front; the largest for one that is larger.
std::optional<std::uint64_t> take_number(std::string_view& text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) value = UINT64_MAX;
  if (error == std::errc::invalid_argument) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

std::optional<std::uint64_t> whole_number(std::string_view text, std::uint64_t max) {
  const auto value = take_number(text);
  if (!value || !text.empty() || *value > max) return std::nullopt;
  return value;
}

constexpr std::uint64_t most_in_a_rate = 1ULL << 40;
constexpr Seconds longest_of_a_rate = std::chrono::days(366);

template <class ParseCount>
std::optional<Rate> parse_rate(std::string_view text, ParseCount parse_count) {
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const std::optional<std::uint64_t> count = parse_count(text.substr(0, slash));
  const auto period = parse_duration(text.substr(slash + 1));
  if (!count || *count > most_in_a_rate || !period || *period == Seconds(0) || *period > longest_of_a_rate) {
    return std::nullopt;
  }
  return Rate{*count, *period};
}

// Insertions, deletions, replacements and swaps of neighbours.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  std::iota(d[0].begin(), d[0].end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, replaced});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::optional<Seconds> parse_duration(std::string_view text) {
  static constexpr std::pair<char, std::uint64_t> units[] = {{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
  if (text.empty()) return std::nullopt;
  std::uint64_t total = 0;
  auto unit = std::begin(units);
  while (!text.empty()) {
    const auto count = take_number(text);
    if (!count || text.empty()) return std::nullopt;
    unit = std::find_if(unit, std::end(units), [&](const auto& candidate) { return candidate.first == text.front(); });
    if (unit == std::end(units)) return std::nullopt;
    total = std::min(total + std::min(*count, max_seconds) * unit->second, max_seconds);
    ++unit;
    text.remove_prefix(1);
  }
  return Seconds(total);
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  static constexpr std::pair<std::string_view, unsigned> units[] = {{"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
  const auto count = take_number(text);
  if (!count) return std::nullopt;
  for (const auto& [unit, shift] : units) {
    if (text == unit) return std::min(*count, max_bytes >> shift) << shift;
  }
  return std::nullopt;
}

std::optional<Rate> parse_count_rate(std::string_view text) {
  return parse_rate(text, [](std::string_view count) { return whole_number(count, 1'000'000'000); });
}

std::optional<Rate> parse_byte_rate(std::string_view text) {
  return parse_rate(text, parse_size);
}

std::optional<HostPort> parse_host_port(std::string_view text, std::uint16_t default_port) {
  HostPort result{{}, default_port};
  std::string_view port;
  const std::size_t colon = text.rfind(':');
  const bool has_port = colon != std::string_view::npos && !text.ends_with(']');
  if (has_port) {
    port = text.substr(colon + 1);
    text = text.substr(0, colon);
    const auto number = whole_number(port, 65535);
    if (!number || *number == 0) return std::nullopt;
    result.port = static_cast<std::uint16_t>(*number);
  }
  const bool bracketed = text.size() > 2 && text.front() == '[' && text.back() == ']';
  if (bracketed) text = text.substr(1, text.size() - 2);
  const auto address = IpAddress::parse(text);
  const bool numeric = text.find_first_not_of("0123456789.") == std::string_view::npos;
  const auto name = numeric ? std::nullopt : canonical_domain(text);
  if (address && bracketed == (text.find(':') != std::string_view::npos)) {
    result.host = address->to_string();
  } else if (name && !address && !bracketed) {
    result.host = *name;
  } else {
    return std::nullopt;
  }
  return result;
}

std::optional<std::string> parse_fingerprint(std::string_view text) {
  std::string digits;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ':' && digits.size() % 2 == 0 && !digits.empty() && text[i - 1] != ':') continue;
    const std::string digit = to_lower(text.substr(i, 1));
    if (digit.find_first_not_of("0123456789abcdef") != std::string::npos) return std::nullopt;
    digits += digit;
  }
  if (digits.size() != 64 || text.ends_with(':')) return std::nullopt;
  return digits;
}

std::string size_text(std::uint64_t bytes) {
  if (bytes != 0 && bytes % (1 << 30) == 0) return fmt::format("{}GiB", bytes >> 30);
  if (bytes != 0 && bytes % (1 << 20) == 0) return fmt::format("{}MiB", bytes >> 20);
  if (bytes != 0 && bytes % (1 << 10) == 0) return fmt::format("{}KiB", bytes >> 10);
  return fmt::format("{}B", bytes);
}

std::string nearest(std::string_view word, const std::vector<std::string>& known) {
  if (word.size() > 64) return {};
  std::string best;
  std::size_t best_distance = 1 + word.size() / 3;
  for (const std::string& candidate : known) {
    const std::size_t distance = edit_distance(to_lower(word), candidate);
    if (distance > best_distance || (distance == best_distance && !best.empty())) continue;
    best = candidate;
    best_distance = distance;
  }
  return best;
}

}  // namespace greymx::config

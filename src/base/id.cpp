#include "base/id.hpp"

#include <algorithm>

namespace greymx {

namespace {

constexpr std::string_view alphabet = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz";
constexpr std::size_t text_length = 12;  // 52^12 > 2^64
constexpr unsigned sequence_bits = 12;

}  // namespace

std::optional<QueueId> QueueId::parse(std::string_view text) {
  if (text.size() != text_length) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : text) {
    const std::size_t digit = alphabet.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    const bool overflow =
        __builtin_mul_overflow(value, alphabet.size(), &value) || __builtin_add_overflow(value, digit, &value);
    if (overflow) return std::nullopt;
  }
  return QueueId{value};
}

std::string QueueId::to_string() const {
  std::string text(text_length, '0');
  std::uint64_t rest = value;
  for (auto digit = text.rbegin(); digit != text.rend(); ++digit, rest /= alphabet.size()) {
    *digit = alphabet[rest % alphabet.size()];
  }
  return text;
}

WallTime QueueId::time() const {
  return WallTime(std::chrono::microseconds(static_cast<std::int64_t>(value >> sequence_bits)));
}

QueueId QueueIdSource::next(WallTime now) {
  const std::uint64_t wanted = static_cast<std::uint64_t>(now.time_since_epoch().count()) << sequence_bits;
  std::uint64_t last = last_.load();
  std::uint64_t mine = 0;
  do {
    mine = std::max(wanted, last + 1);
  } while (!last_.compare_exchange_weak(last, mine));
  return QueueId{mine};
}

void QueueIdSource::seen(QueueId id) {
  std::uint64_t last = last_.load();
  while (last < id.value && !last_.compare_exchange_weak(last, id.value)) {
  }
}

}  // namespace greymx

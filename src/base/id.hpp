// Queue IDs: unique for the life of a spool, sortable by time, never reused.
#pragma once

#include <atomic>
#include <chrono>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace greymx {

using WallTime = std::chrono::sys_time<std::chrono::microseconds>;
using SteadyTime = std::chrono::steady_clock::time_point;

// 52 bits of microseconds since 1970 and 12 bits that tell apart messages of one microsecond. As text: 12 digits of
// Postfix's long-ID alphabet (digits and consonants, so that no ID is a word), whose order is the order of time.
struct QueueId {
  std::uint64_t value = 0;

  static std::optional<QueueId> parse(std::string_view text);
  std::string to_string() const;
  WallTime time() const;  // of arrival
  auto operator<=>(const QueueId&) const = default;
};

// Hands out IDs that grow even if the clock does not. Any thread.
class QueueIdSource {
 public:
  QueueId next(WallTime now);
  void seen(QueueId id);  // recovery tells what exists: later ones are greater

 private:
  std::atomic<std::uint64_t> last_{0};
};

}  // namespace greymx

template <>
struct std::hash<greymx::QueueId> {
  std::size_t operator()(const greymx::QueueId& id) const noexcept { return std::hash<std::uint64_t>{}(id.value); }
};

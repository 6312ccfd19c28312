#include "queue/append.hpp"

#include <algorithm>

namespace greymx::queue {

Append make_append(Entry entry, std::uint32_t previous, std::string head) {
  Append append;
  append.entry = std::move(entry);
  append.entry.previous = previous;
  append.entry.head_length = static_cast<std::uint32_t>(head.size());
  append.head = std::move(head);
  return append;
}

std::uint64_t length_of(const Append& append) {
  return record_length(append.head.size(), append.body_length);
}

void wake(std::vector<Waiter> waiters, const Result<>& result) {
  while (!waiters.empty()) {
    const asio::any_io_executor home = waiters.front().home;
    const auto others =
        std::partition(waiters.begin(), waiters.end(), [&](const Waiter& waiter) { return waiter.home == home; });
    std::vector<Waiter> group(std::make_move_iterator(waiters.begin()), std::make_move_iterator(others));
    waiters.erase(waiters.begin(), others);
    auto resume_all = [group = std::move(group), result]() mutable {
      for (Waiter& waiter : group) waiter.resume(result);
    };
    if (home) {
      asio::post(home, std::move(resume_all));
    } else {
      resume_all();
    }
  }
}

}  // namespace greymx::queue

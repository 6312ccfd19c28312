#include "admin/walk.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace greymx::admin {

std::vector<QueueId> Walk::next_ids() {
  constexpr std::size_t most = 256;
  if (!by_id()) {
    std::vector<QueueId> ids = source_.ids(after_, most);
    ids.erase(std::ranges::upper_bound(ids, last_), ids.end());
    return ids;
  }
  const auto begin = std::ranges::upper_bound(select_.ids, after_);
  return {begin, begin + std::min<std::ptrdiff_t>(most, select_.ids.end() - begin)};
}

std::vector<queue::Message> Walk::page() {
  std::vector<queue::Message> found;
  std::size_t recipients = 0;  // a message may have a thousand, each with a reason: they bound the page's memory
  const std::vector<QueueId> ids = next_ids();
  if (ids.empty()) done_ = true;
  for (const QueueId id : ids) {
    after_ = id;
    ++looked_at_;
    auto message = source_.peek(id);
    if (message && select_.matches(*message, *source_.config, now_)) {
      matched_ = true;
      recipients += message->envelope.recipients.size();
      found.push_back(std::move(*message));
    } else if (!message) {
      trouble(id, message.error());
    }
    if (recipients >= 2000) break;
  }
  return found;
}

void Walk::trouble(QueueId id, const Error& error) {
  const bool gone = error.kind == ErrorKind::not_found;
  if (gone && !by_id()) return;
  if (problems_++ == 0) {
    problem_ = id.to_string() + (gone ? ": not in the queue" : " cannot be read: " + error.text);
  }
}

Ending Walk::ending() const {
  if (problems_ == 0) return {};
  return failed(problems_ == 1 ? problem_ : fmt::format("{} (and {} more)", problem_, problems_ - 1));
}

}  // namespace greymx::admin

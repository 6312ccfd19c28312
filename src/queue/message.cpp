#include "queue/message.hpp"

#include <algorithm>

namespace greymx::queue {

bool MessageState::finished() const {
  return std::ranges::all_of(recipients, [](const auto& r) { return r.status == RecipientStatus::done; });
}

std::string schedule_domain(const std::string& address) {
  const Mailbox mailbox = Mailbox::split(address);
  return domain_key(mailbox.domain);
}

}  // namespace greymx::queue

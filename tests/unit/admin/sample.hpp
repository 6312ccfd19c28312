// Messages and primaries for the tests of what an admin sees.
#pragma once

#include "queue/message.hpp"
#include "relay/relay.hpp"

namespace greymx::test {

inline WallTime at(std::int64_t unix_seconds) {
  return WallTime(std::chrono::seconds(unix_seconds));
}

// As QueueId is made: microseconds above, 12 bits below.
inline QueueId id_at(std::int64_t unix_seconds, std::uint64_t serial = 0) {
  return QueueId{(static_cast<std::uint64_t>(unix_seconds) * 1'000'000 << 12) + serial};
}

inline queue::Message message(QueueId id, std::string sender, std::vector<std::string> recipients,
                              std::uint64_t size = 260) {
  queue::Message message;
  message.id = id;
  message.size = size;
  message.envelope.reverse_path = std::move(sender);
  message.envelope.client.address = *IpAddress::parse("192.0.2.10");
  message.envelope.client.name = "mail.example.org";
  for (std::string& address : recipients) {
    message.envelope.recipients.push_back({std::move(address), "", {}});
    message.state.recipients.emplace_back();
  }
  return message;
}

inline relay::PrimaryStatus primary(std::string domain, relay::Health health, std::string error = {}) {
  relay::PrimaryStatus status;
  status.domain = std::move(domain);
  status.hosts = {"mx1.example.com:25"};
  status.health = health;
  status.since = at(1795449000);
  status.last_error = std::move(error);
  return status;
}

}  // namespace greymx::test

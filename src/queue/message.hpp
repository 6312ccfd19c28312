// A message in the queue, as everybody but the spool's file format sees it. Plain values.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/mail.hpp"

namespace greymx::queue {

enum class RecipientStatus : std::uint8_t {
  pending,  // to be delivered; `reason` says why it was not yet
  held,     // failed, but no report may go out (queue.bounce): waits for an admin or expires
  done,     // delivered, or failed and reported, or deleted
};

struct RecipientState {
  RecipientStatus status = RecipientStatus::pending;
  std::string reason;       // last deferral, or why it is held; printable(), at most 500 bytes
  std::string dsn;          // "4.4.1", "5.1.1"
  std::string remote;       // host that said so, "mx1.example.com[192.0.2.1]:25"; empty = ourselves
  WallTime next_attempt{};  // pending: not before
  std::uint32_t attempts = 0;
  bool delay_reported = false;
  WallTime held_since{};
  bool operator==(const RecipientState&) const = default;
};

// What changes in a message's life. Written as a whole with every change, so the last one on disk is the truth.
struct MessageState {
  std::vector<RecipientState> recipients;  // in the envelope's order
  bool held = false;                       // by an admin or an access file: the whole message
  std::string hold_reason;
  bool operator==(const MessageState&) const = default;

  bool finished() const;  // every recipient done
};

struct Message {
  QueueId id;
  std::uint64_t size = 0;  // of the content, octets
  Envelope envelope;
  MessageState state;
};

// The domain a recipient is scheduled under: lower-case A-labels of the part after the last '@'; empty for Postmaster.
std::string schedule_domain(const std::string& address);

}  // namespace greymx::queue

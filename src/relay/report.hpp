// Delivery status notifications: RFC 3464 in RFC 6522, RFC 6533 for internationalised mail. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/mail.hpp"

namespace greymx::relay {

enum class ReportKind : std::uint8_t { failed, delayed, relayed };

struct ReportedRecipient {
  std::size_t index = 0;  // in the envelope
  std::string dsn;        // "5.1.1"
  std::string remote;     // "mx1.example.com[192.0.2.1]:25"; empty = we say so ourselves
  std::string said;       // the remote's reply; empty if none
  std::string reason;     // for people, printable()
};

// How much of the content a report can need.
inline constexpr std::size_t report_content_limit = 50'000;

struct ReportSource {
  ReportKind kind = ReportKind::failed;
  std::string hostname;  // ours
  QueueId id;            // of the message reported about
  const Envelope* envelope = nullptr;
  std::vector<ReportedRecipient> recipients;
  std::string content;     // of the message: all of it, or its beginning
  std::uint64_t size = 0;  // of all of it
  WallTime now{};
  WallTime retry_until{};  // delayed: when it will be given up
};

struct Report {
  Envelope envelope;    // null sender, to the message's sender
  std::string content;  // lines end in CRLF
};
Report make_report(const ReportSource& source);

// Envelope of a message of our own: null sender, no reports about it.
Envelope report_envelope(std::string recipient, std::string_view content);
// The header section of `content`, with its last line end.
std::string_view header_of(std::string_view content);

}  // namespace greymx::relay

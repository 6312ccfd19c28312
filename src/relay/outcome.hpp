// What a server's answer means for a recipient. Pure.
#pragma once

#include <string>

#include "smtp/client_session.hpp"

namespace greymx::relay {

// A server as we found it.
struct Host {
  std::string name;  // as configured or from MX; an address if it has no name
  Endpoint endpoint;

  std::string label() const;                       // "mx1.example.com[192.0.2.1]"
  std::string remote() const;                      // "mx1.example.com[192.0.2.1]:25"
  std::string lacks(std::string_view what) const;  // the reason where it does not offer what has to be
  bool operator==(const Host&) const = default;
};

struct Outcome {
  enum class Result : std::uint8_t {
    delivered,
    deferred,   // try again later
    failed,     // for good (RFC 5321 4.2.1: 5yz to MAIL, RCPT, DATA or the dot)
    uncertain,  // the dot was sent and no reply came: deferred, and it may arrive twice (RFC 1047)
  };
  Result result = Result::deferred;
  std::string dsn;         // RFC 3463
  std::string reason;      // for the log, mailq and reports; printable()
  std::string said;        // the server's reply, if it was one
  bool next_host = false;  // another host may take it at once
};

Outcome judge(const smtp::Answer& answer, const Host& host);
// Nothing answered at `host`.
Outcome unreachable(const Host& host, const std::string& error);
// The server's reply that a reason quotes; empty if it quotes none.
std::string quoted_in(const std::string& reason);
std::string_view to_string(Outcome::Result result);  // as in the log: "sent" "deferred" "bounced"

// 452, or 552 as RFC 821 had it: it takes no more recipients with this message (RFC 5321 4.5.3.1.10). Not if the status
// speaks of the mailbox or the system.
bool too_many_recipients(const smtp::Answer& answer);
// A 5yz before any content was sent.
bool refused_early(const smtp::Answer& answer);
// The server says that this recipient does not exist, and not that it dislikes us or the sender.
bool refuses_recipient(const smtp::Answer& answer);

}  // namespace greymx::relay

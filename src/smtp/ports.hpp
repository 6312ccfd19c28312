// What an SMTP session needs from the rest of the program: two small interfaces that the daemon plugs in. A session
// knows nothing of DNS, block lists, greylisting or disks.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/async.hpp"
#include "base/mail.hpp"
#include "base/result.hpp"

namespace greymx::smtp {

// Decides. One object per session, on the session's thread. Every call ends within its own budget; trouble in the
// world is a 4xx or a pass, as the configuration says, never an exception.
class Admission {
 public:
  virtual ~Admission() = default;
  // The client's forward-confirmed name or "unknown"; looked up since connect.
  virtual Task<std::string> client_name() = 0;
  virtual std::optional<std::string> known_client_name() const = 0;  // without waiting; nullopt: not known yet
  // After MAIL has been accepted: starts the lookups that need only the sender.
  virtual void mail(const Facts& facts) = 0;
  // All policy for one recipient, relay control first. `facts` and `recipient` are copied.
  virtual Task<Verdict> recipient(Facts facts, Mailbox recipient) = 0;
  // Before 354: what is only known or only fair here (null sender's greylisting, early pipelining at DATA).
  virtual Task<Verdict> data(Facts facts, std::vector<Mailbox> recipients) = 0;
  // At the end of a transaction that will be committed: the verdict for later bounces.
  virtual Task<Authorised> authorised(Facts facts) = 0;
  // The smallest SIZE that a known primary of `domain` last offered, 0 = unknown.
  virtual std::uint64_t size_limit(const std::string& domain) const = 0;
  virtual std::uint64_t largest_size_limit() const = 0;  // of all our domains; 0: of one it is unknown
  // ETRN (RFC 1985) for "example.com", "@example.com" or "#queue", from a client that may; the reply to give.
  virtual Task<Reply> etrn(Facts facts, std::string node) = 0;
};

class Policy {
 public:
  virtual ~Policy() = default;
  // Starts the lookups that need only the client (PTR, block lists).
  virtual std::unique_ptr<Admission> admit(const Client& client) = 0;
};

// A message's content on its way in. Destroying it before commit leaves nothing behind.
class Body {
 public:
  virtual ~Body() = default;
  virtual QueueId id() const = 0;
  // Takes a copy or writes; waits when memory is short (backpressure). An error: answer 452 (no_space) or 451.
  virtual Task<Result<>> write(std::span<const char> bytes) = 0;
  // Completes only when the message is durable: then, and only then, 250 may be said.
  virtual Task<Result<>> commit(Envelope envelope) = 0;
};

class Intake {
 public:
  virtual ~Intake() = default;
  // False: 452 4.3.1 at MAIL. Cheap; any thread.
  virtual bool has_room(std::uint64_t declared_size) const = 0;
  virtual std::unique_ptr<Body> begin() = 0;

  std::atomic<std::uint64_t> recipient_bytes = 0;  // of all envelopes under way, see EnvelopeMemory
};

}  // namespace greymx::smtp

// When a message is tried again, when it is given up, and who is told. Pure.
#pragma once

#include "base/mail.hpp"
#include "config/config.hpp"
#include "relay/health.hpp"

namespace greymx::relay {

// retry_min, doubled with each attempt, at most retry_max.
WallTime next_attempt(std::uint32_t attempts, WallTime now, const config::Queue& rules);

// When a message that arrived at `arrival` is given up if the primary stays up from `now` on. Time in which it was
// not up (`downtime`; null = unknown) counts towards lifetime only with count_downtime, towards lifetime_max always.
WallTime expires_at(WallTime arrival, WallTime now, const Downtime* downtime, const config::Queue& rules);

// The rules for one message: our own reports are given up after bounce_lifetime.
config::Queue rules_for(const Envelope& envelope, config::Queue rules);

enum class Ending : std::uint8_t {
  report,           // a report goes to the sender (RFC 5321 6.1)
  silent,           // the sender asked for none (RFC 3461 4.1)
  hold_null,        // null sender, or as good as that: nobody to tell (RFC 5321 6.1)
  hold_unverified,  // the sender's domain did not authorise the client: a report may hit a stranger
  hold_never,       // queue.bounce = "never"
};
Ending ending_of(const Envelope& envelope, const EnvelopeRecipient& recipient, config::BounceMode mode);
std::string_view why_held(Ending ending);

// For senders who ask for NOTIFY=DELAY while queue.delay_warning is off.
inline constexpr config::Seconds asked_delay = std::chrono::hours(4);
// Reports of success and delay go to verified senders only.
bool wants_relayed_report(const Envelope& envelope, const EnvelopeRecipient& recipient, config::BounceMode mode);
// After how long a recipient's sender wants to hear of the delay; 0 = never.
std::chrono::seconds delay_report_after(const Envelope& envelope, const EnvelopeRecipient& recipient,
                                        const config::Queue& rules);

}  // namespace greymx::relay

#include "relay/retry.hpp"

#include <algorithm>

namespace greymx::relay {

namespace {

bool is_verified(const Envelope& envelope) {
  return envelope.authorised == Authorised::spf || envelope.authorised == Authorised::client_name;
}

// "double-bounce" is the sender of Postfix's notices about what it could not return: as good as null.
bool has_sender(const Envelope& envelope) {
  const std::string_view sender = envelope.reverse_path;
  return !sender.empty() && !equals_ignoring_case(sender.substr(0, sender.rfind('@')), "double-bounce");
}

bool may_hear_good_news(const Envelope& envelope, config::BounceMode mode) {
  return has_sender(envelope) && is_verified(envelope) && mode != config::BounceMode::never;
}

}  // namespace

WallTime next_attempt(std::uint32_t attempts, WallTime now, const config::Queue& rules) {
  config::Seconds wait = rules.retry_min;
  for (std::uint32_t i = 1; i < attempts && wait < rules.retry_max; ++i) wait *= 2;
  return now + std::min(wait, std::max(rules.retry_min, rules.retry_max));
}

WallTime expires_at(WallTime arrival, WallTime now, const Downtime* downtime, const config::Queue& rules) {
  WallTime end = arrival + rules.lifetime;
  if (downtime != nullptr && !rules.count_downtime) end += downtime->within(arrival, now);
  return std::min(end, arrival + rules.lifetime_max);
}

config::Queue rules_for(const Envelope& envelope, config::Queue rules) {
  if (envelope.origin == Origin::report) rules.lifetime = std::min(rules.lifetime, rules.bounce_lifetime);
  return rules;
}

Ending ending_of(const Envelope& envelope, const EnvelopeRecipient& recipient, config::BounceMode mode) {
  if (!has_sender(envelope)) return Ending::hold_null;
  if (recipient.notify.given() && !recipient.notify.failure) return Ending::silent;
  if (mode == config::BounceMode::never) return Ending::hold_never;
  if (mode == config::BounceMode::verified && !is_verified(envelope)) return Ending::hold_unverified;
  return Ending::report;
}

std::string_view why_held(Ending ending) {
  if (ending == Ending::hold_null) return "no report: null sender";
  if (ending == Ending::hold_unverified) return "no report: sender not verified";
  return "no report: queue.bounce is \"never\"";
}

bool wants_relayed_report(const Envelope& envelope, const EnvelopeRecipient& recipient, config::BounceMode mode) {
  return recipient.notify.success && may_hear_good_news(envelope, mode);
}

std::chrono::seconds delay_report_after(const Envelope& envelope, const EnvelopeRecipient& recipient,
                                        const config::Queue& rules) {
  using std::chrono::seconds;
  if (!may_hear_good_news(envelope, rules.bounce)) return seconds(0);
  if (recipient.notify.delay) return rules.delay_warning > seconds(0) ? rules.delay_warning : asked_delay;
  return recipient.notify.given() ? seconds(0) : rules.delay_warning;
}

}  // namespace greymx::relay

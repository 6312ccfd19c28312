#include "relay/settlement.hpp"

#include <fmt/format.h>

namespace greymx::relay {

namespace {

using queue::RecipientState;
using queue::RecipientStatus;
using Result = Outcome::Result;

// Two significant digits, as log tools know it from Postfix: "0.03", "1.2", "340".
std::string short_delay(std::chrono::duration<double> delay) {
  const double seconds = std::max(0.0, delay.count());
  std::string text = fmt::format("{:.{}f}", seconds, seconds >= 9.95 ? 0 : seconds >= 0.995 ? 1 : 2);
  if (text.find('.') != std::string::npos) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.ends_with('.')) text.pop_back();
  }
  return text;
}

// Before we took it up, until a connection was looked for, until there was one, and over it.
void log_fate(Parts& parts, const Job& job, const Fate& fate) {
  const auto until_taken = std::chrono::duration<double>(parts.clock.now() - parts.arrivals.of(job.taken.id())) -
                           std::chrono::duration<double>(std::chrono::steady_clock::now() - job.taken_at);
  const auto sending = std::chrono::steady_clock::now() - job.sending;
  const auto total = until_taken + (std::chrono::steady_clock::now() - job.taken_at);
  parts.log.info(
      "smtp", job.taken.id(),
      fmt::format("to=<{}>, relay={}, delay={}, delays={}/{}/{}/{}, dsn={}, status={} ({})",
                  printable(job.envelope().recipients[fate.index].address), fate.remote.empty() ? "none" : fate.remote,
                  short_delay(total), short_delay(until_taken), short_delay(job.connecting - job.taken_at),
                  short_delay(job.sending - job.connecting), short_delay(sending), fate.outcome.dsn,
                  to_string(fate.outcome.result), fate.outcome.reason));
}

RecipientState deferred_state(Parts& parts, const Job& job, const Fate& fate) {
  RecipientState state = job.loaded.message.state.recipients[fate.index];
  ++state.attempts;
  state.reason = fate.outcome.reason;
  state.dsn = fate.outcome.dsn;
  state.remote = fate.remote;
  state.next_attempt = next_attempt(state.attempts, parts.clock.now(), parts.config->queue);
  return state;
}

bool expired(Parts& parts, const Job& job) {
  const Downtime* downtime = parts.downtime_of(job.taken.domain());
  const WallTime now = parts.clock.now();
  const WallTime arrival = parts.arrivals.of(job.taken.id());
  const bool over = now >= expires_at(arrival, now, downtime, rules_for(job.envelope(), parts.config->queue));
  return over && parts.may_expire();
}

// A primary that may be half dead is believed when it takes an address, not when it refuses one.
void teach(Parts& parts, const Fate& fate, const std::string& address, bool refusals_count) {
  if (parts.observer == nullptr) return;
  if (fate.outcome.result == Result::delivered) parts.observer->accepted(address);
  if (fate.no_recipient && refusals_count) parts.observer->refused(address);
}

void tell_destination(Destination& destination, QueueId id, const std::vector<Fate>& fates) {
  Answered answered;
  for (const Fate& fate : fates) {
    answered.delivered = answered.delivered || fate.outcome.result == Result::delivered;
    answered.deferred = answered.deferred || (fate.outcome.result == Result::deferred && !fate.refused_early);
    if (!fate.refused_early) continue;
    answered.refused = true;
    answered.reason = fate.outcome.reason;
  }
  destination.message_done(id, answered);
}

// Domains may share a primary: each counts under its own entry.
std::string metrics_label(const Parts& parts, const Destination& destination, const Job& job) {
  const config::Domain* entry = destination.own() ? entry_for(*parts.config, job.taken.domain()) : nullptr;
  return entry != nullptr ? entry->shown_name() : destination.settings().label;
}

}  // namespace

Task<> settle(Parts& parts, Destination& destination, const Job& job, std::vector<Fate> fates) {
  const queue::Message& message = job.loaded.message;
  const bool refusals_count = !destination.own() || destination.health().refusals_count();
  // What an admin deleted or put on hold meanwhile may have been delivered; it is not returned.
  const bool withdrawn = taken_back(parts.spool, message.id);
  const bool too_old = !withdrawn && expired(parts, job);
  // A reload may have named another primary meanwhile, for which this one does not speak.
  const bool teaches = destination.own() && destination.is_for(job.taken.domain());
  const std::string label = metrics_label(parts, destination, job);
  Changes changes, relayed_changes;
  std::vector<ReportedRecipient> failed, too_late, relayed;
  for (Fate& fate : fates) {
    Outcome& outcome = fate.outcome;
    const EnvelopeRecipient& recipient = message.envelope.recipients[fate.index];
    const bool in_doubt = fate.refused_early && !refusals_count;
    if (in_doubt || (withdrawn && outcome.result == Result::failed)) {
      outcome.result = Result::deferred;
      outcome.dsn[0] = '4';
    }
    log_fate(parts, job, fate);
    parts.metrics.count("deliveries_total", {{"domain", label}, {"result", std::string(to_string(outcome.result))}});
    if (teaches) teach(parts, fate, recipient.address, refusals_count);
    ReportedRecipient about{fate.index, outcome.dsn, fate.remote, outcome.said, outcome.reason};
    if (outcome.result == Result::delivered) {
      RecipientState state = message.state.recipients[fate.index];
      state.status = RecipientStatus::done;
      const bool told =
          !fate.server_reports && wants_relayed_report(message.envelope, recipient, parts.config->queue.bounce);
      (told ? relayed_changes : changes).emplace_back(fate.index, std::move(state));
      if (told) relayed.push_back(std::move(about));
    } else if (outcome.result == Result::failed) {
      failed.push_back(std::move(about));
    } else if (too_old) {
      about.dsn = "4.4.7";
      about.reason = printable("message expired; last: " + outcome.reason);
      too_late.push_back(std::move(about));
    } else {
      changes.emplace_back(fate.index, deferred_state(parts, job, fate));
    }
  }
  tell_destination(destination, message.id, fates);
  Endings endings(parts);
  endings.update(message.id, std::move(changes));
  if (!relayed.empty()) {
    co_await endings.tell(job.loaded, ReportKind::relayed, std::move(relayed), WallTime{});
    endings.update(message.id, std::move(relayed_changes));
  }
  if (!failed.empty()) co_await endings.end(job.loaded, std::move(failed), Why::refused);
  if (!too_late.empty()) co_await endings.end(job.loaded, std::move(too_late), Why::expired);
}

}  // namespace greymx::relay

#include "relay/sweep.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "relay/destination.hpp"

namespace greymx::relay {

namespace {

using queue::RecipientState;
using queue::RecipientStatus;

constexpr std::size_t slice = 256;                 // messages read in one go
constexpr std::uint64_t report_load = 64UL << 10;  // of content
constexpr std::uint64_t held_share = 4;            // held mail may fill one part in four of the spool's space

std::vector<ReportedRecipient> about(const Parts& parts, const queue::Message& message,
                                     const std::vector<std::size_t>& recipients, std::string_view dsn,
                                     const std::string& prefix) {
  std::vector<ReportedRecipient> result;
  for (const std::size_t index : recipients) {
    const RecipientState& state = message.state.recipients[index];
    // One that was never tried waited for its primary.
    const std::string& address = message.envelope.recipients[index].address;
    const std::string last = state.reason.empty() ? parts.trouble_of(queue::schedule_domain(address)) : state.reason;
    const std::string reason = last.empty() ? prefix : prefix + "; last: " + last;
    result.push_back({index, std::string(dsn), state.remote, {}, printable(reason)});
  }
  return result;
}

std::vector<std::size_t> open_in(const queue::Message& message) {
  std::vector<std::size_t> open;
  for (std::size_t i = 0; i < message.state.recipients.size(); ++i) {
    if (message.state.recipients[i].status != RecipientStatus::done) open.push_back(i);
  }
  return open;
}

}  // namespace

Due due_of(const queue::Message& message, WallTime arrival, WallTime now, const config::Queue& all_rules,
           const DowntimeOf& downtime_of) {
  Due due;
  const config::Queue rules = rules_for(message.envelope, all_rules);
  if (message.state.held) return due;
  for (std::size_t i = 0; i < message.envelope.recipients.size(); ++i) {
    const EnvelopeRecipient& recipient = message.envelope.recipients[i];
    const RecipientState& state = message.state.recipients[i];
    if (state.status == RecipientStatus::held && now >= state.held_since + rules.bounce_lifetime) {
      due.held_too_long.push_back(i);
    }
    if (state.status != RecipientStatus::pending) continue;
    const WallTime end = expires_at(arrival, now, downtime_of(queue::schedule_domain(recipient.address)), rules);
    if (end < due.first_expiry) due.first_expiry = end, due.first_to_expire = i;
    const auto delay = delay_report_after(message.envelope, recipient, rules);
    if (now >= end) {
      due.expired.push_back(i);
    } else if (delay.count() > 0 && !state.delay_reported && now >= arrival + delay) {
      due.delayed.push_back(i);
    }
  }
  return due;
}

std::chrono::seconds Sweep::interval() const {
  using std::chrono::seconds;
  const config::Queue& rules = parts_.config->queue;
  seconds shortest = std::min({rules.lifetime, rules.lifetime_max, rules.bounce_lifetime});
  if (rules.delay_warning.count() > 0) shortest = std::min(shortest, rules.delay_warning);
  return std::clamp(shortest / 10, seconds(1), seconds(600));
}

// The age from which on something may be due for a message.
std::chrono::seconds Sweep::youngest() const {
  const config::Queue& rules = parts_.config->queue;
  const auto delay = rules.delay_warning.count() > 0 ? std::min(rules.delay_warning, asked_delay) : asked_delay;
  return std::min({rules.lifetime * 9 / 10, rules.lifetime_max * 9 / 10, rules.bounce_lifetime * 9 / 10, delay});
}

Task<> Sweep::once() {
  co_await walk();
  parts_.arrivals.forget_ended(parts_.spool);
  warn_before();
}

Task<> Sweep::walk() {
  for (QueueId after{}; !parts_.stopping;) {
    std::vector<QueueId> ids = parts_.spool.ids(after, slice);
    const WallTime now = parts_.clock.now();
    const bool all = crowded();
    const auto young = [&](QueueId id) { return now - parts_.arrivals.of(id) < youngest(); };
    // Up to now IDs are in the order of arrival: where nothing can be due yet, nothing after it is.
    if (ids.empty() || (!all && ids.front().time() <= now && young(ids.front()))) co_return;
    after = ids.back();
    if (!all) std::erase_if(ids, young);
    auto peek = [&spool = parts_.spool, ids] {
      std::vector<queue::Message> messages;
      for (const QueueId id : ids) {
        if (Result<queue::Message> message = spool.peek(id)) messages.push_back(std::move(*message));
      }
      return messages;
    };
    std::vector<queue::Message> messages = co_await offload(parts_.disk, std::move(peek));
    for (queue::Message& message : messages) co_await look_at(std::move(message));
  }
}

// Makes the message ours in all domains of these recipients, or in none: a delivery must not run beside this.
std::optional<std::vector<Taken>> Sweep::claim(const queue::Message& message,
                                               const std::vector<std::size_t>& recipients) {
  std::set<std::string> domains;
  for (const std::size_t index : recipients) {
    domains.insert(queue::schedule_domain(message.envelope.recipients[index].address));
  }
  std::vector<Taken> claims;
  for (const std::string& domain : domains) {
    if (!parts_.spool.claim(message.id, domain)) return std::nullopt;
    claims.emplace_back(parts_.spool, message.id, domain);
  }
  return claims;
}

bool Sweep::crowded() const {
  const queue::Totals totals = parts_.spool.totals();
  return totals.refused_bytes > (totals.disk_bytes + totals.free_bytes) / held_share;
}

// Of clients' mail only: about reports to strangers there is nothing to do, and an alert must not bring about the next.
void Sweep::note_near(const queue::Message& message, const Due& due) {
  if (message.envelope.origin == Origin::report) return;
  if (due.first_expiry - parts_.clock.now() > parts_.config->queue.lifetime / 10) return;
  const std::string& address = message.envelope.recipients[due.first_to_expire].address;
  Near& near = near_[shown_domain(*parts_.config, queue::schedule_domain(address))];
  ++near.messages;
  if (due.first_expiry < near.expires) near.first = message.id, near.expires = due.first_expiry;
}

void Sweep::warn_before() {
  for (const auto& [domain, near] : near_) {
    const bool overdue = near.expires <= parts_.clock.now();
    parts_.alerts.raise("mail for " + domain + " is about to expire",
                        fmt::format("{} will be given up {}{}: see `greymx mailq`, and queue.lifetime.",
                                    near.first.to_string(), overdue ? "within the hour" : rfc5322_date(near.expires),
                                    near.messages > 1 ? fmt::format(", and {} more soon", near.messages - 1) : ""));
  }
  near_.clear();
  if (const std::size_t shed = std::exchange(shed_, 0); shed > 0) {
    parts_.alerts.raise("held mail fills a quarter of the spool",
                        fmt::format("To make room {} held messages were deleted, the oldest first: see `greymx mailq`, "
                                    "and say `greymx delete` of what nobody wants.",
                                    shed));
  }
}

// What is due, and where held mail fills too much of the spool, all of it: the oldest comes first.
Due Sweep::find(const queue::Message& message) const {
  const WallTime arrival = parts_.arrivals.of(message.id);
  Due due = due_of(message, arrival, parts_.clock.now(), parts_.config->queue, parts_.downtime_of);
  if (!parts_.may_expire()) {
    due.expired.clear();
    due.held_too_long.clear();
  }
  std::vector<std::size_t> held;
  for (std::size_t i = 0; i < message.state.recipients.size() && !message.state.held; ++i) {
    if (message.state.recipients[i].status == RecipientStatus::held) held.push_back(i);
  }
  if (!held.empty() && crowded()) {
    due.held_too_long = std::move(held);
    due.no_room = true;
  }
  return due;
}

Task<> Sweep::look_at(queue::Message seen) {
  const Due first = find(seen);
  if (first.first_expiry != WallTime::max() && first.expired.empty()) note_near(seen, first);
  if (first.empty()) co_return;
  std::vector<std::size_t> concerned = first.expired;
  concerned.insert(concerned.end(), first.held_too_long.begin(), first.held_too_long.end());
  concerned.insert(concerned.end(), first.delayed.begin(), first.delayed.end());
  const std::optional<std::vector<Taken>> claims = claim(seen, concerned);
  if (!claims) co_return;
  const Result<queue::Loaded> loaded = co_await parts_.spool.load(seen.id, report_load);
  if (!loaded) co_return;
  // It may have changed since it was seen, but now nobody else touches it.
  Due due = find(loaded->message);
  drop_held(loaded->message, due);
  if (!due.expired.empty()) {
    std::vector<ReportedRecipient> expired = about(parts_, loaded->message, due.expired, "4.4.7", "message expired");
    Endings endings(parts_);
    co_await endings.end(*loaded, std::move(expired), Why::expired);
  }
  if (!due.delayed.empty()) co_await report_delay(*loaded, std::move(due.delayed), due.first_expiry);
}

void Sweep::drop_held(const queue::Message& message, const Due& due) {
  if (due.no_room) ++shed_;
  const char* why = due.no_room ? "no room for more held mail" : "held mail expired";
  Changes changes;
  for (const std::size_t index : due.held_too_long) {
    RecipientState state = message.state.recipients[index];
    state.status = RecipientStatus::done;
    const std::string address = printable(message.envelope.recipients[index].address);
    parts_.log.info("bounce", message.id, fmt::format("to=<{}>, {}: {}", address, why, state.reason));
    changes.emplace_back(index, std::move(state));
  }
  Endings(parts_).update(message.id, std::move(changes));
}

Task<> Sweep::report_delay(const queue::Loaded& loaded, std::vector<std::size_t> recipients, WallTime retry_until) {
  std::vector<ReportedRecipient> delayed = about(parts_, loaded.message, recipients, "4.4.1", "not delivered yet");
  for (ReportedRecipient& one : delayed) {
    const RecipientState& state = loaded.message.state.recipients[one.index];
    if (state.attempts > 0 && !state.dsn.empty()) one.dsn = state.dsn;  // else nothing was tried while it is down
    one.said = quoted_in(state.reason);
  }
  Endings endings(parts_);
  const bool told = co_await endings.tell(loaded, ReportKind::delayed, std::move(delayed), retry_until);
  if (!told) co_return;
  Changes changes;
  for (const std::size_t index : recipients) {
    changes.emplace_back(index, loaded.message.state.recipients[index]);
    changes.back().second.delay_reported = true;
  }
  endings.update(loaded.message.id, std::move(changes));
}

Task<Result<>> Sweep::bounce(QueueId id, std::string reason) {
  auto peek = [&spool = parts_.spool, id] { return spool.peek(id); };
  const Result<queue::Message> seen = co_await offload(parts_.disk, std::move(peek));
  if (!seen) co_return std::unexpected(seen.error());
  const std::optional<std::vector<Taken>> claims = claim(*seen, open_in(*seen));
  if (!claims) co_return fail(ErrorKind::temporary, "it is being delivered now");
  // What a delivery did since it was seen counts; from now on nobody else touches it.
  const Result<queue::Loaded> loaded = co_await parts_.spool.load(id, report_load);
  if (!loaded) co_return std::unexpected(loaded.error());
  std::vector<ReportedRecipient> failed = about(parts_, loaded->message, open_in(loaded->message), "5.0.0", reason);
  Endings endings(parts_);
  const bool ended = co_await endings.end(*loaded, std::move(failed), Why::admin);
  if (!ended) co_return fail(ErrorKind::temporary, "the report could not be queued: see the log");
  co_return Result<>();
}

}  // namespace greymx::relay

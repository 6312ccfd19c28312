#include "relay/endings.hpp"

#include <fmt/format.h>

namespace greymx::relay {

namespace {

using queue::RecipientState;
using queue::RecipientStatus;

// The beginning of a message's content, as much as a report can need.
Task<std::string> beginning(Parts& parts, const queue::Loaded& loaded) {
  if (!loaded.rest) co_return loaded.content.substr(0, report_content_limit);
  queue::Content& rest = *loaded.rest;
  auto read = [&rest] {
    std::string bytes(report_content_limit, '\0');
    const Result<std::size_t> count = rest.read(0, bytes);
    bytes.resize(count.value_or(0));
    return bytes;
  };
  std::string bytes = co_await offload(parts.disk, std::move(read));
  co_return bytes;
}

Ending ending_for(const Envelope& envelope, const EnvelopeRecipient& recipient, config::BounceMode mode, Why why) {
  const Ending ending = ending_of(envelope, recipient, why == Why::admin ? config::BounceMode::always : mode);
  return why == Why::admin && ending == Ending::hold_null ? Ending::silent : ending;
}

}  // namespace

Task<Result<QueueId>> submit(queue::Spool& spool, Report report) {
  const std::unique_ptr<queue::Incoming> incoming = spool.begin();
  std::vector<char> bytes(report.content.begin(), report.content.end());
  Result<> written = co_await incoming->write(std::move(bytes));
  if (written) written = co_await incoming->commit(std::move(report.envelope));
  if (!written) co_return std::unexpected(written.error());
  co_return incoming->id();
}

Task<std::optional<QueueId>> Endings::report(const queue::Loaded& loaded, ReportKind kind,
                                             std::vector<ReportedRecipient> about, WallTime retry_until) {
  ReportSource source;
  source.kind = kind;
  source.hostname = parts_.identity.hostname;
  source.id = loaded.message.id;
  source.envelope = &loaded.message.envelope;
  source.recipients = std::move(about);
  source.content = co_await beginning(parts_, loaded);
  source.size = loaded.message.size;
  source.now = parts_.clock.now();
  source.retry_until = retry_until;
  Report made = make_report(source);
  const Result<QueueId> queued = co_await submit(parts_.spool, std::move(made));
  if (queued) co_return *queued;
  parts_.log.warning("bounce", fmt::format("{}: report not queued: {}", source.id.to_string(), queued.error().text));
  co_return std::nullopt;
}

Task<bool> Endings::tell(const queue::Loaded& loaded, ReportKind kind, std::vector<ReportedRecipient> about,
                         WallTime retry_until) {
  const QueueId id = loaded.message.id;
  const std::optional<QueueId> queued = co_await report(loaded, kind, std::move(about), retry_until);
  const char* what = kind == ReportKind::delayed ? "delay" : "delivery status";
  if (queued) parts_.log.info("bounce", id, fmt::format("sender {} notification: {}", what, queued->to_string()));
  co_return queued.has_value();
}

RecipientState Endings::state_after(const queue::Message& message, const ReportedRecipient& one, Ending ending,
                                    Why why) const {
  RecipientState state = message.state.recipients[one.index];
  if (why == Why::refused) ++state.attempts;
  state.status = RecipientStatus::done;
  if (ending == Ending::report || ending == Ending::silent) return state;
  state.status = RecipientStatus::held;
  state.held_since = parts_.clock.now();
  state.dsn = one.dsn;
  state.remote = one.remote;
  state.reason = printable(fmt::format("{}; {}", why_held(ending), one.reason));
  return state;
}

Task<bool> Endings::end(const queue::Loaded& loaded, std::vector<ReportedRecipient> failed, Why why) {
  const queue::Message& message = loaded.message;
  const Envelope& envelope = message.envelope;
  const config::Queue rules = parts_.config->queue;
  Changes changes;
  Changes reported_changes;
  std::vector<ReportedRecipient> reported;
  std::string_view held;  // why, if any was
  for (ReportedRecipient& one : failed) {
    const Ending ending = ending_for(envelope, envelope.recipients[one.index], rules.bounce, why);
    RecipientState state = state_after(message, one, ending, why);
    if (state.status == RecipientStatus::held) held = why_held(ending);
    if (ending == Ending::report) {
      reported_changes.emplace_back(one.index, std::move(state));
      reported.push_back(std::move(one));
    } else {
      changes.emplace_back(one.index, std::move(state));
    }
  }
  if (why == Why::expired) {
    parts_.log.info("qmgr", message.id,
                    fmt::format("from=<{}>, status=expired, {}", printable(envelope.reverse_path),
                                reported.empty() ? "not returned" : "returned to sender"));
  }
  if (!held.empty()) parts_.log.info("bounce", message.id, fmt::format("held, {}", held));
  if (why == Why::admin && reported.empty()) parts_.log.info("bounce", message.id, "ended without a report");
  update(message.id, std::move(changes));
  if (reported.empty()) co_return true;
  const std::optional<QueueId> queued = co_await report(loaded, ReportKind::failed, std::move(reported), WallTime{});
  if (queued) parts_.log.info("bounce", message.id, "sender non-delivery notification: " + queued->to_string());
  for (auto& [index, state] : reported_changes) {
    if (queued) break;
    state.status = RecipientStatus::pending;
    state.next_attempt = parts_.clock.now() + rules.retry_min;
  }
  update(message.id, std::move(reported_changes));
  co_return queued.has_value();
}

void Endings::update(QueueId id, Changes changes) {
  if (changes.empty() || !parts_.spool.contains(id)) return;
  parts_.spool.update(id, std::move(changes));
  if (!parts_.spool.contains(id)) parts_.log.info("qmgr", id, "removed");
}

}  // namespace greymx::relay

// Commands that only the running daemon can carry out.
#include "admin/commands.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "admin/greylist_commands.hpp"
#include "admin/status.hpp"
#include "admin/walk.hpp"
#include "base/mailbox.hpp"
#include "config/load.hpp"
#include "smtp/command.hpp"
#include "smtp/reply.hpp"

namespace greymx::admin {

using queue::Message;

namespace {

struct Call {
  Request request;
  Services& services;
  Source& source;
  Sink& sink;
  std::string who;
};

// Commands that change messages, with what is said of one ("ID: …" in the log, as postsuper words it) and of all.
struct Change {
  std::string_view command, one, all;
};
constexpr Change changes[] = {
    {"hold", "placed on hold", "Placed on hold"},
    {"release", "released from hold", "Released from hold"},
    {"delete", "removed", "Deleted"},
    {"requeue", "requeued", "Requeued"},
    {"bounce", "bounced", "Bounced"},
};

// The message as a whole, or recipients whose bounce may not go out while others are still tried.
bool any_held(const Message& message) {
  const auto held = [](const queue::RecipientState& state) { return state.status == queue::RecipientStatus::held; };
  return message.state.held || std::ranges::any_of(message.state.recipients, held);
}

Result<> requeue(queue::Spool& spool, const Message& message, WallTime now) {
  if (any_held(message)) {
    auto released = spool.release_hold(message.id);
    if (!released) return released;
  }
  return spool.make_due(message.id, now);
}

// All but "bounce", which the relay does. Blocks on disk.
Result<> apply(const std::string& command, const Message& message, queue::Spool& spool, WallTime now) {
  if (command == "hold") return spool.hold(message.id, "held by the admin");
  if (command == "release") return spool.release_hold(message.id);
  if (command == "delete") return spool.remove(message.id);
  if (command == "requeue") return requeue(spool, message, now);
  return {};
}

Task<Ending> change(Call& call) {
  const Request& request = call.request;
  Services& services = call.services;
  const Change& change = *std::ranges::find(changes, request.command, &Change::command);
  if (request.select.empty()) {
    co_return Ending{2, "which messages? give queue IDs, ALL, --from, --to, --domain or --older"};
  }
  const WallTime now = services.clock.now();
  const QueueSource source = source_of(services.spool, {}, services.config());
  Walk walk(source, request.select, now);
  const bool releasing = request.command == "release";
  auto next = [&] {
    std::vector<std::pair<QueueId, Result<>>> results;
    for (const Message& message : walk.page()) {
      if (releasing && !any_held(message)) continue;
      results.emplace_back(message.id, apply(request.command, message, services.spool, now));
    }
    return results;
  };
  std::uint64_t done = 0;
  std::string problem;
  bool heard = true;
  while (heard && !walk.done()) {
    std::vector<std::pair<QueueId, Result<>>> results = co_await offload(services.pool, next);
    for (auto& [id, result] : results) {
      if (request.command == "bounce") {
        result = co_await services.relay.bounce(id, "returned by the administrator");
      }
      if (result) {
        ++done;
        services.log.info("postsuper", id, change.one);
      } else if (result.error().kind != ErrorKind::not_found) {  // else: it left meanwhile
        problem = id.to_string() + ": " + result.error().text;
      }
    }
    heard = co_await call.sink.send(reply::progress(walk.looked_at(), walk.total()));
  }
  const std::string summary = fmt::format("{}: {} message{}", change.all, done, done == 1 ? "" : "s");
  services.log.info("postsuper", summary + " (" + call.who + ")");
  co_await call.sink.send(reply::text(summary + "\n"));
  if (!problem.empty()) co_return failed(std::move(problem));
  const queue::Totals totals = services.spool.totals();
  if (totals.unsaved > 0) co_return failed("not on disk yet, lost by a restart: " + totals.problem);
  if (done == 0 && request.select.narrows() && walk.ending().exit == 0)
    co_return failed(releasing ? "no held message matches" : "no message matches");
  co_return walk.ending();
}

// As it is configured or queued; "*.example.com": what is below it.
std::optional<std::string> flushable(const std::string& domain, const Services& services) {
  const std::string below = domain.starts_with("*.") ? "*." : "";
  const auto name = canonical_domain(std::string_view(domain).substr(below.size()));
  if (!name) return std::nullopt;
  const bool known = Primaries(services.relay.status()).find(below + *name) != nullptr;
  const auto is_it = [&](const queue::DomainSummary& queued) { return queued.domain == *name; };
  if (!known && (!below.empty() || std::ranges::none_of(services.spool.domains(), is_it))) return std::nullopt;
  return below + *name;
}

std::set<std::string> pending_domains(const Message& message) {
  std::set<std::string> domains;
  for (std::size_t i = 0; i < message.state.recipients.size(); ++i) {
    if (message.state.recipients[i].status == queue::RecipientStatus::pending)
      domains.insert(queue::schedule_domain(message.envelope.recipients[i].address));
  }
  return domains;
}

Task<> say_flushed(Call& call, std::string what) {
  call.services.log.info("qmgr", "flush of " + what + " (" + call.who + ")");
  co_await call.sink.send(reply::text("Trying " + what + " now\n"));
}

Task<Ending> flush_messages(Call& call) {
  Services& services = call.services;
  const QueueSource source = source_of(services.spool, {}, services.config());
  Walk walk(source, call.request.select, services.clock.now());
  std::string tried, held;
  auto next = [&] {
    for (const Message& message : walk.page()) {
      std::string& ids = is_held(message) ? held : tried;
      ids += (ids.empty() ? "" : ", ") + message.id.to_string();
      if (!is_held(message)) services.relay.flush_message(message.id, pending_domains(message));
    }
  };
  while (!walk.done()) co_await offload(services.pool, next);
  if (!tried.empty()) {
    co_await say_flushed(call, std::move(tried));
  }
  if (!held.empty()) co_return failed(held + ": held; greymx requeue lifts that and tries it");
  co_return walk.ending();
}

Task<Ending> flush(Call& call) {
  Services& services = call.services;
  const std::string& domain = call.request.arg("domain");
  std::string what = "all mail";
  if (!call.request.select.ids.empty()) {
    if (!domain.empty()) co_return Ending{2, "flush takes a domain or queue IDs, not both"};
    co_return co_await flush_messages(call);
  }
  if (!domain.empty()) {
    const auto name = flushable(domain, services);
    if (!name) co_return failed(domain + ": no such domain, see greymx domains");
    services.relay.flush_domain(*name);
    what = "mail for " + *name;
  } else {
    services.relay.flush();
  }
  co_await say_flushed(call, std::move(what));
  co_return Ending{};
}

Task<Ending> status(Call& call) {
  auto read = [&] { return gather(call.services); };
  const Status status = co_await offload(call.services.pool, read);
  const Request& request = call.request;
  const std::string text = request.json ? dump(to_json(status)) + "\n" : to_text(status, Style{request.color});
  co_await call.sink.send(reply::text(text));
  co_return Ending{};
}

Json result_json(const dnsbl::ListResult& result) {
  std::vector<std::string> answers;
  for (const IpAddress& answer : result.answers) answers.push_back(answer.to_string());
  return Json{{"zone", result.zone},     {"query", result.query},    {"result", dnsbl::to_string(result.outcome)},
              {"weight", result.weight}, {"answers", answers},       {"reason", result.reason},
              {"error", result.error},   {"age", result.age.count()}};
}

Task<Ending> dnsbl_lookup(Call& call) {
  const Request& request = call.request;
  const auto address = IpAddress::parse(request.arg("address"));
  if (!address) co_return Ending{2, request.arg("address") + ": not an IP address"};
  const config::ConfigPtr config = call.services.config();
  if (config->dnsbl.lists.empty()) co_return failed("no [[dnsbl.lists]] in " + config->file);
  const dnsbl::Score score = co_await call.services.dnsbl(*address);
  const Style style{request.color};
  std::string text;
  for (const dnsbl::ListResult& result : score.results) {
    if (request.json) {
      text += dump(result_json(result)) + "\n";
      continue;
    }
    const bool listed = result.outcome == dnsbl::Outcome::listed;
    const std::string word = fmt::format("{:<10}", dnsbl::to_string(result.outcome));
    text += fmt::format("{:<32} {} {:>3}  {}\n", result.zone,
                        listed                                    ? style.red(word)
                        : result.outcome == dnsbl::Outcome::clean ? style.green(word)
                                                                  : style.yellow(word),
                        listed ? fmt::format("{:+}", result.weight) : "",
                        listed ? printable(result.reason) : printable(result.error));
  }
  const int threshold = config->dnsbl.threshold;
  if (request.json) {
    text += dump(Json{{"score", score.total}, {"threshold", threshold}, {"reply", score.reply_text}}) + "\n";
  } else {
    text += fmt::format("score {}, threshold {}: {}\n", score.total, threshold,
                        score.total >= threshold ? style.red("blocked") : style.green("not blocked"));
  }
  co_await call.sink.send(reply::text(text));
  co_return Ending{};
}

// As a session reads it, with or without brackets.
std::optional<Mailbox> read_path(std::string_view text) {
  const std::string whole = fmt::format("<{}>", without_brackets(text));
  std::string_view rest = whole;
  auto path = smtp::parse_path(rest);
  if (!path || !rest.empty()) return std::nullopt;
  return std::move(path->mailbox);
}

Task<Ending> explain(Call& call) {
  const Request& request = call.request;
  const auto address = IpAddress::parse(request.arg("client"));
  if (!address) co_return Ending{2, "--client: \"" + request.arg("client") + "\" is not an IP address"};
  Facts facts;
  facts.client.address = *address;
  if (!request.arg("name").empty()) facts.client.name = to_lower(request.arg("name"));
  facts.helo = request.arg("helo");
  facts.protocol = "ESMTP";
  const std::optional<Mailbox> from = read_path(request.arg("from"));
  const std::optional<Mailbox> to = read_path(request.arg("to"));
  access::Explained explained;
  if (!from || !to || to->empty()) {
    explained.verdict.reply = smtp::make_reply(from ? smtp::replies::bad_recipient : smtp::replies::bad_sender);
    explained.verdict.check = "syntax";
  } else {
    facts.sender = *from;
    explained = co_await call.services.explain(facts, *to);
  }
  const Style style{request.color};
  std::string text;
  for (const access::Step& step : explained.steps) {
    if (request.json) {
      text += dump(Json{{"check", step.check},
                        {"input", printable(step.input)},
                        {"result", step.result},
                        {"detail", printable(step.detail)}}) +
              "\n";
    } else {
      text += fmt::format("{:<26} {} {}{}\n", step.check, style.verdict(step.result, fmt::format("{:<8}", step.result)),
                          printable(step.input), step.detail.empty() ? "" : "  (" + printable(step.detail) + ")");
    }
  }
  const Verdict& verdict = explained.verdict;
  const std::string answer = verdict.reply ? verdict.reply->to_string() : "250 2.1.5 Ok";
  if (request.json) {
    text += dump(Json{{"reply", answer}, {"decided_by", verdict.check}}) + "\n";
  } else {
    text += "reply: " + style.bold(answer) + "\n";
  }
  co_await call.sink.send(reply::text(text));
  co_return Ending{};
}

Task<Ending> reload(Call& call) {
  Services& services = call.services;
  auto work = [&] { return services.reload(); };
  const Result<Reloaded> result = co_await offload(services.pool, work);
  if (!result) co_return failed(result.error().text + "\nthe old configuration stays in force");
  std::string text = "Reloaded " + services.config()->file + "\n";
  for (const std::string& key : result->needs_restart) text += key + " has changed: restart greymxd\n";
  if (!result->advice.empty()) text += result->advice + "\n";
  for (const std::string& warning : result->warnings) text += "warning: " + warning + "\n";
  co_await call.sink.send(reply::text(text));
  if (!result->problems.empty()) co_return failed(fmt::format("{}", fmt::join(result->problems, "\n")));
  co_return Ending{};
}

Task<Ending> read(Call& call) {
  Services& services = call.services;
  QueueSource queue = source_of(services.spool, services.relay.status(), services.config());
  return read_queue(call.request, std::move(queue), services.clock.now(), services.pool, call.sink);
}

struct Handler {
  std::string_view command;
  Task<Ending> (*run)(Call&);
};
constexpr Handler handlers[] = {
    {"flush", flush}, {"status", status},  {"dnsbl", dnsbl_lookup}, {"explain", explain}, {"reload", reload},
    {"hold", change}, {"release", change}, {"delete", change},      {"requeue", change},  {"bounce", change},
};

}  // namespace

Task<Ending> run_command(Request request, Services& services, Source& source, Sink& sink, std::string who) {
  Call call{std::move(request), services, source, sink, std::move(who)};
  const std::string& command = call.request.command;
  const auto* found = std::ranges::find(handlers, command, &Handler::command);
  if (found != std::end(handlers)) {
    co_return co_await found->run(call);
  }
  if (is_reading(command)) {
    co_return co_await read(call);
  }
  if (command.starts_with("greylist ")) {
    co_return co_await run_greylist(call.request, services, source, sink, call.who);
  }
  co_return Ending{
      2, "the daemon does not know the command \"" + printable(command, 40) + "\"; is it older than the tool?"};
}

}  // namespace greymx::admin

#include "access/decision.hpp"

#include <fmt/format.h>

namespace greymx::access {

namespace {

constexpr std::chrono::seconds longest_wait{10};
constexpr std::chrono::seconds longest_callout{5};
constexpr const char* not_ours = "not our domain";
constexpr const char* is_exempt = "trusted client, bare Postmaster, or OK in an access file";

std::string describe(const dnsbl::Score& score) {
  std::string text;
  for (const dnsbl::ListResult& list : score.results) {
    text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", list.zone, dnsbl::to_string(list.outcome));
    for (const IpAddress& answer : list.answers) text += " " + answer.to_string();
    if (list.outcome == dnsbl::Outcome::listed) text += fmt::format(" {:+}", list.weight);
    if (!list.error.empty()) text += " (" + list.error + ")";
    if (list.age.count() > 0) text += fmt::format(" (cached {} s ago)", list.age.count());
  }
  return fmt::format("score {}{}{}", score.total, text.empty() ? "" : ": ", text);
}

}  // namespace

std::chrono::milliseconds Setup::patience() const {
  const auto& dns = config().dns;
  return std::min(longest_wait, dns.timeout * dns.attempts);
}

Decision::Decision(const Setup& setup, Gate& gate, Evidence evidence, Facts facts, Mailbox recipient,
                   std::vector<Step>* trace)
    : setup_(setup),
      gate_(gate),
      evidence_(std::move(evidence)),
      facts_(std::move(facts)),
      recipient_(std::move(recipient)),
      address_(recipient_.to_string()),
      plain_(unquoted(recipient_)),
      trace_(trace),
      deadline_(std::chrono::steady_clock::now() + setup.patience() + dnsbl::reason_time),
      domain_(domain_of(setup.config(), recipient_)),
      exempt_(facts_.client.trusted || recipient_.domain.empty()) {}

Task<Verdict> Decision::run() {
  const config::Access& access = setup_.config().access;
  const std::string sender = facts_.sender.to_string();
  const auto denied = relay_control(setup_.config(), recipient_);
  if (denied) domain_ = nullptr;
  conclude("relay_control", address_, config::CheckMode::reject, denied ? Findings({*denied}) : Findings(), {});

  const std::string client = facts_.client.to_string();
  access_file("access.clients", client, access.clients, "Client host",
              [&](const AccessFile& file) { return file.find_client(facts_.client.name, facts_.client.address); });
  if (!facts_.helo.empty()) {
    access_file("access.helo", facts_.helo, access.helo, "Helo command",
                [&](const AccessFile& file) { return file.find_name(facts_.helo); });
  }
  access_file("access.senders", sender, access.senders, "Sender address",
              [&](const AccessFile& file) { return file.find_mailbox(unquoted(facts_.sender)); });
  access_file("access.recipients", address_, access.recipients, "Recipient address",
              [&](const AccessFile& file) { return file.find_mailbox(plain_); });

  check("invalid_helo", facts_.helo, access.invalid_helo, invalid_helo(facts_));
  check("unauth_pipelining", "", access.unauth_pipelining, unauth_pipelining(facts_, recipient_));
  check("non_fqdn_sender", sender, access.non_fqdn_sender, non_fqdn_sender(facts_));
  co_await sender_domain();
  check("non_fqdn_recipient", address_, access.non_fqdn_recipient, non_fqdn_recipient(recipient_));
  // Only our own domains get this far, and those are never looked up: their DNS may die together with the primary.
  check("unknown_recipient_domain", address_, access.unknown_recipient_domain, {});
  check("early_talker", "", access.early_talker, early_talker(facts_));

  listed_recipient();
  co_await remembered_recipient();
  co_await dnsbl();
  co_await greylist();
  co_await callout();
  co_return finish();
}

Task<Verdict> Decision::run_greylist() {
  at_data_ = true;
  co_await greylist();
  co_return finish();
}

// Goes on to a check unless all is decided; a trace goes on to the end, and notes what does not apply.
bool Decision::enter(std::string_view check, const std::string& input, bool applies, const char* why_not) {
  if (verdict_.reply && trace_ == nullptr) return false;
  if (domain_ != nullptr && applies) return true;
  step(check, input, "skipped", domain_ == nullptr ? not_ours : why_not);
  return false;
}

void Decision::step(std::string_view check, const std::string& input, const char* result, std::string_view detail) {
  if (trace_ != nullptr) trace_->push_back({std::string(check), input, result, std::string(detail)});
}

void Decision::conclude(std::string_view check, const std::string& input, config::CheckMode mode,
                        const Findings& finding, const std::string& detail) {
  if (!finding) return step(check, input, "pass", detail);
  const Reply& reply = finding->reply;
  const bool warn = mode == config::CheckMode::warn;
  if (trace_ != nullptr) {
    const std::string shown = reply.to_string() + (detail.empty() ? "" : "; " + detail);
    step(check, input, warn ? "warn" : reply.permanent() ? "reject" : "defer", shown);
  }
  if (warn) {
    verdict_.warnings.push_back(reply);
    return;
  }
  if (finding->if_permit) {
    if (!pending_) pending_ = reply, pending_check_ = check;
  } else if (!verdict_.reply) {
    verdict_.reply = reply;
    verdict_.check = check;
  }
}

void Decision::check(std::string_view name, const std::string& input, config::CheckMode mode, const Findings& finding) {
  const bool off = mode == config::CheckMode::off;
  if (enter(name, input, !off && !exempt_, off ? "off" : is_exempt)) conclude(name, input, mode, finding, {});
}

void Decision::access_file(std::string_view name, const std::string& input, const std::string& path,
                           std::string_view part, const std::function<std::optional<Rule>(const AccessFile&)>& find) {
  const AccessFile* file = shared().tables->file(path);
  if (!enter(name, input, file != nullptr && !exempt_, file != nullptr ? is_exempt : "no file")) return;
  const auto rule = find(*file);
  if (!rule) return step(name, input, "pass", "no match");
  apply(name, input, part, *rule);
}

void Decision::apply(std::string_view name, const std::string& input, std::string_view part, const Rule& rule) {
  const std::string line = fmt::format("line {}", rule.line);
  const auto remark = [&](const char* label, const char* action) {
    verdict_.remarks.push_back({label, rule.text});
    if (action == nullptr) return;
    const std::string text = rule.text.empty() ? fmt::format("triggers {} action", action) : rule.text;
    verdict_.remarks.back().text = fmt::format("<{}>: {} {}", printable(input, 320), part, text);
  };
  switch (rule.action) {
    case Action::reply:
    case Action::defer_if_permit: {
      const Reply reply = rejected(rule.code, rule.enhanced, input, part, rule.text);
      const bool if_permit = rule.action == Action::defer_if_permit;
      return conclude(name, input, config::CheckMode::reject, Finding{reply, if_permit}, line);
    }
    case Action::discard:
      verdict_.discard = true;
      remark("discard", "DISCARD");
      [[fallthrough]];
    case Action::ok:
      exempt_ = true;
      break;
    case Action::hold:
      verdict_.hold = true;
      remark("hold", "HOLD");
      break;
    case Action::warn:
      remark("warn", nullptr);
      break;
    case Action::info:
      remark("info", nullptr);
      break;
    case Action::prepend:
      verdict_.headers.push_back(rule.text);
      break;
    case Action::dunno:
      break;
  }
  step(name, input, "pass", line + (exempt_ ? ": OK, later checks are skipped" : ""));
}

Task<> Decision::sender_domain() {
  constexpr std::string_view name = "unknown_sender_domain";
  const config::CheckMode mode = setup_.config().access.unknown_sender_domain;
  const std::string& domain = facts_.sender.domain;
  const bool applies = mode != config::CheckMode::off && !exempt_ && needs_lookup(setup_.config(), facts_.sender);
  if (!enter(name, domain, applies, "off, exempt, or nothing to look up")) co_return;
  const MailDomain* answer = co_await evidence_.sender->domain.wait(deadline_);
  const MailDomain state = answer != nullptr ? *answer : MailDomain{MailDomain::State::failed, "no answer in time"};
  conclude(name, domain, mode, access::unknown_sender_domain(facts_, state), state.detail);
}

void Decision::listed_recipient() {
  const RecipientList* list = domain_ == nullptr ? nullptr : shared().tables->recipients(*domain_);
  if (!enter("recipients", address_, list != nullptr, "no list")) return;
  settled_ = true;
  const bool known = is_postmaster(recipient_) || list->contains(plain_);
  conclude("recipients", address_, config::CheckMode::reject,
           known ? Findings() : Finding{unknown_recipient(recipient_)}, {});
}

Task<> Decision::remembered_recipient() {
  constexpr std::string_view name = "verify_recipients";
  settled_ = settled_ || domain_ == nullptr || !domain_->verify_recipients || is_postmaster(recipient_);
  if (!enter(name, address_, !settled_, "not to be asked for")) co_return;
  const Known known = co_await shared().memory->recall(plain_);
  const bool good = known == Known::good;
  memory_fails_ = known == Known::unclear;
  if (!good && known != Known::bad) {
    if (shared().primaries->is_down(plain_.domain)) {
      settled_ = true;
      co_return unknown_while_down(name);
    }
    co_return step(name, address_, "unknown", "the primary will be asked");
  }
  settled_ = true;
  conclude(name, address_, config::CheckMode::reject, good ? Findings() : Finding{unknown_recipient(recipient_)},
           good ? "known to the primary" : "refused by the primary");
}

void Decision::unknown_while_down(std::string_view check) {
  const std::string why = "the primary cannot be asked";
  auto policy = domain_->unknown_while_down;
  if (policy == config::UnknownWhileDown::reject && memory_fails_) policy = config::UnknownWhileDown::defer;
  Findings finding;
  if (policy == config::UnknownWhileDown::reject) finding = {unknown_recipient(recipient_)};
  if (policy == config::UnknownWhileDown::defer) finding = {unverified_recipient(recipient_, why), true};
  conclude(check, address_, config::CheckMode::reject, finding, why);
}

Task<> Decision::dnsbl() {
  const config::Dnsbl& config = setup_.config().dnsbl;
  const std::string input = facts_.client.address.to_string();
  const bool applies = setup_.lists && config.mode != config::CheckMode::off && !exempt_ && domain_ != nullptr &&
                       domain_->dnsbl && !is_postmaster_or_abuse(recipient_);
  if (!enter("dnsbl", input, applies, "no lists, off, exempt, postmaster or abuse")) co_return;
  std::vector<const dnsbl::Score*> scores;
  const bool named = evidence_.client->name.get() != nullptr;  // else its score has not even been begun
  for (auto* eventual : {&evidence_.client->scores, &evidence_.client->name_scores, &evidence_.sender->scores}) {
    const bool hopeless = eventual == &evidence_.client->name_scores && !named;
    const SteadyTime deadline = hopeless ? SteadyTime() : deadline_;
    const std::vector<dnsbl::Score>* answer = co_await eventual->wait(deadline);
    if (answer == nullptr) {
      shared().metrics->count("dnsbl_lookups_total", {{"list", "all"}, {"result", "timeout"}});
      shared().log->warning("dnsbl", fmt::format("{} passes for not listed: some lists were not asked in time",
                                                 facts_.client.to_string()));
      continue;
    }
    for (const dnsbl::Score& one : *answer) {
      if (!one.results.empty()) scores.push_back(&one);
    }
  }
  std::optional<dnsbl::Score> sum;
  const bool alone = scores.size() == 1;
  const dnsbl::Score& score = alone ? *scores.front() : sum.emplace(dnsbl::combine(scores, config.threshold));
  allow_listed_ = score.total < 0;
  const bool listed = !score.reply_text.empty();
  conclude("dnsbl", input, config.mode, listed ? Finding{Reply{554, "5.7.1", score.reply_text}} : Findings(),
           trace_ != nullptr ? describe(score) : std::string());
}

Task<> Decision::greylist() {
  const config::Greylist& config = setup_.config().greylist;
  const bool applies = config.mode != config::CheckMode::off && !exempt_ && !allow_listed_ && domain_ != nullptr &&
                       domain_->greylist && !is_postmaster_or_abuse(recipient_) &&
                       !shared().primaries->is_primary_address(facts_.client.address) &&
                       !(config.primary_up_only && shared().primaries->is_down(recipient_.domain));
  if (!enter("greylist", address_, applies, "off, exempt, allow-listed, the primary itself or down")) co_return;
  // Who checks an address by a call back has the null sender and never comes to DATA; its answer, a callout's too, is
  // due now. The budgets of callouts bound what it may ask.
  postponed_ = facts_.sender.empty() && !at_data_;
  if (postponed_ && trace_ == nullptr) co_return;
  greylist::Request request{.client = facts_.client.address,
                            .client_name = facts_.client.name,
                            .sender = facts_.sender.to_string(),
                            .recipient = plain_.to_string(),
                            .helo = facts_.helo,
                            .queue_id = facts_.queue_id,
                            .instance = {},  // a recipient may yet be refused, and its header with it
                            .spf_domain = {},
                            .dry_run = trace_ != nullptr,
                            .test_time = {}};
  if (config.sender_pools && !facts_.sender.empty()) {
    evidence_.seek_authority();
    const Authority* authority = co_await evidence_.sender->authority.wait(deadline_);
    if (authority != nullptr && *authority == Authority::yes)
      request.spf_domain = canonical_domain(facts_.sender.domain).value_or("");
  }
  const greylist::Answer answer = co_await shared().greylister->check(std::move(request));
  if (!answer.log_line.empty()) verdict_.notes.push_back(answer.log_line);
  if (!answer.header.empty()) verdict_.headers.push_back(answer.header);
  const bool defer = answer.action == greylist::Action::defer;
  const auto mode = answer.would_defer ? config::CheckMode::warn : config::CheckMode::reject;
  Findings finding;
  if (defer || answer.would_defer) finding = Finding{greylisted(recipient_, answer.text), true};
  conclude("greylist", address_, mode, finding, answer.reason + (postponed_ ? " (null sender: asked at DATA)" : ""));
}

// Only who has passed everything else may make us ask.
Task<> Decision::callout() {
  const bool passed = !verdict_.reply && !pending_;
  if (!enter("callout", address_, !settled_ && passed, settled_ ? "not to be asked for" : "does not get this far"))
    co_return;
  const SteadyTime deadline = std::chrono::steady_clock::now() + longest_callout;
  const Primaries::Answer answer = co_await shared().memory->ask(gate_, plain_, facts_.client.address, deadline);
  if (answer.outcome == Callout::inconclusive && shared().primaries->is_down(plain_.domain)) {
    // It has gone down meanwhile: now what is remembered holds, however old.
    const Known known = co_await shared().memory->recall(plain_);
    memory_fails_ = known == Known::unclear;
    if (known != Known::good) co_return unknown_while_down("callout");
    co_return step("callout", address_, "pass", "known to the primary");
  }
  Findings finding;
  if (answer.outcome == Callout::refused) finding = {unknown_recipient(recipient_)};
  if (answer.outcome == Callout::inconclusive) finding = {unverified_recipient(recipient_, answer.detail)};
  conclude("callout", address_, config::CheckMode::reject, finding, printable(answer.detail, 200));
}

Verdict Decision::finish() {
  if (!verdict_.reply && pending_) {
    verdict_.reply = pending_;
    verdict_.check = pending_check_;
  }
  if (verdict_.reply) {
    verdict_.headers.clear();
    verdict_.discard = verdict_.hold = false;
    verdict_.counts_as_error = verdict_.reply->permanent();
  }
  return std::move(verdict_);
}

}  // namespace greymx::access

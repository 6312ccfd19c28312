#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "base/mailbox.hpp"
#include "dns/packet.hpp"
#include "spf/macro.hpp"
#include "spf/record.hpp"
#include "spf/spf.hpp"

namespace greymx::spf {
namespace {

// RFC 7208 4.6.4
constexpr unsigned max_terms = 10;
constexpr std::size_t max_names = 10;
constexpr unsigned max_void = 2;

enum class Match : std::uint8_t { no, yes, temperror, permerror };

// What one domain's record says.
struct Evaluation {
  Result result = Result::none;
  std::string mechanism;
  std::string explanation;  // domain-spec of exp=, if the result is the record's own `fail`
  std::string domain;       // whose record decided
};

// One check_host(), its includes and redirects.
class Evaluator {
 public:
  Evaluator(dns::Resolver& resolver, Query query, SteadyTime deadline);
  Task<Outcome> run();

 private:
  Task<Evaluation> check(std::string domain);
  Task<Evaluation> evaluate(Record record, std::string domain);
  Task<Evaluation> redirect(std::string domain_spec, std::string domain);
  Task<Match> match(const Mechanism& mechanism, std::string domain);
  Task<Match> match_include(std::string target);
  Task<Match> match_addresses(const Mechanism& mechanism, std::string target, bool voids_count);
  Task<Match> match_mx(const Mechanism& mechanism, std::string target);
  Task<Match> match_ptr(std::string target);
  Task<Match> match_exists(std::string target);
  Task<std::vector<std::string>> validated_names();
  Task<std::string> expand_target(std::string domain_spec, std::string domain);
  Task<std::string> explain(std::string domain_spec, std::string domain);
  Task<MacroValues> values(std::string text, std::string domain);

  bool count_term();
  std::optional<Match> trouble(const dns::Answer& answer, const std::string& name, bool voids_count = true);
  Evaluation failed(Result result, std::string problem);
  bool covers(const Mechanism& mechanism, const IpAddress& address) const;
  dns::Type address_type() const { return query_.client.is_v4() ? dns::Type::a : dns::Type::aaaa; }

  dns::Resolver& resolver_;
  Query query_;
  Mailbox sender_;
  SteadyTime deadline_;
  unsigned terms_ = 0;
  unsigned void_lookups_ = 0;
  std::string problem_;
  std::optional<std::vector<std::string>> validated_;
};

Evaluator::Evaluator(dns::Resolver& resolver, Query query, SteadyTime deadline)
    : resolver_(resolver), query_(std::move(query)), sender_(Mailbox::split(query_.sender)), deadline_(deadline) {
  if (query_.sender.empty()) sender_.domain = query_.helo;
  if (sender_.local.empty()) sender_.local = "postmaster";
}

Evaluation Evaluator::failed(Result result, std::string problem) {
  problem_ = std::move(problem);
  Evaluation evaluation;
  evaluation.result = result;
  return evaluation;
}

bool Evaluator::count_term() {
  if (++terms_ <= max_terms) return true;
  problem_ = fmt::format("more than {} terms that need DNS", max_terms);
  return false;
}

// What an answer means for the whole check; nullopt: go on with it.
std::optional<Match> Evaluator::trouble(const dns::Answer& answer, const std::string& name, bool voids_count) {
  if (answer.outcome == dns::Outcome::failed) {
    problem_ = fmt::format("DNS lookup of {} failed: {}", printable(name, 100), answer.error);
    return Match::temperror;
  }
  if (answer.outcome == dns::Outcome::found || !voids_count || ++void_lookups_ <= max_void) return std::nullopt;
  problem_ = fmt::format("more than {} lookups without result", max_void);
  return Match::permerror;
}

bool Evaluator::covers(const Mechanism& mechanism, const IpAddress& address) const {
  if (address.is_v4() != query_.client.is_v4()) return false;
  const unsigned prefix = address.is_v4() ? mechanism.prefix4 : mechanism.prefix6;
  return address.masked(prefix) == query_.client.masked(prefix);
}

// 4.3 to 4.5
Task<Evaluation> Evaluator::check(std::string domain) {
  const auto name = dns::question_name(domain);
  const bool malformed = !name || name->find('.') == std::string::npos || name->starts_with('[');
  if (malformed) co_return Evaluation{};
  const dns::Answer answer = co_await resolver_.lookup(*name, dns::Type::txt, deadline_);
  if (trouble(answer, *name, false)) co_return failed(Result::temperror, problem_);
  std::string text;
  for (const std::string& candidate : answer.texts) {
    if (!is_spf_record(candidate)) continue;
    if (!text.empty()) co_return failed(Result::permerror, *name + " has more than one SPF record");
    text = candidate;
  }
  if (text.empty()) co_return Evaluation{};
  auto record = parse_record(text);
  if (!record) co_return failed(Result::permerror, *name + ": " + record.error());
  co_return co_await evaluate(std::move(*record), *name);
}

Task<Evaluation> Evaluator::evaluate(Record record, std::string domain) {
  for (const Mechanism& mechanism : record.mechanisms) {
    const Match matched = co_await match(mechanism, domain);
    if (matched == Match::no) continue;
    if (matched == Match::temperror) co_return failed(Result::temperror, problem_);
    if (matched == Match::permerror) co_return failed(Result::permerror, problem_);
    Evaluation evaluation{mechanism.qualifier, mechanism.text, {}, domain};
    if (mechanism.qualifier == Result::fail) evaluation.explanation = record.explanation;
    co_return evaluation;
  }
  if (!record.redirect.empty()) co_return co_await redirect(record.redirect, domain);
  co_return Evaluation{Result::neutral, "default", {}, domain};
}

Task<Evaluation> Evaluator::redirect(std::string domain_spec, std::string domain) {
  if (!count_term()) co_return failed(Result::permerror, problem_);
  const std::string target = co_await expand_target(domain_spec, domain);
  Evaluation evaluation = co_await check(target);
  if (evaluation.result == Result::none) co_return failed(Result::permerror, "redirect without SPF record: " + target);
  co_return evaluation;
}

Task<Match> Evaluator::match(const Mechanism& mechanism, std::string domain) {
  if (mechanism.kind == Kind::all) co_return Match::yes;
  if (mechanism.kind == Kind::ip4 || mechanism.kind == Kind::ip6) {
    co_return covers(mechanism, mechanism.address) ? Match::yes : Match::no;
  }
  if (!count_term()) co_return Match::permerror;
  const std::string target = co_await expand_target(mechanism.domain, domain);
  switch (mechanism.kind) {
    case Kind::include:
      co_return co_await match_include(target);
    case Kind::a:
      co_return co_await match_addresses(mechanism, target, true);
    case Kind::mx:
      co_return co_await match_mx(mechanism, target);
    case Kind::ptr:
      co_return co_await match_ptr(target);
    default:
      co_return co_await match_exists(target);
  }
}

// 5.2
Task<Match> Evaluator::match_include(std::string target) {
  const Evaluation evaluation = co_await check(target);
  switch (evaluation.result) {
    case Result::pass:
      co_return Match::yes;
    case Result::temperror:
      co_return Match::temperror;
    case Result::permerror:
      co_return Match::permerror;
    case Result::none:
      problem_ = "include without SPF record: " + printable(target, 100);
      co_return Match::permerror;
    default:
      co_return Match::no;
  }
}

Task<Match> Evaluator::match_addresses(const Mechanism& mechanism, std::string target, bool voids_count) {
  const dns::Answer answer = co_await resolver_.lookup(target, address_type(), deadline_);
  if (const auto end = trouble(answer, target, voids_count)) co_return *end;
  const auto covered = [&](const IpAddress& address) { return covers(mechanism, address); };
  co_return std::ranges::any_of(answer.addresses, covered) ? Match::yes : Match::no;
}

// 5.4: no A lookup of the name itself where there is no MX.
Task<Match> Evaluator::match_mx(const Mechanism& mechanism, std::string target) {
  const dns::Answer answer = co_await resolver_.lookup(target, dns::Type::mx, deadline_);
  if (const auto end = trouble(answer, target)) co_return *end;
  if (answer.mx.size() > max_names) {
    problem_ = fmt::format("more than {} MX records", max_names);
    co_return Match::permerror;
  }
  for (const dns::Mx& mx : answer.mx) {
    if (mx.host.empty()) continue;
    const Match matched = co_await match_addresses(mechanism, mx.host, false);
    if (matched != Match::no) co_return matched;
  }
  co_return Match::no;
}

// 5.5: whatever goes wrong here only means that it does not match.
Task<Match> Evaluator::match_ptr(std::string target) {
  const std::vector<std::string> names = co_await validated_names();
  const std::string wanted = to_lower(target);
  const auto inside = [&](const std::string& name) { return is_in_domain(name, wanted); };
  co_return std::ranges::any_of(names, inside) ? Match::yes : Match::no;
}

// 5.7: an A record, also for IPv6 clients.
Task<Match> Evaluator::match_exists(std::string target) {
  const dns::Answer answer = co_await resolver_.lookup(target, dns::Type::a, deadline_);
  if (const auto end = trouble(answer, target)) co_return *end;
  co_return answer.outcome == dns::Outcome::found ? Match::yes : Match::no;
}

// The client's PTR names that lead back to it; asked once.
Task<std::vector<std::string>> Evaluator::validated_names() {
  if (validated_) co_return *validated_;
  const std::string reverse = query_.client.reversed_labels() + (query_.client.is_v4() ? ".in-addr.arpa" : ".ip6.arpa");
  const dns::Answer pointers = co_await resolver_.lookup(reverse, dns::Type::ptr, deadline_);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < std::min(pointers.names.size(), max_names); ++i) {
    const dns::Answer answer = co_await resolver_.lookup(pointers.names[i], address_type(), deadline_);
    if (std::ranges::find(answer.addresses, query_.client) != answer.addresses.end())
      names.push_back(pointers.names[i]);
  }
  validated_ = names;
  co_return names;
}

Task<MacroValues> Evaluator::values(std::string text, std::string domain) {
  MacroValues values{query_.client, sender_.local, sender_.domain, query_.helo, query_.receiver, domain, "unknown"};
  if (!needs_validated_name(text)) co_return values;
  // 7.3: the domain itself, else a name below it, else any.
  const std::vector<std::string> names = co_await validated_names();
  const auto rank = [&](const std::string& name) { return name == domain ? 2 : is_in_domain(name, domain) ? 1 : 0; };
  if (!names.empty()) values.validated = *std::ranges::max_element(names, {}, rank);
  co_return values;
}

Task<std::string> Evaluator::expand_target(std::string domain_spec, std::string domain) {
  if (domain_spec.empty()) co_return domain;
  const MacroValues macros = co_await values(domain_spec, domain);
  co_return expand_domain(domain_spec, macros);
}

// 6.2: any trouble, and there is no explanation. Not counted towards the limits.
Task<std::string> Evaluator::explain(std::string domain_spec, std::string domain) {
  const std::string target = co_await expand_target(domain_spec, domain);
  const dns::Answer answer = co_await resolver_.lookup(target, dns::Type::txt, deadline_);
  if (answer.texts.size() != 1) co_return std::string{};
  const std::string& text = answer.texts.front();
  if (!is_ascii(text) || !is_macro_string(text, true)) co_return std::string{};
  const MacroValues macros = co_await values(text, domain);
  co_return printable(expand(text, macros));
}

Task<Outcome> Evaluator::run() {
  Outcome outcome;
  outcome.domain = sender_.domain;
  const Evaluation evaluation = co_await check(sender_.domain);
  outcome.result = evaluation.result;
  outcome.mechanism = printable(evaluation.mechanism);
  if (outcome.result == Result::temperror || outcome.result == Result::permerror) outcome.problem = problem_;
  outcome.lookups = std::min(terms_, max_terms);
  if (!evaluation.explanation.empty()) {
    outcome.explanation = co_await explain(evaluation.explanation, evaluation.domain);
  }
  co_return outcome;
}

}  // namespace

Task<Outcome> check_host(dns::Resolver& resolver, Query query, SteadyTime deadline) {
  Evaluator evaluator{resolver, std::move(query), deadline};
  Outcome outcome = co_await evaluator.run();
  co_return outcome;
}

Task<bool> authorises_everybody(dns::Resolver& resolver, Query query, SteadyTime deadline) {
  for (const char* nobody : {"198.18.0.1", "3fff::1"}) {
    query.client = *IpAddress::parse(nobody);
    const Outcome outcome = co_await check_host(resolver, query, deadline);
    if (outcome.result == Result::pass) co_return true;
  }
  co_return false;
}

std::string_view to_string(Result result) {
  constexpr std::array<std::string_view, 7> names{"none",     "neutral",   "pass",     "fail",
                                                  "softfail", "temperror", "permerror"};
  return names[static_cast<std::size_t>(result)];
}

}  // namespace greymx::spf

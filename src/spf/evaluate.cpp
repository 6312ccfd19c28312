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

// One check_host(), shared by its includes and redirects.
struct Check {
  dns::Resolver& resolver;
  SteadyTime deadline;
  Query query;
  Mailbox sender;
  unsigned terms = 0;
  unsigned void_lookups = 0;
  std::string problem;
  std::optional<std::vector<std::string>> validated_names;

  dns::Type address_type() const { return query.client.is_v4() ? dns::Type::a : dns::Type::aaaa; }
  Result permerror(std::string why) {
    problem = std::move(why);
    return Result::permerror;
  }
};

// What one domain's record says.
struct Evaluation {
  Result result = Result::none;
  std::string mechanism;
  std::string explanation;  // domain-spec of exp=, if the record itself says fail
  std::string domain;       // whose record decided
};

Task<Evaluation> evaluate(Check& check, std::string domain);

// Whether a mechanism matches travels as a Result: pass = yes, neutral = no, or an error that ends the whole check.
Result matches(bool yes) {
  return yes ? Result::pass : Result::neutral;
}

// What an answer means for the whole check; nullopt: go on with it.
std::optional<Result> trouble(Check& check, const dns::Answer& answer, const std::string& name, bool voids_count) {
  if (answer.outcome == dns::Outcome::failed) {
    check.problem = fmt::format("DNS lookup of {} failed: {}", printable(name, 100), answer.error);
    return Result::temperror;
  }
  if (answer.outcome == dns::Outcome::found || !voids_count || ++check.void_lookups <= max_void) return std::nullopt;
  return check.permerror(fmt::format("more than {} lookups without result", max_void));
}

bool covers(const Check& check, const Mechanism& mechanism, const IpAddress& address) {
  if (address.is_v4() != check.query.client.is_v4()) return false;
  const unsigned prefix = address.is_v4() ? mechanism.prefix4 : mechanism.prefix6;
  return address.masked(prefix) == check.query.client.masked(prefix);
}

// The client's PTR names that lead back to it (5.5); asked for once. Trouble only makes them fewer.
Task<std::vector<std::string>> validated_names(Check& check) {
  if (check.validated_names) co_return *check.validated_names;
  const IpAddress client = check.query.client;
  const dns::Answer pointers = co_await check.resolver.lookup(client.reverse_name(), dns::Type::ptr, check.deadline);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < std::min(pointers.names.size(), max_names); ++i) {
    const std::string& name = pointers.names[i];
    const dns::Answer answer = co_await check.resolver.lookup(name, check.address_type(), check.deadline);
    if (std::ranges::find(answer.addresses, client) != answer.addresses.end()) names.push_back(name);
  }
  check.validated_names = names;
  co_return names;
}

Task<MacroValues> macro_values(Check& check, std::string text, std::string domain) {
  const Query& query = check.query;
  MacroValues values{query.client, check.sender.local, check.sender.domain, query.helo, query.receiver, domain};
  if (!needs_validated_name(text)) co_return values;
  // 7.3: the domain itself, else a name below it, else any.
  const std::vector<std::string> names = co_await validated_names(check);
  const auto rank = [&](const std::string& name) { return name == domain ? 2 : is_in_domain(name, domain) ? 1 : 0; };
  if (!names.empty()) values.validated = *std::ranges::max_element(names, {}, rank);
  co_return values;
}

Task<std::string> expand_target(Check& check, std::string domain_spec, std::string domain) {
  if (domain_spec.empty()) co_return domain;
  const MacroValues values = co_await macro_values(check, domain_spec, domain);
  co_return expand_domain(domain_spec, values);
}

// 5.2
Task<Result> match_include(Check& check, std::string target) {
  const Evaluation evaluation = co_await evaluate(check, target);
  switch (evaluation.result) {
    case Result::none:
      co_return check.permerror("include without SPF record: " + printable(target, 100));
    case Result::pass:
    case Result::temperror:
    case Result::permerror:
      co_return evaluation.result;
    default:
      co_return Result::neutral;
  }
}

// 5.3, and for the hosts of mx, whose void lookups are not counted
Task<Result> match_addresses(Check& check, const Mechanism& mechanism, std::string target, bool voids_count) {
  const dns::Answer answer = co_await check.resolver.lookup(target, check.address_type(), check.deadline);
  if (const auto end = trouble(check, answer, target, voids_count)) co_return *end;
  const auto covered = [&](const IpAddress& address) { return covers(check, mechanism, address); };
  co_return matches(std::ranges::any_of(answer.addresses, covered));
}

// 5.4: no A lookup of the name itself where there is no MX.
Task<Result> match_mx(Check& check, const Mechanism& mechanism, std::string target) {
  const dns::Answer answer = co_await check.resolver.lookup(target, dns::Type::mx, check.deadline);
  if (const auto end = trouble(check, answer, target, true)) co_return *end;
  if (answer.mx.size() > max_names) co_return check.permerror(fmt::format("more than {} MX records", max_names));
  for (const dns::Mx& mx : answer.mx) {
    if (mx.host.empty()) continue;
    const Result matched = co_await match_addresses(check, mechanism, mx.host, false);
    if (matched != Result::neutral) co_return matched;
  }
  co_return Result::neutral;
}

// 5.5
Task<Result> match_ptr(Check& check, std::string target) {
  const std::vector<std::string> names = co_await validated_names(check);
  const std::string wanted = to_lower(target);
  co_return matches(std::ranges::any_of(names, [&](const auto& name) { return is_in_domain(name, wanted); }));
}

// 5.7: an A record, also for IPv6 clients.
Task<Result> match_exists(Check& check, std::string target) {
  const dns::Answer answer = co_await check.resolver.lookup(target, dns::Type::a, check.deadline);
  if (const auto end = trouble(check, answer, target, true)) co_return *end;
  co_return matches(answer.outcome == dns::Outcome::found);
}

bool count_term(Check& check) {
  if (++check.terms <= max_terms) return true;
  check.problem = fmt::format("more than {} terms that need DNS", max_terms);
  return false;
}

Task<Result> match(Check& check, const Mechanism& mechanism, std::string domain) {
  if (mechanism.kind == Kind::all) co_return Result::pass;
  if (mechanism.kind == Kind::ip4 || mechanism.kind == Kind::ip6) {
    co_return matches(covers(check, mechanism, mechanism.address));
  }
  if (!count_term(check)) co_return Result::permerror;
  const std::string target = co_await expand_target(check, mechanism.domain, domain);
  switch (mechanism.kind) {
    case Kind::include:
      co_return co_await match_include(check, target);
    case Kind::a:
      co_return co_await match_addresses(check, mechanism, target, true);
    case Kind::mx:
      co_return co_await match_mx(check, mechanism, target);
    case Kind::ptr:
      co_return co_await match_ptr(check, target);
    default:
      co_return co_await match_exists(check, target);
  }
}

// 6.1
Task<Evaluation> redirect(Check& check, std::string domain_spec, std::string domain) {
  if (!count_term(check)) co_return Evaluation{Result::permerror, {}, {}, {}};
  const std::string target = co_await expand_target(check, domain_spec, domain);
  Evaluation evaluation = co_await evaluate(check, target);
  if (evaluation.result == Result::none) {
    evaluation.result = check.permerror("redirect without SPF record: " + printable(target, 100));
  }
  co_return evaluation;
}

// 4.6
Task<Evaluation> evaluate_record(Check& check, Record record, std::string domain) {
  for (const Mechanism& mechanism : record.mechanisms) {
    const Result matched = co_await match(check, mechanism, domain);
    if (matched == Result::neutral) continue;
    if (matched != Result::pass) co_return Evaluation{matched, {}, {}, {}};
    const bool explained = mechanism.qualifier == Result::fail;
    co_return Evaluation{mechanism.qualifier, mechanism.text, explained ? record.explanation : "", domain};
  }
  if (!record.redirect.empty()) co_return co_await redirect(check, record.redirect, domain);
  co_return Evaluation{Result::neutral, "default", {}, domain};
}

// 4.3 to 4.5
Task<Evaluation> evaluate(Check& check, std::string domain) {
  const auto name = dns::question_name(domain);
  Evaluation evaluation;
  if (!name || name->find('.') == std::string::npos || name->starts_with('[')) co_return evaluation;
  const dns::Answer answer = co_await check.resolver.lookup(*name, dns::Type::txt, check.deadline);
  if (const auto end = trouble(check, answer, *name, false)) co_return Evaluation{*end, {}, {}, {}};
  std::vector<std::string> texts = answer.texts;
  std::erase_if(texts, [](const std::string& text) { return !is_spf_record(text); });
  if (texts.empty()) co_return evaluation;
  auto record = parse_record(texts.front());
  if (record && texts.size() == 1) co_return co_await evaluate_record(check, std::move(*record), *name);
  evaluation.result = check.permerror(*name + (record ? " has more than one SPF record" : ": " + record.error()));
  co_return evaluation;
}

// 6.2: any trouble, and there is no explanation. Not counted towards the limits.
Task<std::string> explain(Check& check, std::string domain_spec, std::string domain) {
  const std::string target = co_await expand_target(check, domain_spec, domain);
  const dns::Answer answer = co_await check.resolver.lookup(target, dns::Type::txt, check.deadline);
  if (answer.texts.size() != 1) co_return std::string{};
  const std::string& text = answer.texts.front();
  if (!is_ascii(text) || !is_macro_string(text, true)) co_return std::string{};
  const MacroValues values = co_await macro_values(check, text, domain);
  co_return printable(expand(text, values));
}

}  // namespace

Task<Outcome> check_host(dns::Resolver& resolver, Query query, SteadyTime deadline) {
  Check check{resolver, deadline, query, Mailbox::split(query.sender), 0, 0, {}, {}};
  if (query.sender.empty()) check.sender.domain = query.helo;
  if (check.sender.local.empty()) check.sender.local = "postmaster";
  const Evaluation evaluation = co_await evaluate(check, check.sender.domain);
  Outcome outcome;
  outcome.result = evaluation.result;
  outcome.domain = check.sender.domain;
  outcome.mechanism = printable(evaluation.mechanism);
  if (outcome.result == Result::temperror || outcome.result == Result::permerror) outcome.problem = check.problem;
  outcome.lookups = std::min(check.terms, max_terms);
  if (!evaluation.explanation.empty()) {
    outcome.explanation = co_await explain(check, evaluation.explanation, evaluation.domain);
  }
  co_return outcome;
}

Task<Outcome> authorise(dns::Resolver& resolver, Query query, SteadyTime deadline) {
  Outcome outcome = co_await check_host(resolver, query, deadline);
  for (const char* nobody : {"198.18.0.1", "3fff::1"}) {
    if (outcome.result != Result::pass) break;
    query.client = *IpAddress::parse(nobody);
    const Outcome other = co_await check_host(resolver, query, deadline);
    if (other.result == Result::pass) outcome.result = Result::neutral;
  }
  co_return outcome;
}

std::string_view to_string(Result result) {
  constexpr std::array<std::string_view, 7> names{"none",     "neutral",   "pass",     "fail",
                                                  "softfail", "temperror", "permerror"};
  return names[static_cast<std::size_t>(result)];
}

}  // namespace greymx::spf

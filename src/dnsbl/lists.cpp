#include <algorithm>

#include "base/mailbox.hpp"
#include "dnsbl/health.hpp"

namespace greymx::dnsbl {
namespace {

// What one check asks all lists about.
struct Question {
  std::string labels;   // before the zone
  std::string subject;  // for the reply
  std::optional<IpAddress> client;
  SteadyTime deadline;
};

// One list that was asked.
struct Asked {
  std::size_t list;
  ListResult result;
  Task<dns::Answer> answer;  // not valid: the list is off
};

// Is it a list of domains, for the name that `what` says?
bool is_about(const List& list, std::string_view what) {
  return list.by_name && (what == "sender" ? list.check_sender : what == "helo" ? list.check_helo : list.check_client);
}

}  // namespace

struct Lists::Impl {
  config::ConfigPtr config;
  dns::Resolver& resolver;
  std::shared_ptr<Health> health;
  Metrics& metrics;

  Task<Score> check(const std::vector<std::size_t>& lists, Question question);
  Task<Score> collect(std::vector<Asked> asked, Question question);
  void judge_answer(Asked& one, const dns::Answer& answer, const Question& question);
  Task<> fetch_reason(Asked& one, const Question& question);

  // dnsbl.cache_ttl_max: an answer that the DNS cache has had for longer is asked for again.
  bool too_old(const dns::Answer& answer) const { return answer.age > config->dnsbl.cache_ttl_max; }
  Task<dns::Answer> again(const std::string& name, dns::Type type, SteadyTime deadline) {
    resolver.forget(name, type);
    return resolver.lookup(name, type, deadline);
  }
};

// All lists are asked before the first answer is awaited.
Task<Score> Lists::Impl::check(const std::vector<std::size_t>& lists, Question question) {
  std::vector<Asked> asked;
  asked.reserve(lists.size());
  for (const std::size_t index : lists) {
    const List& list = health->lists()[index];
    Asked& one = asked.emplace_back(index);
    one.result.zone = list.shown;
    one.result.query = concat({question.labels, ".", list.shown});
    one.result.subject = question.subject;
    one.result.weight = list.weight;
    one.result.error = health->why_off(index);
    if (one.result.error.empty())
      one.answer = resolver.lookup(concat({question.labels, ".", list.zone}), dns::Type::a, question.deadline);
    else
      one.result.outcome = Outcome::disabled;
  }
  return collect(std::move(asked), std::move(question));
}

Task<Score> Lists::Impl::collect(std::vector<Asked> asked, Question question) {
  const auto decides = [](const Asked& one) { return one.result.outcome == Outcome::listed && one.result.weight > 0; };
  for (Asked& one : asked) {
    if (!one.answer.valid()) continue;
    dns::Answer answer = co_await std::move(one.answer);
    if (too_old(answer)) {
      const std::string name = concat({question.labels, ".", health->lists()[one.list].zone});
      answer = co_await again(name, dns::Type::a, question.deadline);
    }
    judge_answer(one, answer, question);
  }
  const auto deciding = std::ranges::find_if(asked, decides);
  if (deciding != asked.end()) co_await fetch_reason(*deciding, question);
  std::vector<ListResult> results;
  results.reserve(asked.size());
  for (Asked& one : asked) results.push_back(std::move(one.result));
  co_return tally(std::move(results), config->dnsbl.threshold);
}

void Lists::Impl::judge_answer(Asked& one, const dns::Answer& answer, const Question& question) {
  const List& list = health->lists()[one.list];
  metrics.observe("dnsbl_lookup_seconds", std::chrono::duration<double>(answer.took).count(), {{"list", list.shown}});
  const Judgement judgement = judge(list, answer);
  one.result.outcome = judgement.outcome;
  one.result.error = judgement.error;
  one.result.answers = answer.addresses;
  one.result.age = answer.age;
  if (judgement.outcome == Outcome::listed) one.result.reason = printable(list.reason);
  health->note(one.list, one.result, judgement.outside, question.client);
}

// Of the first list, in the order of the config, that lists it: no other's reason can be told.
Task<> Lists::Impl::fetch_reason(Asked& one, const Question& question) {
  const List& list = health->lists()[one.list];
  if (!list.reason.empty()) co_return;
  const std::string name = concat({question.labels, ".", list.zone});
  // A slow list may have used up the time for all.
  const SteadyTime deadline = std::min(question.deadline, SteadyTime::max() - reason_time) + reason_time;
  dns::Answer texts = co_await resolver.lookup(name, dns::Type::txt, deadline);
  if (too_old(texts)) texts = co_await again(name, dns::Type::txt, deadline);
  one.result.reason = reason_text(list, texts.texts);
}

Lists::Lists(config::ConfigPtr config, dns::Resolver& resolver, std::shared_ptr<Health> health, Log&, Metrics& metrics)
    : impl_(std::make_unique<Impl>(std::move(config), resolver, std::move(health), metrics)) {}
Lists::~Lists() = default;

Task<Score> Lists::check_client(IpAddress client, SteadyTime deadline) {
  Question question;
  question.labels = client.reversed_labels();
  question.subject = concat({"Client host [", client.to_string(), "]"});
  question.client = client;
  question.deadline = deadline;
  std::vector<std::size_t> indices;
  const std::vector<List>& lists = impl_->health->lists();
  for (std::size_t i = 0; i < lists.size(); ++i) {
    if (!lists[i].by_name) indices.push_back(i);
  }
  return impl_->check(indices, std::move(question));
}

bool Lists::ask_about(std::string_view what) const {
  return std::ranges::any_of(impl_->health->lists(), [what](const List& list) { return is_about(list, what); });
}

// Addresses and single labels are no domains: lists answer them with nonsense or an error (Spamhaus DBL: 127.0.1.255).
Task<Score> Lists::check_domain(std::string what, std::string asked, SteadyTime deadline) {
  const bool sender = what == "sender";
  const std::optional<std::string> name = canonical_domain(sender ? Mailbox::split(asked).domain : asked);
  std::vector<std::size_t> indices;
  const std::vector<List>& lists = impl_->health->lists();
  const bool usable = name && is_hostname(*name, 2) && !IpAddress::parse(*name);
  for (std::size_t i = 0; usable && i < lists.size(); ++i) {
    if (is_about(lists[i], what)) indices.push_back(i);
  }
  Question question;
  question.labels = name.value_or("");
  const std::string_view part = sender ? "Sender address" : what == "helo" ? "Helo command" : "Client host";
  question.subject = concat({part, " [", sender ? printable(asked, 320) : question.labels, "]"});
  question.deadline = deadline;
  return impl_->check(indices, std::move(question));
}

}  // namespace greymx::dnsbl

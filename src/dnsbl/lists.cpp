#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/mailbox.hpp"
#include "dnsbl/health.hpp"

namespace greymx::dnsbl {
namespace {

using std::chrono::steady_clock;

// What one check asks all lists about.
struct Question {
  std::string labels;   // before the zone
  std::string subject;  // for the reply
  std::optional<IpAddress> client;
  SteadyTime deadline;
  // The first list, in the order of the config, known to list it so far. Only that one's TXT can be needed, so a list
  // with a smaller index always fetches its own.
  std::size_t first_listing = std::numeric_limits<std::size_t>::max();
};

}  // namespace

struct Lists::Impl {
  config::ConfigPtr config;
  dns::Resolver& resolver;
  std::shared_ptr<Health> health;
  Metrics& metrics;

  Task<Score> check(std::vector<std::size_t> lists, Question question);
  Task<ListResult> ask(std::size_t index, Question& question);
  Task<dns::Answer> lookup(std::string name, dns::Type type, SteadyTime deadline);
};

// dnsbl.cache_ttl_max: an answer that the DNS cache has had for longer is asked for again.
Task<dns::Answer> Lists::Impl::lookup(std::string name, dns::Type type, SteadyTime deadline) {
  dns::Answer answer = co_await resolver.lookup(name, type, deadline);
  if (answer.age <= config->dnsbl.cache_ttl_max) co_return answer;
  resolver.forget(name, type);
  answer = co_await resolver.lookup(name, type, deadline);
  co_return answer;
}

Task<ListResult> Lists::Impl::ask(std::size_t index, Question& question) {
  const List& list = health->lists()[index];
  ListResult result;
  result.zone = list.shown;
  result.query = question.labels + '.' + list.shown;
  result.subject = question.subject;
  result.weight = list.weight;
  result.error = health->why_off(index);
  if (!result.error.empty()) {
    result.outcome = Outcome::disabled;
    co_return result;
  }
  const std::string name = question.labels + '.' + list.zone;
  const SteadyTime begin = steady_clock::now();
  const dns::Answer answer = co_await lookup(name, dns::Type::a, question.deadline);
  const std::chrono::duration<double> took = steady_clock::now() - begin;
  metrics.observe("dnsbl_lookup_seconds", took.count(), {{"list", list.shown}});
  const Judgement judgement = judge(list, answer);
  result.outcome = judgement.outcome;
  result.error = judgement.error;
  result.answers = answer.addresses;
  result.age = answer.age;
  health->note(index, result, judgement.outside, question.client);
  if (result.outcome != Outcome::listed) co_return result;
  result.reason = printable(list.reason);
  if (!list.reason.empty() || list.weight <= 0 || index > question.first_listing) co_return result;
  question.first_listing = index;
  const dns::Answer texts = co_await lookup(name, dns::Type::txt, question.deadline);
  result.reason = reason_text(list, texts.texts);
  co_return result;
}

Task<Score> Lists::Impl::check(std::vector<std::size_t> lists, Question question) {
  std::vector<Task<ListResult>> tasks;
  for (const std::size_t index : lists) tasks.push_back(ask(index, question));
  std::vector<ListResult> results = co_await join_all(std::move(tasks));
  co_return tally(std::move(results), config->dnsbl.threshold);
}

Lists::Lists(config::ConfigPtr config, dns::Resolver& resolver, std::shared_ptr<Health> health, Log&, Metrics& metrics)
    : impl_(std::make_unique<Impl>(std::move(config), resolver, std::move(health), metrics)) {}
Lists::~Lists() = default;

Task<Score> Lists::check_client(IpAddress client, SteadyTime deadline) {
  Question question;
  question.labels = client.reversed_labels();
  question.subject = fmt::format("Client host [{}]", client.to_string());
  question.client = client;
  question.deadline = deadline;
  std::vector<std::size_t> indices;
  const std::vector<List>& lists = impl_->health->lists();
  for (std::size_t i = 0; i < lists.size(); ++i) {
    if (!lists[i].by_name) indices.push_back(i);
  }
  return impl_->check(std::move(indices), std::move(question));
}

// Addresses and single labels are no domains: lists answer them with nonsense or an error (Spamhaus DBL: 127.0.1.255).
Task<Score> Lists::check_domain(std::string what, std::string domain, SteadyTime deadline) {
  const std::optional<std::string> name = canonical_domain(domain);
  std::vector<std::size_t> indices;
  const std::vector<List>& lists = impl_->health->lists();
  const bool usable = name && is_hostname(*name, 2) && !IpAddress::parse(*name);
  for (std::size_t i = 0; usable && i < lists.size(); ++i) {
    const List& list = lists[i];
    const bool wanted = what == "sender" ? list.check_sender : what == "helo" ? list.check_helo : list.check_client;
    if (list.by_name && wanted) indices.push_back(i);
  }
  Question question;
  question.labels = name.value_or("");
  const std::string_view part = what == "sender" ? "Sender address" : what == "helo" ? "Helo command" : "Client host";
  question.subject = fmt::format("{} [{}]", part, question.labels);
  question.deadline = deadline;
  return impl_->check(std::move(indices), std::move(question));
}

}  // namespace greymx::dnsbl

#include "dnsbl/health.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/mailbox.hpp"
#include "base/text.hpp"

namespace greymx::dnsbl {
namespace {

using namespace std::chrono_literals;

constexpr auto test_interval = 1h;
constexpr auto retest_interval = 1min;
constexpr auto warn_interval = 1min;
constexpr auto warn_suspicious_interval = 1h;
constexpr unsigned unanswered_tests = 2;
constexpr std::size_t sample = 100;     // different clients
constexpr std::size_t nearly_all = 95;  // of them

IpAddress loopback(unsigned last) {
  return IpAddress::v4(127U << 24 | last);
}

// A fresh answer: a self-test that reads the cache tests nothing.
Task<dns::Answer> ask(dns::Resolver& resolver, std::string name, SteadyTime deadline) {
  resolver.forget(name, dns::Type::a);
  dns::Answer answer = co_await resolver.lookup(name, dns::Type::a, deadline);
  co_return answer;
}

std::string describe(const dns::Answer& answer) {
  if (answer.outcome == dns::Outcome::failed) return answer.error;
  return answer.addresses.empty() ? "no A record" : "answer " + answer.addresses.front().to_string();
}

struct Point {
  std::string_view shown;
  std::string_view labels;
};
struct Points {
  Point clean;
  Point listed;
};
constexpr Points name_points{{"INVALID", "invalid"}, {"TEST", "test"}};
constexpr Points ipv4_points{{"127.0.0.1", "1.0.0.127"}, {"127.0.0.2", "2.0.0.127"}};
// Of lists that have IPv6 addresses only. As an IpAddress they would be the ones above.
constexpr Points ipv6_points{{"::FFFF:7F00:1", "1.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0"},
                             {"::FFFF:7F00:2", "2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0"}};

Task<dns::Answer> ask(dns::Resolver& resolver, const List& list, const Point& point, SteadyTime deadline) {
  return ask(resolver, concat({point.labels, ".", list.zone}), deadline);
}

TestResult unanswered(const dns::Answer& answer) {
  return {false, true, false, "no answer: " + answer.error};
}

Task<TestResult> test_clean_point(dns::Resolver& resolver, const List& list, const Point& point, SteadyTime deadline) {
  const dns::Answer answer = co_await ask(resolver, list, point, deadline);
  if (answer.outcome == dns::Outcome::failed) co_return unanswered(answer);
  const bool outside = judge(list, answer).outside;
  if (!outside && (!list.self_test || answer.outcome != dns::Outcome::found)) co_return TestResult{};
  co_return TestResult{true, false, outside, fmt::format("{} is listed: {}", point.shown, describe(answer))};
}

}  // namespace

Task<TestResult> test_points(dns::Resolver& resolver, const List& list, SteadyTime deadline) {
  const Points& points = list.by_name ? name_points : ipv4_points;
  TestResult clean = co_await test_clean_point(resolver, list, points.clean, deadline);
  if (!list.self_test || !clean.reason.empty()) co_return clean;
  const dns::Answer listed = co_await ask(resolver, list, points.listed, deadline);
  if (listed.outcome == dns::Outcome::failed) co_return unanswered(listed);
  if (is_listing(listed)) co_return TestResult{};
  if (!list.by_name && listed.outcome != dns::Outcome::found) {
    const dns::Answer mapped = co_await ask(resolver, list, ipv6_points.listed, deadline);
    if (mapped.outcome == dns::Outcome::failed) co_return unanswered(mapped);
    if (is_listing(mapped)) co_return co_await test_clean_point(resolver, list, ipv6_points.clean, deadline);
  }
  co_return TestResult{true, false, false, fmt::format("{} is not listed: {}", points.listed.shown, describe(listed))};
}

Health::Health(config::ConfigPtr config, const Clock& clock, Log& log, Metrics& metrics, Alerts& alerts,
               Addresses control_addresses)
    : lists_(make_lists(config->dnsbl)),
      clock_(clock),
      log_(log),
      metrics_(metrics),
      alerts_(alerts),
      control_addresses_(std::move(control_addresses)),
      states_(lists_.size()) {
  for (std::size_t i = 0; i < lists_.size(); ++i) {
    states_[i].since = clock.now();
    states_[i].next_test = lists_[i].self_test ? clock.steady() : SteadyTime::max();
    publish(i);
  }
}

void Health::adopt(Health& previous) {
  const std::scoped_lock lock(mutex_, previous.mutex_);
  previous.retired_ = true;
  resolver_invents_ = previous.resolver_invents_;
  test_resolver_at_ = previous.test_resolver_at_;
  for (const List& gone : previous.lists_) metrics_.forget("dnsbl_list_up", {{"list", gone.shown}});
  for (std::size_t i = 0; i < lists_.size(); ++i) {
    const auto same = std::ranges::find_if(previous.lists_, [&](const List& list) {
      return list.zone == lists_[i].zone && list.by_name == lists_[i].by_name;
    });
    if (same != previous.lists_.end())
      states_[i] = previous.states_[static_cast<std::size_t>(same - previous.lists_.begin())];
    if (lists_[i].self_test) states_[i].next_test = clock_.steady();
    publish(i);
  }
}

std::vector<ListStatus> Health::status() const {
  const std::scoped_lock lock(mutex_);
  std::vector<ListStatus> all;
  for (std::size_t i = 0; i < lists_.size(); ++i) {
    const State& state = states_[i];
    const bool up = state.off == Off::no && !resolver_invents_;
    all.emplace_back(lists_[i].shown, lists_[i].by_name, up, state.since,
                     resolver_invents_ ? "our resolver invents answers" : state.reason, state.lookups, state.listed,
                     state.errors);
  }
  return all;
}

std::string Health::why_off(std::size_t list) const {
  const std::scoped_lock lock(mutex_);
  if (resolver_invents_) return "our resolver invents answers";
  return states_[list].reason;
}

void Health::note(std::size_t list, const ListResult& result, bool outside, std::optional<IpAddress> client) {
  metrics_.count("dnsbl_lookups_total",
                 {{"list", lists_[list].shown}, {"result", std::string{to_string(result.outcome)}}});
  const bool listed = result.outcome == Outcome::listed;
  const bool trouble = result.outcome == Outcome::list_error || result.outcome == Outcome::timeout;
  const std::scoped_lock lock(mutex_);
  if (retired_) return;
  State& state = states_[list];
  ++state.lookups;
  state.listed += listed;
  state.errors += trouble;
  if (trouble) warn(list, result);
  if (client && !trouble) count_client(state, *client, listed);
  if (!outside || state.off != Off::no) return;
  switch_off(list, Off::failed_test, result.error);
  test_resolver_at_ = clock_.steady();
}

// Once a minute a list, and then the list is tested at once (not while a test is to be repeated: a short outage of our
// resolver is no reason to switch lists off).
void Health::warn(std::size_t list, const ListResult& result) {
  State& state = states_[list];
  const SteadyTime now = clock_.steady();
  if (state.warned && now - *state.warned < warn_interval) return;
  state.warned = now;
  log_.warning("dnsbl", fmt::format("{}: RBL lookup error: {}", result.query, result.error));
  if (state.unanswered == 0) state.next_test = std::min(state.next_test, now);
  if (result.answers.empty()) return;
  alerts_.raise(fmt::format("block list {} answers with an error", result.zone),
                fmt::format("{}: {}. Until it answers properly it blocks nobody. Public resolvers and heavy use are "
                            "usual causes: ask through a resolver of your own, or register with the list.",
                            result.query, result.error));
}

void Health::count_client(State& state, const IpAddress& client, bool listed) {
  if (!state.clients.insert(client).second) return;
  state.listed_clients += listed;
  if (state.clients.size() < sample) return;
  state.suspicious = state.listed_clients >= nearly_all;
  state.clients.clear();
  state.listed_clients = 0;
}

void Health::switch_off(std::size_t list, Off why, const std::string& reason) {
  State& state = states_[list];
  const bool was_on = state.off == Off::no;
  state.off = why;
  state.reason = reason;
  state.next_test = clock_.steady() + retest_interval;
  if (!was_on) return;
  state.since = clock_.now();
  publish(list);
  const std::string& zone = lists_[list].shown;
  log_.error("dnsbl", fmt::format("block list {} is switched off: {}", zone, reason));
  alerts_.raise(fmt::format("block list {} is switched off", zone),
                fmt::format("{}. It is tested every minute and comes back by itself; if the list has closed, remove it "
                            "from relay.conf.",
                            reason));
}

void Health::switch_on(std::size_t list) {
  State& state = states_[list];
  state.unanswered = 0;
  if (state.off == Off::no) return;
  state.off = Off::no;
  state.reason.clear();
  state.since = clock_.now();
  publish(list);
  log_.info("dnsbl", fmt::format("block list {} is in use again", lists_[list].shown));
}

void Health::publish(std::size_t list) {
  const bool up = states_[list].off == Off::no && !resolver_invents_;
  metrics_.set("dnsbl_list_up", {{"list", lists_[list].shown}}, up ? 1 : 0);
  for (const Outcome outcome : {Outcome::clean, Outcome::listed, Outcome::list_error, Outcome::timeout}) {
    metrics_.count("dnsbl_lookups_total", {{"list", lists_[list].shown}, {"result", to_string(outcome)}}, 0);
  }
}

Task<> Health::tick(dns::Resolver& resolver, SteadyTime deadline) {
  std::vector<Task<>> due;
  {
    const std::scoped_lock lock(mutex_);
    const SteadyTime now = clock_.steady();
    if (test_resolver_at_ && now >= *test_resolver_at_) due.push_back(test_resolver(resolver, deadline));
    for (std::size_t i = 0; i < lists_.size(); ++i) {
      if (states_[i].suspicious || now >= states_[i].next_test) due.push_back(test(resolver, i, deadline));
    }
  }
  co_await join_all(std::move(due));
}

Task<> Health::test(dns::Resolver& resolver, std::size_t list, SteadyTime deadline) {
  bool ask_controls = false;
  {
    const std::scoped_lock lock(mutex_);
    ask_controls = states_[list].suspicious || states_[list].off == Off::lists_everybody;
  }
  TestResult control;
  if (ask_controls) {
    control = co_await test_control_addresses(resolver, lists_[list], deadline);
  }
  const TestResult points = co_await test_points(resolver, lists_[list], deadline);
  conclude(list, points, control);
}

Task<TestResult> Health::test_control_addresses(dns::Resolver& resolver, const List& list, SteadyTime deadline) {
  std::vector<IpAddress> addresses = control_addresses_();
  addresses.push_back(loopback(1));
  for (const IpAddress& address : addresses) {
    const dns::Answer answer = co_await ask(resolver, address.reversed_labels() + '.' + list.zone, deadline);
    if (answer.outcome != dns::Outcome::found) continue;
    co_return TestResult{true, false, false, fmt::format("it lists nearly everybody, {} too", address.to_string())};
  }
  co_return TestResult{};
}

void Health::conclude(std::size_t list, const TestResult& points, const TestResult& control) {
  const std::scoped_lock lock(mutex_);
  if (retired_) return;
  State& state = states_[list];
  const SteadyTime now = clock_.steady();
  state.next_test = lists_[list].self_test ? now + test_interval : SteadyTime::max();
  const bool suspicious = std::exchange(state.suspicious, false);
  if (points.outside && !test_resolver_at_) test_resolver_at_ = now;
  if (control.failed) return switch_off(list, Off::lists_everybody, control.reason);
  if (points.failed) return switch_off(list, Off::failed_test, points.reason);
  if (points.unanswered) {
    state.next_test = now + retest_interval;
    if (++state.unanswered >= unanswered_tests) {
      switch_off(list, state.off == Off::no ? Off::failed_test : state.off, points.reason);
    }
    return;
  }
  switch_on(list);
  if (!suspicious || (state.warned_suspicious && now - *state.warned_suspicious < warn_suspicious_interval)) return;
  state.warned_suspicious = now;
  log_.warning("dnsbl", fmt::format("block list {} listed at least {} of {} clients, but none of the control addresses",
                                    lists_[list].shown, nearly_all, sample));
}

// RFC 6761 6.4: names under .invalid do not exist. A resolver that finds them finds everything.
Task<> Health::test_resolver(dns::Resolver& resolver, SteadyTime deadline) {
  const dns::Answer answer = co_await ask(resolver, random_hex(16) + ".invalid", deadline);
  const std::scoped_lock lock(mutex_);
  if (retired_) co_return;
  const bool was = resolver_invents_;
  if (answer.outcome != dns::Outcome::failed) resolver_invents_ = answer.outcome == dns::Outcome::found;
  const bool again = resolver_invents_ || answer.outcome == dns::Outcome::failed;
  test_resolver_at_ = again ? std::optional{clock_.steady() + retest_interval} : std::nullopt;
  if (was == resolver_invents_) co_return;
  for (std::size_t i = 0; i < lists_.size(); ++i) publish(i);
  if (!resolver_invents_) {
    log_.info("dnsbl", "our resolver no longer invents answers: block lists are in use again");
    co_return;
  }
  const std::string why =
      "our resolver invents answers for names that do not exist (" + describe(answer) + " for a name under .invalid)";
  log_.error("dnsbl", "all block lists are switched off: " + why);
  alerts_.raise("all block lists are switched off",
                why + ". Use a resolver that does not rewrite NXDOMAIN, in [dns] servers or resolv.conf.");
}

}  // namespace greymx::dnsbl

// The resolver against real sockets.
#include "dns/ares_resolver.hpp"

#include <fmt/format.h>

#include "dns_server.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/run.hpp"

using namespace greymx;
using namespace greymx::dns;
using namespace greymx::test;
using namespace std::chrono_literals;

namespace {

constexpr auto long_enough = 60s;  // on a loaded machine; nothing that passes waits for it

Bytes address_answer(const Question& question, std::uint32_t ttl = 300) {
  Message message = question.message();
  message.answers = {record(pointer(12), Type::a, ttl, {192, 0, 2, 1})};
  return message.bytes();
}
Bytes rcode(const Question& question, unsigned code) {
  Message message = question.message();
  message.rcode = code;
  return message.bytes();
}
std::optional<Bytes> answers_all(const Question& question) {
  return address_answer(question);
}
std::optional<Bytes> says_nothing(const Question&) {
  return std::nullopt;
}

struct Fixture {
  asio::io_context io{1};
  FakeClock clock;
  Metrics metrics;

  std::unique_ptr<Resolver> resolver(std::vector<Endpoint> servers, std::chrono::milliseconds timeout = long_enough,
                                     unsigned attempts = 2) {
    DnsSettings settings;
    settings.servers = std::move(servers);
    settings.timeout = timeout;
    settings.attempts = attempts;
    return make_resolver(io.get_executor(), std::move(settings), clock, metrics);
  }
  bool asked_of(const DnsServer& server, std::size_t questions) {  // waits for them
    const SteadyTime limit = std::chrono::steady_clock::now() + long_enough;
    while (server.asked().size() < questions && io.run_one_until(limit) > 0) continue;
    return server.asked().size() >= questions;
  }
  Answer lookup(Resolver& resolver, std::string name, Type type = Type::a,
                std::chrono::steady_clock::duration within = long_enough) {
    return run(io, resolver.lookup(std::move(name), type, std::chrono::steady_clock::now() + within));
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "an answer is fetched once and then comes from the cache, until forgotten") {
  DnsServer server{io, answers_all};
  const auto resolver = this->resolver({server.endpoint()});
  const Answer answer = lookup(*resolver, "X.test.");
  REQUIRE(answer.outcome == Outcome::found);
  CHECK(answer.addresses == std::vector{*IpAddress::parse("192.0.2.1")});
  CHECK(answer.ttl == 300s);
  clock.advance(100s);
  CHECK(lookup(*resolver, "x.test").age == 100s);
  CHECK(server.asked().size() == 1);
  CHECK(server.asked().front().name == "x.test");
  resolver->forget("x.test", Type::a);
  CHECK(lookup(*resolver, "x.test").age == 0s);
  clock.advance(300s);
  CHECK(lookup(*resolver, "x.test").age == 0s);
  CHECK(server.asked().size() == 3);
  CHECK(metrics.value("dns_lookups_total", {{"type", "A"}, {"outcome", "found"}}) == 3);
  CHECK(metrics.value("dns_cache_hits_total") == 1);
}

TEST_CASE_METHOD(Fixture, "a question is asked when it is posed, not when its answer is awaited") {
  DnsServer server{io, answers_all};
  const auto resolver = this->resolver({server.endpoint()});
  Task<Answer> first = resolver->lookup("x.test", Type::a, std::chrono::steady_clock::now() + long_enough);
  Task<Answer> second = resolver->lookup("y.test", Type::a, std::chrono::steady_clock::now() + long_enough);
  REQUIRE(asked_of(server, 2));
  const Answer answer = run(io, std::move(second));
  CHECK(answer.outcome == Outcome::found);
  CHECK(answer.took > 0us);
  CHECK(run(io, std::move(first)).outcome == Outcome::found);
  CHECK(lookup(*resolver, "x.test").took == 0us);
  CHECK(server.asked().size() == 2);
}

TEST_CASE_METHOD(Fixture, "NXDOMAIN is no domain, kept for its negative TTL") {
  DnsServer server{io, [](const Question& question) -> std::optional<Bytes> {
                     Message message = question.message();
                     message.rcode = 3;
                     message.authority = {soa("test", 900, 30)};
                     return message.bytes();
                   }};
  const auto resolver = this->resolver({server.endpoint()});
  CHECK(lookup(*resolver, "_spf.x.test", Type::txt).outcome == Outcome::no_domain);
  clock.advance(29s);
  CHECK(lookup(*resolver, "_spf.x.test", Type::txt).outcome == Outcome::no_domain);
  CHECK(server.asked().size() == 1);
  clock.advance(1s);
  CHECK(lookup(*resolver, "_spf.x.test", Type::txt).outcome == Outcome::no_domain);
  CHECK(server.asked().size() == 2);
}

TEST_CASE_METHOD(Fixture, "a name that cannot exist is no domain, without asking") {
  DnsServer server{io, answers_all};
  const auto resolver = this->resolver({server.endpoint()});
  CHECK(lookup(*resolver, "a..b").outcome == Outcome::no_domain);
  CHECK(lookup(*resolver, "a\\b.test").outcome == Outcome::no_domain);
  CHECK(server.asked().empty());
}

TEST_CASE_METHOD(Fixture, "after SERVFAIL, REFUSED or garbage the next server is asked, and preferred from then on") {
  int kind = 0;
  DnsServer bad{io, [&](const Question& question) -> std::optional<Bytes> {
                  if (kind == 0) return rcode(question, 2);
                  if (kind == 1) return rcode(question, 5);
                  return question.message().bytes() + Bytes{1, 2, 3};
                }};
  DnsServer good{io, answers_all};
  for (kind = 0; kind < 3; ++kind) {
    CAPTURE(kind);
    const std::size_t before = bad.asked().size();
    const auto resolver = this->resolver({bad.endpoint(), good.endpoint()});
    const Answer first = lookup(*resolver, "x.test");
    if (kind < 2) CHECK(first.outcome == Outcome::found);
    CHECK(lookup(*resolver, "y.test").outcome == (kind < 2 ? Outcome::found : Outcome::no_record));
    CHECK(bad.asked().size() == before + (kind < 2 ? 1 : 2));
  }
}

TEST_CASE_METHOD(Fixture,
                 "when all servers answer badly each was asked once, and the failure is kept for five seconds") {
  const auto servfail = [](const Question& question) -> std::optional<Bytes> { return rcode(question, 2); };
  DnsServer one{io, servfail}, two{io, servfail};
  const auto resolver = this->resolver({one.endpoint(), two.endpoint()});
  for (int i = 0; i < 2; ++i) {
    const Answer answer = lookup(*resolver, "x.test");
    CHECK(answer.outcome == Outcome::failed);
    CHECK(answer.error == "SERVFAIL");
  }
  CHECK(one.asked().size() == 1);
  CHECK(two.asked().size() == 1);
  clock.advance(5s);
  CHECK(lookup(*resolver, "x.test").error == "SERVFAIL");
  CHECK(one.asked().size() == 2);
}

TEST_CASE_METHOD(Fixture, "a silent server is asked again, then the failure is a timeout") {
  DnsServer server{io, says_nothing};
  const auto resolver = this->resolver({server.endpoint()}, 50ms, 3);
  CHECK(lookup(*resolver, "x.test").error == "timeout");
  CHECK(asked_of(server, 3));
  CHECK(server.asked().size() == 3);
}

TEST_CASE_METHOD(Fixture, "a silent server's work is taken over by the next") {
  DnsServer silent{io, says_nothing};
  DnsServer good{io, answers_all};
  const auto resolver = this->resolver({silent.endpoint(), good.endpoint()}, 1s);
  CHECK(lookup(*resolver, "x.test").outcome == Outcome::found);
  CHECK(lookup(*resolver, "y.test").outcome == Outcome::found);
  CHECK(silent.asked().size() == 1);
}

TEST_CASE_METHOD(Fixture, "a server that is not there has failed or is replaced") {
  DnsServer good{io, answers_all};
  const Endpoint nobody{*IpAddress::parse("127.0.0.1"), 1};
  CHECK(lookup(*resolver({nobody}), "x.test").outcome == Outcome::failed);
  CHECK(lookup(*resolver({nobody, good.endpoint()}), "x.test").outcome == Outcome::found);
}

TEST_CASE_METHOD(Fixture, "the caller's deadline ends his wait; the answer still reaches the cache") {
  std::optional<Question> late;
  DnsServer server{io, [&](const Question& question) -> std::optional<Bytes> {
                     if (late) return address_answer(question);
                     late = question;
                     return std::nullopt;
                   }};
  const auto resolver = this->resolver({server.endpoint()}, 1s);
  CHECK(lookup(*resolver, "x.test", Type::a, 20ms).error == "timeout");
  CHECK(asked_of(server, 2));  // the second attempt
  CHECK(lookup(*resolver, "x.test").outcome == Outcome::found);
  CHECK(server.asked().size() == 2);
}

TEST_CASE_METHOD(Fixture, "a cancelled lookup ends at once, others of the same question do not") {
  bool speaking = false;
  DnsServer server{io, [&](const Question& question) -> std::optional<Bytes> {
                     if (speaking) return address_answer(question);
                     return std::nullopt;
                   }};
  const auto resolver = this->resolver({server.endpoint()}, 1s, 100);
  const auto ask = [](Resolver& asked, Outcome& outcome) -> Task<> {
    const Answer answer = co_await asked.lookup("x.test", Type::a, SteadyTime::max());
    outcome = answer.outcome;
  };
  Outcome impatient = Outcome::failed, patient = Outcome::failed;
  Gate leaving{io.get_executor()}, staying{io.get_executor()};
  leaving.spawn("leaving", ask(*resolver, impatient));
  staying.spawn("staying", ask(*resolver, patient));
  CHECK(asked_of(server, 1));
  leaving.cancel();
  run(io, leaving.close());
  CHECK(impatient == Outcome::failed);
  speaking = true;
  run(io, staying.close());
  CHECK(patient == Outcome::found);
}

TEST_CASE_METHOD(Fixture, "a truncated answer is fetched over TCP") {
  DnsServer server{io, [](const Question& question) -> std::optional<Bytes> {
                     Message message = question.message();
                     if (!question.tcp) {
                       message.flags |= 0x0200;
                       return message.bytes();
                     }
                     for (int i = 0; i < 40; ++i) {
                       message.answers.push_back(record(pointer(12), Type::txt, 60, label(std::string(100, 'x'))));
                     }
                     return message.bytes();
                   }};
  const auto resolver = this->resolver({server.endpoint()});
  CHECK(lookup(*resolver, "x.test", Type::txt).texts.size() == 40);
  REQUIRE(server.asked().size() == 2);
  CHECK(server.asked()[1].tcp);
}

TEST_CASE_METHOD(Fixture, "an answer that does not echo the question is not taken") {
  DnsServer server{io, [](const Question& question) -> std::optional<Bytes> {
                     Question other = question;
                     other.name = "evil.test";
                     return address_answer(other);
                   }};
  const auto resolver = this->resolver({server.endpoint()}, 50ms);
  CHECK(lookup(*resolver, "x.test").outcome == Outcome::failed);
}

TEST_CASE_METHOD(Fixture, "the same question asked many times at once is sent once") {
  DnsServer server{io, answers_all};
  const auto resolver = this->resolver({server.endpoint()});
  std::vector<Task<Answer>> tasks;
  const SteadyTime deadline = std::chrono::steady_clock::now() + long_enough;
  for (int i = 0; i < 50; ++i) tasks.push_back(resolver->lookup("x.test", Type::a, deadline));
  const std::vector<Answer> answers = run(io, join_all(std::move(tasks)));
  for (const Answer& answer : answers) CHECK(answer.outcome == Outcome::found);
  CHECK(server.asked().size() == 1);
}

TEST_CASE_METHOD(Fixture, "three hundred questions of all kinds at once all end as they should") {
  DnsServer server{io, [](const Question& question) -> std::optional<Bytes> {
                     Message message = question.message();
                     switch (question.name.back()) {
                       case '0':
                         return address_answer(question);
                       case '1':
                         return rcode(question, 3);
                       case '2':
                         return rcode(question, 2);
                       case '3':
                         return std::nullopt;
                     }
                     if (question.tcp) return address_answer(question);
                     message.flags |= 0x0200;
                     return message.bytes();
                   }};
  const auto resolver = this->resolver({server.endpoint()});
  std::vector<Task<Answer>> tasks;
  const SteadyTime now = std::chrono::steady_clock::now();
  for (int i = 0; i < 300; ++i) {
    const bool silent = i % 5 == 3;
    tasks.push_back(resolver->lookup(fmt::format("x{}.test{}", i, i % 5), Type::a, now + (silent ? 1s : long_enough)));
  }
  const std::vector<Answer> answers = run(io, join_all(std::move(tasks)));
  const Outcome expected[] = {Outcome::found, Outcome::no_domain, Outcome::failed, Outcome::failed, Outcome::found};
  for (std::size_t i = 0; i < answers.size(); ++i) {
    CAPTURE(i, answers[i].error);
    CHECK(answers[i].outcome == expected[i % 5]);
  }
}

TEST_CASE_METHOD(Fixture, "ten thousand questions are in flight at most") {
  DnsServer server{io, says_nothing};
  auto resolver = this->resolver({server.endpoint()});
  Gate gate{io.get_executor()};
  std::size_t too_many = 0, stopped = 0;
  const auto ask = [](Resolver& asked, std::string name, std::size_t& many, std::size_t& stopping) -> Task<> {
    const Answer answer = co_await asked.lookup(std::move(name), Type::a, SteadyTime::max());
    many += answer.error == "too many lookups";
    stopping += answer.error == "stopping";
  };
  for (std::size_t i = 0; i < max_lookups + 3; ++i) {
    gate.spawn("lookup", ask(*resolver, fmt::format("x{}.test", i), too_many, stopped));
  }
  while (gate.size() > max_lookups && io.run_one_for(long_enough) > 0) continue;
  CHECK(too_many == 3);
  resolver.reset();
  run(io, gate.close());
  CHECK(stopped == max_lookups);
}

TEST_CASE_METHOD(Fixture, "the servers of resolv.conf are used when none are named") {
  CHECK(resolver({}) != nullptr);
}

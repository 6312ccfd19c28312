#include "support/scripted_resolver.hpp"

#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/run.hpp"

using namespace greymx;
using namespace greymx::dns;
using namespace std::chrono_literals;
using greymx::test::FakeClock;
using greymx::test::ScriptedResolver;

namespace {

Answer lookup(ScriptedResolver& resolver, std::string name, Type type) {
  return test::run(resolver.lookup(std::move(name), type, SteadyTime::max()));
}

Task<> store(ScriptedResolver& resolver, std::string name, SteadyTime deadline, std::optional<Answer>& into) {
  into = co_await resolver.lookup(std::move(name), Type::a, deadline);
}

}  // namespace

TEST_CASE("the script's answers: records, outcomes, CNAMEs") {
  ScriptedResolver resolver{R"(
    # a comment
    x.test MX 20 b.test
    x.test 60 MX 10 A.test
    x.test TXT "one " "two"
    null.test MX 0 .
    y.test CNAME x.test
    loop.test CNAME loop.test
    sick.test ANY SERVFAIL
    gone.test A NXDOMAIN
  )"};
  CHECK(lookup(resolver, "X.test.", Type::mx).mx == std::vector<Mx>{{10, "a.test"}, {20, "b.test"}});
  CHECK(lookup(resolver, "x.test", Type::mx).ttl == 60s);
  CHECK(lookup(resolver, "y.test", Type::txt).texts == std::vector<std::string>{"one two"});
  CHECK(lookup(resolver, "null.test", Type::mx).mx == std::vector<Mx>{{0, ""}});
  CHECK(lookup(resolver, "y.test", Type::a).outcome == Outcome::no_record);
  CHECK(lookup(resolver, "loop.test", Type::a).outcome == Outcome::failed);
  CHECK(lookup(resolver, "sick.test", Type::aaaa).error == "SERVFAIL");
  CHECK(lookup(resolver, "gone.test", Type::a).outcome == Outcome::no_domain);
  CHECK(lookup(resolver, "none.test", Type::a).outcome == Outcome::no_domain);
  CHECK(resolver.count("y.test TXT") == 1);
  CHECK(resolver.asked().front() == "x.test MX");
  CHECK_THROWS(resolver.add("nonsense"));
}

TEST_CASE("a delayed answer waits for the clock, and fails at its deadline") {
  asio::io_context io;
  FakeClock clock;
  ScriptedResolver resolver{"slow.test A 192.0.2.1"};
  resolver.delay("slow.test", 10s, clock);
  std::optional<Answer> patient, hasty;
  Gate gate{io.get_executor()};
  gate.spawn("patient", store(resolver, "slow.test", clock.steady() + 60s, patient));
  gate.spawn("hasty", store(resolver, "slow.test", clock.steady() + 5s, hasty));
  const auto advance = [&](std::chrono::seconds by) {
    clock.advance(by);
    resolver.tick();
    io.restart();
    io.poll();
  };
  io.poll();
  advance(4s);
  CHECK_FALSE(hasty);
  advance(1s);
  REQUIRE(hasty);
  CHECK(hasty->error == "timeout");
  CHECK_FALSE(patient);
  advance(5s);
  REQUIRE(patient);
  CHECK(patient->outcome == Outcome::found);
}

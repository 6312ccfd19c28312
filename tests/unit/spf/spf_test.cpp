#include "spf/spf.hpp"

#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/run.hpp"
#include "support/scripted_resolver.hpp"

using namespace greymx;
using namespace greymx::spf;
using namespace std::chrono_literals;
using greymx::test::ScriptedResolver;

namespace {

Query query(std::string sender, std::string_view client = "192.0.2.10") {
  return {*IpAddress::parse(client), std::move(sender), "mail.example.org", "mx2.example.net"};
}
Outcome check(ScriptedResolver& resolver, std::string sender) {
  return test::run(check_host(resolver, query(std::move(sender)), SteadyTime::max()));
}
spf::Result authority(ScriptedResolver& resolver, std::string sender) {
  return test::run(authorise(resolver, query(std::move(sender)), SteadyTime::max())).result;
}

}  // namespace

TEST_CASE("the outcome says what matched, where, and what it cost") {
  ScriptedResolver resolver{
      "x.test TXT \"v=spf1 a:a.test include:y.test -all\"\na.test A 192.0.2.1\ny.test TXT \"v=spf1 ip4:192.0.2.0/24\""};
  const Outcome outcome = check(resolver, "me@X.test");
  CHECK(outcome.result == spf::Result::pass);
  CHECK(outcome.domain == "X.test");
  CHECK(outcome.mechanism == "include:y.test");
  CHECK(outcome.lookups == 2);
  CHECK(outcome.problem.empty());
  CHECK(resolver.asked() == std::vector<std::string>{"x.test TXT", "a.test A", "y.test TXT"});
  resolver.add("z.test TXT \"v=spf1 redirect=y.test\"\nbad.test TXT \"v=spf1 +oops\"");
  CHECK(check(resolver, "me@z.test").mechanism == "ip4:192.0.2.0/24");
  resolver.add("n.test TXT \"v=spf1\"");
  CHECK(check(resolver, "me@n.test").mechanism == "default");
  CHECK(check(resolver, "me@bad.test").problem == "bad.test: syntax error in \"+oops\"");
}

TEST_CASE("nothing is asked behind the term that decides") {
  ScriptedResolver resolver{"x.test TXT \"v=spf1 ip4:192.0.2.10 a:never.test include:never.test -all\""};
  CHECK(check(resolver, "me@x.test").result == spf::Result::pass);
  CHECK(resolver.asked().size() == 1);
}

TEST_CASE("nothing is asked beyond the limits") {
  ScriptedResolver resolver{R"(
    loop.test TXT "v=spf1 include:loop.test"
    terms.test TXT "v=spf1 a a a a a a a a a a a:never.test -all"
    terms.test A 192.0.2.99
    hosts.test TXT "v=spf1 mx -all"
    void.test TXT "v=spf1 a:gone1.test a:gone2.test a:gone3.test a:never.test -all"
  )"};
  for (int i = 0; i < 11; ++i) resolver.add("hosts.test MX 10 mail" + std::to_string(i) + ".test");
  const auto asked = [&](std::string sender) {
    resolver.clear_asked();
    CHECK(check(resolver, std::move(sender)).result == spf::Result::permerror);
    return resolver.asked().size();
  };
  CHECK(asked("me@loop.test") == 11);
  CHECK(asked("me@terms.test") == 11);
  CHECK(asked("me@hosts.test") == 2);
  CHECK(asked("me@void.test") == 4);
}

TEST_CASE("PTR names are asked for once") {
  ScriptedResolver resolver{
      "x.test TXT \"v=spf1 ptr:a.test ptr:b.test exists:%{p}.c.test -all exp=e.test\"\ne.test TXT \"%{p}\"\n"
      "10.2.0.192.in-addr.arpa PTR name.test\nname.test A 192.0.2.10"};
  const Outcome outcome = check(resolver, "me@x.test");
  CHECK(outcome.result == spf::Result::fail);
  CHECK(outcome.explanation == "name.test");
  CHECK(resolver.count("10.2.0.192.in-addr.arpa PTR") == 1);
  CHECK(resolver.count("name.test A") == 1);
}

TEST_CASE("spaces and percent signs get into names") {
  ScriptedResolver resolver{"x.test TXT \"v=spf1 a:macro%%percent%_%_space%-url.test -all\""};
  dns::Answer answer;
  answer.outcome = dns::Outcome::found;
  answer.addresses = {*IpAddress::parse("192.0.2.10")};
  resolver.set("macro%percent  space%20url.test", dns::Type::a, answer);
  CHECK(check(resolver, "me@x.test").result == spf::Result::pass);
}

TEST_CASE("a name that macros make too long loses labels on the left") {
  ScriptedResolver resolver;
  std::string spec = "foobar", left;
  for (int i = 0; i < 14; ++i) spec += ".%{o}";
  for (int i = 0; i < 13; ++i) left += "long.name.m18.test.";
  resolver.add("long.name.m18.test TXT \"v=spf1 -all exp=" + spec + ".test\"");
  resolver.add(left + "test TXT \"That was long.\"");
  CHECK(check(resolver, "me@long.name.m18.test").explanation == "That was long.");
}

TEST_CASE("the deadline makes temperror") {
  asio::io_context io;
  test::FakeClock clock;
  ScriptedResolver resolver{"x.test TXT \"v=spf1 include:slow.test -all\"\nslow.test TXT \"v=spf1 +all\""};
  resolver.delay("slow.test", 30s, clock);
  std::optional<Outcome> outcome;
  Gate gate{io.get_executor()};
  const auto run_check = [](ScriptedResolver& r, SteadyTime deadline, std::optional<Outcome>& into) -> Task<> {
    into = co_await check_host(r, query("me@x.test"), deadline);
  };
  gate.spawn("check", run_check(resolver, clock.steady() + 20s, outcome));
  io.poll();
  CHECK_FALSE(outcome);
  clock.advance(20s);
  resolver.tick();
  io.restart();
  io.poll();
  REQUIRE(outcome);
  CHECK(outcome->result == spf::Result::temperror);
  CHECK(outcome->problem == "DNS lookup of slow.test failed: timeout");
}

TEST_CASE("explanations are made printable and bounded") {
  ScriptedResolver resolver{"x.test TXT \"v=spf1 -all exp=e.test\"\ne.test TXT \"bell\a " + std::string(2000, 'x') +
                            "\""};
  const std::string explanation = check(resolver, "me@x.test").explanation;
  CHECK(explanation.starts_with("bell? xxx"));
  CHECK(explanation.size() == 500);
}

TEST_CASE("a record under which documentation addresses pass authorises nobody") {
  ScriptedResolver resolver{R"(
    all.test TXT "v=spf1 +all"
    halves.test TXT "v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all"
    six.test TXT "v=spf1 ip4:192.0.2.10 ip6:2000::/3 -all"
    exists.test TXT "v=spf1 exists:%{d} -all"
    exists.test A 192.0.2.77
    narrow.test TXT "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8:1::/48 ~all"
    sick.test TXT SERVFAIL
  )"};
  for (const char* wide : {"me@all.test", "me@halves.test", "me@six.test", "me@exists.test"}) {
    CHECK(check(resolver, wide).result == spf::Result::pass);
    CHECK(authority(resolver, wide) == spf::Result::neutral);
  }
  CHECK(authority(resolver, "me@narrow.test") == spf::Result::pass);
  CHECK(authority(resolver, "me@none.test") == spf::Result::none);
  CHECK(authority(resolver, "me@sick.test") == spf::Result::temperror);
}

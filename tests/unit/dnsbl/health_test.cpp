#include "dnsbl/health.hpp"

#include <fmt/format.h>

#include "dns/packet.hpp"
#include "dnsbl_config.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/recording_alerts.hpp"
#include "support/recording_log.hpp"
#include "support/run.hpp"
#include "support/scripted_resolver.hpp"

using namespace greymx;
using namespace greymx::dnsbl;
using namespace greymx::test;
using namespace std::chrono_literals;

namespace {

// Finds everything, as the resolvers of some providers do.
class InventingResolver final : public dns::Resolver {
 public:
  bool inventing = true;
  Task<dns::Answer> lookup(std::string name, dns::Type, SteadyTime) override {
    asked.push_back(std::move(name));
    dns::Answer answer;
    answer.outcome = inventing ? dns::Outcome::found : dns::Outcome::no_domain;
    if (inventing) answer.addresses = {*IpAddress::parse("203.0.113.80")};
    co_return answer;
  }
  std::vector<std::string> asked;
};

constexpr std::string_view healthy = "2.0.0.127.bl.test A 127.0.0.4\n";

struct Fixture {
  config::Dnsbl settings;
  ScriptedResolver resolver;
  FakeClock clock;
  RecordingLog log;
  Metrics metrics;
  RecordingAlerts alerts;
  std::shared_ptr<Health> health;

  Fixture() { settings.lists = {block_list("bl.test")}; }

  std::shared_ptr<Health> make() {
    const auto control = [] { return std::vector{*IpAddress::parse("198.51.100.1")}; };
    return std::make_shared<Health>(with(settings), clock, log, metrics, alerts, control);
  }
  void start() { health = make(); }
  void tick() { run(health->tick(resolver, SteadyTime::max())); }
  void tick_after(std::chrono::seconds wait) {
    clock.advance(wait);
    tick();
  }
  bool up(std::size_t list = 0) { return health->status()[list].up && health->why_off(list).empty(); }
  std::string why() { return health->status()[0].reason; }
  void check(dns::Resolver& through, std::string_view ip) {
    Lists lists{with(settings), through, health, log, metrics};
    run(lists.check_client(*IpAddress::parse(ip), SteadyTime::max()));
  }
  void check(std::string_view ip) { check(resolver, ip); }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "a list that lists 127.0.0.2 and not 127.0.0.1 stays in use, whatever its patterns") {
  settings.lists[0].replies = {*config::Pattern::parse("127.0.0.9")};
  resolver.add(healthy);
  start();
  CHECK(up());
  tick();
  CHECK(up());
  CHECK(resolver.asked().size() == 2);
  CHECK(metrics.value("dnsbl_list_up", {{"list", "bl.test"}}) == 1);
  CHECK(alerts.raised().empty());
}

TEST_CASE_METHOD(Fixture, "the test is repeated hourly") {
  resolver.add(healthy);
  start();
  tick();
  tick_after(3599s);
  CHECK(resolver.asked().size() == 2);
  tick_after(1s);
  CHECK(resolver.asked().size() == 4);
}

TEST_CASE_METHOD(Fixture, "a list that closed is off and comes back by itself") {
  start();
  tick();
  CHECK_FALSE(up());
  CHECK(why() == "127.0.0.2 is not listed: no A record");
  CHECK(metrics.value("dnsbl_list_up", {{"list", "bl.test"}}) == 0);
  CHECK(log.contains("dnsbl: error: block list bl.test is switched off: 127.0.0.2 is not listed"));
  CHECK(alerts.contains("block list bl.test is switched off"));
  resolver.clear_asked();
  check("192.0.2.10");
  CHECK(resolver.asked().empty());
  tick_after(59s);
  CHECK(resolver.asked().empty());
  resolver.add(healthy);
  tick_after(1s);
  CHECK(up());
  CHECK(metrics.value("dnsbl_list_up", {{"list", "bl.test"}}) == 1);
  CHECK(log.contains("block list bl.test is in use again"));
  CHECK(alerts.raised().size() == 1);
  check("192.0.2.10");
  CHECK(resolver.count("10.2.0.192.bl.test A") == 1);
}

TEST_CASE_METHOD(Fixture, "a list that lists 127.0.0.1 lists the world and is off") {
  resolver.add(healthy);
  resolver.add("1.0.0.127.bl.test A 127.0.0.2");
  start();
  tick();
  CHECK_FALSE(up());
  CHECK(why() == "127.0.0.1 is listed: answer 127.0.0.2");
}

TEST_CASE_METHOD(Fixture, "a list of IPv6 addresses only has IPv6 test points") {
  const std::string mapped = ".0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.bl.test A";
  const auto start_and_test = [&] {
    start();
    tick();
  };
  SECTION("::FFFF:7F00:2 is listed, ::FFFF:7F00:1 is not") {
    resolver.add("2" + mapped + " 127.0.0.4");
    start_and_test();
    CHECK(up());
    CHECK(resolver.count("2" + mapped) == 1);
    CHECK(resolver.count("1" + mapped) == 1);
    CHECK(resolver.asked().size() == 4);
  }
  SECTION("::FFFF:7F00:1 is listed too") {
    resolver.add("2" + mapped + " 127.0.0.4\n1" + mapped + " 127.0.0.4");
    start_and_test();
    CHECK(why() == "::FFFF:7F00:1 is listed: answer 127.0.0.4");
  }
  SECTION("an error code is no listing") {
    resolver.add("2" + mapped + " 127.255.255.254");
    start_and_test();
    CHECK(why() == "127.0.0.2 is not listed: no A record");
  }
  SECTION("no answer") {
    resolver.add("2" + mapped + " SERVFAIL");
    start_and_test();
    CHECK(up());
    tick_after(60s);
    CHECK(why().starts_with("no answer: "));
  }
  SECTION("they are not asked for when 127.0.0.2 has any answer") {
    resolver.add("2.0.0.127.bl.test A 127.255.255.254\n2" + mapped + " 127.0.0.4");
    start_and_test();
    CHECK(why() == "127.0.0.2 is not listed: answer 127.255.255.254");
    CHECK(resolver.count("2" + mapped) == 0);
  }
}

TEST_CASE_METHOD(Fixture, "an error code for 127.0.0.2 is no listing") {
  resolver.add("2.0.0.127.bl.test A 127.255.255.254");
  start();
  tick();
  CHECK(why() == "127.0.0.2 is not listed: answer 127.255.255.254");
}

TEST_CASE_METHOD(Fixture, "self-tests do not read the cache") {
  resolver.add(healthy);
  resolver.set_age("2.0.0.127.bl.test", 500s);
  start();
  tick();
  const dns::Answer answer = run(resolver.lookup("2.0.0.127.bl.test", dns::Type::a, SteadyTime::max()));
  CHECK(answer.age == 0s);
}

TEST_CASE_METHOD(Fixture, "domain lists use TEST and INVALID") {
  settings.lists.clear();
  settings.domain_lists = {block_list("dbl.test"), block_list("dead.test")};
  resolver.add("test.dbl.test A 127.0.1.2\ntest.dead.test A 127.0.1.2\ninvalid.dead.test A 127.0.1.2");
  start();
  tick();
  CHECK(up(0));
  CHECK_FALSE(up(1));
  CHECK(health->status()[1].by_name);
  CHECK(health->status()[1].reason == "INVALID is listed: answer 127.0.1.2");
}

TEST_CASE_METHOD(Fixture, "self_test = false is never tested while there is no trouble") {
  settings.lists[0].self_test = false;
  start();
  tick();
  tick_after(7200s);
  CHECK(up());
  CHECK(resolver.asked().empty());
}

TEST_CASE_METHOD(Fixture, "a list that does not answer twice in a row is off until it does") {
  resolver.add("1.0.0.127.bl.test A TIMEOUT");
  for (const bool self_test : {true, false}) {
    CAPTURE(self_test);
    settings.lists[0].self_test = self_test;
    ScriptedResolver dead{"1.0.0.127.bl.test A TIMEOUT\n10.2.0.192.bl.test A TIMEOUT"};
    start();
    check(dead, "192.0.2.10");
    run(health->tick(dead, SteadyTime::max()));
    CHECK(up());
    clock.advance(60s);
    run(health->tick(dead, SteadyTime::max()));
    CHECK_FALSE(up());
    CHECK(why() == "no answer: timeout");
    dead.erase("1.0.0.127.bl.test");
    dead.add(healthy);
    clock.advance(60s);
    run(health->tick(dead, SteadyTime::max()));
    CHECK(up());
  }
}

TEST_CASE_METHOD(Fixture, "more trouble does not hurry the second test") {
  resolver.add("1.0.0.127.bl.test A TIMEOUT\n10.2.0.192.bl.test A TIMEOUT");
  start();
  tick();
  check("192.0.2.10");
  tick();
  CHECK(up());
  tick_after(60s);
  CHECK_FALSE(up());
}

TEST_CASE_METHOD(Fixture, "trouble brings the test forward") {
  resolver.add(healthy);
  resolver.add("10.2.0.192.bl.test A 127.255.255.255");
  start();
  tick();
  resolver.add("2.0.0.127.bl.test A NXDOMAIN");
  check("192.0.2.10");
  tick();
  CHECK_FALSE(up());
}

TEST_CASE_METHOD(Fixture, "an answer outside 127/8 switches that list off at once, not the others") {
  settings.lists.push_back(block_list("well.test"));
  settings.lists[0].self_test = false;
  resolver.add("10.2.0.192.bl.test A 203.0.113.7\n2.0.0.127.well.test A 127.0.0.2");
  start();
  tick();
  check("192.0.2.10");
  CHECK_FALSE(up(0));
  CHECK(up(1));
  CHECK(why() == "answer 203.0.113.7: outside 127.0.0.0/8");
  resolver.clear_asked();
  tick();
  REQUIRE(resolver.asked().size() == 1);
  CHECK(resolver.asked()[0].ends_with(".invalid A"));
  CHECK(up(1));
  tick_after(60s);  // its point answers nothing odd
  CHECK(up(0));
}

TEST_CASE_METHOD(Fixture, "a resolver that invents answers switches all lists off, loudly, until it stops") {
  settings.lists.push_back(block_list("other.test"));
  settings.lists[0].self_test = settings.lists[1].self_test = false;
  InventingResolver inventing;
  start();
  check(inventing, "192.0.2.10");
  run(health->tick(inventing, SteadyTime::max()));
  CHECK_FALSE(up(0));
  CHECK_FALSE(up(1));
  CHECK(metrics.value("dnsbl_list_up", {{"list", "other.test"}}) == 0);
  CHECK(log.contains("dnsbl: error: all block lists are switched off: our resolver invents answers"));
  CHECK(alerts.raised().back().first == "all block lists are switched off");
  CHECK(alerts.raised().back().second.starts_with("our resolver invents answers"));
  inventing.inventing = false;
  clock.advance(60s);
  run(health->tick(inventing, SteadyTime::max()));
  CHECK(up(0));
  CHECK(up(1));
  CHECK(log.contains("our resolver no longer invents answers"));
}

TEST_CASE_METHOD(Fixture, "a self-test finds an inventing resolver too") {
  InventingResolver inventing;
  start();
  run(health->tick(inventing, SteadyTime::max()));
  run(health->tick(inventing, SteadyTime::max()));
  CHECK(log.contains("all block lists are switched off"));
}

namespace {

// `listed` of a hundred different clients are listed.
void hundred_clients(Fixture& fixture, int listed) {
  for (int i = 0; i < 100; ++i) {
    if (i < listed) fixture.resolver.add(fmt::format("{}.113.0.203.bl.test A 127.0.0.2", i));
    fixture.check(fmt::format("203.0.113.{}", i));
  }
}

}  // namespace

TEST_CASE_METHOD(Fixture, "a list that lists nearly everybody and a control address is off") {
  settings.lists[0].self_test = false;
  resolver.add("1.100.51.198.bl.test A 127.0.0.2");
  start();
  hundred_clients(*this, 95);
  CHECK(up());
  tick();
  CHECK_FALSE(up());
  CHECK(why() == "it lists nearly everybody, 198.51.100.1 too");
  tick_after(60s);
  CHECK_FALSE(up());
  resolver.erase("1.100.51.198.bl.test");
  tick_after(60s);
  CHECK(up());
}

TEST_CASE_METHOD(Fixture, "a list that lists nearly everybody but no control address is only warned about, hourly") {
  resolver.add(healthy);
  start();
  tick();
  hundred_clients(*this, 100);
  tick();
  CHECK(up());
  CHECK(log.count("block list bl.test listed at least 95 of 100 clients, but none of the control addresses") == 1);
  CHECK(alerts.raised().empty());
  hundred_clients(*this, 100);
  tick();
  CHECK(log.count("none of the control addresses") == 1);
  clock.advance(3600s);
  hundred_clients(*this, 100);
  tick();
  CHECK(log.count("none of the control addresses") == 2);
}

TEST_CASE_METHOD(Fixture, "fewer listed clients, and the same client again, raise no suspicion") {
  resolver.add(healthy);
  resolver.add("1.100.51.198.bl.test A 127.0.0.2\n1.2.0.192.bl.test A 127.0.0.2");
  start();
  tick();
  hundred_clients(*this, 94);
  for (int i = 0; i < 200; ++i) check("192.0.2.1");
  resolver.clear_asked();
  tick();
  CHECK(up());
  CHECK(resolver.asked().empty());
}

TEST_CASE_METHOD(Fixture, "after a reload what was off stays off until it is tested") {
  start();
  tick();
  CHECK_FALSE(up());
  settings.lists.push_back(block_list("new.test"));
  const auto next = make();
  next->adopt(*health);
  health = next;
  CHECK_FALSE(up(0));
  CHECK(up(1));
  resolver.add(healthy);
  resolver.add("2.0.0.127.new.test A 127.0.0.2");
  tick();
  CHECK(up(0));
  CHECK(up(1));
}

TEST_CASE_METHOD(Fixture, "a list's counters are there from the start, and its state goes with it") {
  start();
  CHECK(metrics.text().find("dnsbl_lookups_total{list=\"bl.test\",result=\"listed\"} 0") != std::string::npos);
  CHECK(metrics.text().find("dnsbl_list_up{list=\"bl.test\"}") != std::string::npos);
  settings.lists = {block_list("new.test")};
  const auto next = make();
  next->adopt(*health);
  CHECK(metrics.text().find("dnsbl_list_up{list=\"bl.test\"}") == std::string::npos);
  tick();  // that was under way
  tick();
  CHECK(metrics.text().find("dnsbl_list_up{list=\"bl.test\"}") == std::string::npos);
  CHECK(alerts.raised().empty());
  CHECK(metrics.value("dnsbl_list_up", {{"list", "new.test"}}) == 1);
}

TEST_CASE_METHOD(Fixture, "status counts lookups, listings and errors") {
  resolver.add(healthy);
  resolver.add("10.2.0.192.bl.test A 127.0.0.2\n11.2.0.192.bl.test A SERVFAIL");
  start();
  for (const char* ip : {"192.0.2.10", "192.0.2.11", "192.0.2.12"}) check(ip);
  const ListStatus status = health->status()[0];
  CHECK(status.zone == "bl.test");
  CHECK(status.lookups == 3);
  CHECK(status.listed == 1);
  CHECK(status.errors == 1);
  CHECK(status.since == clock.now());
}

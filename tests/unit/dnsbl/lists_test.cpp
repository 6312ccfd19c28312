#include "dnsbl/health.hpp"
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

struct Fixture {
  config::Dnsbl settings;
  ScriptedResolver resolver;
  FakeClock clock;
  RecordingLog log;
  Metrics metrics;
  RecordingAlerts alerts;
  std::unique_ptr<Lists> lists;

  void start() {
    const config::ConfigPtr config = with(settings);
    const auto none = [] { return std::vector<IpAddress>{}; };
    auto health = std::make_shared<Health>(config, clock, log, metrics, alerts, none);
    lists = std::make_unique<Lists>(config, resolver, std::move(health), log, metrics);
  }
  Score client(std::string_view ip) {
    if (!lists) start();
    return run(lists->check_client(*IpAddress::parse(ip), SteadyTime::max()));
  }
  Score domain(std::string what, std::string name) {
    if (!lists) start();
    return run(lists->check_domain(std::move(what), std::move(name), SteadyTime::max()));
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "a listed client, with the list's own reason") {
  settings.lists = {block_list("bl.test")};
  resolver.add("10.2.0.192.bl.test A 127.0.0.2\n10.2.0.192.bl.test TXT \"spam source\"");
  const Score score = client("192.0.2.10");
  CHECK(score.total == 1);
  REQUIRE(score.results.size() == 1);
  CHECK(score.results[0].outcome == Outcome::listed);
  CHECK(score.results[0].zone == "bl.test");
  CHECK(score.results[0].query == "10.2.0.192.bl.test");
  CHECK(score.results[0].answers == std::vector{*IpAddress::parse("127.0.0.2")});
  CHECK(score.reply_text == "Service unavailable; Client host [192.0.2.10] blocked using bl.test; spam source");
  CHECK(metrics.value("dnsbl_lookups_total", {{"list", "bl.test"}, {"result", "listed"}}) == 1);
  const Score other = client("192.0.2.11");
  CHECK(other.total == 0);
  CHECK(other.results[0].outcome == Outcome::clean);
  CHECK(other.reply_text.empty());
  CHECK(resolver.count("11.2.0.192.bl.test TXT") == 0);
}

TEST_CASE_METHOD(Fixture, "an IPv6 client is asked for by nibbles") {
  settings.lists = {block_list("bl.test")};
  resolver.add("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.test A 127.0.0.3");
  CHECK(client("2001:db8::1").total == 1);
}

TEST_CASE_METHOD(Fixture, "loopback is looked up too") {
  settings.lists = {block_list("bl.test")};
  resolver.add("9.0.0.127.bl.test A 127.0.0.2");
  CHECK(client("127.0.0.9").total == 1);
}

TEST_CASE_METHOD(Fixture, "all lists are asked, TXT only of the one that decides") {
  settings.lists = {block_list("a.test"), block_list("allow.test", -2), block_list("b.test", 2),
                    block_list("c.test", 2)};
  settings.threshold = 2;
  for (const char* zone : {"allow", "b", "c"}) {
    resolver.add("10.2.0.192." + std::string{zone} + ".test A 127.0.0.2\n10.2.0.192." + zone + ".test TXT \"" + zone +
                 "\"");
  }
  const Score score = client("192.0.2.10");
  CHECK(score.total == 2);
  CHECK(score.reply_text == "Service unavailable; Client host [192.0.2.10] blocked using b.test; b");
  CHECK(resolver.count("10.2.0.192.a.test A") == 1);
  CHECK(resolver.count("10.2.0.192.b.test TXT") == 1);
  CHECK(resolver.count("10.2.0.192.allow.test TXT") == 0);
  CHECK(resolver.count("10.2.0.192.c.test TXT") == 0);
}

TEST_CASE_METHOD(Fixture, "a configured reason replaces TXT") {
  settings.lists = {block_list("bl.test")};
  settings.lists[0].reason = "see https://example.com/blocked";
  resolver.add("10.2.0.192.bl.test A 127.0.0.2\n10.2.0.192.bl.test TXT \"other\"");
  CHECK(client("192.0.2.10").reply_text ==
        "Service unavailable; Client host [192.0.2.10] blocked using bl.test; see https://example.com/blocked");
  CHECK(resolver.count("10.2.0.192.bl.test TXT") == 0);
}

TEST_CASE_METHOD(Fixture, "a list without TXT, or with broken TXT, still blocks") {
  settings.lists = {block_list("bl.test")};
  resolver.add("10.2.0.192.bl.test A 127.0.0.2\n10.2.0.192.bl.test TXT SERVFAIL");
  CHECK(client("192.0.2.10").reply_text == "Service unavailable; Client host [192.0.2.10] blocked using bl.test");
}

TEST_CASE_METHOD(Fixture, "trouble is never a listing, and warned about once a minute a list") {
  settings.lists = {block_list("sick.test"), block_list("slow.test"), block_list("refusing.test")};
  resolver.add(
      "10.2.0.192.sick.test A SERVFAIL\n10.2.0.192.slow.test A TIMEOUT\n10.2.0.192.refusing.test A 127.255.255.254");
  const Score score = client("192.0.2.10");
  CHECK(score.total == 0);
  CHECK(score.results[0].outcome == Outcome::list_error);
  CHECK(score.results[1].outcome == Outcome::timeout);
  CHECK(score.results[2].outcome == Outcome::list_error);
  CHECK(log.contains("dnsbl: warning: 10.2.0.192.sick.test: RBL lookup error: SERVFAIL"));
  CHECK(log.contains("dnsbl: warning: 10.2.0.192.slow.test: RBL lookup error: timeout"));
  CHECK(log.contains("RBL lookup error: answer 127.255.255.254: an error code, not a listing"));
  CHECK(alerts.raised().size() == 1);
  CHECK(alerts.contains("block list refusing.test answers with an error"));
  client("192.0.2.10");
  CHECK(log.count("RBL lookup error") == 3);
  clock.advance(60s);
  client("192.0.2.10");
  CHECK(log.count("RBL lookup error") == 6);
}

TEST_CASE_METHOD(Fixture, "one slow list costs no more than the deadline, and no other list's answer") {
  settings.lists = {block_list("slow.test"), block_list("bl.test")};
  resolver.add("10.2.0.192.slow.test A 127.0.0.2\n10.2.0.192.bl.test A 127.0.0.2\n10.2.0.192.bl.test TXT \"spam\"");
  resolver.delay("10.2.0.192.slow.test", 30s, clock);
  start();
  asio::io_context io;
  Gate gate{io.get_executor()};
  std::optional<Score> score;
  const auto check = [](Lists& asked, SteadyTime deadline, std::optional<Score>& into) -> Task<> {
    into = co_await asked.check_client(*IpAddress::parse("192.0.2.10"), deadline);
  };
  gate.spawn("check", check(*lists, clock.steady() + 5s, score));
  io.poll();
  CHECK_FALSE(score);
  clock.advance(5s);
  resolver.tick();
  io.restart();
  io.poll();
  REQUIRE(score);
  CHECK(score->results[0].outcome == Outcome::timeout);
  CHECK(score->reply_text == "Service unavailable; Client host [192.0.2.10] blocked using bl.test; spam");
}

TEST_CASE_METHOD(Fixture, "answers older than cache_ttl_max are asked for again") {
  settings.lists = {block_list("bl.test")};
  settings.cache_ttl_max = 600s;
  resolver.add("10.2.0.192.bl.test A 127.0.0.2\n11.2.0.192.bl.test A 127.0.0.2");
  resolver.set_age("10.2.0.192.bl.test", 600s);
  resolver.set_age("11.2.0.192.bl.test", 601s);
  CHECK(client("192.0.2.10").results[0].age == 600s);
  CHECK(resolver.count("10.2.0.192.bl.test A") == 1);
  CHECK(client("192.0.2.11").results[0].age == 0s);
  CHECK(resolver.count("11.2.0.192.bl.test A") == 2);
}

TEST_CASE_METHOD(Fixture, "domain lists are asked for what they check, and name it in the reply") {
  settings.lists = {block_list("bl.test")};
  settings.domain_lists = {block_list("dbl.test"), block_list("uribl.test")};
  settings.domain_lists[1].check_helo = false;
  resolver.add("spam.example.dbl.test A 127.0.1.2\nspam.example.dbl.test TXT \"bad name\"");
  CHECK(domain("sender", "Joe@Spam.Example").reply_text ==
        "Service unavailable; Sender address [Joe@Spam.Example] blocked using dbl.test; bad name");
  CHECK(resolver.asked().size() == 3);
  resolver.clear_asked();
  CHECK(domain("helo", "spam.example").reply_text ==
        "Service unavailable; Helo command [spam.example] blocked using dbl.test; bad name");
  CHECK(resolver.count("spam.example.uribl.test A") == 0);
  CHECK(domain("client", "spam.example").reply_text ==
        "Service unavailable; Client host [spam.example] blocked using dbl.test; bad name");
  CHECK(domain("sender", "joe@good.example").total == 0);
  CHECK(client("192.0.2.10").results.size() == 1);
}

TEST_CASE_METHOD(Fixture, "what is no domain is not asked for") {
  settings.domain_lists = {block_list("dbl.test")};
  for (const char* name : {"", "localhost", "192.0.2.1", "[192.0.2.1]", "a b.example", "unknown"}) {
    CAPTURE(name);
    CHECK(domain("helo", name).results.empty());
  }
  CHECK(resolver.asked().empty());
}

TEST_CASE_METHOD(Fixture, "a secret zone is asked by its name and shown without") {
  settings.lists = {block_list("abcdef0123456789abcdef0123.zen.test")};
  resolver.add(
      "10.2.0.192.abcdef0123456789abcdef0123.zen.test A 127.0.0.2\n11.2.0.192.abcdef0123456789abcdef0123.zen.test A "
      "SERVFAIL");
  const Score score = client("192.0.2.10");
  CHECK(score.reply_text == "Service unavailable; Client host [192.0.2.10] blocked using ***.zen.test");
  CHECK(score.results[0].query == "10.2.0.192.***.zen.test");
  client("192.0.2.11");
  CHECK(log.contains("11.2.0.192.***.zen.test: RBL lookup error"));
  CHECK_FALSE(log.contains("abcdef"));
  CHECK(metrics.text().find("abcdef") == std::string::npos);
}

#include "greylist/operate.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "greylist/store.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/memory_store.hpp"
#include "support/recording_alerts.hpp"
#include "support/recording_log.hpp"
#include "support/run.hpp"

using namespace greymx;
using namespace greymx::greylist;
using namespace std::chrono_literals;
using Json = nlohmann::json;

namespace {

constexpr Stamp t0 = 1800000000;

struct Fixture {
  Fixture() {
    config::Config config;
    config.hostname = "mx2.example.net";
    greylister.emplace(std::make_shared<const config::Config>(config), std::move(owned), clock, log, metrics, alerts);
  }

  // The JSON objects that an operation hands over.
  std::vector<Json> lines(const std::function<Task<Result<>>(Greylister&, operate::Sink)>& operation) {
    std::string text;
    operate::Sink sink = [&](std::string some) -> Task<bool> {
      text += some;
      co_return true;
    };
    REQUIRE(test::run(operation(*greylister, sink)).has_value());
    std::vector<Json> objects;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = text.find('\n', at);
      objects.push_back(Json::parse(text.substr(at, end - at)));
      at = end + 1;
    }
    return objects;
  }
  Answer check(const std::string& client, const std::string& sender, const std::string& name = "unknown") {
    return test::run(greylister->check({.client = IpAddress::parse(client).value(),
                                        .client_name = name,
                                        .sender = sender,
                                        .recipient = "rcpt@example.com",
                                        .helo = {},
                                        .queue_id = {},
                                        .instance = {},
                                        .spf_domain = {},
                                        .test_time = {}}));
  }
  void waits_then_passes(const std::string& client, const std::string& sender, const std::string& name = "unknown") {
    check(client, sender, name);
    clock.advance(400s);
    CHECK(check(client, sender, name).action == Action::pass);
  }

  test::FakeClock clock{WallTime(std::chrono::seconds(t0))};
  test::RecordingLog log;
  test::RecordingAlerts alerts;
  Metrics metrics;
  std::unique_ptr<test::MemoryStore> owned = std::make_unique<test::MemoryStore>();
  test::MemoryStore& store = *owned;
  std::optional<Greylister> greylister;
};

}  // namespace

TEST_CASE("list shows what waits and since when, once, and the entries that count") {
  Fixture f;
  f.check("192.0.2.77", "a@sender.example", "mx.sender.example");  // under a pool key as well
  f.clock.advance(10s);
  f.check("192.0.2.77", "a@sender.example", "mx.sender.example");
  f.waits_then_passes("192.0.2.77", "passed@sender.example");
  REQUIRE(test::run(operate::pass(*f.greylister, "192.0.2.0/25", 1h, "new partner")).has_value());
  REQUIRE(test::run(operate::pass(*f.greylister, "Partner.example", 0s, "")).has_value());
  REQUIRE(test::run(operate::expect(*f.greylister, "Bob@Example.com", 15min)).has_value());
  const auto shown = f.lines(operate::list);
  REQUIRE(shown.size() == 4);
  CHECK(shown[0] == Json{{"type", "waiting"},
                         {"client", "192.0.2.0"},
                         {"sender", "a@sender.example"},
                         {"recipient", "rcpt@example.com"},
                         {"first", t0},
                         {"last", t0 + 10},
                         {"passes_from", t0 + 300},
                         {"tries", 2}});
  CHECK(shown[1] ==
        Json{{"type", "expect"}, {"subject", "bob@example.com"}, {"since", t0 + 410}, {"until", t0 + 410 + 900}});
  CHECK(shown[2] == Json{{"type", "pass"},
                         {"subject", "192.0.2.0/25"},
                         {"since", t0 + 410},
                         {"until", t0 + 410 + 3600},
                         {"comment", "new partner"}});
  CHECK(shown[3] == Json{{"type", "pass"}, {"subject", "partner.example"}, {"since", t0 + 410}});
  f.clock.advance(3600s);
  CHECK(f.lines(operate::list).size() == 2);  // the triplet and what has no end
}

TEST_CASE("subjects are taken as logs and people write them") {
  Fixture f;
  const auto passes = [&](const std::string& sender) { return f.check("192.0.2.1", sender).action == Action::pass; };
  REQUIRE(test::run(operate::pass(*f.greylister, "<A@Sender.test>", 0s, "")).has_value());
  CHECK(passes("a@sender.test"));
  CHECK_FALSE(passes("b@sender.test"));
  REQUIRE(test::run(operate::pass(*f.greylister, "dots.test.", 0s, "")).has_value());
  CHECK(f.check("192.0.2.2", "x@y.test", "mx.dots.test").action == Action::pass);
  REQUIRE(test::run(operate::pass(*f.greylister, "@B\u00fccher.example", 0s, "")).has_value());
  CHECK(passes("c@xn--bcher-kva.example"));
  CHECK(passes("c@b\u00fccher.example"));
  f.check("192.0.2.3", "d@B\u00fccher.test");
  f.check("192.0.2.4", "e@b\u00fccher.test");
  CHECK(test::run(operate::forget(*f.greylister, "d@b\u00fccher.test")).records == 1);
  CHECK(test::run(operate::forget(*f.greylister, "xn--bcher-kva.test")).records == 1);
  CHECK(test::run(operate::forget(*f.greylister, "<a@sender.test>")).records == 1);
  CHECK_FALSE(passes("a@sender.test"));
  REQUIRE(test::run(operate::expect(*f.greylister, "<RCPT@example.com.>", 15min)).has_value());
  CHECK(passes("anybody@else.test"));
}

TEST_CASE("entries that have ended make room when a new one comes") {
  Fixture f;
  REQUIRE(test::run(operate::expect(*f.greylister, "a@example.com", 1min)).has_value());
  f.clock.advance(61s);
  REQUIRE(test::run(operate::expect(*f.greylister, "b@example.com", 1min)).has_value());
  CHECK(f.store.records.size() == 1);
}

TEST_CASE("at ten thousand entries one must end or be replaced before there is another") {
  Fixture f;
  std::vector<Stored> many;
  for (int i = 0; i < 9'999; ++i) many.push_back({"pass/n" + std::to_string(i) + ".example", Record{}});
  many.push_back({"pass/ends.example", Record{.last = t0 + 60}});
  REQUIRE(test::run(f.store.merge(std::move(many))).has_value());
  CHECK_FALSE(test::run(operate::pass(*f.greylister, "new.example", 1h, "")).has_value());
  CHECK(test::run(operate::pass(*f.greylister, "n7.example", 1h, "")).has_value());
  f.clock.advance(61s);
  CHECK(test::run(operate::pass(*f.greylister, "new.example", 1h, "")).has_value());
  CHECK(f.store.records.size() == 10'000);
}

TEST_CASE("an entry ends in time after the system clock stepped back") {
  Fixture f;
  f.check("192.0.2.1", "a@one.example");
  f.clock.set(f.clock.now() - 2h);
  CHECK(test::run(operate::expect(*f.greylister, "rcpt@example.com", 15min)).has_value());
  CHECK(test::run(operate::pass(*f.greylister, "198.51.100.0/24", 15min, "")).has_value());
  CHECK(f.check("192.0.2.1", "b@one.example").reason == "expected");
  CHECK(f.check("198.51.100.1", "b@one.example").reason == "pass entry");
  f.clock.advance(15min);
  CHECK(f.check("192.0.2.1", "c@one.example").reason == "new");
}

TEST_CASE("a subject that is none is refused with what would be one") {
  Fixture f;
  for (const char* subject : {"", "two words", "/regexp/", "300.1.2.3", "@", "192.0.2.0/33"}) {
    CAPTURE(subject);
    const auto refused = test::run(operate::pass(*f.greylister, subject, 1h, ""));
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().text.find("is no client address, network, domain or mail address") != std::string::npos);
  }
  CHECK_FALSE(test::run(operate::expect(*f.greylister, "bob", 1h)).has_value());
  CHECK_FALSE(test::run(operate::expect(*f.greylister, "/a@b/", 1h)).has_value());
  CHECK_FALSE(test::run(operate::expect(*f.greylister, "bob@example.com", 0s)).has_value());
}

TEST_CASE("report names who never came back, how long retries take, and who could be whitelisted") {
  Fixture f;
  f.check("198.51.100.1", "gone@spam.example");
  f.clock.advance(49h);
  f.check("198.51.100.1", "waiting@spam.example");
  for (int i = 1; i <= 5; ++i) {
    f.waits_then_passes(fmt::format("10.0.{}.1", i), fmt::format("{}@x.example", "-abcde"[i]), "out.pool.example");
  }
  f.waits_then_passes("192.0.2.1", "f@x.example", "out.other.example");  // too few to propose
  const auto shown = f.lines(operate::report);
  REQUIRE(shown.size() == 3);
  CHECK(shown[0]["type"] == "never_returned");
  CHECK(shown[0]["sender"] == "gone@spam.example");
  CHECK(shown[1]["type"] == "first_retries");
  CHECK(shown[1]["within"][6] == Json{{"seconds", 600}, {"count", 6}});
  CHECK(shown[1]["later"] == 0);
  CHECK(shown[2] == Json{{"type", "proposal"}, {"subject", "pool.example"}, {"passed", 5}, {"networks", 5}});
}

TEST_CASE("stats counts records and says what is wrong") {
  Fixture f;
  f.check("192.0.2.77", "a@sender.example");
  f.waits_then_passes("192.0.2.77", "b@sender.example");
  auto stats = f.lines(operate::stats).at(0);
  CHECK(stats["waiting"] == 1);
  CHECK(stats["passed"] == 1);
  CHECK(stats["clients"] == 1);
  CHECK_FALSE(stats.contains("trouble"));
  f.store.broken = true;
  CHECK(f.lines(operate::stats).at(0)["trouble"] == "the store is broken");
  CHECK_FALSE(test::run(operate::list(*f.greylister, [](std::string) -> Task<bool> { co_return true; })).has_value());
}

TEST_CASE("forget removes what is known of a client, a network, a domain or an address") {
  const auto remaining = [](const std::string& subject) {
    Fixture f;
    f.waits_then_passes("192.0.2.77", "a@sender.example");
    f.check("192.0.2.78", "b@sub.sender.example");
    f.check("198.51.100.1", "a@sender.example", "mx.pool.example");
    REQUIRE(test::run(operate::pass(*f.greylister, subject, 1h, "")).has_value());
    const std::size_t before = f.store.records.size();
    const auto forgotten = test::run(operate::forget(*f.greylister, subject));
    REQUIRE(forgotten.done.has_value());
    CHECK(forgotten.records == before - f.store.records.size());
    std::vector<std::string> keys;
    for (const auto& [key, record] : f.store.records) keys.push_back(key);
    return keys;
  };
  const std::string a = "192.0.2.0/a@sender.example/rcpt@example.com",
                    b = "192.0.2.0/b@sub.sender.example/rcpt@example.com",
                    c = "198.51.100.0/a@sender.example/rcpt@example.com", awl = "awl/192.0.2.77",
                    pool = "ptr/pool.example/a@sender.example/rcpt@example.com";
  CHECK(remaining("192.0.2.77") == std::vector{b, c, pool});
  CHECK(remaining("192.0.2.0/24") == std::vector{c, pool});
  CHECK(remaining("192.0.2.77/24") == std::vector{c, pool});
  CHECK(remaining("192.0.2") == std::vector{c, pool});
  CHECK(remaining("sub.sender.example") == std::vector{a, c, awl, pool});
  CHECK(remaining("pool.example") == std::vector{a, b, c, awl});
  CHECK(remaining("A@sender.example") == std::vector{b, awl});
  CHECK(remaining("example.com") == std::vector{awl});
}

TEST_CASE("a network is the same in whatever spelling") {
  Fixture f;
  REQUIRE(test::run(operate::pass(*f.greylister, "2001:DB8:0::/32", 1h, "")).has_value());
  REQUIRE(test::run(operate::pass(*f.greylister, "2001:db8:0:0:0:0:0:1", 1h, "")).has_value());
  REQUIRE(test::run(operate::pass(*f.greylister, "192.0.2.77/24", 1h, "")).has_value());
  CHECK(f.lines(operate::list)[0]["subject"] == "192.0.2.0/24");
  CHECK(test::run(operate::forget(*f.greylister, "2001:db8::/32")).records == 1);
  CHECK(test::run(operate::forget(*f.greylister, "2001:db8::1")).records == 1);
  CHECK(test::run(operate::forget(*f.greylister, "192.0.2")).records == 1);
}

TEST_CASE("what export writes import reads back, and what is none is skipped and counted") {
  Fixture f;
  f.waits_then_passes("192.0.2.77", "a@sender.example", "mx.pool.example");
  f.check("2001:db8::1", "", "mx.pool.example");
  REQUIRE(test::run(operate::pass(*f.greylister, "192.0.2.0/24", 1h, "why \"so\"")).has_value());
  std::string text;
  REQUIRE(test::run(operate::export_all(*f.greylister, [&](std::string some) -> Task<bool> {
            text += some;
            co_return true;
          })).has_value());
  const auto records = f.store.records;
  f.store.records.clear();
  text +=
      "\nnot json\n[]\n{\"key\":\"nothing\"}\n{\"key\":\"192.0.2.0/a@b/c@d\",\"first\":-1}\n"
      "{\"key\":\"192.0.2.0/a@b/c@d\",\"first\":\"x\"}\n{\"key\":\"192.0.2.0/a@b/c@d\",\"last\":1900000000}\n"
      "{\"key\":\"pass//regexp/\"}\n{\"key\":\"expect//a@b/\"}\n{\"key\":\"expect/bob\"}\n";
  const auto report = test::run(operate::import_lines(*f.greylister, text));
  REQUIRE(report.has_value());
  CHECK(f.store.records == records);
  CHECK(report->read == records.size() + 9);
  CHECK(report->imported == records.size());
  CHECK(report->skipped ==
        std::map<std::string, std::uint64_t>{
            {"not a JSON object", 2}, {"no valid \"key\"", 4}, {"a number that is none", 2}, {"in the future", 1}});
}

TEST_CASE("a sink that has enough ends the listing") {
  Fixture f;
  for (int i = 0; i < 1200; ++i) f.check("10.0." + std::to_string(i / 100) + ".1", std::to_string(i) + "x@s.example");
  int calls = 0;
  operate::Sink sink = [&](std::string) -> Task<bool> {
    ++calls;
    co_return false;
  };
  REQUIRE(test::run(operate::export_all(*f.greylister, sink)).has_value());
  CHECK(calls == 1);
}

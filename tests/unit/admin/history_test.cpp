#include "admin/history.hpp"
#include "base/metrics.hpp"
#include "sample.hpp"
#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::admin;
using greymx::test::at;
using Bars = std::vector<std::uint64_t>;

namespace {
constexpr std::int64_t start = 1795668000;  // a full minute
}

TEST_CASE("counters are read from the metrics as they are exposed") {
  Metrics metrics;
  metrics.count("messages_accepted_total", {}, 3);
  metrics.count("rejects_total", {{"check", "dnsbl"}, {"code", "554"}}, 2);
  metrics.count("rejects_total", {{"check", "dnsbl"}, {"code", "454"}});
  metrics.count("rejects_total", {{"check", "relay_control"}, {"code", "554"}});
  metrics.count("rejects_total", {{"check", "greylist"}, {"code", "450"}});
  metrics.count("greylist_decisions_total", {{"verdict", "greylist"}, {"reason", "new"}});
  metrics.count("deliveries_total", {{"domain", "example.com"}, {"result", "sent"}}, 5);
  const Counters counters = counters_of(metrics.text());
  CHECK(counters.at("accepted") == 3);
  CHECK(counters.at("reject/dnsbl") == 3);
  CHECK(counters.at("reject/relay_control") == 1);
  CHECK(counters.at("greylist/greylist") == 1);
  CHECK_FALSE(counters.contains("reject/greylist"));
  CHECK(counters.at("sent") == 5);
  CHECK(counters_of("# HELP\nnonsense\ngreymx_messages_accepted_total x\n\n{} 1\n").empty());
}

TEST_CASE("growth is counted in the minute in which it is seen") {
  History history;
  history.sample(at(start), {{"accepted", 10}});
  history.sample(at(start + 60), {{"accepted", 15}});
  history.sample(at(start + 90), {{"accepted", 16}});
  history.sample(at(start + 180), {{"accepted", 16}, {"reject/dnsbl", 4}, {"reject/helo", 1}});
  CHECK(history.bars("accepted", at(start + 180), 4, 1) == Bars{10, 6, 0, 0});
  CHECK(history.bars("accepted", at(start + 180), 2, 2) == Bars{16, 0});
  CHECK(history.sum("reject/", at(start + 180), 60) == 5);
  CHECK(history.sum("reject/helo", at(start + 180), 60) == 1);
  CHECK(history.sum("reject", at(start + 180), 60) == 0);
  CHECK(history.names("reject/") == std::vector<std::string>{"reject/dnsbl", "reject/helo"});
  CHECK(history.bars("accepted", at(start + 240), 4, 1) == Bars{6, 0, 0, 0});
}

TEST_CASE("a day later the ring has forgotten") {
  History history;
  history.sample(at(start), {{"accepted", 10}});
  CHECK(history.sum("accepted", at(start + 86340), History::minutes) == 10);
  history.sample(at(start + 86400), {{"accepted", 11}});
  CHECK(history.sum("accepted", at(start + 86400), History::minutes) == 1);
  history.sample(at(start + 10 * 86400), {{"accepted", 12}});
  CHECK(history.sum("accepted", at(start + 10 * 86400), History::minutes) == 1);
}

TEST_CASE("a text that is older than the last one counts nothing twice") {
  History history;
  history.sample(at(start), {{"accepted", 10}});
  history.sample(at(start + 1), {{"accepted", 8}});
  history.sample(at(start + 2), {{"accepted", 11}});
  CHECK(history.sum("accepted", at(start + 2), 1) == 11);
}

TEST_CASE("a clock set back, or a counter that shrank, loses nothing and adds nothing") {
  History history;
  history.sample(at(start + 300), {{"accepted", 5}});
  history.sample(at(start), {{"accepted", 7}});
  CHECK(history.sum("accepted", at(start + 300), 1) == 7);
  CHECK(history.sum("accepted", at(start), 1) == 7);
  history.sample(at(start + 360), {{"accepted", 1}});
  CHECK(history.sum("accepted", at(start + 360), 60) == 7);
}

TEST_CASE("a clock that was far ahead and is set right does not stop the minutes") {
  for (const std::int64_t ahead : {3600, 40 * 86400}) {
    History history;
    history.sample(at(start), {{"accepted", 1}});
    history.sample(at(start + ahead), {{"accepted", 3}});
    history.sample(at(start + 60), {{"accepted", 4}});
    history.sample(at(start + 180), {{"accepted", 9}});
    CHECK(history.bars("accepted", at(start + 180), 3, 1) == Bars{1, 0, 5});
    CHECK(history.sum("accepted", at(start + 180), 4) == (ahead == 3600 ? 7 : 6));
  }
}

TEST_CASE("series and events are bounded") {
  History history;
  Counters many;
  for (int i = 0; i < 500; ++i) many["reject/" + std::to_string(i)] = 1;
  history.sample(at(start), many);
  CHECK(history.names("reject/").size() == History::max_series);
  for (int i = 0; i < 500; ++i) history.event(at(start + i), std::to_string(i));
  REQUIRE(history.events().size() == History::max_events);
  CHECK(history.events().front().text == "499");
}

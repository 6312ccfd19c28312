#include "greylist/table.hpp"

#include <fmt/format.h>

#include <ctime>
#include <limits>

#include "greylist/triplet.hpp"
#include "support/catch.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;
using namespace greymx::greylist;

namespace {

constexpr Stamp t0 = 1800000000;

struct Fixture {
  explicit Fixture(const Caps& caps) {
    environment = bdb::Environment::open({.base = directory.path()}).value();
    table = Table::open(*environment, caps).value();
  }

  void ask(std::string_view client, std::string_view sender, Stamp now, std::string_view spf_domain = {}) {
    const IpAddress address = IpAddress::parse(client).value();
    const Mail mail{.client = address,
                    .client_name = "unknown",
                    .sender = sender,
                    .recipient = "rcpt@example.com",
                    .helo = {},
                    .spf_domain = spf_domain};
    const Question question{.keys = triplet_keys(mail, {}),
                            .client_key = client_key(address),
                            .hashed_key = {},
                            .hashed_client_key = {},
                            .client = address,
                            .now = now,
                            .rules = {}};
    REQUIRE(table->begin().has_value());
    REQUIRE(table->decide(question).has_value());
    REQUIRE(table->commit().has_value());
  }
  std::vector<std::string> keys() {
    REQUIRE(table->begin().has_value());
    std::vector<std::string> found;
    for (const Stored& stored : table->scan({}, 1000).value()) found.push_back(stored.key);
    REQUIRE(table->commit().has_value());
    CHECK(table->totals().waiting == found.size());
    return found;
  }

  test::TempDir directory;
  std::unique_ptr<bdb::Environment> environment;
  std::unique_ptr<Table> table;
};

}  // namespace

TEST_CASE("the networks of one IPv6 site share a cap") {
  Fixture f({.waiting_per_site = 3});
  for (int i = 1; i <= 5; ++i) f.ask("2001:db8:0:" + std::to_string(i) + "::1", "a@s.example", t0 + i);
  f.ask("2001:db8:1:1::1", "a@s.example", t0 + 6);
  f.ask("192.0.2.1", "a@s.example", t0 + 7);
  const std::string mail = "/a@s.example/rcpt@example.com";
  CHECK(f.keys() == std::vector<std::string>{"192.0.2.0" + mail, "2001:db8:0:3:0:0:0:0" + mail,
                                             "2001:db8:0:4:0:0:0:0" + mail, "2001:db8:0:5:0:0:0:0" + mail,
                                             "2001:db8:1:1:0:0:0:0" + mail});
}

TEST_CASE("who has been removed, has passed or has expired makes room under a cap") {
  Fixture f({.waiting_per_network = 3});
  const auto key = [](std::string_view name) { return fmt::format("192.0.2.0/{}@s.example/rcpt@example.com", name); };
  for (const char* name : {"a", "b", "c"}) f.ask("192.0.2.1", fmt::format("{}@s.example", name), t0);
  REQUIRE(f.table->begin().has_value());
  CHECK(f.table->erase(key("a")).value());
  REQUIRE(f.table->commit().has_value());
  f.ask("192.0.2.1", "d@s.example", t0 + 1);
  CHECK(f.keys() == std::vector<std::string>{key("b"), key("c"), key("d")});

  f.ask("192.0.2.1", "b@s.example", t0 + 1000);  // passes
  f.ask("192.0.2.1", "e@s.example", t0 + 1001);
  REQUIRE(f.table->begin().has_value());
  CHECK(f.table->totals().waiting == 3);
  CHECK(f.table->totals().never_returned == 0);
  CHECK(f.table->expire(t0 + 2 * Rules().retry_window + 1, {}, 10).value() == 1);  // c
  REQUIRE(f.table->commit().has_value());
  f.ask("192.0.2.1", "f@s.example", t0 + 1002);
  CHECK(f.table->totals().waiting == 3);
  f.ask("192.0.2.1", "g@s.example", t0 + 1003);
  CHECK(f.table->totals().waiting == 3);
}

TEST_CASE("a site at its cap costs little more than one that has sent nothing") {
  Fixture f({});
  int asked = 0;
  const auto cost = [&](const char* site, int times) {  // the least of three
    std::clock_t least = std::numeric_limits<std::clock_t>::max();
    for (int round = 0; round < 3; ++round) {
      const std::clock_t begin = std::clock();
      for (int i = 0; i < times; ++i, ++asked) {
        f.ask(fmt::format(fmt::runtime(site), asked), "a@s.example", t0 + asked);
      }
      least = std::min(least, std::clock() - begin);
    }
    return least;
  };
  const std::clock_t fresh = cost("2001:db8:{:x}::1", 100);
  cost("2001:db9:0:{:x}::1", 400);
  CHECK(f.table->totals().never_returned > 0);
  CHECK(cost("2001:db9:0:{:x}::1", 100) < 4 * fresh);
}

TEST_CASE("a pool's record counts where it was tried last") {
  Fixture f({.waiting_per_network = 1});
  f.ask("198.51.100.1", "a@s.example", t0, "s.example");
  f.ask("192.0.2.1", "b@s.example", t0 + 1, "s.example");
  f.ask("192.0.2.1", "a@s.example", t0 + 2, "s.example");
  const std::string pool = "spf/s.example/a@s.example/rcpt@example.com";
  const auto keys = f.keys();
  CHECK(std::count_if(keys.begin(), keys.end(), [](const auto& key) { return key.starts_with("spf/"); }) == 1);
  CHECK(std::find(keys.begin(), keys.end(), pool) != keys.end());
}

TEST_CASE("what makes way may be an older record of the same mail") {
  Fixture f({.waiting = 1});
  f.ask("198.51.100.1", "a@s.example", t0, "s.example");
  // Its window is over, but it is still there, and the oldest of all.
  f.ask("192.0.2.1", "a@s.example", t0 + 3 * 86400, "s.example");
  CHECK(f.keys().size() == 1);
}

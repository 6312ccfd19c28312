#include "smtp/limits.hpp"

#include "support/catch.hpp"
#include "support/fake_clock.hpp"

using namespace greymx;
using namespace greymx::smtp;
using namespace std::chrono_literals;

namespace {

IpAddress ip(std::string_view text) {
  return *IpAddress::parse(text);
}

struct House {
  std::unique_ptr<Connections::Ticket> enter(std::string_view client, bool exempt = false) {
    auto ticket = connections.enter(limits);
    if (!ticket) return nullptr;
    exceeded = ticket->identify(ip(client), exempt, limits);
    return ticket;
  }
  // A session that waits for a command.
  void settle(std::string_view client) {
    auto ticket = enter(client);
    REQUIRE(ticket);
    ticket->on_shed([this, number = ticket->number()] { shed.push_back(number); });
    ticket->idle(clock.steady());
    guests.push_back(std::move(ticket));
  }

  test::FakeClock clock;
  Metrics metrics;
  config::Limits limits;
  Connections connections{clock, metrics};
  std::optional<std::string_view> exceeded;
  std::vector<std::uint64_t> shed;
  std::vector<std::unique_ptr<Connections::Ticket>> guests;
};

}  // namespace

TEST_CASE("connections of one client are counted by IPv4 address and IPv6 /64") {
  House house;
  house.limits.connections_per_client = 2;
  const auto a = house.enter("192.0.2.1");
  auto b = house.enter("192.0.2.1");
  CHECK_FALSE(house.exceeded);
  {
    const auto c = house.enter("192.0.2.1");
    CHECK(house.exceeded == "Connection concurrency");
  }
  const auto neighbour = house.enter("192.0.2.2");
  CHECK_FALSE(house.exceeded);
  b.reset();
  const auto again = house.enter("192.0.2.1");
  CHECK_FALSE(house.exceeded);
  const auto v6a = house.enter("2001:db8::1");
  const auto v6b = house.enter("2001:db8::2");
  const auto v6c = house.enter("2001:db8::3");
  CHECK(house.exceeded == "Connection concurrency");
  const auto other = house.enter("2001:db8:0:1::1");
  CHECK_FALSE(house.exceeded);
  CHECK(house.metrics.value("connections") == 7);
}

TEST_CASE("new connections of one client are counted a period, and a changed limit counts anew") {
  House house;
  house.limits.rate_per_client = {3, 60s};
  for (int i = 0; i < 3; ++i) {
    house.enter("192.0.2.1");
    CHECK_FALSE(house.exceeded);
  }
  house.enter("192.0.2.1");
  CHECK(house.exceeded == "Connection rate");
  house.clock.advance(20s);
  house.enter("192.0.2.1");
  CHECK_FALSE(house.exceeded);
  house.enter("192.0.2.1");
  CHECK(house.exceeded == "Connection rate");
  house.limits.rate_per_client = {5, 60s};
  house.enter("192.0.2.1");
  CHECK_FALSE(house.exceeded);
}

TEST_CASE("who is exempt is neither counted nor shed") {
  House house;
  house.limits.connections_per_client = 1;
  house.limits.connections = 10;
  std::vector<std::unique_ptr<Connections::Ticket>> all;
  for (int i = 0; i < 10; ++i) {
    all.push_back(house.enter("127.0.0.1", true));
    CHECK_FALSE(house.exceeded);
    all.back()->on_shed([] { FAIL("shed"); });
    all.back()->idle(house.clock.steady());
    house.clock.advance(10s);
  }
  CHECK(house.enter("192.0.2.1") == nullptr);
}

TEST_CASE("a client that was named anew leaves its old place") {
  House house;
  house.limits.connections_per_client = 1;
  const auto ticket = house.enter("192.0.2.1");
  CHECK_FALSE(ticket->identify(ip("192.0.2.2"), false, house.limits));
  const auto next = house.enter("192.0.2.1");
  CHECK_FALSE(house.exceeded);
}

TEST_CASE("near the limit idle sessions of crowded networks go first, the longest idle before others") {
  House house;
  house.limits.connections = 20;
  house.settle("198.51.100.1");  // 1: alone in its network, idle longest
  house.clock.advance(10s);
  for (int i = 0; i < 8; ++i) {
    house.settle("203.0.113." + std::to_string(i + 1));  // 2…9: a crowd
    house.clock.advance(1s);
  }
  for (int i = 0; i < 8; ++i) house.settle("192.0." + std::to_string(i + 3) + ".1");  // 10…17, just now idle
  house.guests.at(1)->busy();                                                         // 2 reads content
  CHECK(house.shed.empty());
  house.settle("198.51.101.1");  // 18
  CHECK(house.shed.empty());
  house.settle("198.51.102.1");  // 19: now it is crowded
  CHECK(house.shed == std::vector<std::uint64_t>{3, 4});
  house.settle("198.51.103.1");  // 20, within 100 ms: not looked again
  CHECK(house.shed.size() == 2);
  CHECK(house.enter("198.51.104.1") == nullptr);
  house.clock.advance(200ms);
  CHECK(house.enter("198.51.104.1") == nullptr);  // those told to go are still here, and count
  CHECK(house.shed == std::vector<std::uint64_t>{3, 4, 5, 6});
  house.clock.advance(100ms);
  CHECK(house.enter("198.51.104.1") == nullptr);
  house.guests.erase(house.guests.begin() + 2);
  house.clock.advance(100ms);
  CHECK(house.enter("198.51.104.1") != nullptr);
  CHECK(house.shed.size() == 4);
}

TEST_CASE("nobody is shed twice, nor after having left, and for one that hangs another is") {
  House house;
  house.limits.connections = 2;
  house.settle("192.0.2.1");
  house.settle("192.0.3.1");
  house.clock.advance(10s);
  CHECK(house.enter("192.0.4.1") == nullptr);
  CHECK(house.shed.size() == 1);
  house.clock.advance(10s);
  CHECK(house.enter("192.0.4.1") == nullptr);
  CHECK(house.shed.size() == 1);
  for (int i = 0; i < 2; ++i) {
    house.clock.advance(20s);
    CHECK(house.enter("192.0.4.1") == nullptr);
    CHECK(house.shed.size() == 2);
  }
  house.guests.clear();
  CHECK(house.metrics.value("connections") == 0);
}

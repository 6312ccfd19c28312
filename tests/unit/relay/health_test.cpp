#include "relay/health.hpp"

#include "relay/drain.hpp"
#include "relay/retry.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"

namespace greymx::relay {
namespace {

using namespace std::chrono_literals;

QueueId next_id() {
  static QueueId id;
  ++id.value;
  return id;
}

// A primary that has just come back.
HealthTracker returned(const test::FakeClock& clock) {
  HealthTracker health;
  health.unreachable(clock.now(), "connect to mx1: Connection refused");
  health.reachable(clock.now());
  return health;
}

TEST_CASE("the first failure is DOWN, the next ones are no news") {
  test::FakeClock clock;
  HealthTracker health;
  CHECK(health.health() == Health::up);
  CHECK(health.unreachable(clock.now(), "refused"));
  CHECK(health.health() == Health::down);
  CHECK(health.since() == clock.now());
  const WallTime began = clock.now();
  clock.advance(1h);
  CHECK_FALSE(health.unreachable(clock.now(), "timed out"));
  CHECK(health.since() == began);
  CHECK(health.reason() == "timed out");
  CHECK(health.reachable(clock.now()));
  CHECK(health.health() == Health::up);
  CHECK_FALSE(health.reachable(clock.now()));
}

TEST_CASE("refusals count at once while there was no outage") {
  const HealthTracker health;
  CHECK(health.refusals_count());
}

TEST_CASE("after an outage refusals do not count for the first 20 messages") {
  test::FakeClock clock;
  HealthTracker health = returned(clock);
  for (int i = 0; i < 20; ++i) {
    CHECK_FALSE(health.refusals_count());
    if (i < 9) {
      CHECK_FALSE(health.refused(next_id(), clock.now(), "550 unknown"));
    } else {
      CHECK_FALSE(health.delivered(next_id(), clock.now()));
    }
  }
  CHECK(health.refusals_count());
  CHECK(health.health() == Health::up);
}

TEST_CASE("ten refusals among the first 20 stop the drain") {
  test::FakeClock clock;
  HealthTracker health = returned(clock);
  for (int i = 0; i < 9; ++i) {
    health.delivered(next_id(), clock.now());
    CHECK_FALSE(health.refused(next_id(), clock.now(), "550 unknown"));
  }
  CHECK(health.refused(next_id(), clock.now(), "550 unknown"));
  CHECK(health.health() == Health::suspect);
  CHECK(health.reason() == "550 unknown");
  CHECK_FALSE(health.refusals_count());

  SECTION("until it answers well, then it is on trial again") {
    CHECK_FALSE(health.refused(next_id(), clock.now(), "550 unknown"));
    CHECK(health.delivered(next_id(), clock.now()));
    CHECK(health.health() == Health::up);
    CHECK_FALSE(health.refusals_count());
  }
  SECTION("or the admin says flush: then refusals count") {
    CHECK(health.flush(clock.now()));
    CHECK(health.health() == Health::up);
    CHECK(health.refusals_count());
  }
  SECTION("an answered greeting alone lifts nothing") {
    CHECK_FALSE(health.reachable(clock.now()));
    CHECK(health.health() == Health::suspect);
  }
  SECTION("it can go down from there") {
    CHECK(health.unreachable(clock.now(), "refused"));
    CHECK(health.health() == Health::down);
  }
}

TEST_CASE("a message counts once in a trial, however often it is tried") {
  test::FakeClock clock;
  HealthTracker health = returned(clock);
  const QueueId stubborn = next_id();
  for (int i = 0; i < 50; ++i) CHECK_FALSE(health.refused(stubborn, clock.now(), "550 unknown"));
  CHECK(health.on_trial());
  const QueueId fine = next_id();
  for (int i = 0; i < 50; ++i) health.delivered(fine, clock.now());
  for (int i = 0; i < 18; ++i) {
    CHECK(health.on_trial());
    health.delivered(next_id(), clock.now());
  }
  CHECK(health.refusals_count());

  SECTION("and again in the next trial") {
    health.unreachable(clock.now(), "refused");
    health.reachable(clock.now());
    for (int i = 0; i < 9; ++i) CHECK_FALSE(health.refused(next_id(), clock.now(), "550 unknown"));
    CHECK(health.refused(stubborn, clock.now(), "550 unknown"));
  }
}

TEST_CASE("flush does not declare a dead primary alive") {
  test::FakeClock clock;
  HealthTracker health;
  health.unreachable(clock.now(), "refused");
  CHECK_FALSE(health.flush(clock.now()));
  CHECK(health.health() == Health::down);
}

TEST_CASE("an outage goes on over a restart of ours, and its end is an end of an outage") {
  test::FakeClock clock;
  HealthTracker before;
  before.unreachable(clock.now(), "refused");
  HealthTracker after;
  after.inherit(before.health(), before.since(), before.reason(), before.on_trial(), before.downtime());
  clock.advance(48h);
  CHECK(after.reachable(clock.now()));
  CHECK_FALSE(after.refusals_count());
  CHECK(after.downtime().within(clock.now() - 100h, clock.now()) == 48h);
}

TEST_CASE("an outage that is remembered without its span has begun when it was noticed") {
  test::FakeClock clock;
  const Health health = GENERATE(Health::down, Health::suspect);
  HealthTracker after;
  after.inherit(health, clock.now() - 2h, "refused", false, {});
  clock.advance(1h);
  CHECK((health == Health::down ? after.reachable(clock.now()) : after.delivered(next_id(), clock.now())));
  CHECK(after.downtime().spans() == Downtime::Spans{{clock.now() - 3h, clock.now()}});
}

TEST_CASE("what is known from two sides adds up, the worse health wins, and saying it twice changes nothing") {
  test::FakeClock clock;
  const WallTime start = clock.now();
  Downtime first, second;
  first.begin(start - 20h);
  first.end(start - 10h);
  second.begin(start - 15h);
  second.end(start - 5h);
  HealthTracker health;
  health.inherit(Health::up, start - 10h, "", false, first);
  CHECK(health.refusals_count());
  for (int i = 0; i < 2; ++i) {
    health.inherit(Health::up, start - 5h, "", true, second);
    CHECK(health.on_trial());
    CHECK(health.downtime().spans() == Downtime::Spans{{start - 20h, start - 5h}});
  }
  second.begin(start);
  health.inherit(Health::down, start, "refused", false, second);
  CHECK(health.health() == Health::down);
  CHECK(health.since() == start);
  health.inherit(Health::up, start, "", false, first);
  CHECK(health.health() == Health::down);
  clock.advance(1h);
  CHECK(health.reachable(clock.now()));
  CHECK(health.downtime().within(start - 100h, clock.now()) == 16h);
}

TEST_CASE("downtime is counted where it overlaps") {
  test::FakeClock clock;
  const WallTime start = clock.now();
  Downtime downtime;
  downtime.begin(start + 10h);
  downtime.end(start + 20h);
  downtime.begin(start + 30h);
  CHECK(downtime.within(start, start + 5h) == 0h);
  CHECK(downtime.within(start, start + 15h) == 5h);
  CHECK(downtime.within(start + 12h, start + 18h) == 6h);
  CHECK(downtime.within(start, start + 40h) == 20h);
  downtime.begin(start + 35h);  // already open
  CHECK(downtime.within(start, start + 40h) == 20h);
  downtime.forget_before(start + 25h);
  CHECK(downtime.within(start, start + 40h) == 10h);
}

TEST_CASE("a primary that flaps for ever costs bounded memory and never shortens a lifetime") {
  test::FakeClock clock;
  const WallTime start = clock.now();
  Downtime downtime;
  for (int i = 0; i < 5000; ++i) {
    downtime.begin(start + i * 10min);
    downtime.end(start + i * 10min + 1min);
  }
  CHECK(downtime.spans().size() <= 1000);
  CHECK(downtime.within(start, start + 50000min) >= 5000min);
}

TEST_CASE("two weeks of outage: nothing expires, and the lifetime goes on where it stood") {
  test::FakeClock clock;
  const config::Queue rules;  // 14 days, at most 30
  HealthTracker health;
  const WallTime arrival = clock.now();
  clock.advance(24h);
  health.unreachable(clock.now(), "connect: Network is unreachable");
  for (int day = 0; day < 14; ++day) {
    clock.advance(24h);
    CHECK(expires_at(arrival, clock.now(), &health.downtime(), rules) > clock.now());
  }
  CHECK(health.reachable(clock.now()));
  const WallTime end = expires_at(arrival, clock.now(), &health.downtime(), rules);
  CHECK(end == arrival + 28 * 24h);
  clock.advance(5 * 24h);  // the primary is up and refuses softly: now it counts
  CHECK(expires_at(arrival, clock.now(), &health.downtime(), rules) == end);

  config::Queue counting = rules;
  counting.count_downtime = true;
  CHECK(expires_at(arrival, clock.now(), &health.downtime(), counting) == arrival + 14 * 24h);
  config::Queue strict = rules;
  strict.lifetime_max = 20 * 24h;
  CHECK(expires_at(arrival, clock.now(), &health.downtime(), strict) == arrival + 20 * 24h);
  CHECK(expires_at(arrival, clock.now(), nullptr, rules) == arrival + 14 * 24h);
}

TEST_CASE("the drain starts slowly and doubles with every clean second") {
  test::FakeClock clock;
  Drain drain(2, 20);
  drain.restart(clock.steady());
  std::vector<unsigned> limits;
  for (int i = 0; i < 6; ++i) {
    for (int k = 0; k < 100; ++k) {
      drain.taken(clock.steady());
      clock.advance(10ms);
    }
    drain.taken(clock.steady());
    limits.push_back(drain.limit());
  }
  CHECK(limits == std::vector<unsigned>{4, 8, 16, 20, 20, 20});
}

TEST_CASE("trouble halves the drain, once a second, never below one") {
  test::FakeClock clock;
  Drain drain(16, 20);
  for (int i = 0; i < 16; ++i) drain.trouble(clock.steady());  // all connections at once
  CHECK(drain.limit() == 8);
  for (int i = 0; i < 10; ++i) {
    clock.advance(1s);
    drain.trouble(clock.steady());
  }
  CHECK(drain.limit() == 1);
  clock.advance(1s);
  drain.taken(clock.steady());
  CHECK(drain.limit() == 2);
}

TEST_CASE("a storm of 4yz halves the drain, a few do not") {
  test::FakeClock clock;
  Drain few(8, 20);
  for (int i = 0; i < 100; ++i) {
    few.taken(clock.steady());
    if (i % 4 == 0) few.deferred(clock.steady());
  }
  CHECK(few.limit() >= 8);
  Drain storm(8, 20);
  storm.restart(clock.steady());
  for (int i = 0; i < 10; ++i) storm.deferred(clock.steady());
  CHECK(storm.limit() == 4);
}

TEST_CASE("a second in which most was deferred is not clean") {
  test::FakeClock clock;
  Drain drain(4, 20);
  drain.restart(clock.steady());
  for (int i = 0; i < 5; ++i) drain.deferred(clock.steady());
  drain.taken(clock.steady());
  clock.advance(1s);
  drain.taken(clock.steady());
  CHECK(drain.limit() == 4);
}

}  // namespace
}  // namespace greymx::relay

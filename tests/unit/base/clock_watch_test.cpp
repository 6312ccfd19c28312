#include "base/clock_watch.hpp"

#include "support/catch.hpp"
#include "support/fake_clock.hpp"

using namespace greymx;
using namespace std::chrono_literals;

TEST_CASE("a clock has settled an hour after the start") {
  test::FakeClock clock;
  ClockWatch watch(clock);
  CHECK_FALSE(watch.settled(24h));
  clock.advance(1h - 1s);
  CHECK_FALSE(watch.settled(24h));
  clock.advance(1s);
  CHECK(watch.settled(24h));
  CHECK(watch.step() == 0s);
}

TEST_CASE("what lives for less than an hour waits no longer than that") {
  test::FakeClock clock;
  ClockWatch watch(clock);
  clock.advance(2min);
  CHECK_FALSE(watch.settled(3min));
  CHECK(watch.settled(2min));
}

TEST_CASE("a step of the wall clock, either way, begins the hour anew") {
  test::FakeClock clock;
  ClockWatch watch(clock);
  for (const std::chrono::seconds step : {std::chrono::seconds(24h * 40), -std::chrono::seconds(24h * 40), 61s, -61s}) {
    clock.advance(1h);
    CHECK(watch.settled(24h));
    clock.set(clock.now() + step);
    CHECK_FALSE(watch.settled(24h));
    CHECK(watch.step() == step);
    CHECK(watch.step() == 0s);
    clock.advance(59min);
    CHECK_FALSE(watch.settled(24h));
  }
}

TEST_CASE("a clock that is put right by a little has not stepped") {
  test::FakeClock clock;
  ClockWatch watch(clock);
  for (int i = 0; i < 100; ++i) {
    clock.advance(10min);
    clock.set(clock.now() + 30s);
    CHECK(watch.step() == 0s);
  }
  CHECK(watch.settled(24h));
}

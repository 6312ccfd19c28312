// IDs, clocks, replies, errors, and the bounded containers.
#include <cerrno>
#include <ctime>
#include <thread>

#include "base/bounded.hpp"
#include "base/clock.hpp"
#include "base/mail.hpp"
#include "base/result.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"

using namespace greymx;
using namespace std::chrono_literals;

TEST_CASE("queue IDs survive their text form") {
  for (const std::uint64_t value : {0ULL, 1ULL, 51ULL, 52ULL, 0x1234567890abcdefULL, ~0ULL}) {
    const std::string text = QueueId{value}.to_string();
    CHECK(text.size() == 12);
    CHECK(QueueId::parse(text) == QueueId{value});
    CHECK(text.find_first_of("AEIOUaeiou") == std::string::npos);
  }
}

TEST_CASE("the order of queue IDs is the order of their text and of time") {
  const test::FakeClock clock;
  QueueIdSource source;
  QueueId last = source.next(clock.now());
  for (int i = 1; i < 10000; ++i) {
    const QueueId next = source.next(clock.now() + std::chrono::microseconds(i / 3));
    CHECK(next > last);
    CHECK(next.to_string() > last.to_string());
    last = next;
  }
}

TEST_CASE("a queue ID tells when it was made") {
  const test::FakeClock clock;
  QueueIdSource source;
  CHECK(source.next(clock.now()).time() == clock.now());
}

TEST_CASE("queue IDs grow although the clock goes back, and after recovery") {
  const test::FakeClock clock;
  QueueIdSource source;
  const QueueId first = source.next(clock.now());
  CHECK(source.next(clock.now() - 1h) > first);
  QueueIdSource restarted;
  restarted.seen(first);
  restarted.seen(QueueId{1});
  CHECK(restarted.next(clock.now() - 1h) > first);
}

TEST_CASE("queue IDs are unique over threads") {
  const test::FakeClock clock;
  QueueIdSource source;
  std::vector<QueueId> ids[2];
  const auto take = [&](std::vector<QueueId>& into) {
    for (int i = 0; i < 20000; ++i) into.push_back(source.next(clock.now()));
  };
  std::thread other(take, std::ref(ids[0]));
  take(ids[1]);
  other.join();
  ids[0].insert(ids[0].end(), ids[1].begin(), ids[1].end());
  std::sort(ids[0].begin(), ids[0].end());
  CHECK(std::adjacent_find(ids[0].begin(), ids[0].end()) == ids[0].end());
}

TEST_CASE("what is no queue ID is refused") {
  for (const char* text : {"", "0", "00000000000", "0000000000000", "00000000000A", "00000000000a", "zzzzzzzzzzzz",
                           "0000000 0000", "ALL"}) {
    INFO(text);
    CHECK_FALSE(QueueId::parse(text));
  }
}

TEST_CASE("dates have the forms of RFC 5322, ISO 8601 and mailq") {
  struct Zone {
    explicit Zone(const char* name) {
      ::setenv("TZ", name, 1);
      ::tzset();
    }
    ~Zone() {
      ::unsetenv("TZ");
      ::tzset();
    }
  };
  const WallTime time = test::FakeClock().now() + 123456us;
  {
    const Zone utc("UTC0");
    CHECK(rfc5322_date(time) == "Mon, 23 Nov 2026 16:01:03 +0000");
    CHECK(iso8601(time) == "2026-11-23T16:01:03.123456+00:00");
    CHECK(mailq_time(time) == "Mon Nov 23 16:01:03");
    CHECK(mailq_time(time - 20 * 24h) == "Tue Nov  3 16:01:03");
  }
  const Zone west("NST3:30");
  CHECK(rfc5322_date(time) == "Mon, 23 Nov 2026 12:31:03 -0330");
  CHECK(iso8601(time) == "2026-11-23T12:31:03.123456-03:30");
}

TEST_CASE("durations for people show their two largest units") {
  const std::pair<std::chrono::seconds, const char*> rows[] = {
      {0s, "0s"},    {59s, "59s"},    {300s, "5m"},         {90min, "1h30m"},      {48h, "2d"},
      {336h, "14d"}, {3661s, "1h1m"}, {86400s + 61s, "1d"}, {26h + 59min, "1d2h"}, {-5s, "0s"},
  };
  for (const auto& [duration, text] : rows) CHECK(human_duration(duration) == text);
}

TEST_CASE("the system clock moves") {
  const SystemClock clock;
  CHECK(clock.now() > test::FakeClock(WallTime(std::chrono::seconds(1700000000))).now());
  const SteadyTime before = clock.steady();
  while (clock.steady() == before) {
  }
  CHECK(clock.steady() > before);
}

TEST_CASE("replies and clients print as on the wire and in logs") {
  CHECK(Reply{554, "5.7.1", "denied"}.to_string() == "554 5.7.1 denied");
  CHECK(Reply{250, "", "mx2.example.net"}.to_string() == "250 mx2.example.net");
  Client client;
  client.address = *IpAddress::parse("192.0.2.1");
  CHECK(client.to_string() == "unknown[192.0.2.1]");
}

TEST_CASE("system errors have the kind that decides what is done about them") {
  CHECK(fail_errno(ENOSPC, "write x").error().kind == ErrorKind::no_space);
  CHECK(fail_errno(EDQUOT, "write x").error().kind == ErrorKind::no_space);
  CHECK(fail_errno(ENOENT, "open x").error().kind == ErrorKind::not_found);
  CHECK(fail_errno(EIO, "write x").error().kind == ErrorKind::temporary);
  CHECK(fail_errno(ENOENT, "open x").error().text == "open x: No such file or directory");
}

TEST_CASE("an LruMap forgets the least recently used") {
  LruMap<std::string, int> map(2);
  map.insert("a", 1);
  map.insert("b", 2);
  CHECK(*map.find("a") == 1);  // now b is the oldest
  map.insert("c", 3);
  CHECK(map.find("b") == nullptr);
  CHECK(*map.find("a") == 1);
  CHECK(*map.find("c") == 3);
  map.insert("a", 4);
  CHECK(map.size() == 2);
  CHECK(*map.find("a") == 4);
  CHECK(map.erase("a"));
  CHECK_FALSE(map.erase("a"));
  map.clear();
  CHECK(map.size() == 0);
}

TEST_CASE("a token bucket saves up its rate and no more") {
  test::FakeClock clock;
  TokenBucket bucket(3, 60s, clock.steady());
  for (int i = 0; i < 3; ++i) CHECK(bucket.take(clock.steady()));
  CHECK_FALSE(bucket.take(clock.steady()));
  clock.advance(20s);
  CHECK(bucket.take(clock.steady()));
  CHECK_FALSE(bucket.take(clock.steady()));
  clock.advance(24h);
  CHECK_FALSE(bucket.take(clock.steady(), 4));
  CHECK(bucket.take(clock.steady(), 3));
}

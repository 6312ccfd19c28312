#include "greylist/decide.hpp"

#include <map>
#include <random>

#include "greylist/triplet.hpp"
#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::greylist;

namespace {

constexpr Stamp t0 = 1800000000;
const std::string key = "192.0.2.0/bob@ex.com/user+ext@dom.org";

// The records of one client and its triplets, driven through decide() as a store would.
struct World {
  std::map<std::string, Record> records;
  Rules rules;
  IpAddress client = *IpAddress::parse("192.0.2.77");

  Outcome at(Stamp now, std::vector<std::string> keys = {key}) {
    Question question{.keys = std::move(keys),
                      .client_key = client_key(client),
                      .hashed_key = {},
                      .hashed_client_key = {},
                      .client = client,
                      .now = now,
                      .rules = rules};
    Found found;
    const auto find = [&](const std::string& k) {
      return records.contains(k) ? std::optional(records[k]) : std::nullopt;
    };
    for (const auto& k : question.keys) found.triplets.push_back({find(k)});
    found.client.record = find(question.client_key);
    const Outcome outcome = decide(question, found);
    for (std::size_t i = 0; i < found.triplets.size(); ++i) {
      if (found.triplets[i].write) records[question.keys[i]] = *found.triplets[i].record;
    }
    if (found.client.write) records[question.client_key] = *found.client.record;
    return outcome;
  }
  Record awl() { return records.at(client_key(client)); }
};

}  // namespace

TEST_CASE("a new triplet waits its delay, then passes") {
  World world;
  Outcome outcome = world.at(t0);
  CHECK_FALSE(outcome.pass());
  CHECK(outcome.reason == Reason::fresh);
  CHECK(outcome.missing == 300);

  outcome = world.at(t0 + 100);
  CHECK(outcome.reason == Reason::early_retry);
  CHECK(outcome.missing == 200);
  CHECK(outcome.second_try);

  CHECK_FALSE(world.at(t0 + 299).pass());
  outcome = world.at(t0 + 300);
  CHECK(outcome.pass());
  CHECK(outcome.first_pass);
  CHECK(outcome.waited == 300);
  CHECK_FALSE(outcome.second_try);

  outcome = world.at(t0 + 301);
  CHECK(outcome.pass());
  CHECK(outcome.reason == Reason::known);
  CHECK_FALSE(outcome.first_pass);
  CHECK(world.records.at(key).first == t0);
  CHECK(world.records.at(key).retry_after == 100);
  CHECK(world.awl().passes == 1);
  CHECK(world.awl().last == t0 + 300);
}

TEST_CASE("a second try in the same second is still new") {
  World world;
  world.at(t0);
  CHECK(world.at(t0).reason == Reason::fresh);
}

TEST_CASE("the retry window counts from the first try and includes its last second") {
  World world;
  world.at(t0);
  CHECK(World(world).at(t0 + 172800).pass());
  const Outcome outcome = world.at(t0 + 172801);
  CHECK_FALSE(outcome.pass());
  CHECK(outcome.reason == Reason::fresh);
  CHECK(world.records.at(key).first == t0 + 172801);
}

TEST_CASE("five triplets that pass in different hours whitelist their client") {
  World world;
  for (int i = 0; i < 5; ++i) {
    const std::vector<std::string> keys{"192.0.2.0/s" + std::to_string(i) + "@x/r@y"};
    world.at(t0 + i * 4000, keys);
    const Outcome outcome = world.at(t0 + i * 4000 + 300, keys);
    CHECK(outcome.whitelisted_now == (i == 4));
  }
  CHECK(world.at(t0 + 30000, {"192.0.2.0/new@x/r@y"}).reason == Reason::client);
  CHECK_FALSE(world.records.contains("192.0.2.0/new@x/r@y"));  // no triplet is written for it
  CHECK(world.awl().passes == 6);
  world.at(t0 + 30001, {"192.0.2.0/new2@x/r@y"});
  CHECK(world.awl().passes == 6);  // refreshed hourly at most

  World neighbour = world;
  neighbour.client = *IpAddress::parse("192.0.2.78");
  CHECK_FALSE(neighbour.at(t0 + 30000, {"192.0.2.0/new@x/r@y"}).pass());
  CHECK_FALSE(world.at(t0 + 30000 + 36 * 86400, {"192.0.2.0/new@x/r@y"}).pass());  // max_age, looked at here
  World off = world;
  off.rules.auto_whitelist = 0;
  CHECK_FALSE(off.at(t0 + 30000, {"192.0.2.0/new@x/r@y"}).pass());
}

TEST_CASE("passes count towards whitelisting once an hour and once a triplet") {
  World world;
  for (int i = 0; i < 3; ++i) {
    const std::vector<std::string> keys{"192.0.2.0/s" + std::to_string(i) + "@x/r@y"};
    world.at(t0 + i, keys);
    world.at(t0 + i + 1000, keys);
  }
  CHECK(world.awl().passes == 1);
  World one;
  one.at(t0);
  for (int i = 1; i < 10; ++i) one.at(t0 + i * 5000);
  CHECK(one.awl().passes == 1);
}

TEST_CASE("a first contact in the future is corrected") {
  World world;
  world.records[key] = {.first = t0 + 5000, .last = t0 + 5000};
  const Outcome outcome = world.at(t0);
  CHECK_FALSE(outcome.pass());
  CHECK(outcome.clock_corrected);
  CHECK(world.records.at(key).first == t0);
  CHECK(world.records.at(key).last == t0);
}

TEST_CASE("a clock that steps back never adds to a wait already served, nor takes a pass away") {
  World world;
  world.at(t0);
  world.at(t0 + 200);
  CHECK(world.at(t0 - 86400).missing == 100);
  CHECK(world.at(t0 - 86400 + 100).pass());
  CHECK(world.at(t0 - 10 * 86400).pass());
  CHECK(world.at(t0 + 20 * 86400).pass());
  CHECK(world.at(t0 - 10 * 86400).pass());
  CHECK(world.at(t0 + 40 * 86400).pass());  // not 50 days after its last use, but 20
}

TEST_CASE("a passed record lives max_age from its last use") {
  World world;
  world.at(t0);
  world.at(t0 + 300);
  CHECK(World(world).at(t0 + 300 + 35 * 86400).pass());
  CHECK_FALSE(world.at(t0 + 300 + 35 * 86400 + 1).pass());
  CHECK(world.records.at(key).first == t0 + 300 + 35 * 86400 + 1);
}

TEST_CASE("what passed stays passed when the delay grows") {
  World world;
  world.at(t0);
  world.at(t0 + 300);
  world.rules.delay = 3600;
  CHECK(world.at(t0 + 400).pass());
}

TEST_CASE("the last use of a passed record is rewritten once a minute at most") {
  World world;
  world.at(t0);
  world.at(t0 + 300);
  world.at(t0 + 359);
  CHECK(world.records.at(key).last == t0 + 300);
  world.at(t0 + 360);
  CHECK(world.records.at(key).last == t0 + 360);
}

TEST_CASE("with delay 0 everything passes at once and is counted") {
  World world;
  world.rules.delay = 0;
  const Outcome outcome = world.at(t0);
  CHECK(outcome.pass());
  CHECK(outcome.first_pass);
  CHECK(outcome.waited == 0);
  CHECK(world.awl().passes == 1);
}

TEST_CASE("a retry from another address of the pool passes") {
  const std::string pool = "spf/ex.com/bob@ex.com/user@dom.org";
  World world;
  world.at(t0, {"192.0.2.0/bob@ex.com/user@dom.org", pool});
  world.client = *IpAddress::parse("198.51.100.7");
  const std::vector<std::string> keys{"198.51.100.0/bob@ex.com/user@dom.org", pool};
  CHECK_FALSE(World(world).at(t0 + 299, keys).pass());
  const Outcome outcome = world.at(t0 + 300, keys);
  CHECK(outcome.first_pass);
  CHECK(outcome.waited == 300);
  CHECK(world.records.at(keys[0]).passed);
  CHECK(world.records.at(pool).passed);
  world.client = *IpAddress::parse("203.0.113.7");
  CHECK(world.at(t0 + 400, {"203.0.113.0/bob@ex.com/user@dom.org", pool}).reason == Reason::known);
  CHECK_FALSE(world.at(t0 + 400, {"203.0.113.0/bob@ex.com/user@dom.org"}).pass());  // without the pool key a stranger
}

TEST_CASE("a pool key tried from more than 32 networks without a pass is not believed") {
  const std::string pool = "ptr/ex.com/bob@ex.com/user@dom.org";
  World world;
  for (std::uint32_t i = 0; i < 34; ++i) {
    world.client = IpAddress::v4(0x0a000001 + (i << 8));
    world.at(t0 + i, {client_key(world.client), pool});
  }
  world.client = *IpAddress::parse("192.0.2.1");
  CHECK_FALSE(world.at(t0 + 400, {key, pool}).pass());
  CHECK(world.at(t0 + 700, {key, pool}).pass());  // its own network's wait counts as ever
}

TEST_CASE("whatever happens, a stranger waits at least the delay and at most the delay after its first try") {
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    World world;
    world.rules.auto_whitelist = 0;
    Stamp now = t0;
    Stamp first = now;
    bool passed = false;
    world.at(now);
    for (int step = 0; step < 30; ++step) {
      now += static_cast<Stamp>(random() % 250);
      const Outcome outcome = world.at(now);
      if (!passed) CHECK(outcome.pass() == (now - first >= 300));
      if (passed) CHECK(outcome.pass());
      passed = outcome.pass();
    }
  }
}

TEST_CASE("two accounts of one triplet merge into the earlier first and later last") {
  const Rules rules;
  const Record a{.passed = true, .tries = 2, .passes = 3, .first = t0, .last = t0 + 400, .passed_at = t0 + 300};
  const Record b{.tries = 1, .first = t0 - 50, .last = t0 + 500};
  const Record merged = merge(a, b, rules);
  CHECK(merged == merge(b, a, rules));
  CHECK(merged.passed);
  CHECK(merged.first == t0 - 50);
  CHECK(merged.last == t0 + 500);
  CHECK(merged.passed_at == t0 + 300);
  const Record old{.first = t0 - 200000, .last = t0 - 200000};
  CHECK(merge(old, Record{.first = t0, .last = t0}, rules).first == t0);  // another wait, long over
}

TEST_CASE("a record survives its stored form, and one flipped bit makes it none") {
  Record record{.passed = true,
                .imported = true,
                .networks = 7,
                .tries = 8,
                .passes = 9,
                .first = t0,
                .last = t0 + 1,
                .passed_at = t0 + 2,
                .retry_after = 10,
                .client = *IpAddress::parse("2001:db8::1"),
                .note = "why"};
  const std::string bytes = encode(key, record);
  CHECK(decode(key, bytes) == record);
  CHECK(bytes.size() <= 64 + record.note.size());
  CHECK_FALSE(decode(key + "x", bytes));
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ 1 << bit % 8);
    CHECK_FALSE(decode(key, damaged));
  }
  for (std::size_t size = 0; size < bytes.size(); ++size) CHECK_FALSE(decode(key, bytes.substr(0, size)));
  record.note = std::string(1000, 'x');
  CHECK(decode(key, encode(key, record))->note.size() == max_note);
  record = {.client = *IpAddress::parse("192.0.2.1")};
  CHECK(decode(key, encode(key, record)) == record);
}

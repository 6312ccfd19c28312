// Little room: what is refused, and what must go on all the same.
#include <algorithm>
#include <random>

#include "fixture.hpp"

using namespace greymx;
using namespace greymx::test;

namespace {

std::vector<std::string> names_ending(MemoryFiles& files, const std::string& directory, std::string_view suffix) {
  std::vector<std::string> names = files.list(directory).value_or(std::vector<std::string>());
  std::erase_if(names, [&](const std::string& name) { return !name.ends_with(suffix); });
  return names;
}

// A disk of so many segments, full of mail as far as limits.min_free_space (four of them) lets it.
std::vector<QueueId> fill(TestSpool& t, std::uint64_t segments) {
  t.settings.segment_size = 256 * 1024;
  t.settings.min_free_space = 4 * t.settings.segment_size;
  t.files->set_capacity(segments * t.settings.segment_size);
  REQUIRE(t.open().has_value());
  std::vector<QueueId> queued;
  for (t.tidy(); t.spool->has_room(4000); t.spool->maintain()) {
    queued.push_back(t.must_accept({"user@example.com"}, std::string(3700, 'x')));
    t.clock.advance(1ms);
  }
  return queued;
}

RecipientState held() {
  RecipientState state;
  state.status = RecipientStatus::held;
  state.reason = "no report: sender not verified; host mx1.example.com[192.0.2.1] said: 550 5.7.1 spam";
  return state;
}

std::uint64_t segments_used(const TestSpool& t) {
  return t.spool->totals().disk_bytes / t.settings.segment_size;
}

}  // namespace

TEST_CASE("however long mail goes on coming when no segment can be had, changes and ends have their room") {
  const std::uint64_t more = GENERATE(0U, 13000U, 26000U, 39000U, 52000U);
  TestSpool t;
  t.settings.segment_size = 64 * 1024;
  t.settings.min_free_space = 0;
  t.files->set_capacity((1 << 20) + more);
  REQUIRE(t.open().has_value());
  std::vector<QueueId> queued;
  int refused = 0;
  for (int i = 0; i < 500; ++i) {
    t.spool->maintain();
    const auto id = t.accept(envelope_to({"user@example.com"}), std::string(3000, 'x'));
    if (id) queued.push_back(*id);
    if (id) continue;
    CHECK(id.error().kind == ErrorKind::no_space);
    ++refused;
  }
  CHECK(refused > 200);
  CHECK(t.spool->totals().problem.empty());
  for (std::size_t i = 0; i < queued.size(); ++i) {
    t.finish(queued[i]);
    if (i % 32 == 0) t.sync();
  }
  t.sync();
  t.tidy();
  CHECK(t.spool->totals().problem.empty());
  const QueueId again = t.must_accept();
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->ids({}, 1000) == std::vector<QueueId>{again});
}

TEST_CASE("a full disk drains and gives room back, though in each segment some mail stays and each change is alone") {
  const std::size_t one_stays_of = GENERATE(100U, 20U, 5U);
  const bool oldest_first = GENERATE(true, false);
  TestSpool t;
  std::vector<QueueId> queued = fill(t, 40);
  REQUIRE(queued.size() > 900);
  if (!oldest_first) std::ranges::shuffle(queued, std::minstd_rand(1));
  std::size_t stay = 0;
  for (std::size_t i = 0; i < queued.size(); ++i) {
    const bool stays = i % one_stays_of == 0;
    stay += stays ? 1 : 0;
    t.spool->update(queued[i], {{0, stays ? held() : done()}});
    t.spool->commit();
    t.tidy();
    REQUIRE_FALSE(t.spool->totals().problem.starts_with("the spool cannot be written"));
  }
  CHECK_FALSE(t.spool->maintain());
  CHECK(t.spool->totals().messages == stay);
  CHECK(t.spool->totals().accepting);
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->totals().messages == stay);
  CHECK(t.spool->totals().held == stay);
}

TEST_CASE("a few held messages do not occupy a small disk") {
  TestSpool t;
  const std::vector<QueueId> queued = fill(t, 16);
  for (std::size_t i = 0; i < queued.size(); ++i) {
    t.spool->update(queued[i], {{0, i % 8 == 0 ? held() : done()}});
  }
  t.sync();
  t.tidy();
  CHECK_FALSE(t.spool->maintain());
  CHECK(t.spool->totals().accepting);
  CHECK(segments_used(t) <= 8);
  const std::uint64_t writes = t.files->count("write");
  t.tidy();
  CHECK(t.files->count("write") == writes);
}

TEST_CASE("limits can be changed while the spool runs") {
  TestSpool t;
  t.settings.large_message = 1 << 20;
  t.files->set_capacity(10 << 20);
  REQUIRE(t.open().has_value());
  t.tidy();
  const std::uint64_t free = *t.files->free_bytes("/spool");
  CHECK(t.spool->has_room(free - (1 << 20)));
  t.spool->limit(2 << 20, 5000);
  CHECK_FALSE(t.spool->has_room(free - (2 << 20) + 1));
  CHECK(t.spool->has_room(free - (2 << 20)));
  const auto incoming = t.spool->begin();
  REQUIRE(t.wait(incoming->write(std::vector<char>(4000, 'x'))));
  CHECK(t.files->list("/spool/large")->empty());
  REQUIRE(t.wait(incoming->write(std::vector<char>(4000, 'x'))));
  CHECK(t.files->list("/spool/large")->size() == 1);
}

TEST_CASE("of little space there is an alert before mail is refused and another then, each once until it is over") {
  TestSpool t;
  t.settings.min_free_space = 8 << 20;
  REQUIRE(t.open().has_value());
  t.tidy();
  const std::uint64_t used = (1ULL << 40) - *t.files->free_bytes("/spool");
  const auto alerts_with = [&](std::uint64_t mebibytes) {
    t.files->set_capacity(used + (mebibytes << 20));
    t.spool->maintain();
    return t.alerts.raised().size();
  };
  CHECK(alerts_with(16) == 0);
  CHECK(alerts_with(12) == 0);
  CHECK(alerts_with(11) == 1);
  CHECK(t.alerts.raised().back().first == "space for the queue is low");
  CHECK(t.alerts.contains("11 MiB are free in /spool, limits.min_free_space is 8 MiB"));
  CHECK(alerts_with(13) == 1);
  CHECK(alerts_with(9) == 1);
  CHECK(t.spool->totals().accepting);
  CHECK(alerts_with(7) == 2);
  CHECK(t.alerts.raised().back().first == "no space for the queue");
  CHECK_FALSE(t.spool->totals().accepting);
  CHECK(alerts_with(9) == 2);
  CHECK(alerts_with(7) == 2);
  CHECK(alerts_with(13) == 2);
  CHECK(alerts_with(7) == 3);
  CHECK_FALSE(t.log.contains("there is space for the queue again"));
  CHECK(alerts_with(17) == 3);
  CHECK(t.log.contains("there is space for the queue again: 17 MiB"));
  CHECK(alerts_with(7) == 4);
  CHECK(t.alerts.raised().back().first == "no space for the queue");
}

TEST_CASE("damage that cannot be copied to corrupt/ does not keep the spool from opening, and stays where it is") {
  TestSpool t;
  REQUIRE(t.open().has_value());
  const QueueId first = t.must_accept({"user@example.com"}, "first message");
  t.must_accept({"user@example.com"}, "second message");
  const QueueId third = t.must_accept({"user@example.com"}, "third message");
  const std::string name = t.logs().back();
  t.crash();
  std::string bytes = *t.files->content("/spool/" + name);
  bytes[bytes.find("second message")] ^= 1;
  t.files->put("/spool/" + name, bytes);
  const std::uint64_t capacity = 1ULL << 40;
  t.files->set_capacity(capacity - *t.files->free_bytes("/spool"));
  REQUIRE(t.open().has_value());
  CHECK(t.alerts.contains("the spool is damaged"));
  CHECK(t.spool->ids({}, 10) == std::vector<QueueId>{first, third});
  CHECK(t.content(third) == "third message");
  t.files->set_capacity(capacity);
  t.finish(first);
  t.finish(third);
  t.sync();
  t.tidy();
  CHECK(t.files->content("/spool/" + name) == bytes);
  t.clean_restart();
  CHECK(t.spool->totals().messages == 0);
  CHECK(names_ending(*t.files, "/spool/corrupt", "").size() == 1);
  t.tidy();
  CHECK_FALSE(t.files->content("/spool/" + name));
}

// Little room: what is refused, and what must go on all the same.
#include "fixture.hpp"

using namespace greymx;
using namespace greymx::test;

namespace {

std::vector<std::string> names_ending(MemoryFiles& files, const std::string& directory, std::string_view suffix) {
  std::vector<std::string> names = files.list(directory).value_or(std::vector<std::string>());
  std::erase_if(names, [&](const std::string& name) { return !name.ends_with(suffix); });
  return names;
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

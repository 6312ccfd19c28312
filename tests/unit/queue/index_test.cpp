#include "queue/index.hpp"

#include "fixture.hpp"

using namespace greymx;
using namespace greymx::test;

namespace {

const WallTime now(1795449663s);

struct TestIndex : Index {
  QueueId put(std::uint64_t n, const std::vector<std::string>& recipients, WallTime due = now,
              std::uint64_t size = 10) {
    StoredMessage message;
    message.size = size;
    message.envelope = envelope_to(recipients);
    message.state.recipients.resize(recipients.size());
    for (RecipientState& recipient : message.state.recipients) recipient.next_attempt = due;
    const QueueId id{n << 12};
    add(make_entry(id, message), {}, now);
    return id;
  }
  void change(QueueId id, std::size_t recipient, const RecipientState& state) {
    edit(id, Edit{{{recipient, state}}, {}, {}, {}}, now);
  }
  std::optional<QueueId> oldest(const std::string& domain, WallTime when = now) {
    return take(domain, when, Pick::oldest);
  }
};

// Closed ones, 1 to `count`.
struct Segments {
  explicit Segments(std::uint32_t count) {
    for (std::uint32_t number = 1; number <= count; ++number) {
      table.add(std::make_shared<Segment>(files, "/spool", SegmentHeader{number, 0, {}}, nullptr, 65536), false);
    }
  }
  MemoryFiles files;
  SegmentTable table;
};

}  // namespace

TEST_CASE("take gives the oldest or the newest that is due, each once until it is released") {
  TestIndex index;
  const QueueId second = index.put(2, {"a@example.com"});
  const QueueId first = index.put(1, {"a@example.com"});
  const QueueId third = index.put(3, {"a@example.com"});
  CHECK(index.take("example.com", now, Pick::newest) == third);
  CHECK(index.oldest("example.com") == first);
  CHECK(index.oldest("example.com") == second);
  CHECK_FALSE(index.oldest("example.com"));
  index.release(second, "example.com", now);
  CHECK(index.oldest("example.com") == second);
  CHECK_FALSE(index.oldest("example.net"));
}

TEST_CASE("what is not due waits") {
  TestIndex index;
  const QueueId waiting = index.put(1, {"a@example.com"}, now + 1h);
  const QueueId due = index.put(2, {"a@example.com"});
  const QueueId later = index.put(3, {"a@example.com"}, now + 30min);
  CHECK(index.oldest("example.com") == due);
  CHECK_FALSE(index.oldest("example.com"));
  CHECK(index.oldest("example.com", now + 30min) == later);
  CHECK(index.oldest("example.com", now + 1h) == waiting);
}

TEST_CASE("of very many that become due at once, some are moved with each that is taken, until none is left") {
  TestIndex index;
  constexpr std::uint64_t all = 5000;
  QueueId last;
  for (std::uint64_t n = 1; n <= all; ++n) last = index.put(n, {"a@example.com"}, now + 1h);
  CHECK(index.take("example.com", now + 1h, Pick::newest) < last);
  CHECK(index.domains().at(0).next_due == now + 1h);
  std::uint64_t taken = 1;
  while (index.oldest("example.com", now + 1h)) ++taken;
  CHECK(taken == all);
}

TEST_CASE("a deferred message goes back to waiting for its own time") {
  TestIndex index;
  const QueueId id = index.put(1, {"a@example.com"});
  CHECK(index.oldest("example.com") == id);
  index.change(id, 0, deferred(now + 1min));
  CHECK_FALSE(index.oldest("example.com"));
  index.release(id, "example.com", now);
  CHECK_FALSE(index.oldest("example.com"));
  CHECK(index.oldest("example.com", now + 1min) == id);
}

TEST_CASE("a message in two domains is taken in each, and open until its last recipient is done") {
  TestIndex index;
  const QueueId id = index.put(1, {"a@example.com", "b@example.net", "c@EXAMPLE.com"});
  CHECK(index.oldest("example.com") == id);
  CHECK(index.oldest("example.net") == id);
  index.change(id, 1, done());
  CHECK(index.domains(id) == std::vector<std::string>{"example.com"});
  index.release(id, "example.net", now);
  CHECK_FALSE(index.oldest("example.net"));
  index.change(id, 0, done());
  CHECK_FALSE(index.finished(id));
  index.change(id, 2, done());
  CHECK(index.finished(id));
  CHECK(index.domains(id).empty());
}

TEST_CASE("what is held is not taken, but can be claimed; release_hold makes it due") {
  TestIndex index;
  const QueueId id = index.put(1, {"a@example.com"});
  index.edit(id, Edit{{}, "by hand", {}, {}}, now);
  CHECK_FALSE(index.take("example.com", now, Pick::oldest));
  CHECK(index.claim(id, "example.com", now));
  CHECK_FALSE(index.claim(id, "example.com", now));
  CHECK_FALSE(index.claim(id, "example.net", now));
  CHECK(index.active(id));
  index.release(id, "example.com", now);
  CHECK_FALSE(index.active(id));
  index.edit(id, Edit{{}, {}, now, {}}, now);
  CHECK(index.oldest("example.com") == id);
}

TEST_CASE("a held recipient holds only itself") {
  TestIndex index;
  const QueueId id = index.put(1, {"a@example.com", "b@example.net"}, now, 100);
  RecipientState held;
  held.status = RecipientStatus::held;
  index.change(id, 0, held);
  CHECK_FALSE(index.take("example.com", now, Pick::oldest));
  CHECK(index.oldest("example.net") == id);
  Totals totals;
  index.add_to(totals);
  CHECK(totals.held == 0);
  index.change(id, 1, done());
  totals = {};
  index.add_to(totals);
  CHECK(totals.held == 1);
  CHECK(totals.refused_bytes == 100);
  CHECK(index.domains()[0].held == 1);
  index.edit(id, Edit{{}, "an admin's", {}, {}}, now);
  totals = {};
  index.add_to(totals);
  CHECK(totals.held == 1);
  CHECK(totals.refused_bytes == 0);
}

TEST_CASE("make_due moves what waits, step by step, and nothing that is held") {
  TestIndex index;
  for (std::uint64_t n = 1; n <= 5; ++n) index.put(n, {"a@example.com"}, now + 1h);
  const QueueId held = index.put(6, {"a@example.com"}, now + 1h);
  index.edit(held, Edit{{}, "by hand", {}, {}}, now);
  CHECK(index.make_due("example.com", now, now + 1h, 3) == 0);
  CHECK(index.make_due("example.com", now, WallTime::min(), 3) == 3);
  CHECK(index.make_due("example.com", now, WallTime::min(), 3) == 2);
  for (std::uint64_t n = 1; n <= 5; ++n) CHECK(index.oldest("example.com") == QueueId{n << 12});
  CHECK_FALSE(index.oldest("example.com"));
  CHECK(index.make_due("example.net", now, WallTime::min(), 3) == 0);
}

TEST_CASE("a domain's summary counts what is open in it") {
  TestIndex index;
  const QueueId first = index.put(1, {"a@example.com"}, now + 2h, 10);
  index.put(2, {"a@example.com"}, now + 1h, 20);
  const QueueId third = index.put(3, {"a@example.com", "b@example.net"}, now, 30);
  const auto summaries = index.domains();
  REQUIRE(summaries.size() == 2);
  CHECK(summaries[0].domain == "example.com");
  CHECK(summaries[0].messages == 3);
  CHECK(summaries[0].bytes == 60);
  CHECK(summaries[0].oldest == first.time());
  CHECK(summaries[0].next_due == now);
  CHECK(index.oldest("example.com") == third);
  CHECK(index.domains()[0].next_due == now + 1h);
  CHECK(index.domains()[0].messages == 3);
  index.remove(third);
  CHECK(index.domains().size() == 1);
  index.change(first, 0, done());
  CHECK(index.domains()[0].messages == 1);
  CHECK(index.domains()[0].next_due == now + 1h);
}

TEST_CASE("IDs are listed in order, in pages") {
  TestIndex index;
  for (const std::uint64_t n : {5U, 1U, 3U, 2U, 4U}) index.put(n, {"a@example.com"});
  const auto page = index.ids({}, 2);
  CHECK(page == std::vector<QueueId>{{1 << 12}, {2 << 12}});
  CHECK(index.ids(page.back(), 2) == std::vector<QueueId>{{3 << 12}, {4 << 12}});
}

TEST_CASE("a state in memory becomes the same as the one on disk") {
  std::mt19937 random(1);
  TestIndex index;
  const QueueId id = index.put(1, {"a@example.com", "b@example.net", "c@example.com"});
  MessageState state = index.state(id);
  for (int i = 0; i < 200; ++i) {
    Edit edit;
    switch (random() % 4) {
      case 0:
        edit.hold = "x";
        break;
      case 1:
        edit.release = now + std::chrono::seconds(random() % 100);
        break;
      case 2:
        edit.due = now + std::chrono::seconds(random() % 100);
        break;
      default: {
        RecipientState recipient;
        recipient.status = RecipientStatus(random() % 2);
        recipient.next_attempt = now + std::chrono::seconds(random() % 100);
        edit.recipients.emplace_back(random() % 4, recipient);
      }
    }
    apply(edit, state);
    index.edit(id, edit, now);
    state.hold_reason.clear();
    CHECK(index.state(id) == state);
  }
}

TEST_CASE("a segment goes when nothing in it lives and nothing it ended still stands") {
  MemoryFiles files;
  SegmentTable table;
  for (std::uint32_t number = 1; number <= 3; ++number) {
    table.add(std::make_shared<Segment>(files, "/spool", SegmentHeader{number, 0, {}}, nullptr, 65536), number == 3);
  }
  const Places places{{1, 8232, 100, 1000}, {2, 8232, 50, 0}, false};
  table.need(places);
  CHECK_FALSE(table.unneeded());
  table.add_end(2, 1);
  table.release(places);
  CHECK(table.unneeded() == 1);
  table.erase(1);
  CHECK(table.unneeded() == 2);
  table.erase(2);
  CHECK_FALSE(table.unneeded());  // 3 is open
}

TEST_CASE("an emptied segment stays while one stands that it has copies from") {
  Segments segments(3);
  SegmentTable& table = segments.table;
  const Places left{{1, 8232, 100, 1000}, {1, 8232, 100, 1000}, false};
  table.need(left);
  table.add_copy(2, 1);
  table.add_end(3, 2);
  table.find(2)->emptied = true;
  CHECK_FALSE(table.unneeded());
  table.find(3)->emptied = true;
  CHECK(table.unneeded() == 3);
  table.erase(3);
  table.release(left);
  CHECK(table.unneeded() == 1);
  table.erase(1);
  CHECK(table.unneeded() == 2);
}

TEST_CASE("what may hold records of a failed batch is waited for by all later segments") {
  MemoryFiles files;
  SegmentTable table;
  const auto add = [&](std::uint32_t number) {
    table.add(std::make_shared<Segment>(files, "/spool", SegmentHeader{number, 0, {}}, nullptr, 65536), false);
  };
  add(1);
  table.need({{1, 8232, 100, 1000}, {1, 8232, 100, 1000}, false});
  table.distrust(1, 8192);
  add(2);
  CHECK_FALSE(table.unneeded());
  CHECK(table.wasteful(65536) == 1);  // and emptied before any other
  table.release({{1, 8232, 100, 1000}, {1, 8232, 100, 1000}, false});
  CHECK(table.unneeded() == 1);
  table.erase(1);
  add(3);
  CHECK(table.unneeded() == 2);
}

TEST_CASE("when room is scarce, a segment is emptied only if that gives more than it takes") {
  Segments segments(3);
  SegmentTable& table = segments.table;
  table.need({{1, 8232, 100, 33000}, {1, 8232, 100, 33000}, false});
  table.need({{2, 8232, 100, 31000}, {2, 8232, 100, 31000}, false});
  for (int i = 0; i < 900; ++i) table.add_end(3, 1);
  CHECK_FALSE(table.wasteful(65536, false));
  CHECK(table.wasteful(65536, true) == 2);
  for (int i = 0; i < 100; ++i) table.add_end(2, 1);
  CHECK_FALSE(table.wasteful(65536, true));  // its ends count, too
  table.erase(1);
  CHECK(table.wasteful(65536, true) == 3);
}

TEST_CASE("a failed batch that was cut off after all holds nothing back") {
  Segments segments(2);
  SegmentTable& table = segments.table;
  table.need({{1, 8232, 100, 1000}, {1, 8232, 100, 1000}, false});
  table.distrust(1, 16384);
  CHECK(table.distrusted().at(1) == 16384);
  CHECK_FALSE(table.unneeded());
  table.trust(1);
  CHECK(table.unneeded() == 2);
}

TEST_CASE("an untouched segment stays, and with it what overrides the copies that it may hide") {
  Segments segments(5);
  SegmentTable& table = segments.table;
  table.leave(2);
  CHECK(table.overridden(3, 0).empty());
  CHECK(table.overridden(3, 1) == std::vector<std::uint32_t>{1, 2});
  CHECK(table.overridden(3, 2) == std::vector<std::uint32_t>{2});
  CHECK(table.overridden(3, 3).empty());
  table.add_end(3, 1);
  table.add_copy(4, 1);
  table.add_end(5, 4);
  CHECK(table.unneeded() == 1);
  table.erase(1);
  CHECK_FALSE(table.unneeded());
  table.find(2)->evacuate = true;
  CHECK_FALSE(table.wasteful(65536));
  table.find(3)->emptied = true;  // its ends stand elsewhere, too
  CHECK(table.unneeded() == 3);
}

#include <array>
#include <boost/asio/detached.hpp>
#include <deque>
#include <thread>

#include "fixture.hpp"
#include "queue/reader.hpp"

using namespace greymx;
using namespace greymx::test;

namespace {

struct OpenSpool : TestSpool {
  OpenSpool() { REQUIRE(open().has_value()); }
  std::size_t lines(std::string_view part) const { return log.count(part); }
  // Where the last record of this content stands, in the newest segment that has it.
  std::pair<std::string, std::size_t> find(const std::string& content) const {
    std::pair<std::string, std::size_t> found;
    for (const std::string& name : logs()) {
      const std::size_t at = files->content("/spool/" + name)->rfind(content);
      if (at != std::string::npos) found = {"/spool/" + name, at};
    }
    REQUIRE_FALSE(found.first.empty());
    return found;
  }
  void flip(const std::string& content) {
    const auto [path, at] = find(content);
    const auto file = files->open(path, OpenMode::write);
    const char flipped[] = {static_cast<char>(content[0] ^ 1)};
    REQUIRE((*file)->write(at, flipped));
    REQUIRE((*file)->sync());
  }
};

}  // namespace

TEST_CASE("what was committed can be loaded, and comes back after a clean stop and after a crash") {
  OpenSpool t;
  const QueueId id = t.must_accept();
  CHECK(t.content(id) == "Subject: hello\r\n\r\nworld\r\n");
  t.clean_restart();
  CHECK(t.content(id) == "Subject: hello\r\n\r\nworld\r\n");
  const QueueId second = t.must_accept();
  CHECK(second > id);
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->ids({}, 10) == std::vector<QueueId>{id, second});
  CHECK(t.content(second) == "Subject: hello\r\n\r\nworld\r\n");
  CHECK(t.spool->peek(id)->envelope == envelope_to({"user@example.com"}));
}

TEST_CASE("commit completes after the sync, not before") {
  OpenSpool t;
  const auto incoming = t.spool->begin();
  REQUIRE(t.wait(incoming->write({'x'})));
  std::optional<Result<>> result;
  asio::co_spawn(t.io, incoming->commit(envelope_to({"user@example.com"})),
                 [&](std::exception_ptr, Result<> committed) { result = committed; });
  t.io.restart();
  t.io.poll();
  CHECK_FALSE(result);
  CHECK_FALSE(t.spool->contains(incoming->id()));
  const auto syncs = t.files->count("sync");
  t.spool->commit();
  CHECK(t.files->count("sync") > syncs);
  CHECK(t.spool->contains(incoming->id()));
  t.io.restart();
  t.io.poll();
  REQUIRE(result);
  CHECK(result->has_value());
}

TEST_CASE("all that waits shares one write and one sync") {
  OpenSpool t;
  t.must_accept();
  const auto writes = t.files->count("write");
  const auto syncs = t.files->count("sync");
  std::vector<std::unique_ptr<Incoming>> incoming;
  int done = 0;
  for (int i = 0; i < 20; ++i) {
    incoming.push_back(t.spool->begin());
    asio::co_spawn(t.io, incoming.back()->commit(envelope_to({"user@example.com"})),
                   [&](std::exception_ptr, Result<> committed) { done += committed.has_value() ? 1 : 0; });
  }
  t.io.restart();
  t.io.poll();
  t.spool->commit();
  t.io.restart();
  t.io.poll();
  CHECK(done == 20);
  CHECK(t.files->count("write") == writes + 1);
  CHECK(t.files->count("sync") == syncs + 1);
}

TEST_CASE("after a failed sync nothing is acknowledged, the segment is never used again and the admin is told") {
  OpenSpool t;
  const QueueId before = t.must_accept();
  const auto segments = t.logs();
  t.files->fail_at(2);  // the write, then the sync
  const auto failed = t.accept(envelope_to({"user@example.com"}), "lost in the sync");
  REQUIRE_FALSE(failed.has_value());
  CHECK(failed.error().kind == ErrorKind::temporary);
  CHECK(t.alerts.contains("the spool cannot be written"));
  CHECK(t.lines("error: the spool cannot be written") == 1);
  const auto [subject, text] = t.alerts.raised().front();
  CHECK(subject == "the spool cannot be written");
  CHECK(text.find(subject) == std::string::npos);
  CHECK(text.ends_with(". New mail is refused until it can be; nothing that was accepted is lost. Look at the disk."));
  CHECK_FALSE(t.spool->has_room(0));
  CHECK_FALSE(t.spool->totals().accepting);
  CHECK_FALSE(t.spool->totals().problem.empty());
  t.spool->commit();  // the writer opens a new segment by itself
  CHECK(t.spool->has_room(0));
  const QueueId after = t.must_accept();
  CHECK(t.logs().size() == segments.size() + 1);
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->ids({}, 10) == std::vector<QueueId>{before, after});
}

TEST_CASE("what was refused because of a failed sync does not come back, although the kernel has it") {
  OpenSpool t;
  const QueueId before = t.must_accept();
  t.files->fail_at(2);
  REQUIRE_FALSE(t.accept(envelope_to({"user@example.com"}), "refused"));
  t.spool->commit();
  t.clean_restart();
  CHECK(t.spool->ids({}, 10) == std::vector<QueueId>{before});
}

TEST_CASE("changes of a failed batch are written again, elsewhere") {
  OpenSpool t;
  const QueueId id = t.must_accept();
  const QueueId ended = t.must_accept();
  t.spool->update(id, {{0, deferred(t.clock.now() + 1h, "the reason")}});
  t.finish(ended);
  t.files->fail_at(2);
  t.sync();
  CHECK_FALSE(t.spool->has_room(0));
  t.sync();
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->ids({}, 10) == std::vector<QueueId>{id});
  CHECK(t.spool->peek(id)->state.recipients[0].reason == "the reason");
}

TEST_CASE("a large body goes to a file of its own, synced with its name before the record") {
  OpenSpool t;
  const std::string large(50000, 'L');
  t.must_accept();
  t.tidy();
  const std::uint64_t before = t.spool->totals().disk_bytes;
  const QueueId id = t.must_accept({"user@example.com"}, large);
  CHECK(t.spool->totals().disk_bytes == before + large.size());
  const std::string path = "/spool/large/" + id.to_string();
  CHECK(t.files->content(path) == large);
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.content(id) == large);
  t.tidy();
  CHECK(t.spool->totals().disk_bytes > before + large.size());
  t.finish(id);
  t.sync();
  t.tidy();
  CHECK_FALSE(t.files->content(path));
}

TEST_CASE("a body that is dropped before commit leaves nothing behind") {
  OpenSpool t;
  {
    const auto incoming = t.spool->begin();
    for (int i = 0; i < 10; ++i) REQUIRE(t.wait(incoming->write(std::vector<char>(10000, 'x'))));
    REQUIRE(t.files->content("/spool/large/" + incoming->id().to_string()));
  }
  t.spool->stop();  // waits for the pool
  CHECK(t.files->list("/spool/large")->empty());
  CHECK(t.spool->totals().messages == 0);
}

TEST_CASE("a body's file that no record names is removed at the next start") {
  OpenSpool t;
  t.must_accept();
  t.files->put("/spool/large/" + QueueId{123456789}.to_string(), "orphan");
  t.clean_restart();
  CHECK(t.files->list("/spool/large")->empty());
  CHECK(t.spool->begin()->id().value > 123456789);
}

TEST_CASE("bodies in memory stay within buffer_memory, the rest goes to disk as it arrives") {
  TestSpool t;
  t.settings.buffer_memory = 30000;
  t.settings.large_message = 1 << 20;
  REQUIRE(t.open().has_value());
  std::vector<std::unique_ptr<Incoming>> incoming;
  for (int i = 0; i < 20; ++i) {
    incoming.push_back(t.spool->begin());
    for (int j = 0; j < 3; ++j) REQUIRE(t.wait(incoming.back()->write(std::vector<char>(3000, 'x'))));
  }
  std::uint64_t on_disk = 0;
  for (const std::string& name : *t.files->list("/spool/large")) {
    on_disk += t.files->content("/spool/large/" + name)->size();
  }
  CHECK(20 * 9000 - on_disk <= 30000);
  for (const auto& one : incoming) REQUIRE(t.wait(one->commit(envelope_to({"user@example.com"}))));
  for (const QueueId id : t.spool->ids({}, 100)) CHECK(t.content(id) == std::string(9000, 'x'));
}

TEST_CASE("new mail is refused while min_free_space would be touched, by what is in flight too") {
  TestSpool t;
  t.files->set_capacity(10 << 20);
  t.settings.min_free_space = 4 << 20;
  REQUIRE(t.open().has_value());
  t.tidy();
  const std::uint64_t free = *t.files->free_bytes("/spool");
  CHECK(t.spool->has_room(free - (4 << 20)));
  CHECK_FALSE(t.spool->has_room(free - (4 << 20) + 1));
  const auto incoming = t.spool->begin();
  REQUIRE(t.wait(incoming->write(std::vector<char>(10000, 'x'))));
  CHECK_FALSE(t.spool->has_room(free - (4 << 20)));
  t.files->set_capacity(4 << 20);
  t.tidy();
  CHECK_FALSE(t.spool->totals().accepting);
  const auto refused = t.wait(incoming->write(std::vector<char>(1 << 20, 'x')));
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().kind == ErrorKind::no_space);
}

TEST_CASE("when the disk is full mail is refused, but delivering goes on and makes room") {
  TestSpool t;
  t.settings.segment_size = 64 * 1024;
  t.settings.min_free_space = 0;
  t.files->set_capacity(1 << 20);
  REQUIRE(t.open().has_value());
  std::vector<QueueId> queued;
  Result<QueueId> last = QueueId();
  while (last) {
    t.spool->maintain();
    last = t.accept(envelope_to({"user@example.com"}), std::string(3000, 'x'));
    if (last) queued.push_back(*last);
  }
  CHECK(last.error().kind == ErrorKind::no_space);
  REQUIRE(queued.size() > 150);
  for (std::size_t i = 0; i + 1 < queued.size(); ++i) {
    t.spool->update(queued[i], {{0, deferred(t.clock.now() + 1h)}});
    if (i % 8 == 0) t.finish(queued[i]);
    if (i % 32 == 0) t.sync();
  }
  for (std::size_t i = 0; i + 1 < queued.size(); ++i) t.finish(queued[i]);
  t.sync();
  CHECK(t.spool->totals().problem.empty());
  t.tidy();
  CHECK(t.spool->totals().free_bytes + t.settings.segment_size > (1 << 20) / 2);
  const QueueId again = t.must_accept();
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->ids({}, 1000) == std::vector<QueueId>{queued.back(), again});
}

TEST_CASE("a spool in use is not opened twice, and its readers do not count as use") {
  OpenSpool t;
  auto second = SpoolImpl::open(t.settings, *t.files, t.clock, t.log, t.metrics, t.alerts, false);
  REQUIRE_FALSE(second.has_value());
  CHECK(second.error().text == "/spool is in use: stop the other greymxd first");
  const auto reader = SpoolReader::open("/spool", *t.files);
  REQUIRE(reader.has_value());
  t.clean_restart();
}

TEST_CASE("changes are lazy: they wait for lazy_sync or for the next batch") {
  OpenSpool t;
  const QueueId id = t.must_accept();
  t.spool->update(id, {{0, deferred(t.clock.now() + 1h, "later")}});
  const auto syncs = t.files->count("sync");
  CHECK(t.spool->peek(id)->state.recipients[0].reason == "later");
  CHECK(t.files->count("sync") == syncs);
  t.must_accept();
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->peek(id)->state.recipients[0].reason == "later");
  CHECK(t.spool->peek(id)->state.recipients[0].next_attempt == t.clock.now() + 1h);
}

TEST_CASE("hold, release, remove and make_due last") {
  OpenSpool t;
  const QueueId held = t.must_accept();
  const QueueId released = t.must_accept();
  const QueueId removed = t.must_accept();
  const QueueId hurried = t.must_accept();
  RecipientState refused;
  refused.status = RecipientStatus::held;
  REQUIRE(t.spool->hold(held, "by hand"));
  REQUIRE(t.spool->hold(released, "by hand"));
  t.spool->update(released, {{0, refused}});
  REQUIRE(t.spool->release_hold(released));
  REQUIRE(t.spool->remove(removed));
  t.spool->update(hurried, {{0, deferred(t.clock.now() + 1h)}});
  REQUIRE(t.spool->make_due(hurried, t.clock.now()));
  for (auto&& unknown : {t.spool->hold(removed, ""), t.spool->release_hold(removed), t.spool->remove(removed),
                         t.spool->make_due(removed, t.clock.now())}) {
    REQUIRE_FALSE(unknown.has_value());
    CHECK(unknown.error().kind == ErrorKind::not_found);
  }
  t.sync();
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->ids({}, 10) == std::vector<QueueId>{held, released, hurried});
  CHECK(t.spool->peek(held)->state.hold_reason == "by hand");
  CHECK(t.spool->totals().held == 1);
  CHECK(t.spool->take("example.com", t.clock.now(), Pick::oldest) == released);
  CHECK(t.spool->take("example.com", t.clock.now(), Pick::oldest) == hurried);
  CHECK_FALSE(t.spool->take("example.com", t.clock.now(), Pick::oldest));
}

TEST_CASE("an access file's HOLD is a hold from the start") {
  OpenSpool t;
  Envelope envelope = envelope_to({"user@example.com"});
  envelope.hold = true;
  const auto id = t.accept(envelope, "x");
  REQUIRE(id.has_value());
  CHECK_FALSE(t.spool->take("example.com", t.clock.now(), Pick::oldest));
  CHECK(t.spool->peek(*id)->state.held);
}

TEST_CASE("on_work is told of arrivals, releases and all that makes due") {
  OpenSpool t;
  std::vector<std::string> told;
  t.spool->on_work([&](const std::string& domain) { told.push_back(domain); });
  const QueueId id = t.must_accept({"a@example.com", "b@Example.Net"});
  CHECK(told == std::vector<std::string>{"example.com", "example.net"});
  told.clear();
  CHECK(t.spool->claim(id, "example.com"));
  CHECK(t.spool->active(id));
  t.spool->release(id, "example.com");
  CHECK(told == std::vector<std::string>{"example.com"});
  told.clear();
  t.spool->update(id, {{0, deferred(t.clock.now() + 1h)}, {1, deferred(t.clock.now() + 1h)}});
  CHECK(told.empty());
  REQUIRE(t.spool->make_due(id, t.clock.now()));
  CHECK(told == std::vector<std::string>{"example.com", "example.net"});
  told.clear();
  t.spool->update(id, {{0, deferred(t.clock.now() + 1h)}});
  t.spool->make_domain_due("example.com", t.clock.now() + 2h);
  CHECK_FALSE(t.spool->take("example.com", t.clock.now(), Pick::oldest));
  told.clear();
  t.spool->make_domain_due("example.com", WallTime::min());
  CHECK(told == std::vector<std::string>{"example.com"});
  CHECK(t.spool->take("example.com", t.clock.now(), Pick::oldest) == id);
}

TEST_CASE("content beyond whole_up_to is read in pieces, from the log and from a file") {
  OpenSpool t;
  for (const std::size_t size : {1000U, 100000U}) {
    std::string content;
    for (std::size_t i = 0; content.size() < size; ++i) content += std::to_string(i) + " ";
    const QueueId id = t.must_accept({"user@example.com"}, content);
    const auto loaded = t.wait(t.spool->load(id, 10));
    REQUIRE(loaded.has_value());
    REQUIRE(loaded->rest);
    CHECK(loaded->rest->size() == content.size());
    t.finish(id);
    t.sync();
    t.tidy();
    t.must_accept();
    std::string read(content.size(), '\0');
    for (std::size_t at = 0; at < read.size(); at += 777) {
      const auto n = loaded->rest->read(at, std::span(read).subspan(at, std::min<std::size_t>(777, read.size() - at)));
      REQUIRE(n.has_value());
    }
    CHECK(read == content);
    CHECK(*loaded->rest->read(content.size(), std::span(read).first(1)) == 0);
  }
}

TEST_CASE("a message that the disk has changed leaves the queue, is kept for a person, and is reported") {
  OpenSpool t;
  const QueueId id = t.must_accept({"user@example.com"}, "the content of the damaged message");
  const QueueId other = t.must_accept();
  t.flip("content of the damaged");
  const auto loaded = t.wait(t.spool->load(id, 1 << 20));
  REQUIRE_FALSE(loaded.has_value());
  CHECK(loaded.error().kind == ErrorKind::permanent);
  CHECK(t.spool->ids({}, 10) == std::vector<QueueId>{other});
  CHECK(t.alerts.contains("message " + id.to_string() + " is damaged"));
  REQUIRE(t.files->list("/spool/corrupt")->size() == 1);
  const auto kept = t.files->content("/spool/corrupt/" + t.files->list("/spool/corrupt")->front());
  CHECK(kept->find("of the damaged message") != std::string::npos);
}

TEST_CASE("a large message whose file the disk has changed leaves the queue with its file") {
  OpenSpool t;
  const QueueId id = t.must_accept({"user@example.com"}, std::string(50000, 'L'));
  t.files->put("/spool/large/" + id.to_string(), std::string(49999, 'L') + "l");
  CHECK_FALSE(t.wait(t.spool->load(id, 1 << 20)));
  CHECK_FALSE(t.spool->contains(id));
  CHECK(t.files->content("/spool/corrupt/" + id.to_string()));
  const QueueId short_one = t.must_accept({"user@example.com"}, std::string(50000, 'L'));
  t.files->put("/spool/large/" + short_one.to_string(), "L");
  CHECK_FALSE(t.wait(t.spool->load(short_one, 10)));
  CHECK_FALSE(t.spool->contains(short_one));
}

TEST_CASE("so does one that is found damaged while it is read piece by piece, unless it has ended meanwhile") {
  OpenSpool t;
  for (const bool ended : {false, true}) {
    const QueueId id = t.must_accept({"user@example.com"}, std::string(50000, 'L'));
    t.files->put("/spool/large/" + id.to_string(), std::string(49999, 'L') + "l");
    const auto loaded = t.wait(t.spool->load(id, 10));
    REQUIRE(loaded.has_value());
    REQUIRE(loaded->rest);
    if (ended) t.finish(id);
    if (!ended) t.spool->update(id, {{0, deferred(t.clock.now(), "meanwhile")}});
    t.sync();
    std::vector<char> bytes(50000);
    CHECK_FALSE(loaded->rest->read(0, bytes));
    CHECK_FALSE(t.spool->contains(id));
    CHECK(t.alerts.contains("message " + id.to_string() + " is damaged") == !ended);
    CHECK(t.files->content("/spool/corrupt/" + id.to_string()).has_value() == !ended);
  }
}

TEST_CASE("an I/O error while reading is no damage") {
  OpenSpool t;
  const QueueId id = t.must_accept();
  t.files->fail_at(1);
  const auto loaded = t.wait(t.spool->load(id, 1 << 20));
  REQUIRE_FALSE(loaded.has_value());
  CHECK(loaded.error().kind == ErrorKind::temporary);
  CHECK(t.content(id) == "Subject: hello\r\n\r\nworld\r\n");
}

TEST_CASE("a damaged change costs the reason, not the message nor who has got it") {
  OpenSpool t;
  const QueueId id = t.must_accept({"a@example.com", "b@example.com"});
  t.spool->update(id, {{0, done()}, {1, deferred(t.clock.now() + 1h, "a reason to be damaged")}});
  t.sync();
  t.flip("a reason to be damaged");
  const auto found = t.spool->peek(id);
  REQUIRE(found.has_value());
  CHECK(found->state.recipients[0].status == RecipientStatus::done);
  CHECK(found->state.recipients[1].next_attempt == t.clock.now() + 1h);
  t.spool->update(id, {{1, deferred(t.clock.now() + 2h, "mended")}});
  t.sync();
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->peek(id)->state.recipients[0].status == RecipientStatus::done);
  CHECK(t.spool->peek(id)->state.recipients[1].reason == "mended");
}

TEST_CASE("what was held when a damaged change was written is held from now on, not since 1970") {
  OpenSpool t;
  const QueueId id = t.must_accept({"a@example.com"});
  RecipientState held;
  held.status = RecipientStatus::held;
  held.held_since = t.clock.now();
  held.reason = "a reason to be damaged";
  t.spool->update(id, {{0, held}});
  t.sync();
  t.flip("a reason to be damaged");
  const WallTime then = t.clock.now();
  CHECK(t.spool->peek(id)->state.recipients[0].held_since == then);
  t.sync();
  t.clock.advance(1h);
  CHECK(t.spool->peek(id)->state.recipients[0].held_since == then);
}

TEST_CASE("changes are written however much mail comes in") {
  OpenSpool t;
  const QueueId first = t.must_accept();
  t.sync();
  std::vector<std::unique_ptr<Incoming>> incoming;
  const auto more = [&] {  // more than one commit writes
    for (int i = 0; i < 8; ++i) {
      incoming.push_back(t.spool->begin());
      REQUIRE(t.wait(incoming.back()->write(std::vector<char>(7000, 'x'))));
      asio::co_spawn(t.io, incoming.back()->commit(envelope_to({"user@example.com"})), asio::detached);
    }
    t.io.restart();
    t.io.poll();
  };
  more();
  t.finish(first);
  for (int i = 0; i < 3; ++i) {
    more();
    t.spool->commit();
  }
  TestSpool other(t.files->clone());
  other.files->crash({});
  t.sync();
  t.io.restart();
  t.io.poll();
  t.spool->stop();
  REQUIRE(other.open().has_value());
  CHECK_FALSE(other.spool->contains(first));
}

TEST_CASE("damage found at start is copied to corrupt/ and reported in bytes; the rest lives and moves away from it") {
  OpenSpool t;
  const QueueId first = t.must_accept({"user@example.com"}, "first message");
  const QueueId second = t.must_accept({"user@example.com"}, "second message");
  const QueueId third = t.must_accept({"user@example.com"}, "third message");
  t.flip("second message");
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->ids({}, 10) == std::vector<QueueId>{first, third});
  CHECK(t.alerts.contains("bytes at 12328 are damaged; they are kept in /spool/corrupt/00000003-12328"));
  CHECK(t.files->content("/spool/corrupt/00000003-12328")->find("econd message") != std::string::npos);
  CHECK_FALSE(t.spool->contains(second));
  t.tidy();
  CHECK(t.log.count("are damaged") == 1);
  CHECK(t.content(first) == "first message");
  CHECK(t.content(third) == "third message");
  t.crash();
  t.log.clear();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->ids({}, 10) == std::vector<QueueId>{first, third});
  CHECK_FALSE(t.log.contains("damaged"));
}

TEST_CASE("a file that has lost its end with the seal is damage, what is whole in it lives") {
  OpenSpool t;
  const QueueId first = t.must_accept({"user@example.com"}, "first message");
  t.must_accept({"user@example.com"}, std::string(8000, '2'));
  const QueueId large = t.must_accept({"user@example.com"}, std::string(50000, 'L'));
  t.clean_restart();
  const std::string path = "/spool/" + t.logs().front(), sound = *t.files->content(path);
  const std::size_t second = sound.find(std::string(8000, '2'));
  t.spool->stop();
  t.files->put(path, sound.substr(0, second + 5000));
  auto report = verify_spool("/spool", *t.files);
  REQUIRE(report.has_value());
  CHECK(report->failures.size() == 2);  // what is damaged, and that more is lost
  t.clean_restart();
  CHECK(t.spool->ids({}, 10) == std::vector<QueueId>{first});
  CHECK(t.alerts.contains("00000003.log: the file ends too early, at " + std::to_string(second + 5000)));
  CHECK(t.files->content("/spool/corrupt/00000003-12328")->ends_with("2222"));
  CHECK(t.files->content("/spool/corrupt/" + large.to_string()) == std::string(50000, 'L'));
  t.tidy();
  CHECK(t.content(first) == "first message");
  t.log.clear();
  t.clean_restart();
  CHECK(t.spool->contains(first));
  CHECK_FALSE(t.log.contains("too early"));

  // Behind a batch it may have been cut by us.
  t.spool->stop();
  t.files->put(path, sound.substr(0, log_begin + block));
  report = verify_spool("/spool", *t.files);
  REQUIRE(report.has_value());
  CHECK(report->failures.empty());
  CHECK(std::ranges::any_of(report->warnings, [](const auto& text) { return text.contains("without a seal"); }));
  t.clean_restart();
  CHECK(t.log.count("without a seal") == 1);
  t.clean_restart();
  CHECK(t.log.count("without a seal") == 1);
}

TEST_CASE("damage in what a crash left open is no torn tail once it has been read") {
  OpenSpool t;
  const QueueId id = t.must_accept({"user@example.com"}, "Subject: unlucky\r\n\r\n" + std::string(50000, 'L'));
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->contains(id));
  const std::string path = "/spool/" + t.logs().front();
  std::string bytes = *t.files->content(path);
  bytes[bytes.find("sender@example.org")] ^= 1;
  t.files->put(path, bytes);
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->contains(id));
  CHECK_FALSE(t.wait(t.spool->load(id, 10)));
  CHECK(t.alerts.contains("the spool is damaged"));
  CHECK(t.files->content("/spool/corrupt/" + id.to_string()));
}

TEST_CASE("a segment whose headers are damaged is moved to corrupt/ as a whole, and orphans are kept with it") {
  OpenSpool t;
  t.must_accept();
  const QueueId large = t.must_accept({"user@example.com"}, std::string(50000, 'L'));
  const std::string path = "/spool/" + t.logs().front();
  std::string bytes = *t.files->content(path);
  bytes[20] ^= 1;
  bytes[4096 + 20] ^= 1;
  t.files->put(path, bytes);
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->totals().messages == 0);
  CHECK(t.files->content("/spool/corrupt/" + path.substr(7)) == bytes);
  CHECK(t.files->content("/spool/corrupt/" + large.to_string()) == std::string(50000, 'L'));
  CHECK(t.alerts.contains("the spool is damaged"));
}

TEST_CASE("a spool of another version is refused with the remedy") {
  OpenSpool t;
  t.must_accept();
  const std::string path = "/spool/" + t.logs().front();
  std::string bytes = *t.files->content(path);
  bytes[8] = 9;
  const std::uint32_t crc = crc32c(std::string_view(bytes).substr(0, 60));
  for (int i = 0; i < 4; ++i) bytes[60 + i] = static_cast<char>(crc >> 8 * i);
  t.files->put(path, bytes);
  t.crash();
  const auto opened = t.open();
  REQUIRE_FALSE(opened.has_value());
  CHECK(opened.error().text.find("format 9") != std::string::npos);
  CHECK(t.files->content(path) == bytes);
}

TEST_CASE("a message whose own file is gone is reported once and leaves the queue") {
  OpenSpool t;
  const QueueId id = t.must_accept({"user@example.com"}, std::string(50000, 'L'));
  t.spool->stop();
  REQUIRE(t.files->remove("/spool/large/" + id.to_string()));
  t.clean_restart();
  CHECK(t.alerts.contains("message " + id.to_string() + " is lost"));
  CHECK_FALSE(t.spool->contains(id));
  t.clean_restart();
  CHECK(t.lines("is lost") == 1);
}

TEST_CASE("mostly dead segments are emptied: the disk holds about twice what lives, states move with their messages") {
  TestSpool t;
  t.settings.segment_size = 64 * 1024;
  REQUIRE(t.open().has_value());
  std::map<QueueId, std::string> living;
  for (int i = 0; i < 400; ++i) {
    const std::string content = std::to_string(i) + std::string(2000, 'x');
    const QueueId id = t.must_accept({"user@example.com", "other@example.net"}, content);
    if (i % 20 == 0) {
      living[id] = content;
      t.spool->update(id, {{0, done()}, {1, deferred(t.clock.now() + 1h, "reason " + std::to_string(i))}});
    } else {
      t.finish(id, 2);
    }
    if (i % 50 == 0) t.tidy();
  }
  t.tidy();
  CHECK(t.spool->totals().disk_bytes < 20 * 64 * 1024);
  for (const bool again : {false, true}) {
    CHECK(t.spool->totals().messages == living.size());
    for (const auto& [id, content] : living) {
      CHECK(t.content(id) == content);
      const auto found = t.spool->peek(id);
      REQUIRE(found.has_value());
      CHECK(found->state.recipients[0].status == RecipientStatus::done);
      CHECK(found->state.recipients[1].reason.starts_with("reason "));
    }
    if (again) break;
    t.crash();
    REQUIRE(t.open().has_value());
  }
}

TEST_CASE("one slow domain does not pin what the others are done with") {
  TestSpool t;
  t.settings.segment_size = 64 * 1024;
  REQUIRE(t.open().has_value());
  for (int i = 0; i < 20; ++i) t.must_accept({"user@slow.example"}, std::string(2000, 's'));
  QueueId previous = t.must_accept();
  for (int i = 0; i < 1000; ++i) {
    const QueueId next = t.must_accept({"user@example.com"}, std::string(2000, 'x'));
    t.finish(previous);
    previous = next;
    if (i % 20 == 0) t.tidy();
  }
  CHECK(t.spool->totals().disk_bytes < 16 * 64 * 1024);
  CHECK(t.files->count("rename") > 20);
  t.sync();
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->totals().messages == 21);
}

TEST_CASE("what has ended stays gone while an older record of it stands in a segment that cannot be given up") {
  OpenSpool t;
  t.settings.segment_size = 64 * 1024;
  REQUIRE(t.open().has_value());
  const std::string kept = "kept" + std::string(2000, 'k'), ended = "ended" + std::string(2000, 'e');
  t.must_accept({"kept@example.com"}, kept);
  const QueueId id = t.must_accept({"ended@example.com"}, ended);
  const std::string first = t.find(kept).first;
  std::deque<QueueId> slow;  // one in each segment, so that segments are emptied and not only given up
  const auto churn = [&] {
    for (int i = 0; i < 25; ++i) t.finish(t.must_accept({"user@example.com"}, std::string(2000, 'x')));
    slow.push_back(t.must_accept({"user@slow.example"}, std::string(6000, 's')));
    if (slow.size() > 15) t.finish(slow.front()), slow.pop_front();
    t.tidy();
  };
  t.flip(kept);
  for (int i = 0; i < 100 && t.find(ended).first == first; ++i) churn();
  const std::string second = t.find(ended).first;
  REQUIRE(second != first);
  t.finish(id);
  for (int i = 0; i < 100; ++i) churn();
  CHECK(t.files->content(first));  // the damaged message has not been read yet
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK_FALSE(t.spool->contains(id));
}

TEST_CASE("a steady flow reuses its segments") {
  TestSpool t;
  t.settings.segment_size = 64 * 1024;
  REQUIRE(t.open().has_value());
  std::uint64_t allocations = 0;
  for (int i = 0; i < 600; ++i) {
    t.finish(t.must_accept({"user@example.com"}, std::string(3000, 'x')));
    t.tidy();
    if (i == 100) allocations = t.files->count("allocate");
  }
  CHECK(t.files->count("allocate") == allocations);
  CHECK(t.spool->totals().disk_bytes < 8 * 64 * 1024);
}

TEST_CASE("a segment's number is never used again") {
  OpenSpool t;
  t.finish(t.must_accept());
  t.sync();
  const std::string used = t.logs().back();
  t.clean_restart();
  t.tidy();
  t.must_accept();
  CHECK(t.logs().back() > used);
  for (const std::string& name : *t.files->list("/spool")) {
    if (name.ends_with(".free")) CHECK(t.logs().back() > name);
  }
  t.clean_restart();
  t.must_accept();
  for (const std::string& name : *t.files->list("/spool")) {
    if (name.ends_with(".free")) CHECK(t.logs().back() > name);
  }
}

TEST_CASE("many small segments of a daemon that is often restarted are put together") {
  OpenSpool t;
  for (int i = 0; i < 40; ++i) {
    t.must_accept();
    t.clean_restart();
  }
  t.tidy();
  CHECK(t.logs().size() <= 12);
  CHECK(t.spool->totals().messages == 40);
}

TEST_CASE("sealed segments are read from their summaries") {
  OpenSpool t;
  const QueueId id = t.must_accept({"user@example.com"}, "content that recovery does not look at");
  t.spool->stop();
  t.flip("content that recovery");
  t.clean_restart();
  CHECK(t.spool->contains(id));
  CHECK_FALSE(t.log.contains("damaged"));
}

TEST_CASE("a damaged summary or seal only costs time") {
  for (const bool seal : {true, false}) {
    OpenSpool t;
    const QueueId id = t.must_accept();
    t.spool->update(id, {{0, deferred(t.clock.now() + 1h, "why")}});
    t.spool->stop();
    const std::string path = "/spool/" + t.logs().front();
    std::string bytes = *t.files->content(path);
    bytes[bytes.size() - (seal ? block : 2 * block) + record_header_length] ^= 1;
    bytes[bytes.size() - (seal ? block : 2 * block) + 12] ^= 1;
    t.files->put(path, bytes);
    t.clean_restart();
    REQUIRE(t.spool->contains(id));
    CHECK(t.spool->peek(id)->state.recipients[0].reason == "why");
  }
}

TEST_CASE("stop makes durable what was handed over and refuses what comes after") {
  OpenSpool t;
  const QueueId id = t.must_accept();
  auto incoming = t.spool->begin();
  t.spool->update(id, {{0, deferred(t.clock.now() + 1h, "in the last second")}});
  t.spool->stop();
  const auto late = t.wait(incoming->commit(envelope_to({"user@example.com"})));
  REQUIRE_FALSE(late.has_value());
  CHECK(late.error().kind == ErrorKind::stopping);
  incoming.reset();  // before its spool
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->peek(id)->state.recipients[0].reason == "in the last second");
}

TEST_CASE("an envelope that no segment can hold is refused for good") {
  OpenSpool t;
  std::vector<std::string> recipients(2000, std::string(200, 'r') + "@example.com");
  const auto refused = t.accept(envelope_to(recipients), "x");
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().kind == ErrorKind::permanent);
  t.must_accept();
}

TEST_CASE("thousands of changes at once are written in several batches") {
  OpenSpool t;
  std::vector<QueueId> ids;
  for (int i = 0; i < 300; ++i) ids.push_back(t.must_accept());
  for (const QueueId id : ids) REQUIRE(t.spool->hold(id, std::string(300, 'h')));
  t.sync();
  for (const QueueId id : ids) t.spool->update(id, {{0, deferred(t.clock.now(), std::string(400, 'r'))}});
  t.sync();
  t.crash();
  REQUIRE(t.open().has_value());
  for (const QueueId id : ids) CHECK(t.spool->peek(id)->state.held);
  CHECK(t.spool->peek(ids[0])->state.recipients[0].reason == std::string(400, 'r'));
}

TEST_CASE("while a thousand results cannot be written, nothing more is taken") {
  OpenSpool t;
  std::vector<QueueId> ids;
  for (int i = 0; i < 1100; ++i) ids.push_back(t.must_accept({"user@example.com"}, "x"));
  t.files->fail_at(1, Fault::io_error, true);
  for (int i = 0; i < 1050; ++i) t.finish(ids[static_cast<std::size_t>(i)]);
  t.sync();
  CHECK_FALSE(t.spool->take("example.com", t.clock.now(), Pick::oldest));
  t.files->heal();
  t.sync();
  CHECK(t.spool->take("example.com", t.clock.now(), Pick::oldest) == ids[1050]);
}

TEST_CASE("threads: many sessions commit while deliveries end, defer and read, and segments come and go") {
  std::array<asio::io_context, 3> loops;  // which outlive the spool's threads, that post to them
  TestSpool t;
  t.settings.segment_size = 64 * 1024;
  t.settings.large_message = 8 * 1024;
  t.settings.lazy_sync = 1ms;
  auto opened = SpoolImpl::open(t.settings, *t.files, t.clock, t.log, t.metrics, t.alerts, true);
  REQUIRE(opened.has_value());
  SpoolImpl& spool = **opened;
  std::atomic<int> accepted = 0;
  const auto session = [&](int number) -> Task<> {
    for (int i = 0; i < 30; ++i) {
      const auto incoming = spool.begin();
      std::vector<char> content(i % 10 == 0 ? 20000 : 2000, 'x');
      const Result<> written = co_await incoming->write(std::move(content));
      const Result<> committed = co_await incoming->commit(envelope_to({"user@example.com"}));
      if (!written || !committed) throw std::runtime_error("session " + std::to_string(number));
      ++accepted;
    }
  };
  const auto delivery = [&](int number) -> Task<> {
    for (int delivered = 0; delivered < 50;) {
      const auto id = spool.take("example.com", t.clock.now(), number % 2 ? Pick::oldest : Pick::newest);
      if (!id) {
        co_await sleep_for(1ms);
        continue;
      }
      const auto loaded = co_await spool.load(*id, 1 << 20);
      if (!loaded || loaded->content.size() < 2000) throw std::runtime_error("load");
      const bool defer = delivered++ % 3 == 0;
      spool.update(*id, {{0, defer ? deferred(t.clock.now() + 1h) : done()}});
      spool.release(*id, "example.com");
    }
  };
  const auto run = [&](asio::io_context& io, auto task) {
    std::exception_ptr thrown;
    for (int i = 0; i < 8; ++i) {
      asio::co_spawn(io, task(i), [&](std::exception_ptr exception) { thrown = thrown ? thrown : exception; });
    }
    io.run();
    if (thrown) std::rethrow_exception(thrown);
  };
  std::thread sessions([&] { run(loops[0], session); });
  std::thread more_sessions([&] { run(loops[1], session); });
  std::thread deliveries([&] { run(loops[2], delivery); });
  for (int i = 0; i < 50; ++i) {
    for (const QueueId id : spool.ids({}, 20)) static_cast<void>(spool.peek(id));
    static_cast<void>(spool.totals());
    static_cast<void>(spool.domains());
    std::this_thread::yield();
  }
  sessions.join();
  more_sessions.join();
  deliveries.join();
  CHECK(accepted == 480);
  spool.stop();
  const std::uint64_t left = spool.totals().messages;
  opened->reset();
  CHECK(t.log.count("warning") == 0);
  REQUIRE(t.open().has_value());
  CHECK(t.spool->totals().messages == left);
  for (const QueueId id : t.spool->ids({}, 1000)) CHECK(t.content(id).size() >= 2000);
}

TEST_CASE("threads: the last state wins, whatever compaction copies meanwhile") {
  asio::io_context io{1};  // outlives the spool's threads, which post to it
  TestSpool t;
  t.settings.segment_size = 64 * 1024;
  t.settings.lazy_sync = 1ms;
  auto opened = SpoolImpl::open(t.settings, *t.files, t.clock, t.log, t.metrics, t.alerts, true);
  REQUIRE(opened.has_value());
  SpoolImpl& spool = **opened;
  std::vector<QueueId> kept;
  const auto flow = [&](int kept_every, int rounds) -> Task<> {
    for (int i = 0; i < rounds; ++i) {
      const auto incoming = spool.begin();
      static_cast<void>(co_await incoming->write(std::vector<char>(2000, 'x')));
      const Result<> committed = co_await incoming->commit(envelope_to({"user@example.com"}));
      if (!committed) throw std::runtime_error(committed.error().text);
      if (i % kept_every == 0) {
        kept.push_back(incoming->id());
      } else {
        spool.update(incoming->id(), {{0, done()}});
      }
    }
  };
  const auto run = [&](int kept_every, int rounds) {
    io.restart();
    asio::co_spawn(io, flow(kept_every, rounds), [](std::exception_ptr thrown) {
      if (thrown) std::rethrow_exception(thrown);
    });
    io.run();
  };
  run(20, 400);
  const std::vector<QueueId> messages = kept;
  std::atomic<bool> stop = false;
  std::atomic<int> round = 0;
  std::thread deferrals([&] {
    while (!stop) {
      ++round;
      for (const QueueId id : messages) spool.update(id, {{0, deferred(t.clock.now() + 1h, std::to_string(round))}});
    }
  });
  run(1 << 30, 1500);
  stop = true;
  deferrals.join();
  const std::string last = std::to_string(round);
  for (const QueueId id : messages) CHECK(spool.peek(id)->state.recipients[0].reason == last);
  CHECK(t.files->count("rename") > 20);
  opened->reset();
  REQUIRE(t.open().has_value());
  for (const QueueId id : messages) CHECK(t.spool->peek(id)->state.recipients[0].reason == last);
}

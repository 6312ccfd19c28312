// Disks that lose, refuse or garble something, for a while or for good: what has ended stays gone, what has not stays,
// and nothing runs wild.
#include <thread>

#include "bad_files.hpp"
#include "fixture.hpp"
#include "queue/reader.hpp"

using namespace greymx;
using namespace greymx::test;

namespace {

struct BadSpool : TestSpool {
  explicit BadSpool(std::shared_ptr<BadFiles> files = std::make_shared<BadFiles>())
      : TestSpool(files), bad(std::move(files)) {
    settings.segment_size = 64 * 1024;
  }
  // The newest segment that has this, and where.
  std::pair<std::string, std::size_t> find(const std::string& content) const {
    std::pair<std::string, std::size_t> found;
    for (const std::string& name : logs()) {
      const std::size_t at = files->content("/spool/" + name)->rfind(content);
      if (at != std::string::npos) found = {name, at};
    }
    return found;
  }
  void flip(const std::string& name, std::size_t at) {
    std::string bytes = *files->content("/spool/" + name);
    bytes[at] ^= 1;
    files->put("/spool/" + name, bytes);
  }
  // Many segments with little that lives in each: there is something to compact.
  std::vector<QueueId> waste(int segments) {
    std::vector<QueueId> slow;
    for (int i = 0; i < segments; ++i) {
      slow.push_back(must_accept({"slow@example.com"}, "slow" + std::string(2000, 's')));
      for (int j = 0; j < 11; ++j) finish(must_accept({"user@example.com"}, std::string(2500, 'x')));
      sync();
    }
    return slow;
  }

  std::shared_ptr<BadFiles> bad;
};

// A message in a batch that failed and could not be cut off: a copy made by compaction, beside the record that counts.
struct FailedCopy : BadSpool {
  FailedCopy() {
    REQUIRE(open().has_value());
    id = must_accept({"slow@example.com"}, "the one" + std::string(100, 's'));
    for (int i = 0; i < 11; ++i) finish(must_accept({"user@example.com"}, std::string(2500, 'x')));
    waste(14);
    clean_restart();
    for (int i = 0; i < 2; ++i) must_accept({"kept@example.com"}, "kept" + std::string(6000, 'k'));
    bad->fault = [this](const BadFiles::Call& call) {
      if (call.name == "write" && call.bytes.contains("the one")) copied_ = true;
      const bool fails =
          call.name == "sync" ? copied_ && !std::exchange(failed_, true) : failed_ && call.name == "truncate";
      return fails || (failed_ && call.name == "write" && is_blank(call.bytes)) ? BadFiles::io_error() : Result<>();
    };
    for (int i = 0; i < 60 && !failed_; ++i) spool->maintain();
    REQUIRE(failed_);
    segment = find("the one").first;
  }
  static bool is_blank(std::string_view bytes) {
    return bytes.size() == block && bytes.find_first_not_of('\0') == std::string_view::npos;
  }

  QueueId id;
  std::string segment;  // which failed

 private:
  bool copied_ = false, failed_ = false;
};

}  // namespace

TEST_CASE("compaction gives no segment up whose damage may hide the end of a message that still stands elsewhere") {
  BadSpool t;
  REQUIRE(t.open().has_value());
  const QueueId id = t.must_accept({"ended@example.com"}, "ended" + std::string(2000, 'e'));
  for (int i = 0; i < 20; ++i) t.must_accept({"kept@example.com"}, "kept" + std::string(2000, 'k'));
  t.clean_restart();
  t.must_accept({"user@example.com"}, "first");
  t.finish(id);
  t.sync();
  const std::string segment = t.find("first").first;
  for (int i = 0; i < 20; ++i) t.must_accept({"user@example.com"}, "filler" + std::to_string(i));
  t.clean_restart();
  t.spool->stop();
  t.flip(segment, log_begin + block + record_header_length + 13);  // in the header of the end
  t.clean_restart();
  REQUIRE_FALSE(t.spool->contains(id));
  for (const QueueId other : t.spool->ids({}, 1000)) {
    if (t.spool->peek(other)->envelope.recipients[0].address == "user@example.com") t.finish(other);
  }
  for (int i = 0; i < 30; ++i) {
    t.waste(1);
    t.tidy();
  }
  REQUIRE_FALSE(t.find("ended").first.empty());
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK_FALSE(t.spool->contains(id));
}

TEST_CASE("compaction gives no segment up that was not sealed and whose last batch may hide an end") {
  const bool unread = GENERATE(false, true);
  BadSpool t;
  REQUIRE(t.open().has_value());
  const QueueId id = t.must_accept({"ended@example.com"}, "ended" + std::string(2000, 'e'));
  for (int i = 0; i < 20; ++i) t.must_accept({"kept@example.com"}, "kept" + std::string(2000, 'k'));
  t.clean_restart();
  const QueueId first = t.must_accept({"user@example.com"}, "first");
  t.finish(id);
  t.sync();
  const std::string segment = t.find("first").first;
  const std::uint64_t end = log_begin + block + record_header_length;
  bool failed = false;
  t.bad->fault = [&](const BadFiles::Call& call) {
    return call.name == "sync" && !std::exchange(failed, true) ? BadFiles::io_error() : Result<>();
  };
  CHECK_FALSE(t.accept(envelope_to({"user@example.com"}), "refused").has_value());
  t.bad->mend();
  if (unread) {
    t.bad->lose("/spool/" + segment, log_begin / block + 1);
  } else {
    t.flip(segment, end);
  }
  t.finish(first);
  t.sync();
  for (int i = 0; i < 30; ++i) {
    t.waste(1);
    t.tidy();
  }
  REQUIRE_FALSE(t.find("ended").first.empty());
  REQUIRE(t.files->content("/spool/" + segment));
  if (!unread) t.flip(segment, end);
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK_FALSE(t.spool->contains(id));
}

TEST_CASE("what a failed batch has moved is safe before it is given up elsewhere, however bad the segment is") {
  const bool damaged = GENERATE(false, true);
  FailedCopy t;
  t.bad->fault = [](const BadFiles::Call& call) {
    const bool fails = call.name == "write" || call.name == "truncate" || call.name == "sync";
    return fails ? BadFiles::io_error() : Result<>();
  };
  t.spool.reset();  // killed: memory has what the disk has not
  t.bad->mend();
  if (damaged) {
    const std::string path = "/spool/" + t.segment;
    const std::size_t at = t.files->content(path)->find("kept");
    REQUIRE(at < t.files->content(path)->find("the one"));
    REQUIRE((*t.files->open(path, OpenMode::write))->write(at, std::string_view("x")));
  } else {
    t.bad->lose("/spool/" + t.segment, t.settings.segment_size / block - 1);
  }
  REQUIRE(t.open().has_value());
  REQUIRE(t.spool->contains(t.id));
  t.tidy();
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.content(t.id).starts_with("the one"));
}

TEST_CASE("what ends while an unreadable segment hides a copy of it stays gone when that can be read again") {
  FailedCopy t;
  const std::uint64_t hidden = t.find("the one").second / block;
  t.bad->mend();
  t.spool.reset();
  t.bad->lose("/spool/" + t.segment, hidden);
  REQUIRE(t.open().has_value());
  REQUIRE(t.content(t.id).starts_with("the one"));
  t.finish(t.id);
  t.sync();
  for (int i = 0; i < 3; ++i) {
    t.clean_restart();
    t.tidy();
  }
  for (const std::string& name : t.logs()) {
    if (name != t.segment) REQUIRE_FALSE(t.files->content("/spool/" + name)->contains("the one"));
  }
  t.bad->mend();
  t.clean_restart();
  CHECK_FALSE(t.spool->contains(t.id));
}

TEST_CASE("what ends after a failed batch stays gone over restarts, although that batch was not cut off") {
  FailedCopy t;
  t.bad->fault = [](const BadFiles::Call&) { return Result<>(); };
  t.finish(t.id);
  t.sync();
  t.clean_restart();
  CHECK_FALSE(t.spool->contains(t.id));
  t.tidy();
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK_FALSE(t.spool->contains(t.id));
}

TEST_CASE("a failed batch is cut off as soon as the disk allows it") {
  FailedCopy t;
  t.spool->commit();
  t.bad->fault = [](const BadFiles::Call&) { return Result<>(); };
  t.spool->maintain();
  CHECK(t.find("the one").first != t.segment);
  CHECK(t.content(t.id).starts_with("the one"));
  t.tidy();
  CHECK_FALSE(t.files->content("/spool/" + t.segment));
  t.finish(t.id);
  t.sync();
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK_FALSE(t.spool->contains(t.id));
}

TEST_CASE("a segment is given up although its messages were deferred while compaction looked at it") {
  BadSpool t;
  REQUIRE(t.open().has_value());
  const std::vector<QueueId> slow = t.waste(30);
  for (int i = 0; i < 40; ++i) {
    for (const QueueId id : slow) t.spool->update(id, {{0, deferred(t.clock.now() + 1h, std::to_string(i))}});
    t.spool->maintain();
  }
  t.sync();
  t.tidy();
  CHECK(t.logs().size() < 15);
  CHECK(t.spool->peek(slow[0])->state.recipients[0].reason == "39");
}

TEST_CASE("a torn last batch is moved on, since what the disk does to it later could not be told") {
  BadSpool t;
  REQUIRE(t.open().has_value());
  std::vector<std::unique_ptr<Incoming>> both;
  for (const std::string content : {"the whole one", "the torn one"}) {
    both.push_back(t.spool->begin());
    REQUIRE(t.wait(both.back()->write({content.begin(), content.end()})));
    asio::co_spawn(t.io, both.back()->commit(envelope_to({"user@example.com"})), [](std::exception_ptr, Result<>) {});
  }
  t.io.restart();
  t.io.poll();
  t.sync();
  t.io.restart();
  t.io.poll();
  const QueueId whole = both[0]->id(), torn = both[1]->id();
  both.clear();
  const auto [segment, at] = t.find("the torn one");
  REQUIRE(t.find("the whole one").first == segment);
  t.crash();
  t.flip(segment, at);
  REQUIRE(t.open().has_value());
  CHECK(t.spool->contains(whole));
  CHECK_FALSE(t.spool->contains(torn));
  t.tidy();
  CHECK(t.find("the whole one").first > segment);
  CHECK(t.content(whole) == "the whole one");
  CHECK_FALSE(t.log.contains("damaged"));
}

TEST_CASE("threads: while writes fail there are pauses") {
  BadSpool t;
  std::atomic<bool> broken = false;
  std::atomic<int> tries = 0;
  t.bad->fault = [&](const BadFiles::Call& call) {
    if (!broken || call.name != "write" || call.offset < log_begin || call.bytes.size() > 3 * block) return Result<>();
    ++tries;
    return BadFiles::io_error();
  };
  auto opened = SpoolImpl::open(t.settings, *t.files, t.clock, t.log, t.metrics, t.alerts, true);
  REQUIRE(opened.has_value());
  const auto incoming = (*opened)->begin();
  std::optional<Result<>> result;
  asio::co_spawn(t.io, incoming->commit(envelope_to({"user@example.com"})),
                 [&](std::exception_ptr, Result<> committed) { result = committed; });
  t.io.run_for(5s);
  REQUIRE((result && result->has_value()));
  broken = true;
  (*opened)->update(incoming->id(), {{0, deferred(t.clock.now() + 1h)}});
  std::this_thread::sleep_for(700ms);
  CHECK(tries > 0);
  CHECK(tries <= 3);
  broken = false;
}

TEST_CASE("without a descriptor for a moment a state is not lost") {
  BadSpool t;
  REQUIRE(t.open().has_value());
  const QueueId id = t.must_accept({"a@example.com", "b@example.com"});
  t.spool->update(id, {{0, deferred(t.clock.now() + 1h, "the reason")}});
  t.clean_restart();
  bool refused = false;
  t.bad->fault = [&](const BadFiles::Call& call) -> Result<> {
    if (call.name != "open" || std::exchange(refused, true)) return Result<>();
    return fail(ErrorKind::temporary, "Too many open files");
  };
  t.spool->update(id, {{1, deferred(t.clock.now() + 1h, "another")}});
  t.sync();
  CHECK(refused);
  t.clean_restart();
  CHECK(t.spool->peek(id)->state.recipients[0].reason == "the reason");
  CHECK(t.spool->peek(id)->state.recipients[1].reason == "another");
}

TEST_CASE("a message whose segment has gone while it was read is looked for once more, and never reported as gone") {
  BadSpool t;
  REQUIRE(t.open().has_value());
  const QueueId id = t.must_accept({"user@example.com"}, "moved");
  t.clean_restart();
  int gone = 1;
  t.bad->fault = [&](const BadFiles::Call& call) -> Result<> {
    if (call.name != "open" || gone-- <= 0) return Result<>();
    return fail(ErrorKind::not_found, "no such file");
  };
  CHECK(t.content(id) == "moved");
  t.clean_restart();
  gone = 1000;
  const auto read = t.wait(t.spool->load(id, 100));
  REQUIRE_FALSE(read.has_value());
  CHECK(read.error().kind == ErrorKind::temporary);
}

TEST_CASE("what a stop cannot write is told of") {
  TestSpool t;
  REQUIRE(t.open().has_value());
  const QueueId id = t.must_accept();
  CHECK(t.spool->remove(id).has_value());
  CHECK(t.spool->totals().unsaved == 0);
  t.files->fail_at(1, Fault::no_space, true);
  t.sync();
  CHECK(t.spool->totals().unsaved == 1);
  t.spool->stop();
  CHECK(t.log.contains("error: changes lost that could not be written: 1;"));
  t.files->heal();
  t.clean_restart();
  CHECK(t.spool->contains(id));
}

TEST_CASE("for want of descriptors nothing is compacted, and nothing is given up as it is") {
  BadSpool t;
  REQUIRE(t.open().has_value());
  const std::vector<QueueId> slow = t.waste(8);
  const auto lack = [](std::string_view suffix) {
    return [suffix](const BadFiles::Call& call) {
      return call.name == "open" && call.path.ends_with(suffix) ? BadFiles::io_error() : Result<>();
    };
  };
  std::size_t before = t.logs().size();
  SECTION("for new segments") {
    t.bad->fault = lack(".free");
    t.tidy();
    CHECK(t.logs().size() == before);
  }
  SECTION("to read old ones") {
    for (int i = 0; i < 2; ++i) t.spool->maintain();  // they are closed
    before = t.logs().size();
    t.bad->fault = lack(".log");
    t.spool->limit(1ULL << 50, 0);
    t.tidy();
    CHECK(t.log.contains("cannot be compacted: Input/output error"));
    CHECK_FALSE(t.spool->maintain());
    CHECK(t.logs().size() == before);
    t.bad->mend();
    for (int i = 0; i < 100; ++i) t.spool->maintain();
    CHECK(t.logs().size() < before);
  }
  for (const QueueId id : slow) CHECK(t.content(id).starts_with("slow"));
}

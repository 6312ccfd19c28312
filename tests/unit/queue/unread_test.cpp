// Blocks that the disk does not give: all else lives, and the file stays as it is, since they may heal.
#include "bad_files.hpp"
#include "fixture.hpp"
#include "queue/reader.hpp"

using namespace greymx;
using namespace greymx::test;

namespace {

struct Disk {
  struct Sent {
    std::string content;
    std::uint64_t first = 0, last = 0, change = 0;  // blocks of its records
  };
  explicit Disk(bool sealed) {
    TestSpool t;
    settings.path = "/spool";
    settings.segment_size = 64 * 1024;
    settings.large_message = 12 * 1024;
    settings.min_free_space = 0;
    t.settings = settings;
    REQUIRE(t.open().has_value());
    for (const std::size_t size : {100U, 3000U, 6000U, 500U, 20000U}) {
      const std::string content = "message " + std::to_string(size) + std::string(size, 'x');
      sent[t.must_accept({"user@example.com"}, content)] = {content};
    }
    const QueueId ended = t.must_accept();
    t.finish(ended);
    t.spool->update(sent.begin()->first, {{0, deferred(t.clock.now() + 1h, "why")}});
    t.sync();
    name = t.logs().back();
    if (sealed) t.spool->stop();
    t.crash();
    files = t.files;
    bytes = *files->content(path());
    for (auto& [id, one] : sent) {
      const std::size_t at = bytes.find(one.content);
      one.first = at / block;
      one.last = (at + one.content.size()) / block;
      if (at == std::string::npos) large = id;
    }
    sent.begin()->second.change = bytes.find("why") / block;
    Sent& named = sent.at(large);  // its record stands behind that of the one before
    named.first = named.last = std::prev(sent.find(large))->second.last + 1;
  }
  std::string path() const { return "/spool/" + name; }
  std::shared_ptr<BadFiles> without(std::uint64_t missing) const {
    auto bad = std::make_shared<BadFiles>();
    bad->copy(*files, "/spool");
    bad->lose(path(), missing);
    return bad;
  }

  SpoolSettings settings;
  std::shared_ptr<MemoryFiles> files;
  std::string name, bytes;  // of the only segment that was written to
  std::map<QueueId, Sent> sent;
  QueueId large;
};

void check_others(TestSpool& t, const Disk& disk, std::uint64_t missing) {
  for (const auto& [id, one] : disk.sent) {
    INFO("message " << id.to_string() << " of " << one.content.size());
    if (one.first <= missing && missing <= one.last) continue;
    REQUIRE(t.spool->contains(id));
    if (missing == one.change) continue;  // it waits
    CHECK(t.content(id) == one.content);
  }
}

}  // namespace

TEST_CASE("any block of a segment may be unreadable: the spool opens, the rest lives, the file stays") {
  const bool sealed = GENERATE(false, true);
  const Disk disk(sealed);
  const std::uint64_t blocks = disk.bytes.size() / block;
  REQUIRE(blocks > 8);
  for (std::uint64_t missing = 0; missing < blocks; ++missing) {
    INFO("block " << missing << (sealed ? " of a sealed segment" : " of an open segment"));
    const auto bad = disk.without(missing);
    const auto report = verify_spool("/spool", *bad);
    REQUIRE(report.has_value());
    CHECK(report->failures.empty() == (missing < 2));  // of the two headers one does
    CHECK(SpoolReader::open("/spool", *bad).has_value());

    TestSpool t(bad);
    t.settings = disk.settings;
    REQUIRE(t.open().has_value());
    check_others(t, disk, missing);
    t.tidy();
    check_others(t, disk, missing);
    const bool noticed =
        missing >= (sealed ? blocks - 2 : 2);  // of a sealed one only the summary and the seal are read
    if (noticed) CHECK(t.files->content(disk.path()) == disk.bytes);
    CHECK(t.alerts.contains("the next start reads it again") == noticed);

    const std::vector<QueueId> delivered = t.spool->ids({}, 100);
    for (const QueueId id : delivered) t.finish(id);
    t.sync();
    t.tidy();
    CHECK((t.files->content(disk.path()) == disk.bytes) == noticed);
    t.clean_restart();
    CHECK(t.spool->totals().messages == 0);
    t.tidy();
    bad->mend();
    t.clean_restart();
    for (const auto& [id, one] : disk.sent) {
      CHECK(t.spool->contains(id) != (std::ranges::find(delivered, id) != delivered.end()));
      if (t.spool->contains(id)) CHECK(t.content(id) == one.content);
    }
    for (const QueueId id : t.spool->ids({}, 100)) t.finish(id);
    t.sync();
    t.tidy();
    CHECK_FALSE(t.files->content(disk.path()));
    t.crash();
    REQUIRE(t.open().has_value());
    CHECK(t.spool->totals().messages == 0);
  }
}

TEST_CASE("a block that heals gives back what it holds") {
  const bool sealed = GENERATE(false, true);
  const Disk disk(sealed);
  for (std::uint64_t missing = 2; missing < disk.bytes.size() / block; ++missing) {
    INFO("block " << missing << (sealed ? " of a sealed segment" : " of an open segment"));
    const auto bad = disk.without(missing);
    TestSpool t(bad);
    t.settings = disk.settings;
    REQUIRE(t.open().has_value());
    bad->mend();
    t.clean_restart();
    CHECK(t.spool->totals().messages == disk.sent.size());
    check_others(t, disk, 0);
    CHECK(t.spool->peek(disk.sent.begin()->first)->state.recipients[0].reason == "why");
  }
}

TEST_CASE("a message whose record cannot be read stays in the queue, and its file when the message has gone") {
  auto bad = std::make_shared<BadFiles>();
  TestSpool t(bad);
  t.settings.segment_size = 64 * 1024;
  REQUIRE(t.open().has_value());
  const std::string content = "unlucky" + std::string(100, 'u');
  const QueueId id = t.must_accept({"slow@example.com"}, content);
  const std::string path = "/spool/" + t.logs().back();
  const std::uint64_t missing = t.files->content(path)->find(content) / block;
  for (int i = 0; i < 20; ++i) {
    for (int j = 0; j < 20; ++j) t.finish(t.must_accept({"user@example.com"}, std::string(2500, 'x')));
    t.must_accept({"slow@example.com"}, std::string(2500, 's'));
    t.sync();
  }
  t.clean_restart();
  const std::string bytes = *t.files->content(path);
  bad->lose(path, missing);
  t.tidy();
  const auto loaded = t.wait(t.spool->load(id, 1000));
  REQUIRE_FALSE(loaded.has_value());
  CHECK(loaded.error().kind == ErrorKind::temporary);
  CHECK(t.spool->contains(id));
  CHECK(t.alerts.contains("the spool is damaged"));
  REQUIRE(t.spool->remove(id));
  t.sync();
  t.tidy();
  CHECK(t.files->content(path) == bytes);
  const std::uint64_t left = t.spool->totals().messages;
  t.clean_restart();
  CHECK(t.spool->totals().messages == left);
  t.tidy();
  CHECK_FALSE(t.files->content(path));  // its summary says that nothing is missing
}

TEST_CASE("a segment of which neither header can be read is an error that tells what to do") {
  const Disk disk(true);
  const auto bad = std::make_shared<BadFiles>();
  bad->copy(*disk.files, "/spool");
  bad->fault = [&](const BadFiles::Call& call) {
    return call.name == "read" && call.path == disk.path() ? BadFiles::io_error() : Result<>();
  };
  TestSpool t(bad);
  t.settings = disk.settings;
  const auto opened = t.open();
  REQUIRE_FALSE(opened.has_value());
  CHECK(opened.error().kind == ErrorKind::temporary);
  CHECK(opened.error().text.ends_with("if that stays so, move the file away and start again"));
  CHECK(t.files->content(disk.path()) == disk.bytes);
}

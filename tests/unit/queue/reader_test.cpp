#include "queue/reader.hpp"

#include <nlohmann/json.hpp>
#include <thread>

#include "model.hpp"

using namespace greymx;
using namespace greymx::test;

namespace {

struct SmallSpool : TestSpool {
  SmallSpool() {
    settings.segment_size = 64 * 1024;
    settings.large_message = 8 * 1024;
    REQUIRE(open().has_value());
  }
  std::unique_ptr<SpoolReader> reader() const {
    auto opened = SpoolReader::open("/spool", *files);
    REQUIRE(opened.has_value());
    return std::move(*opened);
  }
  SpoolReport verify() const {
    const auto report = verify_spool("/spool", *files);
    INFO((report ? std::string() : report.error().text));
    REQUIRE(report.has_value());
    return *report;
  }
};

std::string whole(Content& content) {
  std::string text(content.size(), '\0');
  REQUIRE(content.read(0, text) == text.size());
  return text;
}

}  // namespace

TEST_CASE("a reader sees what the daemon has synced, without lock and without writing") {
  SmallSpool t;
  Model model(t);
  std::mt19937 random(5);
  for (int i = 0; i < 20; ++i) {
    for (int j = 0; j < 20; ++j) step(t, model, random);
    model.sync();
    const auto reader = t.reader();
    CHECK(reader->ids() == t.spool->ids({}, 10000));
    CHECK(reader->problems().empty());
    for (const QueueId id : reader->ids()) {
      const auto seen = reader->peek(id);
      const auto truth = t.spool->peek(id);
      REQUIRE(seen.has_value());
      CHECK(seen->state == truth->state);
      CHECK(seen->envelope == truth->envelope);
      CHECK(seen->size == truth->size);
      const auto content = reader->content(id);
      REQUIRE(content.has_value());
      CHECK(whole(**content) == t.content(id));
    }
    const auto report = t.verify();
    CHECK(report.failures.empty());
    CHECK(report.messages == reader->ids().size());
  }
  const char* const writing[] = {"write", "sync", "rename", "remove", "allocate", "truncate", "lock", "make_directory"};
  std::map<std::string, std::uint64_t> before;
  for (const char* name : writing) before[name] = t.files->count(name);
  static_cast<void>(t.reader()->ids());
  static_cast<void>(t.verify());
  for (const char* name : writing) CHECK(t.files->count(name) == before[name]);
}

TEST_CASE("a reader finds what compaction has moved since it looked, and misses what has ended") {
  SmallSpool t;
  std::vector<QueueId> kept, ended;
  for (int i = 0; i < 300; ++i) {
    (i % 10 == 0 ? kept : ended)
        .push_back(t.must_accept({"user@example.com"}, std::to_string(i) + std::string(2000, 'x')));
  }
  const auto reader = t.reader();
  CHECK(reader->ids().size() == 300);
  for (const QueueId id : ended) t.finish(id);
  for (const QueueId id : kept) t.spool->update(id, {{0, deferred(t.clock.now() + 1h, "moved")}});
  t.sync();
  t.tidy();
  for (int i = 0; i < 300; ++i) t.finish(t.must_accept({"user@example.com"}, std::string(2000, 'y')));
  t.tidy();
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const auto content = reader->content(kept[i]);
    REQUIRE(content.has_value());
    CHECK(whole(**content) == std::to_string(i * 10) + std::string(2000, 'x'));
    const auto found = reader->peek(kept[i]);  // as it was when the reader looked, or newer
    REQUIRE(found.has_value());
    CHECK((found->state.recipients[0].reason.empty() || found->state.recipients[0].reason == "moved"));
  }
  const auto gone = reader->peek(ended[0]);
  REQUIRE_FALSE(gone.has_value());
  CHECK(gone.error().kind == ErrorKind::not_found);
  CHECK(reader->problems().empty());
}

TEST_CASE("readers beside a busy daemon always see what lives all the time, and no damage") {
  SmallSpool t;
  t.settings.lazy_sync = 1ms;
  std::vector<QueueId> kept;
  for (int i = 0; i < 40; ++i) {
    kept.push_back(t.must_accept({"user@example.com"}, std::string(1500, 'k')));
    for (int j = 0; j < 5; ++j) t.finish(t.must_accept({"user@example.com"}, std::string(1500, 'e')));
  }
  t.sync();
  std::atomic<bool> stop = false;
  std::thread daemon([&] {
    for (int i = 0; !stop; ++i) {
      for (int j = 0; j < 20; ++j) {
        const QueueId id = kept[static_cast<std::size_t>(i * 7 + j) % kept.size()];
        t.spool->update(id, {{0, deferred(t.clock.now() + 1h, std::string(300, 'r'))}});
        t.sync();
      }
      t.spool->maintain();
    }
  });
  for (int i = 0; i < 100; ++i) {
    const auto reader = SpoolReader::open("/spool", *t.files);
    const auto report = verify_spool("/spool", *t.files);
    const bool all = reader && (*reader)->ids() == kept && (*reader)->problems().empty();
    const bool content = all && (*reader)->content(kept[static_cast<std::size_t>(i) % kept.size()]).has_value();
    const bool sound = report && report->failures.empty();
    if (all && content && sound) continue;
    stop = true;
    CHECK(all);
    CHECK(content);
    CHECK(sound);
    break;
  }
  const auto renames = t.files->count("rename");
  stop = true;
  daemon.join();
  CHECK(renames > 10);  // segments did come and go
}

TEST_CASE("verify finds any changed byte of a sealed segment's records") {
  SmallSpool t;
  const QueueId id = t.must_accept();
  t.spool->update(id, {{0, deferred(t.clock.now() + 1h)}});
  t.finish(t.must_accept());
  t.sync();
  t.spool->stop();
  CHECK(t.verify().failures.empty());
  const std::string path = "/spool/" + t.logs().back();
  const std::string sound = *t.files->content(path);
  std::size_t end = sound.size() - block;
  while (sound[end - 1] == '\0') --end;
  int unseen = 0;
  for (std::size_t at = log_begin; at < end; at += 3) {
    if (sound[at] == '\0') continue;  // padding proves nothing
    std::string bytes = sound;
    bytes[at] ^= 0x20;
    t.files->put(path, bytes);
    if (t.verify().failures.empty()) ++unseen;
  }
  CHECK(unseen == 0);
}

TEST_CASE("problems tell the place and the number of bytes; a torn tail is none") {
  SmallSpool t;
  t.must_accept({"user@example.com"}, "first message");
  t.must_accept({"user@example.com"}, "second message");
  const std::string path = "/spool/" + t.logs().back();
  std::string bytes = *t.files->content(path);
  bytes[bytes.find("second message")] ^= 1;
  t.files->put(path, bytes);
  CHECK(t.reader()->problems().empty());
  bytes[bytes.find("first message")] ^= 1;
  t.files->put(path, bytes);
  const auto reader = t.reader();
  REQUIRE(reader->problems().size() == 1);
  CHECK(reader->problems()[0].starts_with(t.logs().back() + ": "));
  CHECK(reader->problems()[0].ends_with(" bytes at 8232 are damaged"));
  CHECK(t.verify().failures == reader->problems());
}

TEST_CASE("verify reads large files too, and names what is left over") {
  SmallSpool t;
  const QueueId id = t.must_accept({"user@example.com"}, std::string(50000, 'L'));
  const std::string path = "/spool/large/" + id.to_string();
  CHECK(t.verify().warnings.empty());
  t.files->put("/spool/large/" + QueueId{5}.to_string(), "orphan");
  t.files->put("/spool/corrupt/00000001-8232", "piece");
  CHECK(t.verify().warnings.size() == 2);
  CHECK(t.verify().failures.empty());
  t.files->put(path, std::string(49999, 'L') + "l");
  CHECK(t.verify().failures.size() == 1);
  REQUIRE(t.files->remove(path));
  CHECK(t.verify().failures.size() == 1);
}

TEST_CASE("dump shows every record in the order of the log") {
  SmallSpool t;
  const QueueId id = t.must_accept({"caf\xe9@example.com"});
  t.spool->update(id, {{0, deferred(t.clock.now() + 1h, "refused")}});
  t.sync();
  t.finish(id);
  t.sync();
  std::vector<nlohmann::json> lines;
  const auto print = [&](const std::string& line) {
    lines.push_back(nlohmann::json::parse(line));
    return true;
  };
  REQUIRE(dump_spool("/spool", *t.files, print));
  REQUIRE(lines.size() == 4);
  CHECK(lines[0]["type"] == "segment");
  CHECK(lines[1]["type"] == "message");
  CHECK(lines[1]["id"] == id.to_string());
  CHECK(lines[1]["envelope"]["client_address"] == "192.0.2.10");
  CHECK(lines[2]["state"]["recipients"][0]["reason"] == "refused");
  CHECK(lines[3]["type"] == "end");
  int printed = 0;
  REQUIRE(dump_spool("/spool", *t.files, [&](const std::string&) { return ++printed < 2; }));
  CHECK(printed == 2);
}

TEST_CASE("a spool that is not there, or of another version, is an error") {
  MemoryFiles files;
  CHECK_FALSE(SpoolReader::open("/nowhere", files).has_value());
  CHECK_FALSE(verify_spool("/nowhere", files).has_value());
}

// Segments made ready ahead: recovery reads them by number, so their numbers must tell the order of their records.
#include <atomic>
#include <future>

#include "bad_files.hpp"
#include "fixture.hpp"
#include "queue/segment.hpp"

using namespace greymx;
using namespace greymx::test;
using namespace std::chrono_literals;

namespace {

class RenameHook final : public MemoryFiles {  // tells of renames before they are done
 public:
  std::function<void()> on_rename;

  Result<> rename(const std::string& from, const std::string& to) override {
    on_rename();
    return MemoryFiles::rename(from, to);
  }
};

}  // namespace

TEST_CASE(
    "segments: one that the writer needs while another is made ready never gets a higher number than a later one") {
  RenameHook files;
  REQUIRE(files.make_directory("/spool").has_value());
  SegmentStore store(files, "/spool", 64 * 1024);
  std::atomic<int> renames = 0;
  std::future<Result<std::shared_ptr<Segment>>> needed;
  files.on_rename = [&] {
    if (renames++ > 0) return;
    needed = std::async(std::launch::async, [&] { return store.next(WallTime{}, false); });
    needed.wait_for(200ms);  // time enough to overtake
  };
  REQUIRE(store.refill(WallTime{}).has_value());
  const auto first = needed.get();
  const auto second = store.next(WallTime{}, false);
  REQUIRE(first.has_value());
  REQUIRE(second.has_value());
  CHECK((*first)->number() < (*second)->number());
}

TEST_CASE("segments: a free one is lost or counted twice by no error") {
  for (std::uint64_t i = 2; i < 40; ++i) {
    const std::uint64_t n = i / 2;
    const bool shared = i % 2 == 0;
    INFO("operation " << n << (shared ? ", shared" : ""));
    MemoryFiles files;
    REQUIRE(files.make_directory("/spool").has_value());
    SegmentStore store(files, "/spool", 64 * 1024);
    REQUIRE(store.refill(WallTime{}).has_value());
    const auto consistent = [&] {
      const auto names = files.list("/spool");
      const auto count = [&](std::string_view suffix) {
        return static_cast<std::uint64_t>(
            std::ranges::count_if(*names, [&](const std::string& name) { return name.ends_with(suffix); }));
      };
      return count(".free") * 64 * 1024 == store.spare_bytes();
    };
    REQUIRE(store.next(WallTime{}, true).has_value());  // the one made ready
    files.fail_at(n);
    const auto made = store.next(WallTime{}, true);
    files.heal();
    CHECK(consistent());
    const auto again = made ? made : store.next(WallTime{}, true);
    REQUIRE(again.has_value());
    files.fail_at(n);
    if (!store.retire(**again, shared)) {
      files.heal();
      static_cast<void>(store.retire(**again, false));
    }
    files.heal();
    CHECK(consistent());
  }
}

TEST_CASE("segments: a header that cannot be read is no damage, and the other one serves") {
  MemoryFiles files;
  REQUIRE(files.make_directory("/spool").has_value());
  SegmentStore store(files, "/spool", 64 * 1024);
  const auto made = store.next(WallTime{}, false);
  REQUIRE(made.has_value());
  for (std::uint64_t n = 1; n <= 4; ++n) {  // open, size, first header, second
    files.fail_at(n);
    const auto opened = Segment::open(files, "/spool", (*made)->number());
    CHECK(opened.has_value() == (n >= 3));
    if (!opened) CHECK(opened.error().kind == ErrorKind::temporary);
    files.heal();
  }
}

TEST_CASE("segments: a cut whose sync fails has shortened the file") {
  MemoryFiles files;
  REQUIRE(files.make_directory("/spool").has_value());
  SegmentStore store(files, "/spool", 64 * 1024);
  const auto made = store.next(WallTime{}, false);
  REQUIRE(made.has_value());
  files.fail_at(3);  // open, truncate, sync
  CHECK_FALSE((*made)->cut(log_begin));
  CHECK((*made)->size() == log_begin);
}

TEST_CASE("segments: without descriptors no free file is given up") {
  BadFiles files;
  REQUIRE(files.make_directory("/spool").has_value());
  SegmentStore store(files, "/spool", 64 * 1024);
  REQUIRE(store.refill(WallTime{}).has_value());
  REQUIRE(store.next(WallTime{}, false).has_value());
  const std::uint64_t before = store.spare_bytes();
  REQUIRE(before > 0);
  files.fault = [](const BadFiles::Call&) { return BadFiles::io_error(); };
  for (int i = 0; i < 5; ++i) CHECK_FALSE(store.next(WallTime{}, false));
  CHECK(store.spare_bytes() == before);
  files.fault = [](const BadFiles::Call&) { return Result<>(); };
  CHECK(store.next(WallTime{}, false));
}

TEST_CASE("segments: a free file that was renamed when descriptors ran out is used again under its old name") {
  BadFiles files;
  REQUIRE(files.make_directory("/spool").has_value());
  SegmentStore store(files, "/spool", 64 * 1024);
  REQUIRE(store.refill(WallTime{}).has_value());
  REQUIRE(store.next(WallTime{}, false).has_value());
  const auto names = files.list("/spool");
  files.fault = [](const BadFiles::Call& call) {
    return call.name == "sync_directory" || call.name == "list" ? BadFiles::io_error() : Result<>();
  };
  CHECK_FALSE(store.next(WallTime{}, false));
  files.fault = [](const BadFiles::Call&) { return Result<>(); };
  CHECK(*files.list("/spool") == *names);
  CHECK(store.next(WallTime{}, false));
}

TEST_CASE("segments: a free file that the disk refuses is left behind") {
  class BadFile final : public MemoryFiles {
   public:
    std::string bad;
    Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
      if (path == bad && mode == OpenMode::write) return fail(ErrorKind::temporary, "bad sector");
      return MemoryFiles::open(path, mode);
    }
  } files;
  REQUIRE(files.make_directory("/spool").has_value());
  SegmentStore store(files, "/spool", 64 * 1024);
  REQUIRE(store.refill(WallTime{}).has_value());
  REQUIRE(store.next(WallTime{}, false).has_value());
  const auto names = files.list("/spool");
  files.bad = "/spool/" + *std::ranges::find_if(*names, [](const auto& name) { return name.ends_with(".free"); });
  CHECK_FALSE(store.next(WallTime{}, true));
  CHECK(store.next(WallTime{}, true));
  CHECK(store.next(WallTime{}, true));
}

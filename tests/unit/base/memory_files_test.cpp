// The disk in memory that other tests stand on.
#include "support/memory_files.hpp"

#include "support/catch.hpp"

using namespace greymx;
using test::Crash;
using test::Fault;
using test::MemoryFiles;

namespace {

std::unique_ptr<File> created(MemoryFiles& files, const std::string& path) {
  auto file = files.open(path, OpenMode::create);
  REQUIRE(file);
  return std::move(*file);
}

// "/d/a" with "old" durable and "new!" at offset 2 not synced.
std::unique_ptr<File> half_synced(MemoryFiles& files) {
  REQUIRE(files.make_directory("/d"));
  auto file = created(files, "/d/a");
  REQUIRE(file->write(0, std::string("old")));
  REQUIRE(file->sync());
  REQUIRE(files.sync_directory("/d"));
  REQUIRE(file->write(2, std::string("new!")));
  return file;
}

}  // namespace

TEST_CASE("memory: a crash forgets what was not synced") {
  MemoryFiles files;
  const auto file = half_synced(files);
  CHECK(files.content("/d/a") == "olnew!");
  CHECK(files.unsynced_bytes() == 4);
  files.crash();
  CHECK(files.content("/d/a") == "old");
  CHECK_FALSE(file->sync());  // opened before the crash
  CHECK(files.open("/d/a", OpenMode::write));
}

TEST_CASE("memory: a crash keeps what was synced") {
  MemoryFiles files;
  const auto file = half_synced(files);
  CHECK(file->sync());
  files.crash();
  CHECK(files.content("/d/a") == "olnew!");
}

TEST_CASE("memory: a crash can keep a prefix of the unsynced bytes") {
  MemoryFiles files;
  const auto file = half_synced(files);
  const std::string expected[] = {"old", "oln", "olne", "olnew", "olnew!", "olnew!"};
  for (std::uint64_t keep = 0; keep < 6; ++keep) {
    const auto copy = files.clone();
    copy->crash({.keep_bytes = keep});
    CHECK(copy->content("/d/a") == expected[keep]);
  }
  CHECK(files.content("/d/a") == "olnew!");
}

TEST_CASE("memory: a crash can keep any sectors of the unsynced bytes") {
  MemoryFiles files;
  const auto file = half_synced(files);
  CHECK(file->write(0, std::string(2048, 'x')));
  bool gap = false;
  for (unsigned seed = 0; seed < 50; ++seed) {
    const auto copy = files.clone();
    copy->crash({.random_sectors = seed});
    const std::string content = *copy->content("/d/a");
    for (std::size_t at = 512; at + 512 <= content.size(); at += 512) {
      const std::string part = content.substr(at, 512);
      CHECK((part == std::string(512, 'x') || part == std::string(512, '\0')));
      gap = gap || (part.front() == '\0');
    }
  }
  CHECK(gap);
}

TEST_CASE("memory: names are durable only after their directory is synced") {
  MemoryFiles files;
  CHECK(files.make_directory("/d"));
  const auto file = created(files, "/d/a");
  CHECK(file->write(0, std::string("x")));
  CHECK(file->sync());
  CHECK(files.unsynced_entries() == 1);
  const auto kept = files.clone();
  kept->crash({.keep_entries = 1});
  CHECK(kept->content("/d/a") == "x");
  files.crash();
  CHECK_FALSE(files.content("/d/a"));
}

TEST_CASE("memory: an unsynced rename or removal may come undone") {
  MemoryFiles files;
  files.put("/d/a", "A");
  files.put("/d/b", "B");
  CHECK(files.rename("/d/a", "/d/b"));
  CHECK(files.list("/d") == std::vector<std::string>{"b"});
  CHECK(files.content("/d/b") == "A");
  const auto undone = files.clone();
  undone->crash();
  CHECK(undone->content("/d/a") == "A");
  CHECK(undone->content("/d/b") == "B");
  CHECK(files.sync_directory("/d"));
  CHECK(files.remove("/d/b"));
  files.crash();
  CHECK(files.content("/d/b") == "A");
  CHECK_FALSE(files.content("/d/a"));
}

TEST_CASE("memory: the planned operation fails, and only that one") {
  MemoryFiles files;
  const auto file = half_synced(files);
  files.fail_at(2);
  CHECK(file->write(0, std::string("1")));
  CHECK_FALSE(file->write(0, std::string("2")));
  CHECK(file->write(1, std::string("3")));
  CHECK(files.content("/d/a")->substr(0, 2) == "13");
  files.fail_at(1, Fault::no_space);
  CHECK(file->sync().error().kind == ErrorKind::no_space);
  files.fail_at(1, Fault::io_error, true);
  CHECK_FALSE(file->size());
  CHECK_FALSE(files.list("/d"));
  files.heal();
  CHECK(files.list("/d"));
}

TEST_CASE("memory: a torn write leaves half of its bytes") {
  MemoryFiles files;
  const auto file = half_synced(files);
  files.fail_at(1, Fault::torn);
  CHECK_FALSE(file->write(0, std::string("abcd")));
  CHECK(files.content("/d/a") == "abnew!");
}

TEST_CASE("memory: after a failed sync a later one does not save what it lost") {
  MemoryFiles files;
  const auto file = half_synced(files);
  files.fail_at(1);
  CHECK_FALSE(file->sync());
  CHECK(file->sync());
  files.crash();
  CHECK(files.content("/d/a") == "old");
}

TEST_CASE("memory: space is limited") {
  MemoryFiles files;
  files.put("/d/a", std::string(600, 'x'));
  files.set_capacity(1000);
  CHECK(files.free_bytes("/d") == 400);
  const auto file = created(files, "/d/b");
  CHECK(file->write(0, std::string(300, 'y')));
  CHECK(file->write(0, std::string(400, 'y')));
  CHECK(file->write(1, std::string(400, 'y')).error().kind == ErrorKind::no_space);
  CHECK(file->allocate(401).error().kind == ErrorKind::no_space);
  CHECK(files.remove("/d/a"));
  CHECK(file->allocate(1000));
  CHECK(files.free_bytes("/d") == 0);
}

TEST_CASE("memory: a lock has one holder and a crash frees it") {
  MemoryFiles files;
  CHECK(files.make_directory("/d"));
  auto held = files.lock("/d/lock");
  REQUIRE(held);
  CHECK(files.lock("/d/lock").error().kind == ErrorKind::not_found);
  held->reset();
  held = files.lock("/d/lock");
  CHECK(held);
  files.crash();
  const auto after = files.lock("/d/lock");
  CHECK(after);
  held->reset();  // the dead holder does not free the new one's
  CHECK_FALSE(files.lock("/d/lock"));
}

TEST_CASE("memory: errors are those of a file system") {
  MemoryFiles files;
  files.put("/d/a", "x");
  CHECK_FALSE(files.open("/d/a", OpenMode::create));
  CHECK(files.open("/d/b", OpenMode::read).error().kind == ErrorKind::not_found);
  CHECK(files.open("/e/b", OpenMode::create).error().kind == ErrorKind::not_found);
  CHECK(files.rename("/d/b", "/d/c").error().kind == ErrorKind::not_found);
  CHECK(files.remove("/d/b").error().kind == ErrorKind::not_found);
  CHECK(files.list("/e").error().kind == ErrorKind::not_found);
  const auto file = files.open("/d/a", OpenMode::read);
  CHECK_FALSE((*file)->write(0, std::string("y")));
  CHECK(files.make_directory("/d/e/f"));
  CHECK(files.list("/d") == std::vector<std::string>{"a", "e"});
  CHECK(files.count("list") == 2);
}

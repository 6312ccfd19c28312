#include "base/files.hpp"

#include <sys/stat.h>

#include <thread>

#include "support/catch.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;
using test::TempDir;

namespace {

std::string read_all(File& file, std::size_t limit = 1000) {
  std::string into(limit, '?');
  const auto n = file.read(0, into);
  REQUIRE(n);
  return into.substr(0, *n);
}

mode_t mode_of(const std::string& path) {
  struct stat status{};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_mode & 07777;
}

}  // namespace

TEST_CASE("files are created once, private, and read back") {
  const TempDir dir;
  const auto files = system_files();
  const auto file = files->open(dir / "a", OpenMode::create);
  REQUIRE(file);
  CHECK(mode_of(dir / "a") == 0600);
  CHECK((*file)->write(0, std::string("hello")));
  CHECK((*file)->write(7, std::string("there")));
  CHECK((*file)->sync());
  CHECK((*file)->size() == 12);
  CHECK(read_all(**file) == std::string("hello\0\0there", 12));
  CHECK((*file)->truncate(5));
  CHECK(read_all(**file) == "hello");
  CHECK((*file)->close());
  CHECK_FALSE(files->open(dir / "a", OpenMode::create));
  CHECK(files->open(dir / "b", OpenMode::read).error().kind == ErrorKind::not_found);
  const auto again = files->open(dir / "a", OpenMode::read);
  REQUIRE(again);
  CHECK_FALSE((*again)->write(0, std::string("x")));
}

TEST_CASE("allocated blocks are zero and really there") {
  const TempDir dir;
  const auto files = system_files();
  const auto file = files->open(dir / "a", OpenMode::create);
  CHECK((*file)->write(0, std::string("x")));
  CHECK((*file)->allocate(200'000));
  CHECK((*file)->size() == 200'000);
  const std::string content = read_all(**file, 300'000);
  CHECK(content == "x" + std::string(199'999, '\0'));
  struct stat status{};
  REQUIRE(::stat((dir / "a").c_str(), &status) == 0);
  CHECK(status.st_blocks * 512 >= 200'000);
}

TEST_CASE("directories are made with their parents, listed in order") {
  const TempDir dir;
  const auto files = system_files();
  CHECK(files->make_directory(dir / "a/b/c"));
  CHECK(files->make_directory(dir / "a/b/c"));
  CHECK(mode_of(dir / "a/b") == 0700);
  CHECK(files->open(dir / "a/z", OpenMode::create));
  CHECK(files->open(dir / "a/y", OpenMode::create));
  CHECK(files->list(dir / "a") == std::vector<std::string>{"b", "y", "z"});
  CHECK(files->rename(dir / "a/z", dir / "a/x"));
  CHECK(files->remove(dir / "a/y"));
  CHECK(files->sync_directory(dir / "a"));
  CHECK(files->list(dir / "a") == std::vector<std::string>{"b", "x"});
  CHECK(files->list(dir / "none").error().kind == ErrorKind::not_found);
  CHECK(files->remove(dir / "none").error().kind == ErrorKind::not_found);
  CHECK_FALSE(files->make_directory(dir / "a/x/y"));
  CHECK(*files->free_bytes(dir.path()) > 0);
}

TEST_CASE("a lock has one holder") {
  const TempDir dir;
  const auto files = system_files();
  {
    const auto held = files->lock(dir / "lock");
    REQUIRE(held);
    const auto second = system_files()->lock(dir / "lock");
    REQUIRE_FALSE(second);
    CHECK(second.error().kind == ErrorKind::not_found);
  }
  CHECK(files->lock(dir / "lock"));
}

TEST_CASE("replace_file leaves the whole new file and nothing beside it") {
  const TempDir dir;
  CHECK(replace_file(dir / "list", "old"));
  REQUIRE(system_files()->open(dir / "list.new", OpenMode::create).value()->write(0, std::string("left by a kill")));
  CHECK(replace_file(dir / "list", "new\n"));
  CHECK(read_file(dir / "list") == "new\n");
  CHECK(mode_of(dir / "list") == 0640);
  CHECK(system_files()->list(dir.path()) == std::vector<std::string>{"list"});
  CHECK_FALSE(replace_file(dir / "none/list", "x"));
  CHECK(system_files()->make_directory(dir / "folder"));
  CHECK_FALSE(replace_file(dir / "folder", "x"));
  CHECK(system_files()->list(dir.path()) == std::vector<std::string>{"folder", "list"});
}

TEST_CASE("a file's stamp changes with its content and with who may read it") {
  const TempDir directory;
  const std::string path = directory / "file";
  CHECK(FileStamp::of(path) == FileStamp());
  REQUIRE(replace_file(path, "one"));
  const FileStamp first = FileStamp::of(path);
  CHECK(FileStamp::of(path) == first);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the file system's clock ticks
  REQUIRE(::chmod(path.c_str(), 0600) == 0);
  const FileStamp permitted = FileStamp::of(path);
  CHECK(permitted != first);
  REQUIRE(replace_file(path, "two"));
  CHECK(FileStamp::of(path) != permitted);
}

TEST_CASE("read_file reads up to its limit and no further") {
  const TempDir dir;
  const std::string content(100'000, 'x');
  CHECK(replace_file(dir / "a", content));
  CHECK(read_file(dir / "a") == content);
  CHECK(read_file(dir / "a", 100'000) == content);
  CHECK(read_file(dir / "a", 99'999).error().kind == ErrorKind::invalid);
  CHECK(read_file(dir / "none").error().text == "open " + (dir / "none") + ": No such file or directory");
  CHECK_FALSE(read_file(dir.path()));
  const std::string fifo = dir / "fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  CHECK(read_file(fifo).error().text == fifo + " is not a regular file");  // and does not wait for who writes
  CHECK(read_file("/dev/zero").error().text == "/dev/zero is not a regular file");
}

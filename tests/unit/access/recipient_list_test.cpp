#include "access/recipient_list.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <fstream>

#include "fixture.hpp"
#include "support/catch.hpp"

using namespace greymx;
using access::RecipientList;

namespace {

config::Domain domain(const std::string& name, bool wildcard = false) {
  config::Domain result;
  result.name = name;
  result.wildcard = wildcard;
  return result;
}

bool has(const RecipientList& list, std::string_view address) {
  return list.contains(Mailbox::split(address));
}

}  // namespace

TEST_CASE("a directory in the place of a list is called one") {
  const test::TempDir directory;
  const auto list = RecipientList::read(directory.path(), config::Domain());
  REQUIRE_FALSE(list);
  CHECK(list.error().text.ends_with(": Is a directory"));
}

TEST_CASE("a list is a regular file, and a line with NUL names nobody") {
  const test::TempDir directory;
  const std::string fifo = directory / "fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  const auto none = RecipientList::read(fifo, domain("example.com"));  // does not wait for who writes
  REQUIRE_FALSE(none);
  CHECK(none.error().text == fifo + " is not a regular file");
  const std::string text("joe\nann\0x@example.com\n", 22);
  const auto list = RecipientList::read(test::write(directory, "list", text), domain("example.com"));
  REQUIRE(list);
  CHECK(has(**list, "joe@example.com"));
  CHECK_FALSE(has(**list, "ann@example.com"));
}

TEST_CASE("a list takes addresses and local parts, ignores case, comments and second columns") {
  const test::TempDir directory;
  const auto list = RecipientList::read(test::write(directory, "list",
                                                    "\xEF\xBB\xBFjoe\n"
                                                    "# users\n"
                                                    "Info@Example.com\r\n"
                                                    "  jane@example.com OK\n"
                                                    "\n"
                                                    "\"a b\"@example.com \"A B\"\n"
                                                    "\"john.doe\"@example.com\n"
                                                    "joe@example.com\n"
                                                    "max@other.example\n"
                                                    "last"),
                                        domain("example.com"));
  REQUIRE(list);
  CHECK((*list)->size() == 6);
  for (const char* known : {"joe@example.com", "JOE@EXAMPLE.COM", "info@example.com", "jane@example.com",
                            "\"a b\"@example.com", "john.doe@example.com", "last@example.com"}) {
    INFO(known);
    CHECK(has(**list, known));
  }
  for (const char* unknown :
       {"jo@example.com", "joes@example.com", "ok@example.com", "max@example.com", "@example.com"}) {
    INFO(unknown);
    CHECK_FALSE(has(**list, unknown));
  }
}

TEST_CASE("a wildcard's list tells its subdomains apart; @domain is everybody there") {
  const test::TempDir directory;
  const auto list =
      RecipientList::read(test::write(directory, "list", "joe@a.example.com\nanyone\n@b.example.com\nx@example.com\n"),
                          domain("example.com", true));
  REQUIRE(list);
  CHECK((*list)->size() == 3);
  CHECK(has(**list, "joe@a.example.com"));
  CHECK_FALSE(has(**list, "joe@c.example.com"));
  CHECK(has(**list, "anyone@c.example.com"));
  CHECK(has(**list, "whoever@b.example.com"));
}

TEST_CASE("a file that is no list is an error, not an empty list") {
  const test::TempDir directory;
  CHECK_FALSE(RecipientList::read(directory / "absent", domain("example.com")));
  const auto binary =
      RecipientList::read(test::write(directory, "list", std::string(5000, 'x')), domain("example.com"));
  REQUIRE_FALSE(binary);
  CHECK(binary.error().kind == ErrorKind::invalid);
}

#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
namespace {

// The most memory that the process has had in RAM since the last call, in KiB.
std::size_t peak() {
  std::ifstream status("/proc/self/status");
  std::size_t kib = 0;
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) kib = std::stoul(line.substr(6));
  }
  std::ofstream("/proc/self/clear_refs") << 5;
  return kib;
}

}  // namespace

TEST_CASE("a million recipients take less than 64 MiB, also while they are read once more") {
  const test::TempDir directory;
  const std::string path = directory / "list";
  {
    std::ofstream file(path);
    for (long i = 0; i < 1'000'000; ++i) file << fmt::format("first.last-{:07}@example.com\n", i * 7919 % 1'000'000);
  }
  peak();
  const std::size_t before = peak();
  const auto first = RecipientList::read(path, domain("example.com"));
  const auto again = RecipientList::read(path, domain("example.com"));
  REQUIRE(first);
  CHECK((*again)->size() == 1'000'000);
  CHECK(peak() - before < 64UL << 10);
  for (int i = 0; i < 10'000; ++i) {
    REQUIRE(has(**first, fmt::format("first.last-{:07}@example.com", i * 31)));
    REQUIRE_FALSE(has(**first, fmt::format("first.last-{:07}x@example.com", i * 31)));
  }
}
#endif

#include "greylist/bdb.hpp"

#include <filesystem>

#include "support/catch.hpp"
#include "support/not_root.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;
namespace fs = std::filesystem;

namespace {

struct Directory : test::TempDir {
  std::vector<std::string> names() const { return system_files()->list(path()).value(); }
};

}  // namespace

TEST_CASE("files that only look like logs do not matter") {
  const Directory directory;
  for (const char* name : {"log.txt", "log.", "log.99999999999", "log.000000000x"}) {
    fs::create_directories(directory / "db");
    REQUIRE(replace_file(directory / (std::string("db/") + name), "text").has_value());
    auto environment = bdb::Environment::open({.base = directory.path()});
    REQUIRE(environment.has_value());
    CHECK((*environment)->loss().empty());
  }
}

TEST_CASE("what is to be salvaged is known as such until it has been, even if no new environment can be opened") {
  const Directory directory;
  const std::string base = directory.path();
  int proofs = 0;
  const auto opened = bdb::open_or_replace({.base = base, .to_salvage = true}, [&](bdb::Environment&) -> Result<> {
    return fail(++proofs < 3 ? ErrorKind::permanent : ErrorKind::no_space, "damaged, and then the disk is full");
  });
  REQUIRE_FALSE(opened.has_value());
  const auto waiting = bdb::unsalvaged(base);
  REQUIRE(waiting.size() == 1);
  CHECK(fs::is_directory(waiting[0]));
  const auto corrupt = bdb::set_salvaged(base, waiting[0]);
  REQUIRE(corrupt.has_value());
  CHECK(corrupt->starts_with(base + "/corrupt-2"));
  CHECK(fs::is_directory(*corrupt));
  CHECK(bdb::unsalvaged(base).empty());
}

TEST_CASE("files that may not be opened are not taken for damaged ones") {
  const Directory directory;
  const auto prove = [](bdb::Environment& environment) -> Result<> {
    const auto database = environment.database("records.db");
    return database ? Result<>() : std::unexpected(database.error());
  };
  REQUIRE(bdb::open_or_replace({.base = directory.path()}, prove).has_value());
  fs::permissions(directory.path(), fs::perms::all);
  const std::string unreadable = GENERATE("log.0000000001", "records.db", "");
  const fs::path path = directory / ("db/" + unreadable);
  const auto result = [&] {
    for (const auto& file : fs::directory_iterator(directory / "db")) fs::permissions(file, fs::perms::all);
    fs::permissions(directory / "db", fs::perms::all);
    fs::permissions(path, fs::perms::none);
    const test::NotRoot user;
    return bdb::open_or_replace({.base = directory.path()}, prove);
  }();
  fs::permissions(path, fs::perms::owner_all);
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().kind == ErrorKind::temporary);
  CHECK(directory.names() == std::vector<std::string>{"db"});
  CHECK(bdb::open_or_replace({.base = directory.path()}, prove).has_value());
}

TEST_CASE("three damaged environments are kept, and three that wait to be salvaged") {
  const Directory directory;
  const std::string base = directory.path();
  for (int i = 0; i < 5; ++i) {
    fs::create_directories(directory / ("db/" + std::to_string(i)));
    REQUIRE(bdb::set_aside(base, false).has_value());
  }
  REQUIRE(directory.names().size() == 3);
  CHECK(fs::exists(directory / (directory.names()[0] + "/2")));
  for (int i = 0; i < 5; ++i) {
    fs::create_directories(directory / ("db/" + std::to_string(i)));
    REQUIRE(bdb::set_aside(base, true).has_value());
  }
  CHECK(directory.names().size() == 6);
  CHECK(bdb::unsalvaged(base).size() == 3);
  CHECK(fs::exists(fs::path(bdb::unsalvaged(base)[0]) / "0"));
}

#include <filesystem>
#include <fstream>

#include "greylist/bdb.hpp"
#include "greylist/postgrey_import.hpp"
#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::greylist;
namespace fs = std::filesystem;

namespace {

constexpr Stamp now = 1800000000;
const ImportRules rules{.keys = {}, .rules = {}, .now = now};
const std::string passed = "1799990000,1799990400", waiting = "1799999900,1799999950";

std::string triplet(std::string_view key, std::string_view value = passed) {
  const auto stored = convert_triplet(key, value, rules);
  return stored ? stored->key : "skipped: " + stored.error().text;
}
std::string client(std::string_view key, std::string_view value = "3,1799990000") {
  const auto stored = convert_client(key, value, rules);
  return stored ? stored->key : "skipped: " + stored.error().text;
}

struct Directory {
  Directory() {
    std::string name = fs::temp_directory_path() / "import.XXXXXX";
    path = mkdtemp(name.data());
  }
  ~Directory() { fs::remove_all(path); }
  fs::path path;
};

}  // namespace

TEST_CASE("triplet keys of every postgrey come into our form") {
  const std::vector<std::pair<std::string, std::string>> rows{
      {"192.0.2.0/bob@ex.com/user@dom.org", "192.0.2.0/bob@ex.com/user@dom.org"},         // 1.37, and 1.35
      {"192.0.2.0/24/bob@ex.com/user@dom.org", "192.0.2.0/bob@ex.com/user@dom.org"},      // 1.36
      {"192.0.2.77/bob@ex.com/user@dom.org", "192.0.2.0/bob@ex.com/user@dom.org"},        // a pool's exception, by host
      {"192.0.2.77/32/bob@ex.com/user@dom.org", "192.0.2.0/bob@ex.com/user@dom.org"},     // 1.37 by host
      {"2001:db8:1:2:0:0:0:0/bob@ex.com/u@d", "2001:db8:1:2:0:0:0:0/bob@ex.com/u@d"},     // 1.37
      {"2001:db8:1:2:0:0:0:0/64/bob@ex.com/u@d", "2001:db8:1:2:0:0:0:0/bob@ex.com/u@d"},  // 1.36
      {"2001:db8:1:2::7/bob@ex.com/u@d", "2001:db8:1:2:0:0:0:0/bob@ex.com/u@d"},          // 1.35
      {"192.0.2.0//user@dom.org", "192.0.2.0//user@dom.org"},                             // null sender
      {"192.0.2.0/24//user@dom.org", "192.0.2.0//user@dom.org"},
      {"192.0.2.0/a/b@ex.com/user@dom.org", "192.0.2.0/a/b@ex.com/user@dom.org"},
      {"192.0.2.0/bob@ex.com/postmaster", "192.0.2.0/bob@ex.com/postmaster"},
      {"f4c743ff384d8e45433ed7735b5af23488ab2d1b", "sha1/f4c743ff384d8e45433ed7735b5af23488ab2d1b"},
      {"junk", "skipped: key does not parse"},
      {"192.0.2.0", "skipped: key does not parse"},
      {"192.0.2.0/24", "skipped: key does not parse"},
      {"192.0.2.0/24/alone", "skipped: key does not parse"},
      {"", "skipped: key does not parse"},
  };
  for (const auto& [key, expected] : rows) {
    CAPTURE(key);
    CHECK(triplet(key) == expected);
  }
  ImportRules by_host = rules;
  by_host.keys.by_host = true;
  CHECK(convert_triplet("192.0.2.77/bob@ex.com/u@d", passed, by_host)->key == "192.0.2.77/32/bob@ex.com/u@d");
}

TEST_CASE("a triplet has passed if it waited the old delay") {
  const auto done = convert_triplet("192.0.2.0/a@b/c@d", "1799990000,1799990300", rules);
  CHECK(done->record.passed);
  CHECK(done->record.imported);
  CHECK(done->record.first == 1799990000);
  CHECK(done->record.last == 1799990300);
  CHECK_FALSE(convert_triplet("192.0.2.0/a@b/c@d", "1799990000,1799990299", rules)->record.passed);
  ImportRules quick = rules;
  quick.delay = 60;
  CHECK(convert_triplet("192.0.2.0/a@b/c@d", "1799990000,1799990060", quick)->record.passed);
  CHECK(convert_triplet("192.0.2.0/a@b/c@d", "1799990000,1799990300,77", rules)->record.passed);
}

TEST_CASE("values that are none, over, or of the future are skipped by reason") {
  for (const char* value : {"", "1", "1,", ",1", "a,b", "1799990000;1799990300", "-5,10", "1,2x"}) {
    CAPTURE(value);
    CHECK(triplet("192.0.2.0/a@b/c@d", value) == "skipped: value does not parse");
    CHECK(client("192.0.2.77", value) == "skipped: value does not parse");
  }
  CHECK(triplet("192.0.2.0/a@b/c@d", "1700000000,1700000300") == "skipped: expired");
  CHECK(triplet("192.0.2.0/a@b/c@d", "1799800000,1799800001") == "skipped: expired");  // its window is over
  CHECK(triplet("192.0.2.0/a@b/c@d", "1800000000,1800090000") == "skipped: in the future");
  CHECK(client("192.0.2.77", "5,1700000000") == "skipped: expired");
  CHECK(client("192.0.2.77", "5,1800090000") == "skipped: in the future");
}

TEST_CASE("client keys of every postgrey come into our form, and who was whitelisted stays so") {
  CHECK(client("192.0.2.77") == "awl/192.0.2.77");
  CHECK(client("192.0.2.77/32") == "awl/192.0.2.77");
  CHECK(client("2001:DB8:1:2:3:4:5:6") == "awl/2001:DB8:1:2:3:4:5:6");
  CHECK(client("2001:db8:1:2::6") == "awl/2001:DB8:1:2:0:0:0:6");
  CHECK(client("2001:db8::1/128") == "awl/2001:DB8:0:0:0:0:0:1");
  CHECK(client("4a8c47af580e39b3bdcdbead9bea5fb1775ec723") == "awl/sha1/4a8c47af580e39b3bdcdbead9bea5fb1775ec723");
  CHECK(client("junk") == "skipped: key does not parse");
  CHECK(client("192.0.2.77/a/b") == "skipped: key does not parse");
  CHECK(convert_client("192.0.2.77", "3,1799990000", rules)->record.passes == 3);
  ImportRules ours = rules;
  ours.rules.auto_whitelist = 10;
  CHECK(convert_client("192.0.2.77", "5,1799990000", ours)->record.passes == 10);
  CHECK(convert_client("192.0.2.77", "4,1799990000", ours)->record.passes == 4);
}

TEST_CASE("a database is read from a copy, with its log and without, and never changed") {
  const Directory source;
  {
    const Directory made;
    auto environment = bdb::Environment::open({.base = made.path});
    REQUIRE(environment.has_value());
    auto database = (*environment)->database("postgrey.db");
    REQUIRE(database.has_value());
    auto transaction = (*environment)->begin();
    REQUIRE(database->put(*transaction, "192.0.2.0/a@b/c@d", passed).has_value());
    REQUIRE(database->put(*transaction, "192.0.2.0/e@f/c@d", waiting).has_value());
    REQUIRE(database->put(*transaction, "junk", waiting).has_value());
    REQUIRE(transaction->commit().has_value());
    // As a running postgrey: what was written stands in the log only.
    for (const auto& entry : fs::directory_iterator(made.path / "db")) fs::copy(entry.path(), source.path);
  }
  const auto content = [&] {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(source.path)) {
      std::ifstream stream(entry.path(), std::ios::binary);
      files[entry.path()] = std::string(std::istreambuf_iterator<char>(stream), {});
    }
    return files;
  };
  const auto before = content();
  std::vector<std::string> keys;
  const auto read = [&] {
    keys.clear();
    return read_postgrey(source.path, rules, [&](const Stored& stored) { keys.push_back(stored.key); });
  };
  auto report = read();
  REQUIRE(report.has_value());
  CHECK(keys == std::vector<std::string>{"192.0.2.0/a@b/c@d", "192.0.2.0/e@f/c@d"});
  CHECK(report->read == 3);
  CHECK(report->imported == 2);
  CHECK(report->skipped == std::map<std::string, std::uint64_t>{{"key does not parse", 1}});
  CHECK(content() == before);

  fs::remove(source.path / "postgrey.db");
  report = read();
  REQUIRE_FALSE(report.has_value());
  CHECK(report.error().text.find("there is no postgrey.db; name the directory") != std::string::npos);
}

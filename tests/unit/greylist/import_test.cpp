#include <db.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/files.hpp"
#include "greylist/postgrey_import.hpp"
#include "support/catch.hpp"
#include "support/temp_dir.hpp"

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

// A postgrey that runs: what was put stands in its log only, until a checkpoint.
class Postgrey {
 public:
  Postgrey() {
    REQUIRE(db_env_create(&environment_, 0) == 0);
    constexpr unsigned flags = DB_CREATE | DB_PRIVATE | DB_INIT_TXN | DB_INIT_LOG | DB_INIT_MPOOL | DB_INIT_LOCK;
    REQUIRE(environment_->open(environment_, directory_.path().c_str(), flags, 0600) == 0);
    REQUIRE(db_create(&database_, environment_, 0) == 0);
    REQUIRE(database_->open(database_, nullptr, "postgrey.db", nullptr, DB_BTREE, DB_CREATE | DB_AUTO_COMMIT, 0600) ==
            0);
  }
  ~Postgrey() {
    database_->close(database_, 0);
    environment_->close(environment_, 0);
  }
  Postgrey(const Postgrey&) = delete;
  Postgrey& operator=(const Postgrey&) = delete;

  void put(std::string key, std::string value) {
    DBT k{}, v{};
    k.data = key.data();
    k.size = static_cast<std::uint32_t>(key.size());
    v.data = value.data();
    v.size = static_cast<std::uint32_t>(value.size());
    REQUIRE(database_->put(database_, nullptr, &k, &v, DB_AUTO_COMMIT) == 0);
  }
  void checkpoint() { REQUIRE(environment_->txn_checkpoint(environment_, 0, 0, DB_FORCE) == 0); }
  void copy(std::string_view name, const test::TempDir& to) const {
    for (const auto& entry : fs::directory_iterator(directory_.path())) {
      if (entry.path().filename().string().starts_with(name)) fs::copy(entry.path(), to.path());
    }
  }

 private:
  test::TempDir directory_;
  DB_ENV* environment_ = nullptr;
  DB* database_ = nullptr;
};

struct Imported {
  explicit Imported(const test::TempDir& source) {
    report = read_postgrey(source.path(), rules, [&](const Stored& stored) { keys.push_back(stored.key); });
  }
  std::vector<std::string> keys;
  Result<ImportReport> report;
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

TEST_CASE("a running postgrey's database is read from a copy, and never changed") {
  const test::TempDir source;
  Postgrey postgrey;
  postgrey.put("192.0.2.0/a@b/c@d", passed);
  postgrey.put("192.0.2.0/e@f/c@d", waiting);
  postgrey.put("junk", waiting);
  postgrey.copy("", source);
  REQUIRE(replace_file(source / "log.txt", "not one of its logs").has_value());
  const auto content = [&] {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(source.path())) {
      std::ifstream stream(entry.path(), std::ios::binary);
      files[entry.path()] = std::string(std::istreambuf_iterator<char>(stream), {});
    }
    return files;
  };
  const auto before = content();
  const Imported imported(source);
  REQUIRE(imported.report.has_value());
  CHECK(imported.keys == std::vector<std::string>{"192.0.2.0/a@b/c@d", "192.0.2.0/e@f/c@d"});
  CHECK(imported.report->read == 3);
  CHECK(imported.report->imported == 2);
  CHECK(imported.report->skipped == std::map<std::string, std::uint64_t>{{"key does not parse", 1}});
  CHECK(imported.report->remark.empty());
  CHECK(content() == before);
}

TEST_CASE("a key as long as postgrey makes them does not end the import") {
  const test::TempDir source;
  Postgrey postgrey;
  const std::string name(500, 'a'), rcpt = "/" + name + "@d";
  postgrey.put("2001:db8:1:2:0:0:0:0/" + name + "@b" + rcpt, passed);
  postgrey.put("2001:db8:1:2:0:0:0:0/z@b/c@d", passed);
  postgrey.copy("", source);
  const Imported imported(source);
  REQUIRE(imported.report.has_value());
  CHECK(imported.report->imported == 2);
  CHECK(imported.report->remark.empty());
}

TEST_CASE("a checkpoint between the copies of database and log loses nothing") {
  const test::TempDir source;
  Postgrey postgrey;
  postgrey.checkpoint();
  postgrey.put("192.0.2.0/a@b/c@d", passed);
  postgrey.copy("postgrey", source);
  postgrey.checkpoint();
  postgrey.put("192.0.2.0/e@f/c@d", passed);
  postgrey.copy("log.", source);
  const Imported imported(source);
  REQUIRE(imported.report.has_value());
  CHECK(imported.keys == std::vector<std::string>{"192.0.2.0/a@b/c@d", "192.0.2.0/e@f/c@d"});
}

TEST_CASE("without its log a database is read page by page") {
  const test::TempDir source;
  Postgrey postgrey;
  for (int i = 0; i < 200; ++i) postgrey.put("192.0.2.0/s" + std::to_string(i) + "@b/c@d", passed);
  postgrey.checkpoint();
  postgrey.copy("postgrey", source);
  const Imported imported(source);
  REQUIRE(imported.report.has_value());
  CHECK(imported.keys.size() == 200);
  CHECK(imported.report->remark.starts_with("read page by page, because"));
}

TEST_CASE("a database that is not there or cannot be copied whole is an error") {
  const test::TempDir source;
  Imported imported(source);
  REQUIRE_FALSE(imported.report.has_value());
  CHECK(imported.report.error().text.find("there is no postgrey.db; name the directory") != std::string::npos);
  Postgrey postgrey;
  for (int i = 0; i < 200; ++i) postgrey.put("192.0.2.0/s" + std::to_string(i) + "@b/c@d", passed);
  postgrey.checkpoint();
  postgrey.copy("postgrey", source);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit tight = before;
  tight.rlim_cur = 8192;
  REQUIRE(setrlimit(RLIMIT_FSIZE, &tight) == 0);
  imported = Imported(source);
  setrlimit(RLIMIT_FSIZE, &before);
  REQUIRE_FALSE(imported.report.has_value());
  CHECK(imported.report.error().text.find("there is no postgrey.db") == std::string::npos);
  CHECK(imported.report.error().text.starts_with("cannot copy postgrey's database from "));
}

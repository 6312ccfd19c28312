#include "greylist/store_bdb.hpp"

#include <sys/resource.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "greylist/triplet.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/memory_store.hpp"
#include "support/recording_alerts.hpp"
#include "support/recording_log.hpp"
#include "support/run.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;
using namespace greymx::greylist;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

IpAddress ip(std::string_view text) {
  return IpAddress::parse(text).value();
}

// A store in a directory of its own, with everything around it.
struct Fixture {
  asio::io_context io{1};  // outlives the store's thread, which posts to it
  Fixture() {
    settings.directory = directory;
    settings.reopen_after = 10ms;
    settings.cache = 8UL << 20;
  }
  ~Fixture() { store.reset(); }

  void open() {
    store.reset();
    auto opened = open_bdb_store(settings, clock, log, alerts);
    REQUIRE(opened.has_value());
    store = std::move(*opened);
  }
  Stamp now() const { return std::chrono::floor<std::chrono::seconds>(clock.now()).time_since_epoch().count(); }
  Question question(std::string_view client, std::string_view sender) const {
    const Mail mail{.client = ip(client),
                    .client_name = "unknown",
                    .sender = sender,
                    .recipient = "rcpt@example.com",
                    .helo = {},
                    .spf_domain = {}};
    Question q{.keys = triplet_keys(mail, {}),
               .client_key = client_key(mail.client),
               .hashed_key = {},
               .hashed_client_key = {},
               .client = mail.client,
               .now = now(),
               .rules = settings.rules};
    if (store && store->totals().hashed > 0) {
      q.hashed_key = privacy_key(q.keys[0]);
      q.hashed_client_key = privacy_key(q.client_key);
    }
    return q;
  }
  Result<Outcome> ask(std::string_view client, std::string_view sender) {
    return test::run(io, store->decide(question(client, sender), std::chrono::steady_clock::now() + 60s));
  }
  bool passes(std::string_view client, std::string_view sender) {
    const auto outcome = ask(client, sender);
    REQUIRE(outcome.has_value());
    return outcome->pass();
  }
  // Ends when the store answers, whatever has happened to it before.
  Outcome ask_until_answered(std::string_view client, std::string_view sender) {
    for (;;) {
      const auto outcome = ask(client, sender);
      if (outcome) return *outcome;
      std::this_thread::sleep_for(5ms);
    }
  }
  std::vector<Stored> all() {
    std::vector<Stored> records;
    for (std::string after;;) {
      auto some = test::run(io, store->scan(after, 100));
      REQUIRE(some.has_value());
      if (some->empty()) return records;
      after = some->back().key;
      std::move(some->begin(), some->end(), std::back_inserter(records));
    }
  }

  test::TempDir home;
  fs::path directory = home.path();
  BdbSettings settings;
  test::FakeClock clock;
  test::RecordingLog log;
  test::RecordingAlerts alerts;
  std::unique_ptr<Store> store;
};

// `count` senders of 192.0.2.77 that have passed, named s0@example.org, s1@…; automatic whitelisting is off.
void pass_some(Fixture& f, int count) {
  f.settings.rules.auto_whitelist = 0;
  if (!f.store) f.open();
  const auto sender = [](int i) { return "s" + std::to_string(i) + "@example.org"; };
  for (int i = 0; i < count; ++i) CHECK_FALSE(f.passes("192.0.2.77", sender(i)));
  f.clock.advance(300s);
  for (int i = 0; i < count; ++i) CHECK(f.passes("192.0.2.77", sender(i)));
}
int still_passing(Fixture& f, int count) {
  int passing = 0;
  for (int i = 0; i < count; ++i) {
    passing += f.ask_until_answered("192.0.2.77", "s" + std::to_string(i) + "@example.org").pass() ? 1 : 0;
  }
  return passing;
}

void flip(const fs::path& file, std::uintmax_t offset) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(offset));
  const int byte = stream.get();
  stream.seekp(static_cast<std::streamoff>(offset));
  stream.put(static_cast<char>(byte ^ 0x20));
}

}  // namespace

TEST_CASE("a store remembers over a restart") {
  Fixture f;
  f.open();
  CHECK_FALSE(f.passes("192.0.2.77", "a@example.org"));
  f.open();
  CHECK_FALSE(f.passes("192.0.2.77", "a@example.org"));
  f.clock.advance(300s);
  CHECK(f.passes("192.0.2.77", "a@example.org"));
  f.open();
  f.clock.advance(1s);
  CHECK(f.passes("192.0.2.2", "a@example.org"));
  CHECK(f.store->totals().passed == 1);
  CHECK(f.store->totals().clients == 1);
  CHECK(f.store->totals().waiting == 0);
}

TEST_CASE("what was answered is there after a crash at any moment") {
  Fixture f;
  f.open();
  pass_some(f, 20);
  const test::TempDir copy;
  fs::copy(f.directory, copy.path(), fs::copy_options::recursive);  // what a kill -9 would leave
  Fixture after;
  fs::remove_all(after.directory);
  fs::rename(copy.path(), after.directory);
  after.clock.set(f.clock.now());
  after.settings.rules.auto_whitelist = 0;
  after.open();
  CHECK(still_passing(after, 20) == 20);
  CHECK(after.alerts.raised().empty());
}

TEST_CASE("one process at a time uses a store") {
  Fixture f;
  f.open();
  const auto second = open_bdb_store(f.settings, f.clock, f.log, f.alerts);
  REQUIRE_FALSE(second.has_value());
  CHECK(second.error().text.find("in use by another process") != std::string::npos);
}

TEST_CASE("the store decides as the same records in memory would") {
  Fixture f;
  f.open();
  test::MemoryStore memory;
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 1500; ++i) {
    f.clock.advance(std::chrono::seconds(random() % 400));
    const std::string client = "192.0.2." + std::to_string(random() % 3);
    const Question question = f.question(client, "s" + std::to_string(random() % 12) + "@example.org");
    const auto expected = test::run(memory.decide(question, {}));
    const auto outcome = test::run(f.io, f.store->decide(question, std::chrono::steady_clock::now() + 60s));
    REQUIRE(outcome.has_value());
    CHECK(outcome->reason == expected->reason);
    CHECK(outcome->missing == expected->missing);
    CHECK(outcome->first_pass == expected->first_pass);
  }
  const auto records = f.all();
  CHECK(records.size() == memory.records.size());
  for (const auto& [key, record] : records) CHECK(memory.records.at(key) == record);
  CHECK(f.store->totals().records() == records.size());
}

TEST_CASE("a dry run writes nothing") {
  Fixture f;
  f.open();
  Question question = f.question("192.0.2.77", "a@example.org");
  question.dry_run = true;
  CHECK_FALSE(test::run(f.io, f.store->decide(question, std::chrono::steady_clock::now() + 60s))->pass());
  CHECK(f.all().empty());
}

TEST_CASE("at a network's cap its oldest record that never passed makes way") {
  Fixture f;
  f.settings.caps.waiting_per_network = 3;
  f.settings.rules.auto_whitelist = 0;
  f.open();
  CHECK_FALSE(f.passes("192.0.2.77", "passed@example.org"));
  f.clock.advance(300s);
  CHECK(f.passes("192.0.2.77", "passed@example.org"));
  CHECK_FALSE(f.passes("198.51.100.1", "other-network@example.org"));
  for (int i = 0; i < 5; ++i) {
    f.clock.advance(1s);
    CHECK_FALSE(f.passes("192.0.2." + std::to_string(i), "s" + std::to_string(i) + "@example.org"));
  }
  std::vector<std::string> keys;
  for (const auto& stored : f.all()) keys.push_back(stored.key);
  CHECK(keys == std::vector<std::string>{
                    "192.0.2.0/passed@example.org/rcpt@example.com", "192.0.2.0/s2@example.org/rcpt@example.com",
                    "192.0.2.0/s3@example.org/rcpt@example.com", "192.0.2.0/s4@example.org/rcpt@example.com",
                    "198.51.100.0/other-network@example.org/rcpt@example.com"});
  CHECK(f.store->totals().never_returned == 2);
  f.clock.advance(300s);
  CHECK(f.passes("192.0.2.9", "s4@example.org"));  // a cap neither defers for good nor opens the gate
  CHECK_FALSE(f.passes("192.0.2.9", "s0@example.org"));
}

TEST_CASE("at the cap over all the oldest that never passed makes way, then the passed one unseen for longest") {
  Fixture f;
  f.settings.caps.records = 3;
  f.settings.rules.auto_whitelist = 0;
  f.open();
  const auto contact = [&](int i) { return f.passes("10.0." + std::to_string(i) + ".1", "a@example.org"); };
  CHECK_FALSE(contact(1));
  f.clock.advance(300s);
  CHECK(contact(1));
  for (int i = 2; i < 6; ++i) {
    f.clock.advance(1s);
    CHECK_FALSE(contact(i));
  }
  CHECK(f.all().size() == 3);
  CHECK(contact(1));
  f.clock.advance(300s);
  CHECK(contact(4));
  CHECK(contact(5));
  CHECK_FALSE(contact(6));  // all three have passed: the one unseen for longest goes
  CHECK(f.all().size() == 3);
  CHECK_FALSE(contact(1));
}

TEST_CASE("what is over goes by itself, a slice at a time") {
  Fixture f;
  f.settings.rules.auto_whitelist = 0;
  f.settings.rules.retry_window = 3600;
  f.settings.rules.max_age = 86400;
  f.open();
  pass_some(f, 3);
  for (int i = 0; i < 120; ++i) f.passes("10.0." + std::to_string(i) + ".1", "a@example.org");
  const auto wait_for = [&](std::uint64_t waiting, std::uint64_t passed) {
    for (int i = 0; i < 3000; ++i) {
      const Totals totals = f.store->totals();
      if (totals.waiting == waiting && totals.passed == passed) return true;
      std::this_thread::sleep_for(20ms);
    }
    return false;
  };
  CHECK(wait_for(120, 3));
  f.clock.advance(2h);
  std::this_thread::sleep_for(1100ms);  // two looks at it: nothing is over before two windows have passed
  CHECK(wait_for(120, 3));
  f.clock.advance(1s);
  CHECK(wait_for(0, 3));
  CHECK(f.store->totals().never_returned == 120);
  f.clock.advance(48h);
  CHECK(wait_for(0, 0));
  CHECK(f.all().empty());
}

TEST_CASE("nothing expires by a clock that has just stepped") {
  Fixture f;
  pass_some(f, 3);
  f.clock.advance(2h);
  const WallTime right = f.clock.now();
  f.clock.set(right + std::chrono::years(1));
  std::this_thread::sleep_for(1200ms);  // two looks at it
  CHECK(f.store->totals().passed == 3);
  f.open();  // nor by one that was wrong at the start
  std::this_thread::sleep_for(1200ms);
  CHECK(f.store->totals().passed == 3);
  f.clock.set(right);
  CHECK(still_passing(f, 3) == 3);
}

TEST_CASE("hashed records of a postgrey with --privacy are found and renamed") {
  Fixture f;
  f.open();
  const Question question = f.question("192.0.2.77", "a@example.org");
  const Record passed{.passed = true, .imported = true, .first = f.now() - 1000, .last = f.now() - 500};
  const Record counted{.passed = true, .passes = 4, .first = f.now() - 10000, .last = f.now() - 10000};
  REQUIRE(test::run(f.io, f.store->merge({{privacy_key(question.keys[0]), passed},
                                          {privacy_key(question.client_key), counted},
                                          {"sha1/0000000000000000000000000000000000000000", Record{.first = f.now()}}}))
              .has_value());
  CHECK(f.store->totals().hashed == 3);
  CHECK(f.passes("192.0.2.77", "a@example.org"));
  CHECK(f.store->totals().hashed == 2);
  CHECK_FALSE(f.passes("192.0.2.77", "b@example.org"));
  f.clock.advance(300s);
  CHECK(f.passes("192.0.2.77", "b@example.org"));
  const auto outcome = f.ask("192.0.2.77", "c@example.org");  // the fifth pass whitelisted the client
  CHECK(outcome->reason == Reason::client);
}

TEST_CASE("pass and expect entries are at hand without asking the store") {
  Fixture f;
  f.open();
  CHECK(f.store->manual()->empty());
  REQUIRE(test::run(f.io, f.store->merge({{"pass/192.0.2.0/24", Record{.last = 5, .note = "a"}},
                                          {"expect/a@b.c", Record{.last = 6}}}))
              .has_value());
  REQUIRE(f.store->manual()->size() == 2);
  REQUIRE(test::run(f.io, f.store->merge({{"pass/192.0.2.0/24", Record{.last = 4, .note = "b"}}})).has_value());
  f.open();
  REQUIRE(f.store->manual()->size() == 2);
  CHECK(f.store->manual()->back().record.note == "b");
  CHECK(f.store->manual()->back().record.last == 4);
  CHECK(*test::run(f.io, f.store->erase({"expect/a@b.c", "expect/none"})) == 1);
  CHECK(f.store->manual()->size() == 1);
  CHECK(f.store->totals().records() == 0);
}

TEST_CASE("a request that waits longer than its deadline is told so") {
  Fixture f;
  f.open();
  std::vector<Stored> many;
  for (std::uint32_t i = 0; i < 20000; ++i) {
    const IpAddress client = IpAddress::v4(0x0a000000 + (i << 8));
    many.push_back({client.to_string() + "/a@b.c/d@e.f", Record{.first = f.now(), .last = f.now(), .client = client}});
  }
  asio::co_spawn(f.io, f.store->merge(std::move(many)), [](std::exception_ptr, Result<>) {});
  const auto outcome =
      test::run(f.io, f.store->decide(f.question("192.0.2.1", "x@y.z"), std::chrono::steady_clock::now() + 1ms));
  REQUIRE_FALSE(outcome.has_value());
  CHECK(outcome.error().kind == ErrorKind::timed_out);
  f.io.restart();
  f.io.run();
  CHECK(f.store->totals().waiting >= 20000);
}

TEST_CASE("many threads ask at once") {
  std::array<asio::io_context, 4> loops;  // which outlive the store's thread
  Fixture f;
  f.settings.rules.auto_whitelist = 0;
  f.open();
  std::vector<std::thread> threads;
  std::atomic<int> answered = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      asio::io_context& io = loops[static_cast<std::size_t>(t)];
      for (int i = 0; i < 100; ++i) {
        const Question question = f.question("10.0.0." + std::to_string(i), std::to_string(t) + "x@example.org");
        asio::co_spawn(io, f.store->decide(question, std::chrono::steady_clock::now() + 60s),
                       [&](std::exception_ptr, Result<Outcome> outcome) { answered += outcome ? 1 : 0; });
      }
      io.run();
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(answered == 400);
  CHECK(f.store->totals().waiting == 4);
  f.store->stop();
  CHECK_FALSE(f.ask("192.0.2.1", "x@y.z").has_value());
}

TEST_CASE("a flipped byte in any file is noticed, never lets a stranger pass, and costs one page at most") {
  Fixture f;
  f.settings.caps.waiting_per_network = 2000;
  pass_some(f, 600);
  f.store.reset();
  const test::TempDir copy;
  const fs::path healthy = copy.path();
  fs::copy(f.directory, healthy, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(healthy / "db")) files.push_back(entry.path().filename());
  REQUIRE(files.size() >= 3);
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  for (const fs::path& file : files) {
    const auto size = fs::file_size(healthy / "db" / file);
    std::vector<std::uintmax_t> offsets{10, 40, size / 2, size - 100};  // headers, somewhere, the end
    for (int i = 0; i < 6; ++i) offsets.push_back(random() % size);
    for (const auto offset : offsets) {
      CAPTURE(file, offset);
      fs::remove_all(f.directory);
      fs::copy(healthy, f.directory, fs::copy_options::recursive);
      flip(f.directory / "db" / file, offset);
      f.log.clear();
      f.open();
      for (int i = 0; i < 5; ++i) {
        const auto outcome = f.ask("192.0.2.77", "stranger" + std::to_string(i) + "@example.org");
        if (outcome) CHECK_FALSE(outcome->pass());  // else the caller follows on_error, and says so
      }
      CHECK(still_passing(f, 600) >= 600 - 60);
      if (still_passing(f, 600) < 600) CHECK(f.log.contains("was moved to"));
      CHECK(f.store->trouble().empty());
      f.store.reset();
    }
  }
}

TEST_CASE("a damaged store is salvaged into a new one, and a person is told") {
  Fixture f;
  pass_some(f, 50);
  f.store.reset();
  flip(f.directory / "db/records.db", 40);  // the first page: Berkeley DB cannot even open it
  f.open();
  CHECK(f.alerts.contains("greylist store was damaged"));
  CHECK(f.log.contains("50 records in it were whole and are in use"));
  CHECK(still_passing(f, 50) == 50);
  CHECK(f.store->totals().passed == 50);
  int kept = 0;
  for (const auto& entry : fs::directory_iterator(f.directory)) {
    kept += entry.path().filename().string().starts_with("corrupt-") ? 1 : 0;
  }
  CHECK(kept == 1);
}

TEST_CASE("a salvage that was interrupted is taken up again") {
  Fixture f;
  pass_some(f, 50);
  f.store.reset();
  fs::rename(f.directory / "db", f.directory / "salvage-20270115T080000.000000");
  f.open();
  CHECK(f.alerts.contains("greylist store was damaged"));
  CHECK(still_passing(f, 50) == 50);
  CHECK(fs::exists(f.directory / "corrupt-20270115T080000.000000"));
  CHECK_FALSE(fs::exists(f.directory / "salvage-20270115T080000.000000"));
}

TEST_CASE("a log that breaks off is reported") {
  Fixture f;
  pass_some(f, 50);
  const test::TempDir copy;
  fs::copy(f.directory, copy.path(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  f.store.reset();
  fs::remove_all(f.directory);
  fs::rename(copy.path(), f.directory);
  flip(f.directory / "db/log.0000000001", 20'000);
  f.open();
  CHECK(f.alerts.contains("lost its last changes"));
  CHECK_FALSE(f.passes("192.0.2.77", "stranger@example.org"));
  f.log.clear();
  f.open();
  CHECK_FALSE(f.log.contains("is unreadable"));  // once is enough
}

TEST_CASE("lost log files are no end: the database files are salvaged") {
  Fixture f;
  pass_some(f, 50);
  f.store.reset();
  for (const auto& entry : fs::directory_iterator(f.directory / "db")) {
    if (entry.path().filename().string().starts_with("log.")) fs::remove(entry.path());
  }
  f.open();
  CHECK(still_passing(f, 50) == 50);
}

TEST_CASE("a damaged index costs nothing, even while the records stand in the log only") {
  Fixture f;
  pass_some(f, 50);
  const test::TempDir copy;
  fs::copy(f.directory, copy.path(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  f.store.reset();
  fs::remove_all(f.directory);
  fs::rename(copy.path(), f.directory);
  flip(f.directory / "db/index.db", 5000);
  f.open();
  CHECK(still_passing(f, 50) == 50);
  CHECK_FALSE(f.passes("192.0.2.77", "stranger@example.org"));
}

TEST_CASE("a lost index is rebuilt") {
  Fixture f;
  pass_some(f, 50);
  f.store.reset();
  fs::remove(f.directory / "db/index.db");
  f.open();
  CHECK(still_passing(f, 50) == 50);
  CHECK(f.store->totals().passed == 50);
}

TEST_CASE("lost records beside a whole index are noticed") {
  Fixture f;
  pass_some(f, 50);
  f.store.reset();
  fs::remove(f.directory / "db/records.db");
  f.open();
  CHECK(f.alerts.contains("greylist store lost its records"));
  CHECK(f.store->totals().records() == 0);
  f.open();
  CHECK(f.alerts.raised().size() == 1);  // once is enough
}

TEST_CASE("a store with nothing but entries of the admin's is whole") {
  Fixture f;
  f.open();
  const Stored entry{"pass/192.0.2.0/24", Record{.last = 0, .note = "a"}};
  REQUIRE(test::run(f.io, f.store->merge({entry})).has_value());
  f.open();
  CHECK(f.store->manual()->size() == 1);
  CHECK_FALSE(f.alerts.contains("greylist store"));
}

TEST_CASE("a full disk makes requests fail, loses nothing, and is over when there is space again") {
  Fixture f;
  pass_some(f, 20);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit tight = before;
  tight.rlim_cur = 256UL << 10;  // the log is somewhere before it
  REQUIRE(setrlimit(RLIMIT_FSIZE, &tight) == 0);
  int failed = 0;
  for (int i = 0; i < 20000 && failed == 0; ++i) {
    failed += f.ask("10.0.0.1", std::to_string(i) + "x@example.org").has_value() ? 0 : 1;
  }
  CHECK(failed == 1);
  std::this_thread::sleep_for(200ms);  // some attempts to open it on the full disk
  CHECK_FALSE(f.store->trouble().empty());
  CHECK(f.alerts.contains("greylist store failed"));
  setrlimit(RLIMIT_FSIZE, &before);
  CHECK(still_passing(f, 20) == 20);
  CHECK(f.store->trouble().empty());
  CHECK(f.log.contains("the store is back"));
  for (const auto& entry : fs::directory_iterator(f.directory)) {
    CHECK_FALSE(entry.path().filename().string().starts_with("corrupt-"));
  }
}

TEST_CASE("a file that rots under a running store is found out, and the store comes back") {
  Fixture f;
  f.settings.caps.waiting_per_network = 20000;
  f.settings.cache = 256UL << 10;  // small, so that pages are read again
  f.settings.rules.auto_whitelist = 0;
  f.open();
  std::vector<Stored> many;
  for (int i = 0; i < 20000; ++i) {
    many.push_back({"192.0.2.0/s" + std::to_string(i) + "@example.org/rcpt@example.com",
                    Record{.passed = true, .first = f.now(), .last = f.now()}});
  }
  for (std::size_t at = 0; at < many.size(); at += 500) {
    const auto from = many.begin() + static_cast<std::ptrdiff_t>(at);
    REQUIRE(test::run(f.io, f.store->merge({from, from + 500})).has_value());
  }
  f.open();  // everything is in the database file now
  const auto size = fs::file_size(f.directory / "db/records.db");
  for (std::uintmax_t page = 2; page < size / 4096; page += 40) flip(f.directory / "db/records.db", page * 4096 + 1000);
  const int passing = still_passing(f, 20000);
  CHECK(passing > 19000);
  CHECK(passing < 20000);
  CHECK(f.alerts.contains("greylist store was damaged"));
  CHECK_FALSE(f.ask_until_answered("192.0.2.77", "stranger@example.org").pass());
}

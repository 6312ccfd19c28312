#include "access/recipient_memory.hpp"

#include <thread>

#include "fixture.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/recording_alerts.hpp"
#include "support/recording_log.hpp"
#include "support/run.hpp"

using namespace greymx;
using namespace greymx::access;
using namespace std::chrono_literals;
using test::run;

namespace {

const IpAddress client = *IpAddress::parse("198.51.100.7");

struct World {
  test::TempDir directory;
  test::FakeClock clock;
  test::RecordingLog log;
  test::RecordingAlerts alerts;
  Metrics metrics;
  asio::io_context io{1};  // before the primaries, whose gate is a timer on it
  test::FakePrimaries primaries;
  Gate gate{io.get_executor()};
  std::unique_ptr<RecipientMemory> memory;

  World() { start(); }
  ~World() { close_gate(); }
  void close_gate() {
    gate.cancel();
    run(io, gate.close());
  }
  void start() {
    open();
    memory->start();
  }
  void open() {
    memory.reset();
    auto opened = RecipientMemory::open(directory / "recipients", primaries, clock, log, metrics, alerts);
    REQUIRE(opened);
    memory = std::move(*opened);
  }
  Known recall(std::string_view address) { return run(io, memory->recall(Mailbox::split(address))); }
  Primaries::Answer ask(std::string_view address, IpAddress who = client) {
    return run(io, memory->ask(gate, Mailbox::split(address), who, std::chrono::steady_clock::now() + 20s));
  }
  std::size_t asked(std::string_view part) const {
    return static_cast<std::size_t>(
        std::count_if(primaries.asked.begin(), primaries.asked.end(),
                      [&](const std::string& a) { return a.find(part) != std::string::npos; }));
  }
};

}  // namespace

TEST_CASE("accepted is good for 31 days and while the primary is down, refused is bad for 2 hours") {
  const test::FakeClock clock;
  const auto at = [&](std::chrono::seconds ago, bool good) {
    return Remembered{good,
                      std::chrono::duration_cast<std::chrono::seconds>(clock.now().time_since_epoch() - ago).count()};
  };
  struct Case {
    bool good;
    std::chrono::seconds age;
    bool down;
    Known known;
    bool same_primary = true;
  };
  const Case cases[] = {
      {true, 0s, false, Known::good},
      {true, 31 * 24h, false, Known::good},
      {true, 31 * 24h + 1s, false, Known::unknown},
      {true, 31 * 24h + 1s, true, Known::good},
      {true, 400 * 24h, true, Known::good},
      {false, 0s, false, Known::bad},
      {false, 2h, false, Known::bad},
      {false, 2h, true, Known::bad},
      {false, 2h + 1s, false, Known::unknown},
      {false, 2h + 1s, true, Known::unknown},
      {true, -1h, false, Known::good},  // the clock was set back
      {true, 0s, false, Known::unknown, false},
      {true, 400 * 24h, true, Known::good, false},
      {false, 0s, false, Known::unknown, false},
      {false, 0s, true, Known::unknown, false},
  };
  for (const Case& c : cases) {
    INFO(c.good << " " << c.age.count() << " s, down " << c.down << ", same primary " << c.same_primary);
    CHECK(judge(at(c.age, c.good), clock.now(), c.down, c.same_primary) == c.known);
  }
  CHECK(judge(Remembered{}, clock.now(), true, true) == Known::unknown);
  CHECK(judge(Remembered{}, WallTime(1h), false, true) == Known::unknown);  // never heard of, whatever the clock says
}

TEST_CASE("what a clock that was ahead has dated is not believed") {
  World world;
  world.clock.advance(1000h);
  world.memory->refused("joe@example.com");
  world.primaries.otherwise = Callout::accepted;
  CHECK(world.ask("any@example.com").outcome == Callout::accepted);
  world.clock.set(world.clock.now() - 1000h);
  CHECK(world.recall("joe@example.com") == Known::unknown);
  world.primaries.otherwise = Callout::refused;
  CHECK(world.ask("any@example.com").outcome == Callout::refused);
}

TEST_CASE("an answer is remembered, over a restart too") {
  World world;
  world.primaries.answers["joe@example.com"] = Callout::accepted;
  CHECK(world.recall("joe@example.com") == Known::unknown);
  CHECK(world.ask("joe@example.com").outcome == Callout::accepted);
  CHECK(world.ask("bad@example.com").outcome == Callout::refused);
  world.open();
  CHECK(world.recall("JOE@example.com") == Known::good);
  CHECK(world.recall("bad@example.com") == Known::bad);
  world.clock.advance(2h + 1s);
  CHECK(world.recall("bad@example.com") == Known::unknown);
  world.clock.advance(31 * 24h);
  CHECK(world.recall("joe@example.com") == Known::unknown);
  world.primaries.down.insert("example.com");
  CHECK(world.recall("joe@example.com") == Known::good);
  CHECK(world.metrics.value("callouts_total", {{"outcome", "accepted"}}) == 1);
  CHECK(world.metrics.value("callouts_total", {{"outcome", "refused"}}) == 2);  // one of them a random local part
}

TEST_CASE("an inconclusive answer teaches nothing") {
  World world;
  world.primaries.otherwise = Callout::inconclusive;
  CHECK(world.ask("joe@example.com").outcome == Callout::inconclusive);
  CHECK(world.recall("joe@example.com") == Known::unknown);
  world.memory->accepted("joe@example.com");
  CHECK(world.ask("joe@example.com").outcome == Callout::inconclusive);
  CHECK(world.recall("joe@example.com") == Known::good);
}

TEST_CASE("a primary that has just come back, perhaps without its users, refuses nobody for good") {
  World world;
  world.primaries.suspect.insert("example.com");
  CHECK(world.ask("joe@example.com").outcome == Callout::inconclusive);
  CHECK(world.recall("joe@example.com") == Known::unknown);
  world.primaries.suspect.clear();
  CHECK(world.ask("joe@example.com").outcome == Callout::refused);
  CHECK(world.recall("joe@example.com") == Known::bad);
}

TEST_CASE("deliveries teach") {
  World world;
  world.memory->accepted("Joe@Example.com");
  CHECK(world.recall("joe@example.com") == Known::good);
  world.memory->refused("joe@example.com");
  CHECK(world.recall("joe@example.com") == Known::bad);
}

TEST_CASE("a primary that takes a random local part is asked once a day, and no address is remembered") {
  World world;
  world.primaries.otherwise = Callout::accepted;
  CHECK(world.ask("one@example.com").outcome == Callout::accepted);
  CHECK(world.ask("two@example.com").outcome == Callout::accepted);
  CHECK(world.primaries.asked.size() == 1);
  CHECK(world.asked("greymx-") == 1);
  CHECK(world.recall("one@example.com") == Known::unknown);
  world.clock.advance(24h + 1s);
  world.primaries.otherwise = Callout::refused;
  CHECK(world.ask("one@example.com").outcome == Callout::refused);
  CHECK(world.asked("greymx-") == 2);
  CHECK(world.asked("one@example.com") == 1);
}

TEST_CASE("what another primary refused is asked again, over a restart too") {
  World world;
  const bool restarts = GENERATE(false, true);
  CAPTURE(restarts);
  world.memory->refused("joe@example.com");
  CHECK(world.ask("jim@example.com").outcome == Callout::refused);
  world.primaries.named = "mx2.example.com:25";
  if (restarts) world.open();
  CHECK(world.recall("joe@example.com") == Known::unknown);
  CHECK(world.recall("jim@example.com") == Known::unknown);
  world.primaries.answers["joe@example.com"] = Callout::accepted;
  CHECK(world.ask("joe@example.com").outcome == Callout::accepted);
  CHECK(world.asked("greymx-") == 2);  // the new one may take everybody
  CHECK(world.recall("joe@example.com") == Known::good);
  world.primaries.named = "mx1.example.com:25";  // back again
  CHECK(world.recall("jim@example.com") == Known::bad);
}

TEST_CASE("that another primary took everybody does not count for this one, over a restart neither") {
  World world;
  const bool restarts = GENERATE(false, true);
  CAPTURE(restarts);
  world.primaries.otherwise = Callout::accepted;
  CHECK(world.ask("one@example.com").outcome == Callout::accepted);
  world.primaries.named = "mx2.example.com:25";
  world.primaries.otherwise = Callout::refused;
  if (restarts) world.open();
  CHECK(world.ask("two@example.com").outcome == Callout::refused);
  CHECK(world.recall("two@example.com") == Known::bad);
}

TEST_CASE("while a primary is down of which nothing is known, nobody counts as unheard of who may be known") {
  World world;
  world.primaries.otherwise = Callout::accepted;
  CHECK(world.ask("one@example.com").outcome == Callout::accepted);
  world.primaries.named = "mx2.example.com:25";
  world.primaries.down = {"example.com"};
  CHECK(world.recall("two@example.com") == Known::unclear);
}

TEST_CASE("whom another primary took is asked for again, and known where there is no answer") {
  World world;
  world.memory->accepted("joe@example.com");
  world.memory->accepted("jim@example.com");
  world.primaries.named = "mx2.example.com:25";
  CHECK(world.recall("joe@example.com") == Known::unknown);
  world.primaries.otherwise = Callout::inconclusive;
  CHECK(world.ask("joe@example.com").outcome == Callout::accepted);
  CHECK(world.ask("new@example.com").outcome == Callout::inconclusive);
  world.primaries.down = {"example.com"};
  CHECK(world.recall("joe@example.com") == Known::good);
  world.primaries.down.clear();
  world.primaries.otherwise = Callout::refused;
  CHECK(world.ask("joe@example.com").outcome == Callout::refused);
  CHECK(world.recall("joe@example.com") == Known::bad);
  world.clock.advance(31 * 24h + 1s);
  world.primaries.otherwise = Callout::inconclusive;
  CHECK(world.ask("jim@example.com").outcome == Callout::inconclusive);
}

TEST_CASE("an answer is that of the primary that was asked") {
  World world;
  world.primaries.gate.emplace(world.io.get_executor());
  const auto soon = std::chrono::steady_clock::now() + 20ms;
  const auto answer = run(world.io, world.memory->ask(world.gate, Mailbox::split("joe@example.com"), client, soon));
  CHECK(answer.outcome == Callout::inconclusive);
  world.primaries.named = "mx2.example.com:25";  // the random local part is still being asked for
  while (world.primaries.asked.size() < 2) {
    world.primaries.gate->notify_all();
    world.io.restart();
    world.io.run_one();
  }
  world.primaries.named = "mx3.example.com:25";
  while (world.gate.size() > 0) {
    world.primaries.gate->notify_all();
    world.io.restart();
    world.io.run_one();
  }
  CHECK(world.recall("joe@example.com") == Known::unknown);
  world.primaries.named = "mx2.example.com:25";
  CHECK(world.recall("joe@example.com") == Known::bad);
}

TEST_CASE("a primary that refuses a recipient is asked again whether it takes everybody") {
  World world;
  world.primaries.otherwise = Callout::accepted;
  CHECK(world.ask("one@example.com").outcome == Callout::accepted);
  if (GENERATE(false, true)) world.open();  // what is on disk only counts as well
  world.memory->refused("bad@example.com");
  CHECK(world.recall("other@example.com") == Known::unknown);  // the store has come so far
  world.primaries.down = {"example.com"};
  CHECK(world.recall("two@example.com") == Known::unclear);
  world.primaries.down.clear();
  CHECK(world.ask("two@example.com").outcome == Callout::accepted);
  CHECK(world.asked("greymx-") == 2);
  world.memory->refused("worse@example.com");
  CHECK(world.recall("others@example.com") == Known::unknown);
  world.primaries.otherwise = Callout::refused;
  CHECK(world.ask("two@example.com").outcome == Callout::refused);
}

TEST_CASE("what is on disk without its primary is believed") {
  World world;
  world.memory.reset();
  {
    RecipientStore store(world.directory / "recipients", world.clock, world.log, world.alerts);
    const std::int64_t now =
        std::chrono::duration_cast<std::chrono::seconds>(world.clock.now().time_since_epoch()).count();
    store.put({{"joe@example.com", {true, now}}, {"bad@example.com", {false, now}}});
  }
  world.open();
  CHECK(world.recall("joe@example.com") == Known::good);
  CHECK(world.recall("bad@example.com") == Known::bad);
}

TEST_CASE("many who ask for one address wait for one callout") {
  World world;
  // The first question also settles whether the primary takes everybody, so that the fifty wait for no disk.
  world.primaries.answers["first@example.com"] = Callout::accepted;
  REQUIRE(world.ask("first@example.com").outcome == Callout::accepted);
  const std::size_t before = world.primaries.asked.size();
  world.primaries.gate.emplace(world.io.get_executor());
  world.primaries.answers["joe@example.com"] = Callout::accepted;
  const SteadyTime deadline = std::chrono::steady_clock::now() + 20s;
  std::vector<Task<Primaries::Answer>> tasks;
  for (int i = 0; i < 50; ++i)
    tasks.push_back(world.memory->ask(world.gate, Mailbox::split("joe@example.com"), client, deadline));
  const auto open_when_asked = [](World& w, std::size_t before_asked) -> Task<> {
    while (w.primaries.asked.size() == before_asked) co_await sleep_for(1ms);
    w.primaries.gate->notify_all();
  };
  world.gate.spawn("primary", open_when_asked(world, before));
  const auto answers = run(world.io, join_all(std::move(tasks)));
  CHECK(answers.size() == 50);
  for (const auto& answer : answers) CHECK(answer.outcome == Callout::accepted);
  CHECK(world.asked("joe@example.com") == 1);
}

TEST_CASE("who waits has an answer at the deadline; the question goes on and is remembered") {
  World world;
  world.primaries.gate.emplace(world.io.get_executor());
  world.primaries.answers["joe@example.com"] = Callout::accepted;
  const auto soon = std::chrono::steady_clock::now() + 20ms;
  const auto answer = run(world.io, world.memory->ask(world.gate, Mailbox::split("joe@example.com"), client, soon));
  CHECK(answer.outcome == Callout::inconclusive);
  CHECK(answer.detail == "the primary did not answer in time");
  while (world.gate.size() > 0) {
    world.primaries.gate->notify_all();
    world.io.restart();
    world.io.run_one();
  }
  CHECK(world.recall("joe@example.com") == Known::good);
}

TEST_CASE("the end of the server answers all who wait") {
  World world;
  world.primaries.gate.emplace(world.io.get_executor());
  const auto waiting = [](World& w, Primaries::Answer& answer) -> Task<> {
    answer = co_await w.memory->ask(w.gate, Mailbox::split("joe@example.com"), client, SteadyTime::max());
  };
  Primaries::Answer answer{Callout::accepted, {}};
  Gate sessions(world.io.get_executor());
  sessions.spawn("session", waiting(world, answer));
  while (world.primaries.asked.empty()) world.io.restart(), world.io.run_one();
  world.close_gate();
  run(world.io, sessions.close());
  CHECK(answer.outcome == Callout::inconclusive);
}

TEST_CASE("a client, and all together, have a budget of questions a minute") {
  World world;
  world.ask("first@example.com");
  const std::size_t random = world.asked("greymx-");
  for (int i = 0; i < 200; ++i) world.ask("user" + std::to_string(i) + "@example.com");
  CHECK(world.primaries.asked.size() == 60 + random);
  CHECK(world.ask("another@example.com").detail == "too many addresses to verify, try again later");
  CHECK(world.ask("first@example.com", *IpAddress::parse("198.51.100.8")).outcome == Callout::refused);
  for (int i = 0; i < 2000; ++i) {
    world.ask("user" + std::to_string(i) + "@example.com", IpAddress::v4(0xc6336500U + static_cast<unsigned>(i)));
  }
  CHECK(world.primaries.asked.size() == 600 + random);
  world.clock.advance(60s);
  CHECK(world.ask("another@example.com").outcome == Callout::refused);
}

TEST_CASE("before the primaries know which of them are down nothing is forgotten") {
  World world;
  world.memory->accepted("joe@example.com");
  world.memory.reset();
  world.clock.advance(32 * 24h);
  world.open();
  world.clock.advance(2h);
  std::this_thread::sleep_for(1500ms);  // time for a round of expiry
  world.primaries.down = {"example.com"};
  world.memory->start();
  std::this_thread::sleep_for(1500ms);
  CHECK(world.recall("joe@example.com") == Known::good);
}

TEST_CASE("expired records leave the store, those of a primary that is down stay") {
  const test::TempDir directory;
  test::FakeClock clock;
  test::RecordingLog log;
  test::RecordingAlerts alerts;
  RecipientStore store(directory / "recipients", clock, log, alerts);
  RecipientStore::Records records;
  for (int i = 0; i < 2500; ++i)
    records.emplace_back("user" + std::to_string(i) + "@example.com", Remembered{i % 2 == 0, 1000 + i});
  store.put(records);
  CHECK(store.get("user4@example.com") == Remembered{true, 1004});
  CHECK(store.get("absent@example.com") == Remembered{});
  store.put({{"whose@example.com", {false, 1000, 0xfedcba9876543210}}});
  CHECK(store.get("whose@example.com") == Remembered{false, 1000, 0xfedcba9876543210});
  const auto bad = [](const std::string&, const Remembered& record) { return !record.good; };
  int slices = 1;
  while (!store.expire(bad)) ++slices;
  CHECK(slices == 3);
  CHECK(store.size() == 1250);
  CHECK(store.get("user4@example.com") == Remembered{true, 1004});
  CHECK(store.get("user5@example.com") == Remembered{});
}

TEST_CASE("a clock that is far ahead for a moment makes the memory forget nothing") {
  World world;
  world.memory->accepted("joe@example.com");
  world.clock.advance(2h);
  world.clock.set(world.clock.now() + 40 * 24h);
  std::this_thread::sleep_for(2200ms);  // two rounds of expiry
  world.clock.set(world.clock.now() - 40 * 24h);
  world.open();
  CHECK(world.recall("joe@example.com") == Known::good);
}

TEST_CASE("what a store in trouble cannot tell is unclear, not unheard of, and known again when it is well") {
  World world;
  world.memory->accepted("joe@example.com");
  world.memory.reset();
  world.primaries.down.insert("example.com");
  {
    const test::FullDisk full;
    world.open();
    CHECK(world.recall("joe@example.com") == Known::unclear);
  }
  world.clock.advance(1min);
  for (int i = 0; i < 100 && world.recall("joe@example.com") == Known::unclear; ++i) std::this_thread::sleep_for(50ms);
  CHECK(world.recall("joe@example.com") == Known::good);
  CHECK(world.recall("other@example.com") == Known::unknown);
}

TEST_CASE("while a primary that takes everybody is down, all its addresses are good but those it refused") {
  World world;
  world.primaries.otherwise = Callout::accepted;
  CHECK(world.ask("one@example.com").outcome == Callout::accepted);
  world.memory->refused("bad@example.com");
  CHECK(world.recall("other@example.com") == Known::unknown);  // the store has come so far
  CHECK(world.ask("one@example.com").outcome == Callout::accepted);
  world.clock.advance(25h);
  CHECK(world.recall("two@example.com") == Known::unknown);
  world.primaries.down = {"example.com", "example.org"};
  CHECK(world.recall("two@example.com") == Known::good);
  CHECK(world.recall("bad@example.com") == Known::good);  // that was long ago
  world.memory->refused("worse@example.com");
  CHECK(world.recall("worse@example.com") == Known::bad);
  CHECK(world.recall("two@example.org") == Known::unknown);
}

TEST_CASE("a damaged store is moved aside with an alert and starts anew") {
  World world;
  world.memory->accepted("joe@example.com");
  world.memory.reset();
  for (const auto& entry : std::filesystem::recursive_directory_iterator(world.directory / "recipients")) {
    if (entry.is_regular_file() && entry.path().filename() != "lock")
      std::ofstream(entry.path()) << std::string(20000, 'x');
  }
  world.open();
  CHECK(world.alerts.contains("the recipient memory was damaged"));
  CHECK(world.recall("joe@example.com") == Known::unknown);
  world.memory->accepted("joe@example.com");
  world.open();
  CHECK(world.recall("joe@example.com") == Known::good);
}

TEST_CASE("two daemons cannot share one recipient memory") {
  World world;
  const auto second = RecipientMemory::open(world.directory / "recipients", world.primaries, world.clock, world.log,
                                            world.metrics, world.alerts);
  CHECK_FALSE(second);
}

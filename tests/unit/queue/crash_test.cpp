// The promise behind 250, tried: faults and crashes at every operation, on a disk that forgets all that was not synced.
#include "model.hpp"

using namespace greymx;
using namespace greymx::test;

namespace {

struct SmallSpool : TestSpool {
  SmallSpool() {
    settings.segment_size = 64 * 1024;
    settings.large_message = 8 * 1024;
  }
};

Crash random_crash(std::mt19937& random) {
  Crash crash;
  if (random() % 2 == 0) {
    crash.random_sectors = random();
  } else {
    crash.keep_bytes = random() % 200000;
  }
  crash.keep_entries = random() % 4;
  return crash;
}

// Lives on a disk that fails now and then, with power that fails at the end of each.
void live(unsigned seed) {
  INFO("seed " << seed);
  std::mt19937 random(seed);
  SmallSpool t;
  REQUIRE(t.open().has_value());
  Model model(t);
  for (int life = 0; life < 6; ++life) {
    const std::size_t steps = random() % 150;
    const bool dies = random() % 3 == 0;
    const bool falters = random() % 3 == 0;
    if (dies) t.files->fail_at(1 + random() % 400, Fault(random() % 3), true);
    for (std::size_t i = 0; i < steps; ++i) {
      if (falters && i % 20 == 0) t.files->fail_at(1 + random() % 40, Fault(random() % 3), random() % 2 == 0);
      if (falters && i % 20 == 15) t.files->heal();
      step(t, model, random);
    }
    if (random() % 4 == 0) t.spool->stop();  // a clean stop, or as clean as the disk lets it be
    t.crash(random_crash(random));
    REQUIRE(t.open().has_value());
    INFO(t.log.text());
    model.compare();
    CHECK(t.log.count("damaged") == 0);
    CHECK(t.log.count("too early") == 0);
  }
}

}  // namespace

TEST_CASE("random lives: what was acknowledged comes back, what has ended does not") {
  live(GENERATE(range(0U, 100U)));
}

TEST_CASE("many more random lives", "[.slow]") {
  live(GENERATE(range(100U, 3000U)));
}

TEST_CASE("power fails at each operation of a busy spool, with nothing, all or any sector of the last writes kept") {
  // The same life each time, so that operation n is always the same one.
  const auto live = [](SmallSpool& t, Model& model) {
    std::mt19937 random(7);
    for (int i = 0; i < 60; ++i) {
      t.clock.advance(1s);
      model.accept({"a@example.com", "b@example.net"}, i % 10 == 9 ? 9000 : 2000);
      const auto living = model.living();
      if (!living.empty()) model.update(living.front(), {{0, done()}, {1, done()}});
      if (!living.empty()) model.update(living.back(), {{0, deferred(t.clock.now() + 1h, std::to_string(i))}});
      if (i % 5 == 0) model.sync();
      if (i % 7 == 0) t.spool->maintain();
    }
  };
  std::uint64_t operations = 0;
  {
    SmallSpool t;
    REQUIRE(t.open().has_value());
    operations = t.files->operations();
    Model model(t);
    live(t, model);
    operations = t.files->operations() - operations;
  }
  REQUIRE(operations > 200);
  const int kept = GENERATE(range(0, 4));
  for (std::uint64_t n = 1 + static_cast<std::uint64_t>(kept); n <= operations; n += 4) {
    INFO("operation " << n << ", kept " << kept);
    SmallSpool t;
    REQUIRE(t.open().has_value());
    Model model(t);
    t.files->fail_at(n, Fault::torn, true);
    live(t, model);
    Crash crash;
    if (kept == 1) crash.keep_bytes = UINT64_MAX;
    if (kept >= 2) crash.random_sectors = static_cast<unsigned>(n);
    crash.keep_entries = kept % 2 == 0 ? 0 : SIZE_MAX;
    t.crash(crash);
    REQUIRE(t.open().has_value());
    model.compare();
    CHECK(t.log.count("too early") == 0);
  }
}

TEST_CASE("the last batch torn at each byte, or any of its sectors missing, hurts nothing that was acknowledged") {
  SmallSpool t;
  REQUIRE(t.open().has_value());
  const QueueId first = t.must_accept({"user@example.com"}, "first");
  const QueueId second = t.must_accept({"user@example.com"}, "second");
  const std::string path = "/spool/" + t.logs().back();
  const std::string before = *t.files->content(path);
  t.spool->update(first, {{0, done()}});
  t.spool->update(second, {{0, deferred(t.clock.now() + 1h, "again")}});
  const QueueId third = t.must_accept({"user@example.com"}, std::string(5000, '3'));
  const std::string after = *t.files->content(path);
  const auto [from, to] = std::ranges::mismatch(before, after);
  const auto begin = static_cast<std::size_t>(from - before.begin());
  const std::size_t end = begin + 3 * block;
  REQUIRE(before.substr(end) == after.substr(end));

  const auto check = [&](std::string bytes, bool whole) {
    TestSpool survivor(std::shared_ptr<MemoryFiles>(t.files->clone()));
    survivor.files->crash();
    survivor.files->put(path, std::move(bytes));
    survivor.settings = t.settings;
    REQUIRE(survivor.open().has_value());
    CHECK_FALSE(survivor.log.contains("damaged"));
    CHECK(survivor.content(second) == "second");
    if (survivor.spool->contains(first)) CHECK(survivor.content(first) == "first");
    if (survivor.spool->contains(third)) CHECK(survivor.content(third) == std::string(5000, '3'));
    if (whole) CHECK_FALSE(survivor.spool->contains(first));
    if (whole) CHECK(survivor.spool->contains(third));
    const QueueId next = survivor.must_accept();
    survivor.crash();
    REQUIRE(survivor.open().has_value());
    CHECK(survivor.spool->contains(second));
    CHECK(survivor.spool->contains(next));
  };
  for (std::size_t torn = begin; torn <= end; torn += torn < begin + 120 || torn + 120 > end ? 1 : 97) {
    INFO("torn at " << torn);
    check(after.substr(0, torn) + before.substr(torn), torn == end);
  }
  std::mt19937 random(1);
  for (int i = 0; i < 60; ++i) {
    std::string mixed = before;
    for (std::size_t at = begin; at < end; at += 512) {
      if (random() % 3 != 0) mixed.replace(at, 512, after, at, 512);
    }
    check(mixed, false);
  }
}

TEST_CASE("an I/O error at any step of recovery loses nothing") {
  SmallSpool t;
  REQUIRE(t.open().has_value());
  Model model(t);
  std::mt19937 random(3);
  for (int i = 0; i < 300; ++i) step(t, model, random);
  model.sync();
  const auto ids = t.spool->ids({}, 1000);
  t.crash();
  const std::shared_ptr<MemoryFiles> disk = t.files;
  for (std::uint64_t n = 1;; ++n) {
    INFO("operation " << n);
    t.files = disk->clone();
    t.files->fail_at(n);
    const bool opened = t.open().has_value();
    t.files->heal();
    if (opened && t.files->operations() < n) break;
    t.crash();
    REQUIRE(t.open().has_value());
    CHECK(t.spool->ids({}, 1000) == ids);
    t.spool.reset();
  }
}

TEST_CASE("every step of accepting a message may fail, once; the sender is told and the next message is taken") {
  for (const std::size_t size : {100U, 20000U}) {
    for (const Fault fault : {Fault::io_error, Fault::no_space, Fault::torn}) {
      for (std::uint64_t n = 1;; ++n) {
        INFO("operation " << n << ", fault " << static_cast<int>(fault) << ", size " << size);
        SmallSpool t;
        REQUIRE(t.open().has_value());
        const std::uint64_t before = t.files->operations();
        t.files->fail_at(n, fault);
        const auto first = t.accept(envelope_to({"user@example.com"}), std::string(size, 'x'));
        const bool faulted = t.files->operations() - before >= n;
        t.files->heal();
        t.spool->commit();
        const QueueId second = t.must_accept();
        t.crash();
        REQUIRE(t.open().has_value());
        CHECK(t.spool->contains(second));
        if (first) CHECK(t.content(*first) == std::string(size, 'x'));
        if (!faulted) break;
      }
    }
  }
}

// The promise behind 250, tried: faults and crashes at every operation, on a disk that forgets all that was not synced.
#include "model.hpp"

using namespace greymx;
using namespace greymx::test;

namespace {

void make_small(TestSpool& t) {
  t.settings.segment_size = 64 * 1024;
  t.settings.large_message = 8 * 1024;
}

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

}  // namespace

TEST_CASE("random lives with crashes anywhere: nothing acknowledged is lost, nothing finished comes back") {
  const unsigned seed = GENERATE(range(0U, 60U));
  INFO("seed " << seed);
  std::mt19937 random(seed);
  TestSpool t;
  make_small(t);
  REQUIRE(t.open().has_value());
  Model model(t);
  for (int life = 0; life < 6; ++life) {
    const std::size_t steps = random() % 150;
    if (random() % 2 == 0) t.files->fail_at(1 + random() % 400, Fault(random() % 3), true);
    for (std::size_t i = 0; i < steps; ++i) step(t, model, random);
    if (random() % 4 == 0) {
      t.spool.reset();  // a clean stop, or as clean as the disk lets it be
    }
    t.crash(random_crash(random));
    REQUIRE(t.open().has_value());
    model.compare();
    CHECK(t.log.count("damaged") == 0);
  }
}

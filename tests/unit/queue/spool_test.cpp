#include "fixture.hpp"

using namespace greymx;
using namespace greymx::test;

TEST_CASE("what was committed can be loaded, and comes back after a clean stop and after a crash") {
  TestSpool t;
  REQUIRE(t.open().has_value());
  const QueueId id = t.must_accept();
  CHECK(t.content(id) == "Subject: hello\r\n\r\nworld\r\n");
  t.clean_restart();
  CHECK(t.content(id) == "Subject: hello\r\n\r\nworld\r\n");
  const QueueId second = t.must_accept();
  t.crash();
  REQUIRE(t.open().has_value());
  CHECK(t.spool->ids({}, 10) == std::vector<QueueId>{id, second});
  CHECK(t.content(second) == "Subject: hello\r\n\r\nworld\r\n");
}

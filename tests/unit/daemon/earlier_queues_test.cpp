#include "daemon/earlier_queues.hpp"

#include <map>

#include "base/files.hpp"
#include "support/catch.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;
using namespace greymx::daemon;

namespace {

struct World {
  test::TempDir directory;
  std::map<std::string, std::uint64_t> messages;  // by queue; others are not there

  std::vector<std::string> start(const std::string& queue_path) const {
    const auto count = [&](const std::string& path) -> Result<std::uint64_t> {
      const auto found = messages.find(path);
      if (found == messages.end()) return fail(ErrorKind::not_found, path);
      return found->second;
    };
    const auto texts = mail_left_behind(queue_path, directory / "queues", count);
    REQUIRE(texts.has_value());
    return *texts;
  }
};

}  // namespace

TEST_CASE("mail in an earlier queue is told of at every start until it is gone") {
  World world;
  world.messages["/old"] = 12;
  CHECK(world.start("/old").empty());
  for (int i = 0; i < 2; ++i) {
    const auto texts = world.start("/new");
    REQUIRE(texts.size() == 1);
    CHECK(texts[0].starts_with("12 messages are in /old: stop greymxd, move /old to /new, start"));
  }
  SECTION("by being moved") {
    world.messages.clear();
  }
  SECTION("by being delivered from there") {
    CHECK(world.start("/old").empty());
    world.messages["/old"] = 0;
  }
  CHECK(world.start("/new").empty());
  world.messages["/old"] = 1;
  CHECK(world.start("/new").empty());
}

TEST_CASE("the same directory by another name is no earlier queue") {
  World world;
  const std::string real = world.directory / "queue", link = world.directory / "link";
  std::filesystem::create_directory(real);
  std::filesystem::create_symlink(real, link);
  world.messages[link] = 1;
  CHECK(world.start(link).empty());
  CHECK(world.start(real).empty());
}

#include "daemon/earlier_queues.hpp"

#include <cstdlib>
#include <map>
#include <regex>

#include "base/files.hpp"
#include "support/catch.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;
using namespace greymx::daemon;

namespace {

struct World {
  test::TempDir directory;
  const std::string old_queue = directory / "old", new_queue = directory / "new";
  std::map<std::string, std::uint64_t> messages;  // by queue
  bool remembers = true;

  World() {
    for (const std::string& queue : {old_queue, new_queue}) mount(queue);
  }

  static void mount(const std::string& queue) {
    std::filesystem::create_directory(queue);
    REQUIRE(replace_file(queue + "/lock", "").has_value());
  }

  std::vector<std::string> start(const std::string& queue_path) const {
    const auto count = [&](const std::string& path) -> Result<std::uint64_t> { return messages.at(path); };
    const LeftBehind left = mail_left_behind(queue_path, directory / "queues", count);
    CHECK(left.remembered.has_value() == remembers);
    return left.texts;
  }
};

void do_as_told(const std::string& advice) {
  static const std::regex moves("move (\\S+) to ([^, ]+)");
  const std::sregex_iterator end;
  for (std::sregex_iterator move(advice.begin(), advice.end(), moves); move != end; ++move) {
    REQUIRE(std::system(("mv " + move->str(1) + " " + move->str(2)).c_str()) == 0);
  }
}

}  // namespace

TEST_CASE("mail in an earlier queue is told of at every start until it is gone") {
  World world;
  world.messages[world.old_queue] = 12;
  CHECK(world.start(world.old_queue).empty());
  for (int i = 0; i < 2; ++i) {
    const auto texts = world.start(world.new_queue);
    REQUIRE(texts.size() == 1);
    CHECK(
        texts[0].starts_with("12 messages are in " + world.old_queue + ": when no mail is left in " + world.new_queue));
  }
  world.messages[world.new_queue] = 0;
  CHECK(world.start(world.old_queue).empty());  // delivered from there
  world.messages[world.old_queue] = 0;
  CHECK(world.start(world.new_queue).empty());
  world.messages[world.old_queue] = 1;
  CHECK(world.start(world.new_queue).empty());
}

TEST_CASE("what is moved as the alert says is the queue from then on") {
  World world;
  const std::string within = world.new_queue + "/old", aside = world.new_queue + ".aside";
  world.messages = {{world.old_queue, 1}, {within, 1}};
  REQUIRE(replace_file(world.old_queue + "/mail", "").has_value());
  CHECK(world.start(world.old_queue).empty());
  SECTION("where the new one is not made yet") {
    std::filesystem::remove_all(world.new_queue);
    do_as_told(move_advice(1, world.old_queue, world.new_queue));
  }
  SECTION("where it is there") {
    do_as_told(world.start(world.new_queue).at(0));
    CHECK(std::filesystem::exists(aside + "/lock"));
  }
  SECTION("where the old one is within it, by an mv of old to new") {
    std::filesystem::rename(world.old_queue, within);
    std::filesystem::create_directory(aside);  // from another time
    do_as_told(world.start(world.new_queue + "/").at(0));
  }
  CHECK(std::filesystem::exists(world.new_queue + "/mail"));
  CHECK(world.start(world.new_queue).empty());
}

TEST_CASE("an earlier queue on a file system that is not mounted is told of when it is there again") {
  World world;
  world.messages[world.old_queue] = 1;
  CHECK(world.start(world.old_queue).empty());
  const bool mount_point_left = GENERATE(false, true);
  std::filesystem::remove_all(world.old_queue);
  if (mount_point_left) std::filesystem::create_directory(world.old_queue);
  CHECK(world.start(world.new_queue).empty());
  World::mount(world.old_queue);
  CHECK(world.start(world.new_queue).size() == 1);
}

TEST_CASE("mail left behind is told of though the place of the queue cannot be kept") {
  World world;
  REQUIRE(replace_file(world.directory / "queues", world.old_queue + "\n").has_value());
  world.messages[world.old_queue] = 1;
  std::filesystem::create_directory(world.directory / "queues.new");
  world.remembers = false;
  CHECK(world.start(world.new_queue).size() == 1);
}

TEST_CASE("the same directory by another name is no earlier queue") {
  World world;
  const std::string link = world.directory / "link";
  std::filesystem::create_symlink(world.old_queue, link);
  world.messages[link] = 1;
  CHECK(world.start(link).empty());
  CHECK(world.start(world.old_queue).empty());
}

#include "access/tables.hpp"

#include <sys/stat.h>

#include <thread>

#include "fixture.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/not_root.hpp"
#include "support/recording_alerts.hpp"
#include "support/recording_log.hpp"

using namespace greymx;
using namespace std::chrono_literals;
using access::Reload;
using access::Tables;
using access::TableWatcher;

namespace {

struct World {
  test::TempDir directory;
  test::FakeClock clock;
  test::RecordingLog log;
  test::RecordingAlerts alerts;
  std::shared_ptr<config::Config> config = std::make_shared<config::Config>();
  std::shared_ptr<const Tables> adopted;
  int adoptions = 0;
  std::unique_ptr<TableWatcher> watcher;

  World() {
    config->domains.emplace_back().name = "example.com";
    write("senders", "bad@example.org REJECT\n");
    write("list", users(10));
    config->access.senders = directory / "senders";
    config->domains[0].recipients = directory / "list";
    config->state_path = directory.path();
  }
  static std::string users(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += "user" + std::to_string(i) + "\n";
    return text;
  }
  void write(const std::string& name, std::string_view content) { test::write(directory, name, content); }
  void watch() {
    adopted = Tables::load(*config).tables;
    REQUIRE(adopted);
    watcher = std::make_unique<TableWatcher>(config, adopted, clock, log, alerts,
                                             [this](auto tables) { adopted = std::move(tables), ++adoptions; });
  }
  void pass(std::chrono::seconds time) {  // the watcher looks every second
    for (; time > 0s; time -= 1s) {
      clock.advance(1s);
      watcher->tick();
    }
  }
  bool reload(
      config::ConfigPtr wanted,
      Reload how = Reload::command) {  // what the daemon does: nobody adopts before the configuration is there too
    const Tables::Loaded loaded = watcher->reload(std::move(wanted), how);
    if (loaded.tables) adopted = loaded.tables;
    return loaded.tables != nullptr;
  }
  void permit(const std::string& name, mode_t mode) const {
    std::this_thread::sleep_for(20ms);  // the file system's clock ticks
    REQUIRE(chmod((directory / name).c_str(), mode) == 0);
  }
  bool rejects(const std::string& sender) const {
    return adopted->file(config->access.senders)->find_mailbox(Mailbox::split(sender)).has_value();
  }
  std::size_t listed() const {
    const auto* list = adopted->recipients(config->domains[0]);
    return list == nullptr ? 0 : list->size();
  }
};

}  // namespace

TEST_CASE("a changed file is read again after it has been still for 5 s") {
  World world;
  world.watch();
  world.pass(10s);
  CHECK(world.adoptions == 0);
  world.write("senders", "worse@example.org REJECT\n");
  world.pass(3s);
  world.write("senders", "worse@example.org REJECT\nworst@example.org REJECT\n");
  world.pass(5s);
  CHECK(world.adoptions == 0);
  world.pass(1s);
  CHECK(world.adoptions == 1);
  CHECK(world.rejects("worst@example.org"));
  CHECK_FALSE(world.rejects("bad@example.org"));
  world.pass(60s);
  CHECK(world.adoptions == 1);
}

TEST_CASE("a bad or vanished file keeps what was read before, and says so") {
  World world;
  world.watch();
  world.write("senders", "bad@example.org REDIRECT me\n");
  world.pass(6s);
  CHECK(world.rejects("bad@example.org"));
  CHECK(world.log.contains("senders:1:1: REDIRECT is not done here"));
  std::filesystem::remove(world.directory / "senders");
  std::filesystem::remove(world.directory / "list");
  world.log.clear();
  world.pass(6s);
  CHECK(world.rejects("bad@example.org"));
  CHECK(world.listed() == 10);
  CHECK(world.log.count("No such file") == 2);
  CHECK(world.log.contains("error: domains.\"example.com\".recipients: " + (world.directory / "list") + ": No such"));
  CHECK(world.log.contains("error: access.senders: open " + (world.directory / "senders") + ": No such file"));
  world.write("senders", "good@example.org REJECT\n");
  world.pass(6s);
  CHECK(world.rejects("good@example.org"));
}

TEST_CASE("who may read a file belongs to its state") {
  World world;
  world.permit("", 0777);
  world.watch();
  const test::NotRoot not_root;

  SECTION("a new file that may not be read is adopted once it may") {
    for (const auto& [name, content] :
         {std::pair("senders", std::string("new@example.org REJECT\n")), std::pair("list", World::users(11))}) {
      world.write(std::string(name) + ".new", content);
      world.permit(std::string(name) + ".new", 0);
      std::filesystem::rename(world.directory / (std::string(name) + ".new"), world.directory / name);
    }
    world.pass(6s);
    CHECK(world.rejects("bad@example.org"));
    CHECK(world.log.count("Permission denied") == 2);
    world.permit("senders", 0600);
    world.permit("list", 0600);
    world.pass(6s);
    CHECK(world.rejects("new@example.org"));
    CHECK(world.listed() == 11);
  }
  SECTION("reload says what may not be read any more, as often as it is asked") {
    world.write("more", "x@example.org REJECT\n");
    const auto wanted = std::make_shared<config::Config>(*world.config);
    wanted->access.senders = world.directory / "more";
    REQUIRE(world.reload(wanted));
    world.permit("more", 0);
    CHECK(world.watcher->reload(wanted, Reload::command).errors.size() == 1);
    world.pass(60s);
    CHECK(world.watcher->reload(wanted, Reload::command).errors.size() == 1);
    world.permit("more", 0600);
    CHECK(world.watcher->reload(wanted, Reload::command).errors.empty());
  }
}

TEST_CASE("at the start a file that cannot be read leaves nothing to work with") {
  World world;
  world.write("senders", "nonsense\n");
  const Tables::Loaded loaded = Tables::load(*world.config);
  CHECK(loaded.tables == nullptr);
  REQUIRE(loaded.errors.size() == 1);
  CHECK(loaded.errors[0].to_string().find("senders:1:1: an action is missing") != std::string::npos);
}

TEST_CASE("a list that shrinks by up to a fifth is adopted, by more only by reload") {
  World world;
  world.watch();
  world.write("list", World::users(8));
  world.pass(6s);
  CHECK(world.listed() == 8);
  CHECK(world.alerts.raised().empty());

  world.write("list", World::users(6));
  world.pass(6s);
  CHECK(world.listed() == 8);
  CHECK(world.alerts.contains("6 recipients of example.com, 8 before"));
  const std::size_t alerts = world.alerts.raised().size();
  world.pass(3599s);
  CHECK(world.alerts.raised().size() == alerts);
  world.write("senders", "other@example.org REJECT\n");  // another file's change adopts nothing more
  world.pass(7s);
  CHECK(world.listed() == 8);
  CHECK(world.alerts.raised().size() == alerts + 1);

  CHECK(world.reload(world.config, Reload::signal));
  CHECK(world.listed() == 8);
  CHECK(world.reload(world.config));
  CHECK(world.listed() == 6);
  const std::size_t settled = world.alerts.raised().size();
  world.pass(7200s);
  CHECK(world.alerts.raised().size() == settled);
}

TEST_CASE("an export that grows back is adopted without a word from the admin") {
  World world;
  world.watch();
  world.write("list", "");
  world.pass(6s);
  CHECK(world.listed() == 10);
  world.write("list", World::users(11));
  world.pass(6s);
  CHECK(world.listed() == 11);
}

TEST_CASE("an empty list at the start counts as none until reload") {
  World world;
  world.write("list", "# to be filled\n");
  world.watch();
  CHECK(world.adopted->recipients(world.config->domains[0]) == nullptr);
  world.pass(1s);
  CHECK(world.alerts.contains("0 recipients of example.com"));
  CHECK(world.reload(world.config));
  CHECK(world.adopted->recipients(world.config->domains[0]) != nullptr);
  CHECK(world.listed() == 0);
}

TEST_CASE("a list that is empty at the admin's word stays adopted when only its rights or times change") {
  World world;
  world.watch();
  world.write("list", "");
  CHECK(world.reload(world.config));
  CHECK(world.listed() == 0);
  world.permit("list", 0640);
  world.pass(6s);
  CHECK(world.adoptions == 1);
  CHECK(world.alerts.raised().empty());
  CHECK(world.adopted->held_back().empty());
}

TEST_CASE("half an export is not adopted by a restart either") {
  World world;
  world.watch();
  world.pass(1s);
  world.watcher.reset();
  world.write("list", World::users(3));
  world.watch();
  world.pass(1s);
  CHECK(world.listed() == 0);
  CHECK(world.alerts.contains("3 recipients of example.com, 10 before"));
  CHECK(world.alerts.contains("until then example.com counts as one without a list"));
  world.write("list", World::users(4));  // nor is what the next change leaves of it, nor the next restart
  world.pass(6s);
  CHECK(world.listed() == 0);
  world.watch();
  CHECK(world.listed() == 0);

  SECTION("but when it is whole again") {
    world.write("list", World::users(9));
    world.pass(6s);
    CHECK(world.listed() == 9);
  }
  SECTION("or when the admin says so, which holds for the next start, too") {
    CHECK(world.reload(world.config));
    CHECK(world.listed() == 4);
    world.watch();
    CHECK(world.listed() == 4);
  }
}

TEST_CASE("reload with a bad new file changes nothing") {
  World world;
  world.watch();
  auto wanted = std::make_shared<config::Config>(*world.config);
  world.write("helo", "x REJECT\n!y\n");
  wanted->access.helo = world.directory / "helo";
  const Tables::Loaded loaded = world.watcher->reload(wanted, Reload::command);
  CHECK(loaded.tables == nullptr);
  CHECK(loaded.errors.size() == 1);
  world.write("helo", "x REJECT\n");
  CHECK(world.reload(wanted));
  CHECK(world.adoptions == 0);
  CHECK(world.adopted->file(wanted->access.helo) != nullptr);
}

TEST_CASE("addresses of domains that relay.conf does not have are warned of once, those of the others are not") {
  World world;
  world.config->domains.emplace_back().name = "example.net";
  world.config->domains[1].recipients = world.config->domains[0].recipients;
  world.write("list", "a@example.com\n# users\nb@exmaple.com\nc@example.net\nd@other.example\ne@exmaple.com\n");
  const Tables::Loaded loaded = Tables::load(*world.config);
  REQUIRE(loaded.tables);
  REQUIRE(loaded.warnings.size() == 1);
  CHECK(loaded.warnings[0].to_string() ==
        world.config->domains[0].recipients +
            ":3:1: not an address of a domain in relay.conf: left out (3 lines in all)");
  world.write("list", World::users(10));
  world.watch();
  world.write("list", World::users(10) + "x@exmaple.com\n");
  world.pass(6s);
  CHECK(world.log.count("warning: " + world.config->domains[0].recipients +
                        ":11:1: not an address of a domain in relay.conf: left out (1 line in all)") == 1);
  CHECK(world.listed() == 10);
}

TEST_CASE("what has not changed is not read again") {
  World world;
  world.watch();
  const auto* list = world.adopted->recipients(world.config->domains[0]);
  world.write("senders", "x@example.org REJECT\n");
  world.pass(6s);
  CHECK(world.adoptions == 1);
  CHECK(world.adopted->recipients(world.config->domains[0]) == list);
}

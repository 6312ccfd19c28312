// What root does for the user that greymxd runs as, which only root can test.
#include "daemon/privileges.hpp"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/files.hpp"
#include "support/catch.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;
using namespace greymx::daemon;
using test::TempDir;

namespace {

const Account somebody{65534, 65534};

struct Directory : TempDir {
  Directory() { chmod(path().c_str(), 0755); }
  config::Config config() const {
    config::Config config;
    config.queue_path = *this / "var/spool/queue";
    config.state_path = *this / "state/";
    config.listen.control = "";
    return config;
  }
};

bool is_root() {
  if (geteuid() != 0) WARN("not tested: needs root");
  return geteuid() == 0;
}

struct stat look_at(const std::string& path) {
  struct stat status{};
  REQUIRE(lstat(path.c_str(), &status) == 0);
  return status;
}

LogSettings log_to(const std::string& path) {
  LogSettings settings;
  settings.target = path;
  return settings;
}

}  // namespace

TEST_CASE("directories become the user's, their parents are for everybody to pass through") {
  if (!is_root()) return;
  const Directory dir;
  const mode_t usual = umask(0027);
  const auto prepared = prepare_directories(dir.config(), somebody);
  umask(usual);
  REQUIRE(prepared);
  for (const char* made : {"var/spool/queue", "state"}) {
    CHECK(look_at(dir / made).st_uid == somebody.uid);
    CHECK((look_at(dir / made).st_mode & 0777) == 0750);
  }
  CHECK(look_at(dir / "var/spool").st_uid == 0);
  CHECK((look_at(dir / "var/spool").st_mode & 0777) == 0755);
}

TEST_CASE("a queue within the state directory becomes the user's, and so does the other") {
  if (!is_root()) return;
  const Directory dir;
  config::Config config = dir.config();
  config.state_path = dir / "both";
  config.queue_path = dir / "both/queue";
  REQUIRE(prepare_directories(config, somebody));
  for (const char* made : {"both", "both/queue"}) CHECK(look_at(dir / made).st_uid == somebody.uid);
  CHECK(check_directories(config, somebody));
}

TEST_CASE("directories that the user cannot use are an error, those that root can give it are none") {
  if (!is_root()) return;
  const Directory dir;
  for (const char* made : {"closed", "closed/queue", "full", "full/x", "empty"}) {
    std::filesystem::create_directory(dir / made);
  }
  chmod((dir / "closed").c_str(), 0700);
  REQUIRE(replace_file(dir / "file", ""));
  config::Config config = dir.config();
  for (std::string* path : {&config.queue_path, &config.state_path}) {
    const std::string good = *path;
    for (const std::string& bad : {dir / "closed/a/b", dir / "closed/queue", dir / "full", dir / "file", dir / "file/x",
                                   std::string("/proc/x")}) {
      INFO(bad);
      *path = bad;
      const auto checked = check_directories(config, somebody);
      REQUIRE_FALSE(checked);
      CHECK(checked.error().text.starts_with(path == &config.queue_path ? "paths.queue: " : "paths.state: "));
      CHECK(prepare_directories(config, somebody).error().text == checked.error().text);
      CHECK(geteuid() == 0);
    }
    for (const std::string& fine : {dir / "empty", dir / "full/new", dir / "a/b/c"}) {
      *path = fine;
      CHECK(check_directories(config, somebody));
    }
    *path = good;
  }
  std::filesystem::create_directory(dir / "full/recipients");
  REQUIRE(chown((dir / "full/recipients").c_str(), somebody.uid, somebody.gid) == 0);
  config.state_path = dir / "full";  // an installation of old, where nothing new need be made
  CHECK(check_directories(config, somebody));
}

TEST_CASE("who is not root needs directories that he can use himself") {
  if (!is_root()) return;
  const Directory dir;
  for (const char* made : {"closed", "closed/queue", "roots", "own", "own/empty"}) {
    std::filesystem::create_directory(dir / made);
  }
  chmod((dir / "closed").c_str(), 0700);
  REQUIRE(replace_file(dir / "file", ""));
  for (const char* given : {"own", "own/empty"}) REQUIRE(chown((dir / given).c_str(), somebody.uid, somebody.gid) == 0);
  config::Config good = dir.config();
  good.queue_path = dir / "own/empty";
  good.state_path = dir / "own/new/";
  struct Row {
    std::string config::Config::* path;
    std::string value, error;  // no error: usable
  };
  using config::Config;
  const std::string who = "user nobody cannot write to ";
  const Row rows[] = {
      {&Config::queue_path, dir / "own", ""},
      {&Config::queue_path, dir / "own/a/b", ""},
      {&Config::queue_path, dir / "roots", "paths.queue: " + who + dir / "roots/: Permission denied"},
      {&Config::queue_path, dir / "new", "paths.queue: " + who + dir.path() + ": Permission denied"},
      {&Config::queue_path, dir / "closed/queue", "paths.queue: " + dir / "closed/queue: Permission denied"},
      {&Config::queue_path, dir / "file", "paths.queue: " + dir / "file: Not a directory"},
      {&Config::state_path, dir / "roots", "paths.state: " + who + dir / "roots: Permission denied"},
  };
  for (const Row& row : rows) {
    INFO(row.value);
    Config config = good;
    config.*row.path = row.value;
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const pid_t child = fork();
    if (child == 0) {
      if (!drop_privileges(somebody)) _exit(2);
      const auto checked = check_directories(config, std::nullopt);
      const std::string told = checked ? "" : checked.error().text;
      _exit(write(ends[1], told.data(), told.size()) == static_cast<ssize_t>(told.size()) ? 0 : 2);
    }
    close(ends[1]);
    std::string told(1000, '\0');
    told.resize(static_cast<std::size_t>(std::max<ssize_t>(read(ends[0], told.data(), told.size()), 0)));
    close(ends[0]);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    CHECK(told == row.error);
  }
}

TEST_CASE("what a link in the place of a directory leads to stays root's") {
  if (!is_root()) return;
  const Directory dir;
  std::filesystem::create_directory(dir / "roots");
  chmod((dir / "roots").c_str(), 0777);
  std::filesystem::create_symlink(dir / "roots", dir / "state");
  REQUIRE(prepare_directories(dir.config(), somebody));
  CHECK(look_at(dir / "roots").st_uid == 0);
}

TEST_CASE("a directory on a read-only file system is an error that names systemd's remedy") {
  if (!is_root()) return;
  const Directory directory;
  const config::Config config = directory.config();
  CHECK(check_directories(config, std::nullopt));
  const char* here = directory.path().c_str();
  const pid_t child = fork();
  if (child == 0) {  // as ProtectSystem= does it, seen by this process alone
    const bool mounted = unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                         mount(here, here, nullptr, MS_BIND, nullptr) == 0 &&
                         mount(here, here, nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) == 0;
    if (!mounted) _exit(2);
    const auto refused = check_directories(config, std::nullopt);
    const std::string text = refused ? "" : refused.error().text;
    _exit(text.starts_with("paths.queue: " + config.queue_path + " is on a read-only file system") &&
                  text.ends_with("ReadWritePaths=" + config.queue_path)
              ? 0
              : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  if (WEXITSTATUS(status) == 2) WARN("not tested: nothing can be mounted");
  CHECK(WEXITSTATUS(status) != 1);
}

TEST_CASE("a file in the place of a directory is an error") {
  if (!is_root()) return;
  const Directory dir;
  REQUIRE(replace_file(dir / "state", ""));
  CHECK_FALSE(prepare_directories(dir.config(), somebody));
}

TEST_CASE("a log file is made where only root may, and is the user's from then on") {
  if (!is_root()) return;
  const Directory dir;
  {
    const auto log = open_log_as(log_to(dir / "log"), somebody);
    REQUIRE(log);
    (*log)->info("master", "text");
  }
  CHECK(geteuid() == 0);
  CHECK(look_at(dir / "log").st_uid == somebody.uid);
  CHECK(look_at(dir / "log").st_size > 0);
}

TEST_CASE("a log is well when it could be opened, and that makes none") {
  if (!is_root()) return;
  const Directory dir;
  for (const char* made : {"closed", "directory", "users"}) std::filesystem::create_directory(dir / made);
  chmod((dir / "closed").c_str(), 0700);
  REQUIRE(chown((dir / "users").c_str(), somebody.uid, somebody.gid) == 0);
  for (const char* made : {"roots", "secret", "closed/log"}) REQUIRE(replace_file(dir / made, ""));
  std::filesystem::create_symlink(dir / "secret", dir / "link");
  const std::pair<const char*, bool> rows[] = {{"new", true},         {"users/new", true},   {"roots", true},
                                               {"closed/new", false}, {"closed/log", false}, {"missing/new", false},
                                               {"directory", false},  {"link", false}};
  for (const auto& [name, good] : rows) {
    INFO(name);
    const LogSettings settings = log_to(dir / name);
    const bool there = std::filesystem::exists(settings.target);
    CHECK(check_log_as(settings, somebody).has_value() == good);
    CHECK(std::filesystem::exists(settings.target) == there);
    CHECK(geteuid() == 0);
    CHECK(open_log_as(settings, somebody).has_value() == good);
    if (!there) std::filesystem::remove(settings.target);
  }
}

TEST_CASE("what /dev/stdout leads to is a log for the user, though it is root's") {
  if (!is_root()) return;
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    const LogSettings settings = log_to("/dev/stdout");
    const bool given_up = dup2(ends[1], STDOUT_FILENO) >= 0 && drop_privileges(somebody).has_value();
    if (!given_up || !check_log(settings)) _exit(1);
    if (const auto log = open_log(settings)) (*log)->info("master", "text");
    _exit(0);
  }
  close(ends[1]);
  std::string written(1000, '\0');
  written.resize(static_cast<std::size_t>(std::max<ssize_t>(read(ends[0], written.data(), written.size()), 0)));
  close(ends[0]);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(written.ends_with(": text\n"));
}

TEST_CASE("a link in the place of the log gives nothing of root's away") {
  if (!is_root()) return;
  const Directory dir;
  std::filesystem::create_directory(dir / "log");
  REQUIRE(chown((dir / "log").c_str(), somebody.uid, somebody.gid) == 0);
  REQUIRE(replace_file(dir / "roots", "secret"));
  SECTION("a symbolic one") {
    std::filesystem::create_symlink(dir / "roots", dir / "log/log");
  }
  SECTION("another name of the file") {
    std::filesystem::create_hard_link(dir / "roots", dir / "log/log");
  }
  CHECK_FALSE(open_log_as(log_to(dir / "log/log"), somebody));
  CHECK(geteuid() == 0);
  CHECK(look_at(dir / "roots").st_uid == 0);
  CHECK(look_at(dir / "roots").st_size == 6);
}

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <csignal>
#include <filesystem>
#include <future>
#include <regex>
#include <thread>

#include "base/files.hpp"
#include "base/log_target.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;
using test::TempDir;

namespace {

LogSettings to_file(const std::string& path) {
  LogSettings settings;
  settings.target = path;
  settings.hostname = "mx2";
  return settings;
}

detail::LogRecord record(Level level, std::string id, std::string text) {
  return {test::FakeClock().now(), level, "smtpd", std::move(id), std::move(text)};
}

std::size_t lines_in(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

}  // namespace

TEST_CASE("a line in a file has the shape that Postfix and rsyslog give it") {
  const TempDir dir;
  const auto log = open_log(to_file(dir / "log"));
  REQUIRE(log);
  (*log)->info("smtpd", "connect from unknown[192.0.2.1]");
  (*log)->info("qmgr", QueueId{0}, "removed");
  (*log)->warning("spool", "slow");
  (*log)->error("spool", "broken");
  (*log)->flush();
  const std::string text = *read_file(dir / "log");
  const std::string start = R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d mx2 greymx/)";
  const std::string pid = fmt::format("\\[{}\\]: ", ::getpid());
  const std::regex shape(start + "smtpd" + pid + "connect from unknown\\[192\\.0\\.2\\.1\\]\n" + start + "qmgr" + pid +
                         "000000000000: removed\n" + start + "spool" + pid + "warning: slow\n" + start + "spool" + pid +
                         "error: broken\n");
  INFO(text);
  CHECK(std::regex_match(text, shape));
  struct stat status{};
  REQUIRE(::stat((dir / "log").c_str(), &status) == 0);
  CHECK((status.st_mode & 0007) == 0);
}

TEST_CASE("text cannot begin a second log line") {
  const std::string line = detail::text_line(to_file("x"), record(Level::info, "", "a\r\nb\x1b[2J\x7f"));
  CHECK(line.ends_with(": a??b?[2J?"));
}

TEST_CASE("a JSON line is one object") {
  LogSettings settings = to_file("x");
  settings.tag = "postfix-greymx";
  const std::string line = detail::json_line(settings, record(Level::warning, "3Pt2mN0Q1zLx", "to=<\"a\n\xff\">"));
  CHECK(line.find('\n') == std::string::npos);
  const auto object = nlohmann::json::parse(line);
  CHECK(object["host"] == "mx2");
  CHECK(object["tag"] == "postfix-greymx");
  CHECK(object["program"] == "smtpd");
  CHECK(object["pid"] == ::getpid());
  CHECK(object["level"] == "warning");
  CHECK(object["id"] == "3Pt2mN0Q1zLx");
  CHECK(object["text"] == "to=<\"a\n\xef\xbf\xbd\">");
  CHECK(object["time"].get<std::string>().size() == std::string("2026-11-23T16:01:03.000000+00:00").size());
  CHECK_FALSE(nlohmann::json::parse(detail::json_line(settings, record(Level::info, "", "x"))).contains("id"));
}

TEST_CASE("the journal gets structured fields") {
  const auto fields = detail::journal_fields(to_file("journal"), record(Level::error, "3Pt2mN0Q1zLx", "text"));
  const std::vector<std::string> expected = {"MESSAGE=3Pt2mN0Q1zLx: error: text",
                                             "PRIORITY=3",
                                             "SYSLOG_FACILITY=2",
                                             "SYSLOG_IDENTIFIER=greymx/smtpd",
                                             fmt::format("SYSLOG_PID={}", ::getpid()),
                                             "GREYMX_PROGRAM=smtpd",
                                             "GREYMX_QUEUE_ID=3Pt2mN0Q1zLx"};
  CHECK(fields == expected);
  CHECK(detail::journal_fields(to_file("journal"), record(Level::info, "", "text")).size() == 6);
}

TEST_CASE("syslog gets datagrams with facility mail and one ident a program, also after it was restarted") {
  const TempDir dir;
  const auto listen = [&] {
    const int fd = ::socket(AF_UNIX, SOCK_DGRAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    (dir / "log").copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    return fd;
  };
  const auto receive = [](int fd) {
    char buffer[1000];
    const ssize_t n = ::recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    return std::string(buffer, n > 0 ? static_cast<std::size_t>(n) : 0);
  };
  CHECK(detail::open_syslog(to_file("syslog"), dir / "log").error().text.find("is a syslog daemon running?") !=
        std::string::npos);
  int daemon = listen();
  const auto target = detail::open_syslog(to_file("syslog"), dir / "log");
  REQUIRE(target);
  const detail::LogRecord records[] = {record(Level::warning, "", "hello")};
  CHECK((*target)->write(records));
  const std::regex shape(fmt::format(R"(<20>Nov 23 \d\d:\d\d:03 greymx/smtpd\[{}\]: warning: hello)", ::getpid()));
  CHECK(std::regex_match(receive(daemon), shape));
  ::close(daemon);
  std::filesystem::remove(dir / "log");
  CHECK_FALSE((*target)->write(records));
  daemon = listen();
  CHECK((*target)->write(records));
  CHECK(std::regex_match(receive(daemon), shape));
  ::close(daemon);
}

TEST_CASE("a file that was rotated away is made anew, without being told") {
  const TempDir dir;
  const auto log = open_log(to_file(dir / "log"));
  (*log)->info("master", "first");
  (*log)->flush();
  std::filesystem::rename(dir / "log", dir / "log.1");
  (*log)->info("master", "second");
  (*log)->flush();
  CHECK(read_file(dir / "log.1")->find("first") != std::string::npos);
  const std::string now = *read_file(dir / "log");
  CHECK(now.find("second") != std::string::npos);
  CHECK(lines_in(now) == 1);
  std::filesystem::rename(dir / "log", dir / "log.2");
  std::filesystem::create_directory(dir / "log");  // none can be made: better the old one than nothing
  (*log)->info("master", "third");
  (*log)->flush();
  CHECK(read_file(dir / "log.2")->find("third") != std::string::npos);
}

TEST_CASE("a file that was moved away and cannot be made anew is told on stderr, once") {
  const TempDir directory;
  const std::string before = directory / "before", after = directory / "after";
  std::filesystem::create_directory(before);
  auto log = open_log(to_file(before + "/log"));
  REQUIRE(log);
  std::filesystem::rename(before, after);

  const int saved = ::dup(STDERR_FILENO);
  const int file = ::open((directory / "stderr").c_str(), O_WRONLY | O_CREAT, 0600);
  ::dup2(file, STDERR_FILENO);
  for (const char* text : {"one", "two"}) {
    (*log)->info("smtpd", text);
    (*log)->flush();
  }
  ::dup2(saved, STDERR_FILENO);
  ::close(saved);
  ::close(file);
  const std::string told = read_file(directory / "stderr").value();
  CHECK(told.find("error: the log file was moved away, and lines still go to it: log.target: cannot open " + before) !=
        std::string::npos);
  CHECK(std::ranges::count(told, '\n') == 1);
  CHECK(read_file(after + "/log").value().find("two") != std::string::npos);
}

TEST_CASE("after a line that a full disk cut short the next one begins a line of its own") {
  const TempDir directory;
  const LogSettings settings = to_file(directory / "log");
  const auto target = detail::open_target(settings);
  REQUIRE(target);
  const std::vector<detail::LogRecord> first = {record(Level::info, "", "first")}, second = first,
                                       third = {record(Level::info, "", "third")};
  REQUIRE((*target)->write(first));
  const rlim_t line = read_file(settings.target)->size();
  rlimit usual{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &usual) == 0);
  const auto usual_signal = std::signal(SIGXFSZ, SIG_IGN);
  rlim_t room = line - 1;  // of the second line all but its end fits
  SECTION("all but its end") {}
  SECTION("half of it") {
    room = line / 2;
  }
  SECTION("nothing of it") {
    room = 0;
  }
  const rlimit full{line + room, usual.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &full) == 0);
  const bool written = (*target)->write(second) || (*target)->write(second);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &usual) == 0);
  std::signal(SIGXFSZ, usual_signal);
  CHECK_FALSE(written);
  REQUIRE((*target)->write(third));
  const std::string text = *read_file(settings.target);
  INFO(text);
  CHECK(text.ends_with("\n" + detail::text_line(settings, third.front()) + "\n"));
  CHECK(lines_in(text) == (room == 0 ? 2 : 3));
  CHECK(text.find("\n\n") == std::string::npos);
}

TEST_CASE("whether a log can be opened is seen without making its file") {
  const TempDir directory;
  CHECK(check_log(to_file("stderr")));
  CHECK(check_log(to_file(directory / "log")));
  CHECK_FALSE(std::filesystem::exists(directory / "log"));
  CHECK(check_log(to_file(directory.path())).error().text.find("log.target: cannot open") == 0);
  CHECK(check_log(to_file(directory / "none/log")).error().text.find("create its folder") != std::string::npos);
}

TEST_CASE("a target that cannot be opened is refused with its remedy, and the old one stays") {
  const TempDir dir;
  const auto log = open_log(to_file(dir / "log"));
  const auto refused = (*log)->reconfigure(to_file(dir / "none/log"));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().text.find("none/log: No such file or directory; create its folder") != std::string::npos);
  (*log)->info("master", "still here");
  (*log)->flush();
  CHECK(read_file(dir / "log")->find("still here") != std::string::npos);
  CHECK_FALSE(open_log(to_file(dir / "none/log")));
}

TEST_CASE("levels below the configured one are not written") {
  const TempDir dir;
  LogSettings settings = to_file(dir / "log");
  settings.level = Level::warning;
  const auto log = open_log(settings);
  (*log)->info("spool", "not shown");
  (*log)->warning("spool", "slow");
  settings.level = Level::info;
  CHECK((*log)->reconfigure(settings));
  (*log)->info("spool", "shown");
  (*log)->flush();
  const std::string text = *read_file(dir / "log");
  CHECK(text.find("not shown") == std::string::npos);
  CHECK(text.find("warning: slow") != std::string::npos);
  CHECK(text.find(": shown") != std::string::npos);
}

TEST_CASE("all lines are written before the log is destroyed") {
  const TempDir dir;
  {
    const auto log = open_log(to_file(dir / "log"));
    for (int i = 0; i < 5000; ++i) (*log)->info("smtpd", "line");
  }
  CHECK(lines_in(*read_file(dir / "log")) == 5000);
}

TEST_CASE("a target that does not keep up loses the oldest lines and says how many") {
  const TempDir dir;
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  const int reader = ::open((dir / "pipe").c_str(), O_RDONLY | O_NONBLOCK);
  auto log = open_log(to_file(dir / "pipe"));
  REQUIRE(log);
  const std::string text(100'000, 'x');
  for (int i = 0; i < 400; ++i) (*log)->info("smtpd", text);  // 40 MB, of which 16 may wait
  (*log)->info("smtpd", "the newest");
  REQUIRE(::fcntl(reader, F_SETFL, 0) == 0);
  std::string all;
  std::thread reading([&] {
    std::string buffer(1 << 20, '\0');
    for (ssize_t n = 1; n > 0;) {
      n = ::read(reader, buffer.data(), buffer.size());
      if (n > 0) all.append(buffer, 0, static_cast<std::size_t>(n));
    }
  });
  (*log).reset();
  reading.join();
  ::close(reader);
  std::smatch found;
  REQUIRE(std::regex_search(all, found, std::regex("master\\[\\d+\\]: warning: (\\d+) log lines lost")));
  CHECK(lines_in(all) + std::stoul(found[1]) == 402);
  CHECK(all.find("the newest") != std::string::npos);
}

TEST_CASE("a target that nobody reads holds nobody up at the end for long") {
  const TempDir dir;
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  const int reader = ::open((dir / "pipe").c_str(), O_RDONLY | O_NONBLOCK);
  auto log = open_log(to_file(dir / "pipe"));
  REQUIRE(log);
  (*log)->info("smtpd", std::string(1'000'000, 'x'));
  auto gone = std::async(std::launch::async, [&] { (*log).reset(); });
  CHECK(gone.wait_for(std::chrono::seconds(30)) == std::future_status::ready);
  REQUIRE(::fcntl(reader, F_SETFL, 0) == 0);
  std::string buffer(1 << 20, '\0');
  while (::read(reader, buffer.data(), buffer.size()) > 0) continue;  // lets the writer end
  ::close(reader);
}

TEST_CASE("a journal that is not there is an error, not a place where lines go lost") {
  const TempDir dir;
  const auto target = detail::open_journal(to_file("journal"), dir / "socket");
  REQUIRE_FALSE(target);
  CHECK(target.error().text.find("systemd-journald") != std::string::npos);
  REQUIRE(replace_file(dir / "socket", ""));
  CHECK(detail::open_journal(to_file("journal"), dir / "socket"));
}

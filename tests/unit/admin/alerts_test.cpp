#include "admin/alerts.hpp"
#include "sample.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/recording_log.hpp"
#include "support/run.hpp"

using namespace greymx;
using namespace greymx::admin;
using std::chrono::milliseconds, std::chrono::minutes;

namespace {

struct Mail {
  std::string to, content;
};

Task<Result<QueueId>> keep(std::vector<Mail>& sent, bool refuse, std::string to, std::string content) {
  if (refuse) co_return fail(ErrorKind::no_space, "disk full");
  sent.push_back({std::move(to), std::move(content)});
  co_return QueueId{1};
}

struct World {
  asio::io_context io{1};
  test::FakeClock clock;
  test::RecordingLog log;
  Metrics metrics;
  History history;
  std::vector<Mail> sent;
  bool refuse = false;
  MailAlerts alerts{io.get_executor(), clock, log, metrics, history};

  void connect(std::vector<std::string> to = {"admin@example.net"}, std::chrono::milliseconds look = minutes(1)) {
    alerts.configure("mx2.example.net", std::move(to));
    const auto send = [this](std::string recipient, std::string content) {
      return keep(sent, refuse, std::move(recipient), std::move(content));
    };
    alerts.connect(send, look);
    run();
  }
  void run() {
    io.restart();
    io.poll();
  }
  void until(std::size_t mails) {
    while (sent.size() < mails) io.run_one();
  }
  void raise(std::string_view subject, std::string_view text = "what to do") {
    alerts.raise(subject, text);
    run();
  }
  ~World() { test::run(io, alerts.stop()); }
};

}  // namespace

TEST_CASE("an alert is logged, counted, shown and mailed") {
  World world;
  world.connect({"a@example.net", "b@example.net"});
  world.raise("primary of example.com is down", "look at it");
  CHECK(world.log.contains("master: warning: alert: primary of example.com is down: look at it"));
  CHECK(world.metrics.value("alerts_total") == 1);
  CHECK(world.history.events().front().text == "primary of example.com is down: look at it");
  REQUIRE(world.sent.size() == 2);
  CHECK(world.sent[0].to == "a@example.net");
  CHECK(world.sent[1].to == "b@example.net");
}

TEST_CASE("at most one mail an hour a subject, and the next one says how often it came up") {
  World world;
  world.connect();
  world.raise("x");
  world.clock.advance(minutes(59));
  world.raise("x");
  world.raise("x");
  CHECK(world.sent.size() == 1);
  world.raise("y");
  CHECK(world.sent.size() == 2);
  world.clock.advance(minutes(1));
  world.raise("x");
  REQUIRE(world.sent.size() == 3);
  CHECK(world.sent[2].content.find("3 times") != std::string::npos);
  CHECK(world.metrics.value("alerts_total") == 5);
}

TEST_CASE("what is raised in the hour after a mail is mailed at its end, though it does not come up again") {
  World world;
  world.connect({"admin@example.net"}, milliseconds(1));
  world.raise("x", "first");
  world.raise("x", "second");
  world.clock.advance(minutes(59));
  world.raise("x", "third");
  CHECK(world.sent.size() == 1);
  world.clock.advance(minutes(1));
  world.until(2);
  CHECK(world.sent[1].content.find("third") != std::string::npos);
  CHECK(world.sent[1].content.find("2 times") != std::string::npos);
}

TEST_CASE("a mail that cannot be queued is tried again") {
  World world;
  world.connect({"admin@example.net"}, milliseconds(1));
  world.refuse = true;
  world.raise("x");
  world.raise("x");
  CHECK(world.log.contains("alert mail to admin@example.net not queued: disk full"));
  world.refuse = false;
  world.until(1);
  CHECK(world.sent[0].content.find("2 times") != std::string::npos);
  world.raise("x");
  CHECK(world.sent.size() == 1);
}

TEST_CASE("what is raised before the relay is there is mailed once it is") {
  World world;
  world.raise("the spool was damaged", "a record was moved aside");
  CHECK(world.sent.empty());
  world.connect();
  REQUIRE(world.sent.size() == 1);
  CHECK(world.sent[0].content.find("a record was moved aside") != std::string::npos);
}

TEST_CASE("without alerts.to nothing is mailed") {
  World world;
  world.connect({});
  world.raise("x");
  CHECK(world.sent.empty());
}

TEST_CASE("subjects that are remembered are bounded") {
  World world;
  world.connect();
  for (int i = 0; i < 300; ++i) world.raise("subject " + std::to_string(i));
  CHECK(world.sent.size() == 300);
  world.raise("subject 299");
  CHECK(world.sent.size() == 300);
  world.raise("subject 0");  // forgotten: made way
  CHECK(world.sent.size() == 301);
}

TEST_CASE("the mail says who, what and what next, in lines that mail allows") {
  const std::string mail = compose_alert("mx2.example.net", "admin@example.net", "disk\r\nBcc: x@y",
                                         "do this\nthen " + std::string(3000, 'x') + " end", 1, test::at(1795449663));
  CHECK(mail.find("From: MAILER-DAEMON@mx2.example.net") != std::string::npos);
  CHECK(mail.find("To: admin@example.net\r\n") != std::string::npos);
  CHECK(mail.find("Subject: [greymx mx2.example.net] disk??Bcc: x@y\r\n") != std::string::npos);
  CHECK(mail.find("\r\n\r\ndo this\r\nthen") != std::string::npos);
  std::size_t begin = 0;
  for (std::size_t end; (end = mail.find("\r\n", begin)) != std::string::npos; begin = end + 2) {
    const std::string line = mail.substr(begin, end - begin);
    CHECK(line.size() <= 998);
    CHECK(line.find('\n') == std::string::npos);
  }
  CHECK(begin == mail.size());
}

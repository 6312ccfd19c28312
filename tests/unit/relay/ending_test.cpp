// Mail that cannot be delivered: who is told, what is held, what expires.
#include <thread>

#include "harness.hpp"
#include "relay/sweep.hpp"

namespace greymx::relay {
namespace {

using namespace std::chrono_literals;
using test::Act;
using test::FakePrimary;
using test::Step;
using Kind = Act::Kind;
using queue::RecipientStatus;

struct World : Harness {
  FakePrimary primary{io};
  FakePrimary smart{io, "127.0.0.1", "smart.example"};
  World() {
    add_domain("example.com", {primary.endpoint()});
    smarthost(smart.endpoint());
  }
  ~World() { stop(); }
  void refuse(const std::string& reply = "550 5.1.1 unknown") {
    primary.script = [reply](Step step, const std::string&) -> std::optional<Act> {
      if (step == Step::rcpt) return Act{Kind::reply, reply};
      return std::nullopt;
    };
  }
};

const auto unverified = [](Envelope& e) { e.authorised = Authorised::no; };

TEST_CASE_METHOD(World, "a refusal is reported to a verified sender, once, and the message is gone") {
  refuse();
  const QueueId id = put();
  start();
  until([&] { return smart.transactions.size() == 1; });
  until_empty();
  const auto& report = smart.transactions[0];
  CHECK(report.mail.starts_with("MAIL FROM:<>"));
  CHECK(report.rcpt == std::vector<std::string>{"RCPT TO:<author@sender.example> NOTIFY=NEVER"});
  CHECK(report.xforward.empty());
  CHECK(report.content.find("Subject: Undelivered Mail Returned to Sender\r\n") != std::string::npos);
  CHECK(report.content.find("Diagnostic-Code: smtp; 550 5.1.1 unknown\r\n") != std::string::npos);
  CHECK(report.content.find("\r\nSubject: test\r\n\r\nbody\r\n") != std::string::npos);
  CHECK(log.count(id.to_string() + ": sender non-delivery notification: ") == 1);
  CHECK(log.count(id.to_string() + ": removed") == 1);
  CHECK(learnt.bad == std::vector<std::string>{"user@example.com"});
}

TEST_CASE_METHOD(World, "recipients of one message that fail together share a report") {
  refuse();
  put({.to = {"a@example.com", "b@example.com"}});
  start();
  until_empty();
  REQUIRE(smart.transactions.size() == 1);
  CHECK(smart.transactions[0].content.find("Final-Recipient: rfc822;a@example.com") != std::string::npos);
  CHECK(smart.transactions[0].content.find("Final-Recipient: rfc822;b@example.com") != std::string::npos);
}

TEST_CASE_METHOD(World,
                 "nothing goes to strangers, to nobody, or where the admin said never: it is held with the reason") {
  Message message;
  const char* why = "";
  SECTION("not verified") {
    message.change = unverified;
    why =
        "no report: sender not verified; host 127.0.0.1[127.0.0.1] said: 550 5.1.1 unknown (in reply to RCPT TO "
        "command)";
  }
  SECTION("null sender") {
    message.sender = "";
    why = "no report: null sender; host 127.0.0.1[127.0.0.1] said: 550 5.1.1 unknown (in reply to RCPT TO command)";
  }
  SECTION("never") {
    config.queue.bounce = config::BounceMode::never;
    why =
        "no report: queue.bounce is \"never\"; host 127.0.0.1[127.0.0.1] said: 550 5.1.1 unknown (in reply to RCPT "
        "TO command)";
  }
  refuse();
  const QueueId id = put(message);
  start();
  until_logged(": held, no report");
  const queue::RecipientState state = peek(id).state.recipients[0];
  CHECK(state.status == RecipientStatus::held);
  CHECK(state.reason == why);
  CHECK(state.dsn == "5.1.1");
  CHECK(state.attempts == 1);
  CHECK(state.held_since == clock.now());
  CHECK(spool->totals().held == 1);
  CHECK(relay->status().at(0).next_attempt == WallTime{});

  // It expires after bounce_lifetime, with a log line.
  clock.advance(5 * 24h + 1min);
  stop();
  start();
  clock.advance(1h);  // for so long a clock is not believed
  until_empty();
  CHECK(log.contains(id.to_string() + ": to=<user@example.com>, held mail expired: no report"));
  CHECK(smart.connections == 0);
}

TEST_CASE_METHOD(World, "always means always, but never a null sender") {
  config.queue.bounce = config::BounceMode::always;
  refuse();
  put({.change = unverified});
  const QueueId null = put({.sender = ""});
  start();
  until([&] { return smart.transactions.size() == 1; });
  until([&] { return spool->totals().messages == 1; });
  CHECK(peek(null).state.recipients[0].status == RecipientStatus::held);
}

TEST_CASE_METHOD(World, "NOTIFY=NEVER and NOTIFY=SUCCESS want no failure report") {
  refuse();
  put({.change = [](Envelope& e) { e.recipients[0].notify.never = true; }});
  put({.change = [](Envelope& e) { e.recipients[0].notify.success = true; }});
  start();
  until_empty();
  CHECK(log.count("status=bounced") == 2);
  CHECK(smart.connections == 0);
}

TEST_CASE_METHOD(World, "a report that is refused makes no other report") {
  refuse();
  smart.script = [](Step step, const std::string&) -> std::optional<Act> {
    if (step == Step::rcpt) return Act{Kind::reply, "550 5.1.1 no such author"};
    return std::nullopt;
  };
  put();
  start();
  until_logged(": held, no report: null sender");
  until([&] { return spool->totals().messages == 1; });
  CHECK(smart.transactions.empty());
  CHECK(smart.count("RCPT") == 1);
}

TEST_CASE_METHOD(World, "a report waits for its smarthost, by itself") {
  refuse();
  smart.down();
  put();
  start();
  until_logged("status=deferred (connect to 127.0.0.1[127.0.0.1]:" + std::to_string(smart.endpoint().port));
  CHECK(relay->health("example.com") == Health::up);
  smart.up();
  later();
  until_empty();
  CHECK(smart.transactions.size() == 1);
}

TEST_CASE_METHOD(World, "a stranger that does not answer is left alone for a while, whatever waits for it") {
  smart.down();
  start();
  for (int i = 0; i < 10; ++i) {
    (void)test::run(io, relay->submit_report("author@sender.example", "Subject: x\r\n\r\n"));
  }
  until_logged("status=deferred");
  io.run_for(1500ms);
  CHECK(log.count("status=deferred") <= 2);
  smart.up();
  later();
  until_empty();
}

TEST_CASE_METHOD(World, "reports find the sender's MX without a smarthost") {
  config.delivery.smarthost.reset();
  config.delivery.mx_port = smart.endpoint().port;
  refuse();
  SECTION("private addresses only if allowed") {
    config.delivery.private_targets = true;
    dns.add("sender.example MX 10 mx.sender.example\nmx.sender.example A 127.0.0.1");
    put();
    start();
    until_empty();
    CHECK(smart.transactions.size() == 1);
  }
  SECTION("private addresses otherwise") {
    dns.add("sender.example MX 10 mx.sender.example\nmx.sender.example A 127.0.0.1");
    put();
    start();
    until_logged("is a private address: delivery.private_targets is false");
    CHECK(smart.connections == 0);
  }
  SECTION("a domain that does not exist is the end of it") {
    put();
    start();
    until_logged("dsn=5.4.4, status=bounced (Host or domain name not found. sender.example does not exist)");
    until_logged(": held, no report: null sender");
  }
  SECTION("a domain whose DNS fails is not") {
    dns.add("sender.example MX SERVFAIL");
    put();
    start();
    until_logged("dsn=4.4.3, status=deferred");
  }
}

TEST_CASE_METHOD(World, "mail that is too old is returned with what kept it") {
  primary.script = [](Step step, const std::string&) -> std::optional<Act> {
    if (step == Step::rcpt) return Act{Kind::reply, "450 4.2.2 mailbox full"};
    return std::nullopt;
  };
  const QueueId id = put();
  start();
  until_logged("status=deferred");
  until([&] { return !spool->active(id); });
  SECTION("found by the next attempt") {
    clock.advance(14 * 24h + 1min);
  }
  SECTION("found by the sweep") {
    clock.advance(14 * 24h + 1min);
    spool->hold(id, "so that nothing tries it");
    stop();
    start();
    io.run_for(50ms);
    CHECK(spool->contains(id));  // what an admin holds does not expire
    spool->release_hold(id);
    config.queue.retry_max = 240h;
    spool->make_due(id, clock.now() + 240h);
    stop();
    start();
    clock.advance(1h);  // for so long a clock is not believed
  }
  until_empty();
  REQUIRE(smart.transactions.size() == 1);
  CHECK(log.count(id.to_string() + ": from=<author@sender.example>, status=expired, returned to sender") == 1);
  CHECK(smart.transactions[0].content.find("Status: 4.4.7") != std::string::npos);
  CHECK(smart.transactions[0].content.find("mailbox full") != std::string::npos);
}

TEST_CASE_METHOD(World, "the report on mail that expired behind a dead primary says why") {
  config.queue.lifetime = config.queue.lifetime_max = config.queue.bounce_lifetime = 10s;
  primary.down();
  put();
  start();
  until_health(Health::down);
  io.run_for(50ms);
  clock.advance(11s);
  until([&] { return smart.transactions.size() == 1; });
  const std::string why = "message expired; last: connect to 127.0.0.1[127.0.0.1]:";
  CHECK(smart.transactions[0].content.find("Diagnostic-Code: X-greymx; " + why) != std::string::npos);
  CHECK(smart.transactions[0].content.find("<user@example.com>: " + why) != std::string::npos);
}

TEST_CASE_METHOD(World, "mail does not expire by a clock that is ahead, nor wait for it to be so late") {
  primary.misbehave(Step::rcpt, {Kind::reply, "450 4.2.2 mailbox full"}, 1000);
  const QueueId id = put();
  const WallTime right = clock.now();
  start();
  until_logged("status=deferred");
  until([&] { return !spool->active(id); });
  const bool restarts = GENERATE(true, false);
  clock.advance(24h);
  if (restarts) stop();
  clock.set(right + 40 * 24h);
  if (restarts) {
    start();
  } else {
    until_logged("the system clock stepped ahead by 39d");
  }
  until_logged("status=deferred", 2);
  until([&] { return !spool->active(id); });
  if (restarts) stop();
  clock.set(right);
  if (restarts) {
    start();
  } else {
    until_logged("the system clock stepped back by 40d");
  }
  until_logged("status=deferred", 3);
  CHECK(log.count("status=expired") == 0);
}

TEST_CASE_METHOD(World, "mail that a clock which was ahead has dated expires all the same") {
  const WallTime right = clock.now();
  clock.set(right + std::chrono::years(5));
  put();
  clock.set(right);
  CHECK(put().time() > right + 24h);
  SECTION("by the next attempt") {
    primary.misbehave(Step::rcpt, {Kind::reply, "450 4.2.2 mailbox full"}, 1000);
    start();
    until_logged("status=deferred", 2);
    clock.advance(14 * 24h + 1min);
  }
  SECTION("by the sweep") {
    config.queue.lifetime = config.queue.lifetime_max = config.queue.bounce_lifetime = 10s;  // one each second
    primary.down();
    start();
    until_health(Health::down);
    io.run_for(50ms);
    clock.advance(11s);
  }
  until_logged("status=expired", 2);
  CHECK(log.count("status=expired, returned to sender") == 2);
}

TEST_CASE_METHOD(World, "somebody is told once before mail expires, however much it is") {
  primary.misbehave(Step::rcpt, {Kind::reply, "450 4.2.2 mailbox full"}, 1000);
  const QueueId id = put();
  put();
  put({.to = {"Postmaster"}});  // the first domain's
  start();
  until_logged("status=deferred");
  CHECK_FALSE(alerts.contains("is about to expire"));
  clock.advance(13 * 24h);
  stop();
  start();
  until([&] { return alerts.contains("mail for example.com is about to expire"); });
  CHECK(alerts.contains(id.to_string() + " will be given up "));
  CHECK(alerts.contains(", and 2 more soon"));
  CHECK(alerts.raised().size() == 1);
  CHECK(spool->contains(id));
}

TEST_CASE_METHOD(World, "what is about to expire is told for the recipient that is nearest to it, never for a report") {
  primary.down();
  FakePrimary busy(io);
  add_domain("busy.example", {busy.endpoint()});
  const auto later_please = [](Step step, const std::string&) -> std::optional<Act> {
    if (step == Step::rcpt) return Act{Kind::reply, "450 4.2.2 mailbox full"};
    return std::nullopt;
  };
  busy.script = smart.script = later_please;
  put({.to = {"user@example.com", "user@busy.example"}});
  start();
  until_health(Health::down);
  REQUIRE(test::run(io, relay->submit_report("admin@sender.example", "Subject: alert\r\n\r\n")).has_value());
  until_logged("status=deferred", 2);
  clock.advance(4 * 24h + 18h);
  stop();
  start();
  io.run_for(100ms);
  CHECK_FALSE(alerts.contains("is about to expire"));
  clock.advance(8 * 24h + 12h);
  stop();
  start();
  until([&] { return alerts.contains("mail for busy.example is about to expire"); });
  CHECK_FALSE(alerts.contains("mail for example.com is about to expire"));
  stop();
}

TEST_CASE_METHOD(World, "a reload that gives mail less time says so before anything expires") {
  primary.misbehave(Step::rcpt, {Kind::reply, "450 4.2.2 mailbox full"}, 1000);
  const QueueId id = put();
  start();
  until_logged("status=deferred");
  clock.advance(2h);
  until_logged("status=deferred", 2);
  SECTION("in lifetime") {
    config.queue.lifetime = 14min;
  }
  SECTION("in lifetime_max") {
    config.queue.lifetime_max = 14min;
  }
  relay->reload(std::make_shared<config::Config>(config));
  until([&] { return alerts.contains(id.to_string() + " will be given up within the hour"); });
  clock.advance(12min);
  relay->flush();
  until_logged("status=deferred", 3);
  until([&] { return !spool->active(id); });
  CHECK(spool->contains(id));
  clock.advance(3min);
  until_empty();
  CHECK(log.contains("status=expired"));
}

TEST_CASE_METHOD(World, "a delay is reported once, where it is asked for") {
  std::string status = "4.4.1", code = "X-greymx; not delivered yet; last: connect to 127.0.0.1";
  SECTION("with what the primary said") {
    refuse("450 4.2.2 mailbox full");
    status = "4.2.2", code = "smtp; 450 4.2.2 mailbox full\r\n";
  }
  SECTION("with why it was not asked") {
    primary.down();
  }
  const QueueId asked = put({.change = [](Envelope& e) { e.recipients[0].notify.delay = true; }});
  put();  // did not ask
  put({.change = [](Envelope& e) {
    e.recipients[0].notify.delay = true;
    e.authorised = Authorised::no;
  }});
  start();
  until([&] { return relay->health("example.com") == Health::down || log.count("status=deferred") == 3; });
  clock.advance(5h);
  for (int i = 0; i < 2; ++i) {
    stop();
    start();
    io.run_for(100ms);
  }
  until([&] { return smart.transactions.size() == 1; });
  CHECK(smart.transactions[0].content.find("Subject: Delayed Mail (still being retried)") != std::string::npos);
  CHECK(smart.transactions[0].content.find("Will-Retry-Until: ") != std::string::npos);
  CHECK(smart.transactions[0].content.find("\r\nStatus: " + status + "\r\n") != std::string::npos);
  CHECK(smart.transactions[0].content.find("\r\nDiagnostic-Code: " + code) != std::string::npos);
  CHECK(log.count(": sender delay notification: ") == 1);
  CHECK(peek(asked).state.recipients[0].delay_reported);
  CHECK(spool->totals().messages == 3);
}

TEST_CASE_METHOD(World, "held mail fills at most a quarter of the spool's space, the oldest goes first") {
  files.set_capacity(8 << 20);
  refuse();
  std::vector<QueueId> ids;
  const auto held_alone = [&] {
    ids.push_back(put({.content = "Subject: x\r\n\r\n" + std::string(150'000, 'x') + "\r\n", .change = unverified}));
  };
  for (int i = 0; i < 20; ++i) held_alone();
  start();
  until([&] { return spool->totals().held == 20; });
  stop();
  start();
  until([&] { return spool->totals().held < 20; });
  until_logged("no room for more held mail: no report: sender not verified");
  io.run_for(100ms);
  CHECK_FALSE(log.contains("held mail expired"));
  CHECK(alerts.contains("held mail fills a quarter of the spool"));
  CHECK(alerts.raised().size() == 1);
  const queue::Totals totals = spool->totals();
  CHECK(totals.refused_bytes <= (totals.disk_bytes + totals.free_bytes) / 4);
  CHECK(totals.held > 0);
  CHECK_FALSE(spool->contains(ids.front()));
  CHECK(spool->contains(ids.back()));
}

TEST_CASE_METHOD(World, "a full disk does not lose a failure: it is tried again") {
  primary.script = [&](Step step, const std::string&) -> std::optional<Act> {
    if (step != Step::rcpt) return std::nullopt;
    files.fail_at(1, test::Fault::no_space, true);
    return Act{Kind::reply, "550 5.1.1 unknown"};
  };
  const QueueId id = put();
  start();
  until_logged("report not queued");
  until([&] { return !spool->active(id); });
  CHECK(spool->contains(id));
  files.heal();
  primary.script = nullptr;
  refuse();
  until([&] {
    later();
    return smart.transactions.size() == 1;
  });
  until_empty();
}

TEST_CASE_METHOD(World, "an admin's bounce ends what is open, held or not") {
  primary.down();
  const QueueId waiting = put();
  const QueueId null = put({.sender = ""});
  const QueueId stranger = put({.change = unverified});
  start();
  until_health(Health::down);
  until([&] { return !spool->active(waiting) && !spool->active(null) && !spool->active(stranger); });
  CHECK(test::run(io, relay->bounce(waiting, "returned by the administrator")).has_value());
  CHECK(test::run(io, relay->bounce(null, "by request")).has_value());
  CHECK(test::run(io, relay->bounce(stranger, "by request")).has_value());
  CHECK(test::run(io, relay->bounce(waiting, "again")).error().kind == ErrorKind::not_found);
  until_empty();
  CHECK(smart.transactions.size() == 2);
  CHECK(log.contains("bounce: " + null.to_string() + ": ended without a report"));
  CHECK(log.count("ended without a report") == 1);
  CHECK(std::ranges::any_of(smart.transactions, [](const FakePrimary::Transaction& report) {  // two workers send them
    return report.content.contains("<user@example.com>: returned by the administrator; last: connect to 127.0.0.1");
  }));
}

TEST_CASE_METHOD(World, "an admin's bounce whose report cannot be queued is a failure, and changes nothing") {
  primary.down();
  const QueueId id = put();
  start();
  until_health(Health::down);
  until([&] { return !spool->active(id); });
  io.run_for(50ms);
  const std::uint64_t before = files.operations();
  (void)peek(id);
  (void)test::run(io, spool->load(id, 64 << 10));
  files.fail_at(files.operations() - before + 1, test::Fault::no_space, true);  // it can be read
  CHECK(test::run(io, relay->bounce(id, "by request")).error().text == "the report could not be queued: see the log");
  files.heal();
  CHECK(peek(id).state.recipients[0].status == RecipientStatus::pending);
}

TEST_CASE_METHOD(World, "an admin's bounce does not return what a delivery ended meanwhile") {
  primary.down();
  start();
  until_health(Health::down);
  std::optional<Result<>> done;
  const auto keep = [&](std::exception_ptr, std::optional<Result<>> result) { done = std::move(result); };
  for (bool between = false; !between;) {  // between its look at the message and its claim
    const QueueId id = put({.to = {"first@example.com", "second@example.com"}});
    io.run_for(50ms);
    io.restart();
    done.reset();
    const std::uint64_t before = files.operations();
    asio::co_spawn(io, detail::boxed(relay->bounce(id, "by request")), keep);
    while (files.operations() == before) io.poll_one();
    std::this_thread::sleep_for(50ms);
    between = !spool->active(id);
    queue::RecipientState state;
    state.status = RecipientStatus::done;
    if (between) spool->update(id, {{0, state}});
    until([&] { return done.has_value(); });
  }
  CHECK(done->has_value());
  until_empty();
  const std::string& report = smart.transactions.back().content;
  CHECK(report.find("Final-Recipient: rfc822;first@example.com") == std::string::npos);
  CHECK(report.find("Final-Recipient: rfc822;second@example.com") != std::string::npos);
}

TEST_CASE_METHOD(World, "alerts leave as mail of ours") {
  start();
  const auto queued = test::run(io, relay->submit_report("admin@elsewhere.example", "Subject: alert\r\n\r\nlook\r\n"));
  REQUIRE(queued.has_value());
  until_empty();
  REQUIRE(smart.transactions.size() == 1);
  CHECK(smart.transactions[0].mail.starts_with("MAIL FROM:<>"));
  CHECK(smart.transactions[0].content == "Subject: alert\r\n\r\nlook\r\n");
}

TEST_CASE_METHOD(World, "our own mail for our own domains goes to their primary") {
  start();
  REQUIRE(test::run(io, relay->submit_report("postmaster@example.com", "Subject: x\r\n\r\n")).has_value());
  until_empty();
  CHECK(primary.transactions.size() == 1);
  CHECK(smart.connections == 0);
}

}  // namespace
}  // namespace greymx::relay

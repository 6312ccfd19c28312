// Whatever a primary does wrong, no message is lost, and one arrives twice only if its dot was never answered.
#include <set>

#include "harness.hpp"

namespace greymx::relay {
namespace {

using test::Act;
using test::FakePrimary;
using test::Step;
using Kind = Act::Kind;

struct OnePrimary : Harness {
  FakePrimary primary{io};
  OnePrimary() {
    add_domain("example.com", {primary.endpoint()});
    config.delivery.concurrency_start = config.delivery.concurrency = 1;
  }
  ~OnePrimary() { stop(); }
};

const std::vector<Step> steps = {Step::greeting, Step::ehlo,    Step::mail, Step::rcpt,
                                 Step::data,     Step::content, Step::dot};

const smtp::ClientTimeouts short_timeouts = smtp::ClientTimeouts::all(std::chrono::milliseconds(500));

struct Wrong {
  Act act;
  bool hangs;
};
const std::vector<Wrong> wrongs = {
    {{Kind::close, ""}, false},
    {{Kind::hang, ""}, true},
    {{Kind::reply_then_close, "421 4.3.2 closing"}, false},
    {{Kind::reply, "451 4.3.0 later"}, false},
    {{Kind::garbage, ""}, false},
    {{Kind::endless, ""}, false},
    {{Kind::half, ""}, true},
};

std::string name_of(Kind kind) {
  const char* names[] = {"reply", "421", "close", "hang", "garbage", "endless", "half", "take_then_close"};
  return names[static_cast<std::size_t>(kind)];
}

TEST_CASE("every step goes wrong once: the message arrives, once") {
  for (const Step step : steps) {
    for (const Wrong& wrong : wrongs) {
      // The content step only closes or hangs; pipelining must not matter.
      if (step == Step::content && wrong.act.kind != Kind::close && wrong.act.kind != Kind::hang) continue;
      for (const bool pipelined : {true, false}) {
        if (wrong.hangs && !pipelined) continue;  // seconds each
        CAPTURE(to_string(step), name_of(wrong.act.kind), pipelined);
        OnePrimary world;
        if (!pipelined) world.primary.extensions = {"SIZE"};
        if (wrong.hangs) world.timeouts = short_timeouts;
        world.primary.misbehave(step, wrong.act);
        const QueueId id = world.put();
        world.start();
        world.until([&] {
          world.relay->flush();
          return !world.spool->contains(id);
        });
        CHECK(world.primary.transactions.size() == 1);
        CHECK(world.log.count(id.to_string() + ": removed") == 1);
        CHECK(world.log.count("status=bounced") == 0);
      }
    }
  }
}

TEST_CASE("a 5yz is final where it is about the message, and only there") {
  for (const Step step : steps) {
    if (step == Step::content) continue;
    CAPTURE(to_string(step));
    OnePrimary world;
    world.primary.misbehave(step, {Kind::reply, "554 5.7.1 no"});
    if (step == Step::ehlo) world.primary.misbehave(Step::helo, {Kind::reply, "554 5.7.1 no"});
    const QueueId id = world.put({.change = [](Envelope& e) { e.authorised = Authorised::no; }});
    world.start();
    if (step == Step::greeting || step == Step::ehlo) {
      world.until([&] { return !world.spool->contains(id); });
      CHECK(world.primary.transactions.size() == 1);
    } else {
      world.until_logged("dsn=5.7.1, status=bounced");
      world.until_logged(": held, no report: sender not verified");
      CHECK(world.primary.transactions.empty());
      CHECK(world.peek(id).state.recipients[0].status == queue::RecipientStatus::held);
    }
  }
}

TEST_CASE_METHOD(OnePrimary, "a dot that is never answered is deferred with the risk named, and sent again") {
  const Kind kind = GENERATE(Kind::take_then_close, Kind::hang, Kind::half, Kind::garbage);
  primary.misbehave(Step::dot, {kind, ""});
  timeouts = short_timeouts;
  const QueueId id = put();
  start();
  until_logged("status=deferred");
  CHECK(log.contains("message may be sent more than once"));
  CHECK(spool->contains(id));
  until([&] {
    later();
    return !spool->contains(id);
  });
  CHECK(primary.transactions.size() == (kind == Kind::take_then_close ? 2 : 1));
}

TEST_CASE_METHOD(OnePrimary, "an uncertain dot is never tried at another host at once") {
  FakePrimary second(io);
  config.domains[0].primary.push_back({"127.0.0.1", second.endpoint().port});
  primary.misbehave(Step::dot, {Kind::take_then_close, ""});
  put();
  start();
  until_logged("status=deferred");
  CHECK(second.connections == 0);
  stop();
}

TEST_CASE_METHOD(OnePrimary, "421 and lost connections before the dot go to the next host at once") {
  const Step step = GENERATE(Step::greeting, Step::ehlo, Step::mail, Step::rcpt, Step::data);
  const Kind kind = GENERATE(Kind::reply_then_close, Kind::close, Kind::garbage);
  CAPTURE(to_string(step), name_of(kind));
  FakePrimary second(io, "127.0.0.1", "second.example");
  config.domains[0].primary.push_back({"127.0.0.1", second.endpoint().port});
  primary.misbehave(step, {kind, "421 4.3.2 busy"}, 100);
  const QueueId id = put();
  start();
  until([&] { return !spool->contains(id); });
  CHECK(second.transactions.size() == 1);
  CHECK(log.count("status=deferred") == 0);
  CHECK(log.contains("relay=127.0.0.1[127.0.0.1]:" + std::to_string(second.endpoint().port)));
  stop();
}

TEST_CASE_METHOD(OnePrimary, "a server that stops in the middle of many messages loses and doubles none") {
  const Kind kind = GENERATE(Kind::close, Kind::reply_then_close);
  unsigned count = 0;
  primary.script = [&](Step step, const std::string&) -> std::optional<Act> {
    if (step == Step::quit || ++count % 7 != 0 || step == Step::dot) return std::nullopt;
    return Act{kind, "421 4.3.2 busy"};
  };
  std::set<std::string> senders;
  for (int i = 0; i < 60; ++i) {
    senders.insert("s" + std::to_string(i) + "@sender.example");
    put({.sender = "s" + std::to_string(i) + "@sender.example"});
  }
  start();
  until([&] {
    later();
    return spool->totals().messages == 0;
  });
  std::multiset<std::string> arrived;
  for (const auto& transaction : primary.transactions) {
    arrived.insert(transaction.mail.substr(11, transaction.mail.find('>') - 11));
  }
  CHECK(arrived == std::multiset<std::string>(senders.begin(), senders.end()));
}

TEST_CASE_METHOD(OnePrimary, "an idle connection that the server closed meanwhile costs nothing") {
  put();
  start();
  until_empty();
  primary.down();
  primary.up();
  put();
  until_empty();
  CHECK(primary.transactions.size() == 2);
  CHECK(log.count("status=deferred") == 0);
  CHECK_FALSE(log.contains("is down"));
}

TEST_CASE_METHOD(OnePrimary, "a server that takes DATA although nobody is left gets an empty message to no one") {
  primary.script = [](Step step, const std::string&) -> std::optional<Act> {
    if (step == Step::rcpt) return Act{Kind::reply, "450 4.2.1 later"};
    if (step == Step::data) return Act{Kind::reply, "354 go on"};
    return std::nullopt;
  };
  const QueueId id = put();
  start();
  until_logged("status=deferred");
  until([&] { return !spool->active(id); });
  primary.script = nullptr;
  later();
  until_empty();
  CHECK(primary.transactions.back().rcpt.size() == 1);
  CHECK(primary.transactions.back().content == "Subject: test\r\n\r\nbody\r\n");
}

TEST_CASE_METHOD(OnePrimary, "a reply that fits nothing ends the connection") {
  primary.misbehave(Step::data, {Kind::reply, "250 2.0.0 what?"});
  const QueueId id = put();
  start();
  until_logged("broke the protocol while sending DATA command: unexpected reply: 250 2.0.0 what?");
  until([&] {
    later();
    return !spool->contains(id);
  });
  CHECK(primary.transactions.size() == 1);
}

TEST_CASE_METHOD(OnePrimary, "a server that calls itself by our name is not talked to") {
  FakePrimary ourselves(io, "127.0.0.1", "MX2.example.net");
  config.domains[0].primary = {{"127.0.0.1", ourselves.endpoint().port}};
  put();
  start();
  until_health(Health::down);
  CHECK(log.contains("calls itself by our name: mail would loop back to us"));
  CHECK(alerts.contains("no route to the primary of example.com"));
  CHECK(ourselves.count("MAIL") == 0);
  CHECK(spool->totals().messages == 1);
  stop();
}

TEST_CASE_METHOD(OnePrimary, "stop waits for a server no longer than it may, and the message stays queued") {
  const Step step = GENERATE(Step::greeting, Step::mail, Step::content, Step::dot);
  CAPTURE(to_string(step));
  primary.misbehave(step, {Kind::hang, ""}, 10);
  bool hangs = false;
  primary.script = [&](Step at, const std::string&) -> std::optional<Act> {
    hangs = hangs || at == step;
    return std::nullopt;
  };
  const QueueId id = put();
  start();
  until([&] { return hangs; });
  const auto began = std::chrono::steady_clock::now();
  stop(std::chrono::milliseconds(200));
  CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(5));
  CHECK(spool->contains(id));
  CHECK_FALSE(spool->active(id));
  CHECK(std::filesystem::exists(config.state_path + "/primaries.json"));
}

TEST_CASE_METHOD(OnePrimary, "one connection too many is not an outage") {
  config.delivery.concurrency_start = config.delivery.concurrency = 8;
  primary.script = [&](Step step, const std::string&) -> std::optional<Act> {
    if (step == Step::greeting && primary.open > 2) return Act{Kind::reply_then_close, "421 4.7.0 too many"};
    return std::nullopt;
  };
  for (int i = 0; i < 300; ++i) put();
  start();
  until_empty();
  CHECK(primary.transactions.size() == 300);
  CHECK(log.count("status=deferred") == 0);
}

TEST_CASE_METHOD(OnePrimary, "a primary that breaks every new connection is not flooded with them") {
  const Step step = GENERATE(Step::mail, Step::rcpt, Step::data);
  const Kind kind = GENERATE(Kind::reply_then_close, Kind::close);
  CAPTURE(to_string(step), name_of(kind));
  primary.misbehave(step, {kind, "421 4.3.2 busy"}, 1000);
  for (int i = 0; i < 30; ++i) put();
  start();
  until_logged("status=deferred");
  io.run_for(std::chrono::milliseconds(500));
  CHECK(primary.connections <= 4);
  stop();
}

TEST_CASE_METHOD(OnePrimary, "a kept connection that says 421 is like one that was closed") {
  put();
  start();
  until_empty();
  primary.misbehave(Step::mail, {Kind::reply_then_close, "421 4.7.0 enough for one connection"});
  put();
  until_empty();
  CHECK(primary.count("MAIL FROM") == 3);
  CHECK(primary.transactions.size() == 2);
  CHECK(log.count("status=deferred") == 0);
}

TEST_CASE_METHOD(OnePrimary, "a server that refuses RSET does not get the next message for the last recipients") {
  primary.misbehave(Step::data, {Kind::reply, "451 4.3.0 later"});
  primary.misbehave(Step::rset, {Kind::reply, "502 5.5.1 what?"}, 100);
  put({.to = {"alice@example.com"}});
  start();
  until_logged("status=deferred");
  put({.to = {"bob@example.com"}});
  until([&] { return spool->totals().messages == 1; });
  REQUIRE(primary.transactions.size() == 1);
  CHECK(primary.transactions[0].rcpt.size() == 1);
  CHECK(primary.transactions[0].rcpt[0].find("<bob@example.com>") != std::string::npos);
  CHECK(log.count("status=deferred") == 1);
  later();
  until_empty();
  CHECK(primary.transactions.back().rcpt.size() == 1);
}

TEST_CASE_METHOD(OnePrimary, "a server that refuses MAIL and takes the rest gets no empty message") {
  primary.misbehave(Step::mail, {Kind::reply, "451 4.7.1 later"});
  primary.script = [](Step step, const std::string&) -> std::optional<Act> {
    if (step == Step::rcpt) return Act{Kind::reply, "250 2.1.5 Ok"};
    return std::nullopt;
  };
  put();
  start();
  until_logged("451 4.7.1 later (in reply to MAIL FROM command)");
  later();
  until_empty();
  CHECK(primary.transactions.size() == 1);
  CHECK(primary.transactions[0].content == "Subject: test\r\n\r\nbody\r\n");
}

TEST_CASE_METHOD(OnePrimary, "a refusal in the middle of the content counts, though the server hangs up with it") {
  const bool lasting = GENERATE(true, false);
  const std::string reply = lasting ? "552 5.3.4 message too large" : "421 4.3.2 busy";
  primary.misbehave(Step::content, {Kind::reply_then_close, reply});
  std::string content = "Subject: large\r\n\r\n";
  while (content.size() < 4'000'000) content += std::string(70, 'x') + "\r\n";
  put({.content = content, .change = [](Envelope& e) { e.authorised = Authorised::no; }});
  start();
  if (lasting) {
    until_logged("said: 552 5.3.4 message too large (in reply to end of DATA command)");
    CHECK(log.contains("dsn=5.3.4, status=bounced"));
  } else {
    until_logged("dsn=4.3.2, status=deferred");
    later();
    until_empty();
    CHECK(primary.transactions.size() == 1);
  }
  CHECK_FALSE(log.contains("lost connection"));
}

TEST_CASE_METHOD(OnePrimary, "replies that come before their command deliver nothing and refuse nobody") {
  primary.extensions = {"SIZE"};
  SECTION("to the content") {
    primary.misbehave(Step::data, {Kind::reply_then_close, "354 go on\r\n250 2.0.0 early"});
  }
  SECTION("to a recipient") {
    primary.misbehave(Step::rcpt, {Kind::reply, "250 2.1.5 Ok\r\n250 2.1.5 Ok"});
    primary.misbehave(Step::rcpt, {Kind::reply, "550 5.1.1 nobody"});
  }
  const QueueId id = put({.to = {"a@example.com", "b@example.com", "c@example.com"}});
  start();
  until_logged("broke the protocol while sending", 3);
  CHECK(log.contains("unexpected reply: 250 2."));
  CHECK(log.count("status=deferred") == 3);
  CHECK(primary.transactions.empty());
  CHECK(spool->contains(id));
}

}  // namespace
}  // namespace greymx::relay

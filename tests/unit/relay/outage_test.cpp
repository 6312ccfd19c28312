#include <sys/resource.h>

#include <cstdlib>
#include <set>

#include "base/files.hpp"
#include "harness.hpp"
#include "relay/memory.hpp"

namespace greymx::relay {
namespace {

using test::Act;
using test::FakePrimary;
using test::Step;
using Kind = Act::Kind;

struct OnePrimary : Harness {
  FakePrimary primary{io};
  OnePrimary() { add_domain("example.com", {primary.endpoint()}); }
  ~OnePrimary() { stop(); }

  void refuse_all(const std::string& reply = "550 5.1.1 no user database today") {
    primary.script = [reply](Step step, const std::string&) -> std::optional<Act> {
      if (step == Step::rcpt) return Act{Kind::reply, reply};
      return std::nullopt;
    };
  }
  void etrn() {
    const Client client{*IpAddress::parse("127.0.0.1"), 1, "unknown", false};
    CHECK(test::run(io, relay->etrn("example.com", client)).code == 253);
  }
  // Up again after an outage.
  void come_back() {
    primary.down();
    start();
    until_health(Health::down);
    primary.up();
  }
};

TEST_CASE_METHOD(OnePrimary, "a dead primary is noticed once, not once a message, and its return without being told") {
  primary.down();
  for (int i = 0; i < 50; ++i) put();
  start();
  until_health(Health::down);
  const PrimaryStatus down = relay->status().at(0);
  CHECK(down.domain == "example.com");
  CHECK(down.last_error.find("Connection refused") != std::string::npos);
  CHECK(down.next_attempt > clock.now());
  CHECK(log.count("primary of example.com is down: connect to 127.0.0.1[127.0.0.1]:") == 1);
  CHECK(log.count("status=") == 0);
  for (const QueueId id : spool->ids({}, 100)) CHECK(peek(id).state.recipients[0].attempts == 0);
  for (int i = 0; i < 5; ++i) put();

  primary.up();
  until_empty();
  CHECK(primary.transactions.size() == 55);
  CHECK(log.count("primary of example.com is up again after") == 1);
  until_health(Health::up);
}

TEST_CASE_METHOD(OnePrimary, "a primary that dies during the drain is noticed once") {
  for (int i = 0; i < 400; ++i) put();
  start();
  until([&] { return primary.transactions.size() > 20; });
  primary.down();
  until_health(Health::down);
  CHECK(log.count("is down:") == 1);
  primary.up();
  until([&] {
    later();
    return spool->totals().messages == 0;
  });
  CHECK(primary.transactions.size() >= 400);  // what was at its dot may come twice
  CHECK(primary.transactions.size() <= 400 + log.count("more than once"));
}

TEST_CASE_METHOD(OnePrimary, "a primary that dies under an open connection is down, and its return is a trial") {
  bool hangs = false, dead = false;
  primary.script = [&](Step step, const std::string&) -> std::optional<Act> {
    if (step == Step::dot) hangs = true;
    if (step == Step::dot) return Act{Kind::hang, ""};
    if (step == Step::greeting && dead) return Act{Kind::close, ""};
    return std::nullopt;
  };
  put();
  start();
  until([&] { return hangs; });
  dead = true;
  put({.change = [](Envelope& e) { e.authorised = Authorised::no; }});
  until_health(Health::down);
  CHECK(primary.open >= 1);
  refuse_all();
  until_health(Health::up);
  until_logged("status=deferred");
  CHECK(log.count("status=bounced") == 0);
  primary.down();
}

TEST_CASE_METHOD(OnePrimary, "a probe that hangs does not keep us from noticing that a primary is back") {
  timeouts.greeting = std::chrono::seconds(3);
  primary.down();
  start();
  until_health(Health::down);
  primary.misbehave(Step::greeting, {Kind::hang, ""});
  const unsigned before = primary.connections;
  primary.up();
  until([&] { return primary.connections > before; });
  until_health(Health::up);
  CHECK(primary.open > 1);
  io.run_for(timeouts.greeting + std::chrono::milliseconds(500));
  CHECK(primary.open <= 1);
  CHECK(log.count("is down:") == 1);
}

TEST_CASE_METHOD(OnePrimary, "after an outage the drain starts slowly") {
  config.delivery.concurrency_start = 1;
  config.delivery.concurrency = 10;
  for (int i = 0; i < 30; ++i) put();
  come_back();
  until_empty();
  CHECK(primary.most_open <= 2);
}

TEST_CASE_METHOD(OnePrimary, "a half dead primary does not bounce the backlog") {
  for (int i = 0; i < 60; ++i) {
    put({.to = {"user" + std::to_string(i) + "@example.com"},
         .change = [](Envelope& e) { e.authorised = Authorised::no; }});
  }
  refuse_all();
  come_back();
  until_health(Health::suspect);
  until([&] { return primary.open == 0 || log.count("status=deferred") >= 10; });
  CHECK(log.count("status=bounced") == 0);
  CHECK(log.count("dsn=4.1.1, status=deferred") <= 10 + config.delivery.concurrency_start);
  CHECK(learnt.bad.empty());
  CHECK(alerts.contains("primary of example.com refuses its mail"));
  CHECK(spool->totals().messages == 60);
  const std::size_t asked = primary.count("RCPT");
  until([&] { return primary.count("RCPT") > asked + 3; });  // one now and then
  CHECK(spool->totals().messages == 60);
  CHECK(relay->status().at(0).concurrency <= config.delivery.concurrency_start);
  CHECK(relay->health("example.com") == Health::suspect);

  SECTION("until it answers well") {
    primary.script = nullptr;
    until_health(Health::up);
    until([&] {
      later();
      return spool->totals().messages == 0;
    });
    CHECK(primary.transactions.size() == 60);
    CHECK(log.count("status=bounced") == 0);
  }
  SECTION("not until it says ETRN") {
    for (int i = 0; i < 3; ++i) {
      const std::size_t before = primary.count("RCPT");
      etrn();
      until([&] { return primary.count("RCPT") > before; });
    }
    io.run_for(std::chrono::milliseconds(100));
    CHECK(relay->health("example.com") == Health::suspect);
    CHECK(log.count("status=bounced") == 0);
    CHECK(learnt.bad.empty());
  }
  SECTION("or the admin says flush") {
    relay->flush();
    until([&] { return learnt.bad.size() == 60; });
    CHECK(log.count("status=bounced") == 60);
  }
  SECTION("or asks for one message") {
    relay->flush_message(spool->ids(QueueId{}, 1).front(), {"example.com"});
    until([&] { return !learnt.bad.empty(); });
    CHECK(relay->health("example.com") == Health::up);
  }
}

TEST_CASE_METHOD(OnePrimary, "a half dead primary does not bounce what waited for it before the outage was forgotten") {
  FakePrimary other(io);
  add_domain("other.example", {other.endpoint()});
  primary.down();
  for (int i = 0; i < 25; ++i) put({.change = [](Envelope& e) { e.authorised = Authorised::no; }});
  start();
  until_health(Health::down);
  stop();
  std::filesystem::remove(config.state_path + "/primaries.json");
  refuse_all();
  primary.up();
  start();
  until_health(Health::suspect);
  CHECK(log.count("status=bounced") == 0);
  CHECK(spool->totals().messages == 25);
  CHECK_FALSE(alerts.contains("refused mail since its outage"));
  // Nothing waited for the other one.
  other.misbehave(Step::rcpt, {Kind::reply, "550 5.1.1 unknown"});
  put({.to = {"user@other.example"}});
  until_logged("status=bounced");
  stop();
}

TEST_CASE_METHOD(OnePrimary, "one message that is refused for ever does not make a primary suspect") {
  put({.change = [](Envelope& e) { e.authorised = Authorised::no; }});
  refuse_all();
  come_back();
  until([&] {
    later();
    return log.count("status=deferred") > 12;
  });
  CHECK_FALSE(alerts.contains("refuses its mail"));
  CHECK(log.count("status=bounced") == 0);
  clock.advance(std::chrono::hours(25));
  until([&] { return alerts.contains("refused mail since its outage"); });
}

TEST_CASE_METHOD(OnePrimary, "ETRN does not end the trial of a primary that has come back") {
  for (int i = 0; i < 4; ++i) put({.change = [](Envelope& e) { e.authorised = Authorised::no; }});
  refuse_all();
  come_back();
  until([&] { return log.count("status=deferred") == 4; });
  etrn();
  until([&] { return log.count("status=") == 8; });
  CHECK(log.count("status=bounced") == 0);
  CHECK(learnt.bad.empty());
}

TEST_CASE_METHOD(OnePrimary, "some refusals after an outage are believed once the first messages are through") {
  for (int i = 0; i < 40; ++i) {
    put({.to = {(i % 8 == 0 ? "no" : "yes") + std::to_string(i) + "@example.com"},
         .change = [](Envelope& e) { e.authorised = Authorised::no; }});
  }
  primary.script = [](Step step, const std::string& line) -> std::optional<Act> {
    if (step == Step::rcpt && line.find("<no") != std::string::npos) return Act{Kind::reply, "550 5.1.1 unknown"};
    return std::nullopt;
  };
  come_back();
  until([&] { return log.count("status=") >= 40; });
  until([&] {
    later();
    return log.count("status=bounced") == 5 && log.count("status=sent") == 35;
  });
  CHECK(log.count("dsn=4.1.1, status=deferred") >= 1);
  CHECK(relay->health("example.com") == Health::up);
  CHECK(learnt.bad.size() == 5);
}

TEST_CASE_METHOD(OnePrimary, "an outage goes on over a restart of ours, with its last known addresses") {
  config.domains[0].primary = {{"mx.example.com", primary.endpoint().port}};
  dns.add("mx.example.com A 127.0.0.1");
  put();
  start();
  until_empty();
  primary.down();
  put();
  until_health(Health::down);
  until([&] { return relay->status().at(0).health == Health::down; });
  const WallTime since = relay->status().at(0).since;
  dns.add("mx.example.com ANY SERVFAIL");
  restart();
  CHECK(relay->health("example.com") == Health::down);
  CHECK(relay->status().at(0).since == since);
  CHECK(relay->is_primary_address(*IpAddress::parse("127.0.0.1")));
  primary.up();
  until_empty();
  CHECK(primary.transactions.size() == 2);
}

TEST_CASE_METHOD(OnePrimary, "where the memory of outages is lost, the time until then does not count") {
  refuse_all("450 4.2.2 mailbox full");
  const QueueId id = put();
  start();
  until_logged("status=deferred");
  until([&] { return !spool->active(id); });
  stop();
  const std::string file = config.state_path + "/primaries.json";
  const char* content = GENERATE(as<const char*>(), nullptr, "{", "null");
  std::filesystem::remove(file);
  if (content != nullptr) REQUIRE(replace_file(file, content).has_value());
  clock.advance(std::chrono::days(20));
  start();
  clock.advance(std::chrono::hours(2));
  until_logged("status=deferred", 2);
  until([&] { return !spool->active(id); });
  CHECK(log.contains("no outage is remembered"));
  CHECK(spool->contains(id));
  clock.advance(std::chrono::days(10));  // lifetime_max counts it all
  until([&] { return !spool->contains(id); });
}

TEST_CASE_METHOD(OnePrimary, "an abrupt end does not put a primary on trial that was up all the time") {
  const std::string file = config.state_path + "/primaries.json";
  std::filesystem::remove(file);
  start();
  refuse_all("451 4.3.0 later");
  put();
  until_logged("status=deferred");
  const auto left_behind = read_file(file, 1 << 20);
  REQUIRE(left_behind.has_value());
  stop();
  REQUIRE(replace_file(file, *left_behind).has_value());
  refuse_all();
  start();
  const SteadyTime deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  CHECK(test::run(io, relay->probe("no@example.com", deadline)).outcome == ProbeOutcome::refused);
  CHECK_FALSE(log.contains("no outage is remembered"));
}

TEST_CASE_METHOD(OnePrimary, "what is learnt of primaries is kept at once, and again if that fails") {
  const std::string file = config.state_path + "/primaries.json";
  config.domains[0].primary = {{"mx.example.com", primary.endpoint().port}};
  dns.add("mx.example.com A 127.0.0.1");
  std::filesystem::rename(config.state_path, config.state_path + ".away");
  start();
  until_logged("state not saved: ");
  io.run_for(std::chrono::milliseconds(1500));
  CHECK(log.count("state not saved: ") == 1);
  std::filesystem::rename(config.state_path + ".away", config.state_path);
  until([&] { return load_memory(file)->contains("example.com"); });
  CHECK(load_memory(file)->at("example.com").hosts.size() == 1);
}

TEST_CASE_METHOD(OnePrimary, "without a route mail is kept and somebody is told") {
  config.domains[0].primary.clear();
  config.delivery.mx_port = primary.endpoint().port;
  config.delivery.private_targets = true;
  const char* zone = GENERATE("", "example.com MX SERVFAIL", "example.com MX 0 .", "example.com MX 10 mx2.example.net",
                              "example.com MX 10 gone.example");
  CAPTURE(zone);
  dns.add(zone);
  put();
  start();
  until_health(Health::down);
  CHECK(alerts.contains("no route to the primary of example.com"));
  CHECK(spool->totals().messages == 1);
  CHECK(log.count("status=") == 0);
  io.run_for(std::chrono::milliseconds(2500));  // some probes
  CHECK(alerts.raised().size() == 1);
  clock.advance(std::chrono::hours(1));
  until([&] { return alerts.raised().size() > 1; });
  dns.erase("example.com");
  dns.add("example.com MX 10 mx1.example.com\nmx1.example.com A 127.0.0.1");
  until_empty();
  CHECK(primary.transactions.size() == 1);
}

TEST_CASE_METHOD(OnePrimary, "a long outage is told once") {
  primary.down();
  start();
  until_health(Health::down);
  CHECK_FALSE(alerts.contains("primary of example.com is down"));
  clock.advance(std::chrono::minutes(20));
  until([&] { return alerts.contains("primary of example.com is down"); });
  clock.advance(std::chrono::minutes(20));
  io.run_for(std::chrono::milliseconds(1500));
  CHECK(alerts.raised().size() == 1);
}

TEST_CASE_METHOD(OnePrimary, "an outage that began by a clock that was ahead counts from when that is set right") {
  const WallTime right = clock.now();
  clock.set(right + std::chrono::days(20));
  primary.down();
  start();
  until_health(Health::down);
  const bool restarts = GENERATE(false, true);
  if (restarts) stop();
  clock.set(right);
  if (restarts) {
    start();
  } else {
    until_logged("the system clock stepped back by 20d");
  }
  CHECK(relay->status().at(0).since == right);
  clock.advance(std::chrono::minutes(20));
  until([&] { return alerts.contains("primary of example.com is down"); });
  CHECK(relay->status().at(0).downtime.within(right, clock.now()) == std::chrono::minutes(20));
}

// As many as wanted: GREYMX_OUTAGE_MESSAGES=1000000 takes three minutes and 2.3 GB where it is optimized.
TEST_CASE_METHOD(OnePrimary, "two weeks of outage expire nothing, and then everything arrives") {
  const char* wanted = std::getenv("GREYMX_OUTAGE_MESSAGES");
  const std::size_t count = wanted != nullptr ? std::stoul(wanted) : 20;
  const auto limit = std::chrono::seconds(60 + count / 100);
  FakePrimary busy(io);  // is there, and never ready: what it has for it does expire
  busy.script = [](Step step, const std::string&) -> std::optional<Act> {
    if (step == Step::rcpt) return Act{Kind::reply, "450 4.2.0 later"};
    return std::nullopt;
  };
  add_domain("busy.example", {busy.endpoint()});
  primary.down();
  for (std::size_t i = 0; i < count; ++i) put({.content = "Subject: " + std::to_string(i) + "\r\n\r\nbody\r\n"});
  put({.sender = "", .to = {"user@busy.example"}});  // last, so that a sweep that ends it has seen them all
  start();
  until_health(Health::down);
  until_logged("status=deferred");
  for (int day = 0; day < 16; ++day) {
    clock.advance(std::chrono::hours(24));
    io.run_for(std::chrono::milliseconds(20));
  }
  CHECK(spool->totals().messages == count + 1);
  restart();
  clock.advance(std::chrono::hours(1));  // for so long a clock is not believed
  until([&] { return log.contains("status=expired"); }, limit);
  CHECK(spool->totals().held == 1);  // no report to a null sender
  primary.up();
  until([&] { return spool->totals().messages == 1; }, limit);
  CHECK(primary.transactions.size() == count);
  std::set<std::string> different;
  for (const FakePrimary::Transaction& one : primary.transactions)
    different.insert(one.content.substr(one.content.find("Subject:")));
  CHECK(different.size() == count);
  CHECK(log.count("status=expired") == 1);
}

TEST_CASE_METHOD(OnePrimary, "domains with one primary share its health, others do not") {
  FakePrimary other(io);
  add_domain("sister.example", {primary.endpoint()});
  add_domain("other.example", {other.endpoint()});
  primary.down();
  put({.to = {"a@example.com"}});
  put({.to = {"a@sister.example"}});
  put({.to = {"a@other.example"}});
  start();
  until_health(Health::down);
  until([&] { return other.transactions.size() == 1; });
  CHECK(relay->health("sister.example") == Health::down);
  CHECK(relay->health("other.example") == Health::up);
  CHECK(log.count("is down:") == 1);
  CHECK(relay->status().size() == 3);
  stop();
}

TEST_CASE_METHOD(OnePrimary, "a want of descriptors is no outage of the primary") {
  config.delivery.messages_per_connection = 1;  // the next message needs a new one
  come_back();  // the sanitizers, too, need descriptors for what happens first when there are none
  put();
  until_empty();
  until([&] { return primary.open == 0; });
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{0, before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  put();
  until([&] { return log.contains("Too many open files"); });
  setrlimit(RLIMIT_NOFILE, &before);
  CHECK(relay->health("example.com") == Health::up);
  CHECK(log.count("is down:") == 1);
  until_empty();
}

TEST_CASE_METHOD(OnePrimary, "flush tries at once what is deferred") {
  primary.misbehave(Step::rcpt, {Kind::reply, "450 4.2.0 later"}, 3);
  std::vector<QueueId> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(put());
  start();
  until([&] { return log.count("status=deferred") == 3; });
  SECTION("all") {
    relay->flush();
    until_empty();
  }
  SECTION("a domain") {
    relay->flush_domain("Example.COM");
    until_empty();
  }
  SECTION("the first domain, mail for bare Postmaster included") {
    primary.misbehave(Step::rcpt, {Kind::reply, "450 4.2.0 later"}, 1);
    put({.to = {"Postmaster"}});
    until([&] { return log.count("status=deferred") == 4; });
    relay->flush_domain("example.com");
    until_empty();
  }
  SECTION("a message") {
    relay->flush_message(ids[1], {"example.com"});
    until([&] { return spool->totals().messages == 2; });
    CHECK_FALSE(spool->contains(ids[1]));
  }
}

}  // namespace
}  // namespace greymx::relay

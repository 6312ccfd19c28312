// An outage and its end belong to a domain, whatever relay.conf calls its primary meanwhile.
#include "harness.hpp"

namespace greymx::relay {
namespace {

using namespace std::chrono_literals;
using test::Act;
using test::FakePrimary;
using test::Step;
using Kind = Act::Kind;

struct OnePrimary : Harness {
  FakePrimary primary{io};
  FakePrimary second{io, "127.0.0.1", "second.example"};
  OnePrimary() {
    add_domain("example.com", {primary.endpoint()});
    config.delivery.mx_port = primary.endpoint().port;
    config.delivery.private_targets = true;
    config.queue.delay_warning = 10s;  // a sweep every second
  }
  ~OnePrimary() { stop(); }

  void put_for(const std::string& address, int count = 1) {
    for (int i = 0; i < count; ++i) {
      put({.to = {address}, .change = [](Envelope& e) { e.authorised = Authorised::no; }});
    }
  }
  void outage(const std::string& domain = "example.com") {
    primary.down();
    start();
    until_health(Health::down, domain);
    clock.advance(16 * 24h);
    for (const QueueId id : spool->ids({}, 1000)) (void)spool->make_due(id, clock.now() + 1h);
  }
  void use(const FakePrimary& other) { config.domains[0].primary = {{"127.0.0.1", other.endpoint().port}}; }
  void reload() { relay->reload(std::make_shared<config::Config>(config)); }
  void reload_or_restart() {
    const bool reloads = GENERATE(true, false);
    CAPTURE(reloads);
    reloads ? reload() : restart();
  }
  void sweep() { io.run_for(1500ms); }
};

TEST_CASE_METHOD(OnePrimary, "a new address for a dead primary expires nothing") {
  put_for("user@example.com", 5);
  outage();
  use(second);
  reload_or_restart();
  sweep();
  CHECK(log.count("status=expired") == 0);
  clock.advance(1h);
  until_empty();
  CHECK(second.transactions.size() == 5);
  CHECK(log.count("primary of example.com is up again after 16d") == 1);
}

TEST_CASE_METHOD(OnePrimary, "mail of a domain that moves away does not go where others still do") {
  add_domain("moved.example", {primary.endpoint()});
  put_for("user@moved.example", 3);
  outage();
  SECTION("to another primary") {
    config.domains[1].primary = {{"127.0.0.1", second.endpoint().port}};
  }
  SECTION("to stricter TLS") {
    config.domains[1].tls = config::TlsLevel::encrypt;
  }
  SECTION("out of relay.conf") {
    config.domains.pop_back();
  }
  const bool moved = config.domains.size() == 2 && config.domains[1].primary != config.domains[0].primary;
  reload();
  primary.up();
  until_health(Health::up);
  clock.advance(1h);
  if (moved) until_empty();
  sweep();
  CHECK(primary.transactions.empty());
  CHECK(second.transactions.size() == (moved ? 3 : 0));
  CHECK(spool->totals().messages == (moved ? 0 : 3));
}

TEST_CASE_METHOD(OnePrimary, "a domain that moves away takes along what waits for a connection or a reply") {
  const Step at = GENERATE(Step::ehlo, Step::dot);
  CAPTURE(at);
  config.delivery.concurrency_start = config.delivery.concurrency = 1;
  add_domain("moved.example", {primary.endpoint()});
  if (at == Step::dot) put_for("user@moved.example");
  const QueueId next = put({.to = {"next@moved.example"}});
  bool loaded = false;
  primary.script = [&](Step step, const std::string&) -> std::optional<Act> {
    if (step != at || loaded) return std::nullopt;
    loaded = spool->active(next);
    if (!loaded) return std::nullopt;
    config.domains[1].primary = {{"127.0.0.1", second.endpoint().port}};
    reload();
    return std::nullopt;
  };
  start();
  until_empty();
  CHECK(loaded);
  CHECK(primary.transactions.size() == (at == Step::dot ? 1 : 0));
  CHECK(second.transactions.size() == 1);
}

TEST_CASE_METHOD(OnePrimary, "a primary teaches nothing of a domain that moved away while it answered") {
  add_domain("moved.example", {primary.endpoint()});
  put_for("user@moved.example");
  put_for("user@example.com");
  const bool takes = GENERATE(true, false);
  CAPTURE(takes);
  primary.script = [&](Step step, const std::string& line) -> std::optional<Act> {
    if (step != Step::rcpt || line.find("moved.example") == line.npos) return std::nullopt;
    config.domains[1].primary = {{"127.0.0.1", second.endpoint().port}};
    reload();
    return takes ? std::nullopt : std::optional(Act{Kind::reply, "550 5.1.1 unknown"});
  };
  start();
  CHECK(relay->hosts("moved.example") == config.domains[1].primary[0].to_string());
  until([&] { return log.count("to=<user@moved.example>") > 0 && log.count("to=<user@example.com>") > 0; });
  CHECK(learnt.good == std::vector<std::string>{"user@example.com"});
  CHECK(learnt.bad.empty());
  CHECK(relay->hosts("moved.example") == second.endpoint().to_string());
  CHECK(relay->hosts("other.example").empty());
}

TEST_CASE_METHOD(OnePrimary, "a domain that is named again has its mail tried at once") {
  add_domain("back.example", {second.endpoint()});
  const config::Config whole = config;
  config.domains.pop_back();
  put_for("user@back.example");
  config.queue.retry_min = config.queue.retry_max = 1h;
  start();
  until_logged("back.example is not in relay.conf any more");
  config = whole;
  reload();
  until_empty();
  CHECK(second.transactions.size() == 1);
}

TEST_CASE_METHOD(OnePrimary, "a new primary without its user database does not bounce the backlog") {
  put_for("user@example.com", 60);
  outage();
  use(second);
  second.script = [](Step step, const std::string&) -> std::optional<Act> {
    if (step == Step::rcpt) return Act{Kind::reply, "550 5.1.1 no user database today"};
    return std::nullopt;
  };
  reload_or_restart();
  clock.advance(1h);
  until_health(Health::suspect);
  sweep();
  CHECK(log.count("status=bounced") == 0);
  CHECK(log.count("status=expired") == 0);
  CHECK(learnt.bad.empty());
  CHECK(spool->totals().messages == 60);
}

TEST_CASE_METHOD(OnePrimary, "other demands on a primary leave its outage as it is") {
  put_for("user@example.com");
  outage();
  until([&] { return relay->status().at(0).health == Health::down; });
  const WallTime since = relay->status().at(0).since;
  config.domains[0].xforward = false;
  reload_or_restart();
  io.run_for(50ms);
  CHECK(relay->health("example.com") == Health::down);
  CHECK(relay->status().at(0).since == since);
}

TEST_CASE_METHOD(OnePrimary, "a subdomain that goes its own way by MX keeps its history, too") {
  add_domain("*.wild.example", {});
  dns.add("sub.wild.example MX 10 mx.wild.example\nmx.wild.example A 127.0.0.1");
  put_for("user@sub.wild.example", 3);
  outage("sub.wild.example");
  SECTION("by the same MX") {
    reload_or_restart();
  }
  SECTION("by another port of it") {
    config.delivery.mx_port = second.endpoint().port;
    second.down();
    reload_or_restart();
    sweep();
    second.up();
  }
  SECTION("by a primary for all subdomains") {
    config.domains[1].primary = {{"127.0.0.1", second.endpoint().port}};
    second.down();
    reload_or_restart();
    sweep();
    second.up();
  }
  sweep();
  CHECK(log.count("status=expired") == 0);
  primary.up();
  clock.advance(1h);
  until_empty();
}

TEST_CASE_METHOD(OnePrimary, "a wildcard's primary may give way to MX") {
  add_domain("*.wild.example", {second.endpoint()});
  second.down();
  put_for("user@sub.wild.example", 3);
  outage("sub.wild.example");
  config.domains[1].primary.clear();
  dns.add("sub.wild.example ANY SERVFAIL");
  reload_or_restart();
  sweep();
  CHECK(log.count("status=expired") == 0);
  CHECK(relay->health("sub.wild.example") == Health::down);
}

TEST_CASE_METHOD(OnePrimary,
                 "a subdomain that gets an entry of its own, or none, keeps what its wildcard went through") {
  FakePrimary third{io, "127.0.0.1", "third.example"};
  add_domain("*.wild.example", {second.endpoint()});
  second.down();
  put_for("user@sub.wild.example", 3);
  outage("sub.wild.example");
  const config::Config before = config;
  SECTION("one beside the wildcard's, or instead of it") {
    if (GENERATE(true, false)) config.domains.pop_back();
    add_domain("sub.wild.example", {third.endpoint()});
    third.down();
    reload_or_restart();
    sweep();
    CHECK(relay->health("sub.wild.example") == Health::down);
  }
  SECTION("none, by mistake") {
    config.domains.pop_back();
    reload_or_restart();
    sweep();
    config = before;
    reload_or_restart();
    sweep();
    CHECK(relay->health("sub.wild.example") == Health::down);
  }
  CHECK(log.count("status=expired") == 0);
}

TEST_CASE_METHOD(OnePrimary, "a subdomain that moves in with a healthy primary brings its wildcard's history along") {
  FakePrimary third{io, "127.0.0.1", "third.example"};
  add_domain("third.example", {third.endpoint()});
  add_domain("*.wild.example", {second.endpoint()});
  second.down();
  put_for("user@sub.wild.example", 3);
  outage("sub.wild.example");
  add_domain("sub.wild.example", {third.endpoint()});
  reload_or_restart();
  sweep();
  CHECK(log.count("status=expired") == 0);
  clock.advance(1h);
  until_empty();
  CHECK(third.transactions.size() == 3);
  for (const PrimaryStatus& status : relay->status()) {
    if (status.domain != "third.example") continue;
    for (const auto& [begin, end] : status.downtime.spans()) CHECK(end <= clock.now());  // it is up
  }
  stop();
}

TEST_CASE_METHOD(OnePrimary, "paths.state stays where it is over a reload") {
  const std::string before = config.state_path, after = before + "/other";
  std::filesystem::create_directory(after);
  start();
  config.state_path = after;
  reload();
  io.run_for(50ms);
  stop();
  CHECK(std::filesystem::exists(before + "/primaries.json"));
  CHECK_FALSE(std::filesystem::exists(after + "/primaries.json"));
}

TEST_CASE_METHOD(OnePrimary, "downtime counts for all that an entry covers, and for bare Postmaster, due or not") {
  add_domain("*.wild.example", {primary.endpoint()});
  put_for("user@sub.wild.example");
  put_for("Postmaster");
  outage();
  reload_or_restart();
  sweep();
  CHECK(log.count("status=expired") == 0);
  CHECK(spool->totals().messages == 2);
}

TEST_CASE_METHOD(OnePrimary, "a domain that moves in with a healthy primary brings its history along") {
  add_domain("sister.example", {second.endpoint()});
  put_for("user@example.com", 3);
  outage();
  until([&] { return second.connections > 0; });
  second.misbehave(Step::rcpt, {Kind::reply, "550 5.1.1 unknown"}, 3);
  use(second);
  reload_or_restart();
  sweep();
  CHECK(log.count("status=expired") == 0);
  CHECK(relay->health("sister.example") == Health::up);
  clock.advance(1h);
  until([&] {
    later();
    return spool->totals().messages == 0;
  });
  CHECK(log.count("status=bounced") == 0);
  CHECK(second.transactions.size() == 3);
}

TEST_CASE_METHOD(OnePrimary, "a domain that was left out by mistake is as it was when it is named again") {
  put_for("user@example.com", 3);
  outage();
  const config::Config before = config;
  config.domains.clear();
  add_domain("sister.example", {second.endpoint()});
  reload_or_restart();
  sweep();
  config = before;
  reload_or_restart();
  sweep();
  CHECK(log.count("status=expired") == 0);
  CHECK(relay->health("example.com") == Health::down);
}

}  // namespace
}  // namespace greymx::relay

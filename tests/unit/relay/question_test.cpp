// What others ask the relay: callouts, ETRN, states.
#include "harness.hpp"
#include "relay/destination.hpp"
#include "relay/memory.hpp"

namespace greymx::relay {
namespace {

using namespace std::chrono_literals;
using test::Act;
using test::FakePrimary;
using test::Step;
using Kind = Act::Kind;

struct World : Harness {
  FakePrimary primary{io};
  World() { add_domain("example.com", {primary.endpoint()}); }
  ~World() { stop(); }

  ProbeResult ask(const std::string& address, std::chrono::milliseconds limit = 5s) {
    return test::run(io, relay->probe(address, std::chrono::steady_clock::now() + limit));
  }
  void answer_rcpt(const std::string& reply) {
    primary.script = [reply](Step step, const std::string&) -> std::optional<Act> {
      if (step == Step::rcpt) return Act{Kind::reply, reply};
      return std::nullopt;
    };
  }
  Reply etrn(const std::string& node, bool trusted = true, const std::string& address = "192.0.2.99") {
    Client client{*IpAddress::parse(address), 1, "unknown", trusted};
    return test::run(io, relay->etrn(node, client));
  }
};

TEST_CASE_METHOD(World, "a callout uses the null sender, sends nothing, and keeps the connection") {
  start();
  until([&] { return relay->size_limit("example.com") > 0; });  // the first look at the primary is over
  CHECK(ask("user@example.com").outcome == ProbeOutcome::accepted);
  CHECK(ask("other@example.com").outcome == ProbeOutcome::accepted);
  CHECK(primary.connections == 1);
  CHECK(primary.count("MAIL FROM:<>") == 2);
  CHECK(primary.count("DATA") == 0);
  CHECK(primary.count("RSET") == 1);
  CHECK(primary.transactions.empty());
}

TEST_CASE_METHOD(World, "a primary that does not offer SMTPUTF8 is asked for no address that needs it") {
  SECTION("not offered") {
    primary.extensions = {"PIPELINING"};
    start();
    const ProbeResult result = ask("m\xc3\xbcller@example.com");
    CHECK(result.outcome == ProbeOutcome::inconclusive);
    CHECK(result.detail.starts_with("SMTPUTF8 is required, but was not offered by host 127.0.0.1"));
    CHECK(primary.count("RCPT") == 0);
    CHECK(ask("user@example.com").outcome == ProbeOutcome::accepted);
  }
  SECTION("offered") {
    start();
    CHECK(ask("m\xc3\xbcller@example.com").outcome == ProbeOutcome::accepted);
    CHECK(primary.count("MAIL FROM:<> SMTPUTF8") == 1);
  }
}

TEST_CASE_METHOD(World, "a callout over a connection that the primary has closed is asked again over a new one") {
  bool served = false;
  primary.script = [&](Step step, const std::string&) -> std::optional<Act> {
    if (step == Step::greeting) served = false;
    if (step == Step::rset || (step == Step::mail && served)) return Act{Kind::close, ""};
    if (step == Step::mail) served = true;
    return std::nullopt;
  };
  start();
  for (int i = 0; i < 3; ++i) CHECK(ask("user@example.com").outcome == ProbeOutcome::accepted);
  SECTION("once, if that is closed as well") {
    primary.misbehave(Step::mail, {Kind::close, ""}, 1000);
    const unsigned before = primary.connections;
    CHECK(ask("user@example.com").outcome == ProbeOutcome::inconclusive);
    CHECK(primary.connections <= before + 1);
    CHECK(relay->health("example.com") == Health::up);
  }
  SECTION("if it is there") {
    primary.down();
    CHECK(ask("user@example.com").outcome == ProbeOutcome::inconclusive);
    CHECK(relay->health("example.com") == Health::down);  // what is unknown goes by unknown_while_down
  }
}

TEST_CASE_METHOD(World, "only a refusal of the recipient is one") {
  struct Row {
    const char* reply;
    ProbeOutcome outcome;
  };
  const Row row =
      GENERATE(Row{"550 5.1.1 unknown", ProbeOutcome::refused}, Row{"553 unknown", ProbeOutcome::refused},
               Row{"550 5.7.1 policy", ProbeOutcome::inconclusive}, Row{"450 4.1.1 later", ProbeOutcome::inconclusive},
               Row{"251 2.1.5 will forward", ProbeOutcome::accepted});
  CAPTURE(row.reply);
  answer_rcpt(row.reply);
  start();
  const ProbeResult result = ask("user@example.com");
  CHECK(result.outcome == row.outcome);
  CHECK(result.detail.find(row.reply) != std::string::npos);
}

TEST_CASE_METHOD(World, "trouble is inconclusive: a refused MAIL, a lost connection, silence, a dead primary") {
  SECTION("MAIL refused") {
    primary.misbehave(Step::mail, {Kind::reply, "550 5.1.1 we dislike <>"});
  }
  SECTION("closed") {
    primary.misbehave(Step::rcpt, {Kind::close, ""});
  }
  SECTION("silence") {
    primary.misbehave(Step::rcpt, {Kind::hang, ""});
  }
  SECTION("no greeting") {
    primary.misbehave(Step::greeting, {Kind::hang, ""}, 10);
  }
  SECTION("down") {
    primary.down();
  }
  start();
  const auto began = std::chrono::steady_clock::now();
  CHECK(ask("user@example.com", 500ms).outcome == ProbeOutcome::inconclusive);
  CHECK(std::chrono::steady_clock::now() - began < 10s);
}

TEST_CASE_METHOD(World, "a probe without answer does not keep us from stopping") {
  primary.misbehave(Step::greeting, {Kind::hang, ""}, 10);
  start();
  until([&] { return primary.connections > 0; });
  const auto began = std::chrono::steady_clock::now();
  stop();
  CHECK(std::chrono::steady_clock::now() - began < 30s);
}

TEST_CASE_METHOD(World, "a primary that is down is not asked, one that has just come back is not believed") {
  primary.down();
  start();
  until_health(Health::down);
  const unsigned before = primary.connections;
  CHECK(ask("user@example.com").outcome == ProbeOutcome::inconclusive);
  CHECK(primary.connections == before);
  answer_rcpt("550 5.1.1 unknown");
  primary.up();
  until_health(Health::up);
  CHECK(ask("user@example.com").outcome == ProbeOutcome::inconclusive);
}

TEST_CASE_METHOD(World, "many callouts at once are answered, each in its time") {
  start();
  std::vector<Task<ProbeResult>> questions;
  for (int i = 0; i < 30; ++i) {
    questions.push_back(relay->probe("u" + std::to_string(i) + "@example.com", std::chrono::steady_clock::now() + 5s));
  }
  const std::vector<ProbeResult> results = test::run(io, join_all(std::move(questions)));
  std::size_t answered = 0;
  for (const ProbeResult& result : results) answered += result.outcome == ProbeOutcome::accepted ? 1 : 0;
  CHECK(answered >= 10);
  CHECK(primary.most_open <= 11);
}

TEST_CASE_METHOD(World, "a primary that takes one connection only is up while it answers there") {
  primary.script = [&](Step step, const std::string&) -> std::optional<Act> {
    if (step == Step::greeting && primary.open > 1) return Act{Kind::reply_then_close, "421 4.7.0 too many"};
    return std::nullopt;
  };
  start();
  until([&] { return primary.open == 1; });
  SECTION("callouts for more than a probe interval") {
    for (const auto end = std::chrono::steady_clock::now() + 1200ms; std::chrono::steady_clock::now() < end;) {
      CHECK(ask("user@example.com").outcome == ProbeOutcome::accepted);
      io.run_for(50ms);
    }
    std::vector<Task<ProbeResult>> questions;
    for (int i = 0; i < 2; ++i) {
      questions.push_back(relay->probe("user@example.com", std::chrono::steady_clock::now() + 5s));
    }
    test::run(io, join_all(std::move(questions)));
  }
  SECTION("a dot for more than a probe interval") {
    primary.misbehave(Step::dot, {Kind::hang, ""});
    put();
    until([&] { return primary.count("DATA") > 0; });
    io.run_for(1200ms);
    CHECK(ask("user@example.com", 500ms).outcome == ProbeOutcome::inconclusive);
  }
  CHECK(primary.connections > 1);
  CHECK_FALSE(log.contains("is down"));
  CHECK(relay->health("example.com") == Health::up);
  primary.down();
}

TEST_CASE_METHOD(World, "a primary that never greets is asked over no more connections than there are questions") {
  primary.misbehave(Step::greeting, {Kind::hang, ""}, 1000);
  start();
  for (int round = 0; round < 4; ++round) {
    std::vector<Task<ProbeResult>> questions;
    for (int i = 0; i < 10; ++i) {
      questions.push_back(relay->probe("u@example.com", std::chrono::steady_clock::now() + 100ms));
    }
    test::run(io, join_all(std::move(questions)));
  }
  CHECK(primary.connections <= 11);
  stop();
}

TEST_CASE_METHOD(World, "strangers' domains are never asked") {
  dns.add("stranger.example A 127.0.0.1");
  config.delivery.private_targets = true;
  config.delivery.mx_port = primary.endpoint().port;
  start();
  io.run_for(100ms);
  const unsigned before = primary.connections;
  CHECK(ask("user@stranger.example").outcome == ProbeOutcome::inconclusive);
  CHECK(primary.connections == before);
}

TEST_CASE_METHOD(World, "ETRN starts a domain's mail and says how much there is") {
  config.queue.retry_min = config.queue.retry_max = std::chrono::hours(1);
  primary.misbehave(Step::rcpt, {Kind::reply, "450 4.2.0 later"}, 3);
  for (int i = 0; i < 3; ++i) put();
  start();
  until([&] { return log.count("status=deferred") == 3; });
  CHECK(etrn("Example.COM").to_string() == "253 OK, 3 pending messages for node Example.COM started");
  until_empty();
  CHECK(etrn("example.com").to_string() == "251 OK, no messages waiting for node example.com");
}

TEST_CASE_METHOD(World, "ETRN with @ means the domain and all below, with # the queue") {
  add_domain("*.example.com", {primary.endpoint()});
  primary.down();
  put({.to = {"a@example.com"}});
  put({.to = {"a@sub.example.com"}});
  put({.to = {"a@deep.sub.example.com"}});
  start();
  until_health(Health::down);
  CHECK(etrn("example.com").text == "OK, 1 pending messages for node example.com started");
  CHECK(etrn("@example.com").text == "OK, 3 pending messages for node @example.com started");
  CHECK(etrn("#sub.example.com").text == "OK, 1 pending messages for node #sub.example.com started");
}

TEST_CASE_METHOD(World, "ETRN for the first domain starts mail for bare Postmaster, too") {
  FakePrimary other(io);
  add_domain("example.net", {other.endpoint()});
  config.queue.retry_min = config.queue.retry_max = std::chrono::hours(1);
  primary.misbehave(Step::rcpt, {Kind::reply, "450 4.2.0 later"}, 1);
  put({.to = {"Postmaster"}});
  start();
  until_logged("status=deferred");
  CHECK(etrn("example.net").code == 251);
  CHECK(etrn("example.com").to_string() == "253 OK, 1 pending messages for node example.com started");
  until_empty();
}

TEST_CASE_METHOD(World, "ETRN with @ may mean what only a wildcard covers") {
  add_domain("*.wild.example", {primary.endpoint()});
  primary.down();
  put({.to = {"a@sub.wild.example"}});
  start();
  until_health(Health::down, "sub.wild.example");
  CHECK(etrn("@wild.example").text == "OK, 1 pending messages for node @wild.example started");
  CHECK(etrn("@wild.example", false, "127.0.0.1").code == 253);
  CHECK(etrn("@wild.example", false).code == 459);
  CHECK(etrn("wild.example").code == 459);
  CHECK(etrn("@example").code == 459);
}

TEST_CASE_METHOD(World, "ETRN is for the trusted and for the domain's own primary") {
  put();
  primary.down();
  start();
  until_health(Health::down);
  CHECK(etrn("example.com", false).code == 459);
  CHECK(etrn("example.com", false, "127.0.0.1").code == 253);
  CHECK(etrn("stranger.example", true).code == 459);
  CHECK(etrn("no domain", true).code == 459);
  const std::string hostile = etrn(std::string(5000, 'x') + "\r\n", true).text;
  CHECK(hostile.size() < 400);
  CHECK(hostile.find('\n') == std::string::npos);
}

TEST_CASE_METHOD(World, "a stranger's ETRN for what a wildcard covers starts nothing") {
  add_domain("*.wild.example", {});
  start();
  CHECK(etrn("a1.wild.example", false).code == 459);
  io.run_for(100ms);
  CHECK(dns.count("a1.wild.example MX") == 0);
  CHECK(alerts.raised().empty());
  CHECK(etrn("a1.wild.example").code == 251);
}

TEST_CASE_METHOD(World, "ETRN cannot start what an admin holds") {
  primary.down();
  const QueueId id = put();
  start();
  until_health(Health::down);
  until([&] { return !spool->active(id); });
  REQUIRE(spool->hold(id, "look at it").has_value());
  CHECK(etrn("example.com").to_string() == "458 Unable to queue messages for node example.com");
}

TEST_CASE_METHOD(World, "addresses of explicit primaries are known, those of MX hosts are not trusted") {
  FakePrimary by_mx(io, "127.0.0.2");
  add_domain("mx.example", {});
  config.delivery.mx_port = by_mx.endpoint().port;
  config.delivery.private_targets = true;
  dns.add("mx.example A 127.0.0.2");
  start();
  until([&] { return relay->is_primary_address(*IpAddress::parse("127.0.0.1")); });
  until([&] { return by_mx.connections > 0; });
  until([&] { return relay->own_addresses().contains(*IpAddress::parse("127.0.0.2")); });
  CHECK_FALSE(relay->is_primary_address(*IpAddress::parse("127.0.0.2")));
  CHECK(relay->own_addresses().contains(*IpAddress::parse("127.0.0.1")));
  stop();
}

TEST_CASE_METHOD(World, "a primary that is given by address is known at once") {
  config.domains[0].primary = {{"mx.example.com", 25}, {"192.0.2.1", 25}, {"2001:db8::1", 25}};
  start();
  CHECK(relay->is_primary_address(*IpAddress::parse("192.0.2.1")));
  CHECK(relay->is_primary_address(*IpAddress::parse("2001:db8::1")));
  CHECK_FALSE(relay->is_primary_address(*IpAddress::parse("192.0.2.2")));
}

struct WildWorld : World {
  FakePrimary by_mx{io, "127.0.0.2"};
  WildWorld() {
    add_domain("*.wild.example", {});
    config.delivery.mx_port = by_mx.endpoint().port;
    config.delivery.private_targets = true;
    dns.add("mx.wild.example A 127.0.0.2");
  }
  ~WildWorld() { stop(); }
  std::string subdomain(int number) {
    const std::string name = "s" + std::to_string(number) + ".wild.example";
    dns.add(name + " MX 10 mx.wild.example");
    return name;
  }
};

TEST_CASE_METHOD(WildWorld, "a wildcard's subdomain by MX is known to be down as soon as it has been asked for") {
  by_mx.down();
  const std::string name = subdomain(1);
  start();
  CHECK(ask("u@" + name).outcome == ProbeOutcome::inconclusive);
  CHECK(relay->health(name) == Health::down);
  io.run_for(2500ms);
  CHECK(relay->health(name) == Health::down);
  // The wildcard is not, without mail for it.
  clock.advance(20min);
  io.run_for(1500ms);
  CHECK(relay->status().back().domain == "*.wild.example");
  CHECK(relay->status().back().health == Health::up);
  CHECK(alerts.raised().empty());
  put({.to = {"u@" + name}});
  CHECK(relay->status().back().health == Health::down);
  until([&] { return alerts.contains("primary of *.wild.example is down"); });
  by_mx.up();
  until_health(Health::up, name);
  CHECK(ask("u@" + name).outcome == ProbeOutcome::accepted);
}

TEST_CASE_METHOD(WildWorld, "a wildcard's subdomains by MX are shown each by itself, and the worst as the entry") {
  dns.add("dead.wild.example MX 10 mx.dead.example\nmx.dead.example A 127.0.0.9");
  put({.to = {"u@dead.wild.example"}});
  put({.to = {"u@" + subdomain(1)}});
  start();
  until_health(Health::down, "dead.wild.example");
  until([&] { return by_mx.transactions.size() == 1; });
  std::map<std::string, PrimaryStatus> shown;
  for (const PrimaryStatus& status : relay->status()) shown[status.domain] = status;
  CHECK(shown.at("dead.wild.example").health == Health::down);
  CHECK(shown.at("dead.wild.example").wildcard == "*.wild.example");
  CHECK_FALSE(shown.at("dead.wild.example").downtime.spans().empty());
  CHECK(shown.at("s1.wild.example").health == Health::up);
  CHECK(shown.at("*.wild.example").health == Health::down);
  CHECK(shown.at("*.wild.example").wildcard.empty());
  CHECK(shown.at("*.wild.example").last_error.starts_with("dead.wild.example: connect to "));
  CHECK(shown.at("example.com").health == Health::up);
}

TEST_CASE_METHOD(WildWorld, "few subdomains of a wildcard are kept since they are down") {
  by_mx.down();
  start();
  std::vector<std::string> names;
  for (int i = 0; i < 150; ++i) names.push_back(subdomain(i));
  for (const std::string& name : names) ask("u@" + name);
  const auto is_down = [&](const std::string& name) { return relay->health(name) == Health::down; };
  until([&] { return std::ranges::count_if(names, is_down) <= 100; });
  CHECK(std::ranges::count_if(names, is_down) > 90);
}

TEST_CASE_METHOD(World, "subdomains that do not exist leave nothing behind, and are not down") {
  add_domain("*.wild.example", {});
  start();
  for (int i = 0; i < 50; ++i) {
    const std::string name = "s" + std::to_string(i) + ".wild.example";
    CHECK(ask("u@" + name).outcome == ProbeOutcome::inconclusive);
    CHECK(relay->health(name) == Health::up);
  }
  CHECK(alerts.raised().empty());
  CHECK_FALSE(log.contains("is down"));
  put({.to = {"u@s1.wild.example"}});
  io.run_for(2500ms);
  CHECK(alerts.contains("no route to the primary of *.wild.example"));
  REQUIRE(relay->status().size() == 3);  // with the one that has mail
  CHECK(relay->status().at(0).domain == "s1.wild.example");
  CHECK_FALSE(relay->status().at(0).last_error.empty());
  CHECK(relay->status().at(2).health == Health::up);  // the entry
  CHECK(relay->health("s1.wild.example") == Health::up);
  CHECK(spool->totals().messages == 1);
  CHECK(log.count("status=") == 0);
  dns.clear_asked();
  io.run_for(1500ms);
  CHECK(dns.count("s2.wild.example MX") == 0);
  CHECK(dns.count("s1.wild.example MX") > 0);
}

TEST_CASE_METHOD(WildWorld, "a wildcard's subdomains share a number of workers") {
  by_mx.misbehave(test::Step::mail, {test::Act::Kind::hang, {}}, 1000);
  for (int i = 0; i < 120; ++i) put({.to = {"u@" + subdomain(i)}});
  start();
  until([&] { return by_mx.count("MAIL") >= 50; });
  put();
  until_logged("status=sent");
  io.run_for(1500ms);
  CHECK(by_mx.count("MAIL") == 50);
  by_mx.down();
}

TEST_CASE_METHOD(WildWorld, "subdomains whose host hangs leave workers to the others") {
  by_mx.script = [](Step step, const std::string& line) -> std::optional<Act> {
    if (step == Step::mail && !line.contains("healthy")) return Act{Kind::hang, ""};
    return std::nullopt;
  };
  timeouts = smtp::ClientTimeouts::all(5s);
  for (int i = 0; i < 26; ++i) {
    for (int j = 0; j < 3; ++j) put({.to = {"u@" + subdomain(i)}});
  }
  start();
  until([&] { return by_mx.count("MAIL") >= 26; });
  io.run_for(1500ms);
  put({.sender = "healthy@sender.example", .to = {"u@" + subdomain(100)}});
  until([&] { return by_mx.transactions.size() == 1; }, 3s);
  by_mx.down();
}

TEST_CASE_METHOD(World, "of a wildcard's many subdomains without a route there is one alert") {
  add_domain("*.wild.example", {});
  for (int i = 0; i < 20; ++i) put({.to = {"u@s" + std::to_string(i) + ".wild.example"}});
  start();
  until([&] { return dns.count("s19.wild.example MX") > 0 && dns.count("s7.wild.example MX") > 0; });
  io.run_for(1500ms);
  clock.advance(20min);
  io.run_for(1500ms);
  CHECK(alerts.raised().size() == 1);
  clock.advance(41min);
  until([&] { return alerts.raised().size() > 1; });
  io.run_for(1500ms);
  CHECK(alerts.raised().size() == 2);
}

TEST_CASE_METHOD(World, "reports to many strangers do not keep us from asking our primaries") {
  for (int i = 0; i < 1010; ++i) {
    const std::string domain = "s" + std::to_string(i) + ".example";
    dns.add(domain + " ANY SERVFAIL");
    put({.sender = "", .to = {"author@" + domain}, .change = [](Envelope& e) { e.origin = Origin::report; }});
  }
  add_domain("*.example.org", {primary.endpoint()});
  start();
  until_logged("status=deferred");
  CHECK(ask("user@example.com").outcome == ProbeOutcome::accepted);
  CHECK(ask("user@sub.example.org").outcome == ProbeOutcome::accepted);
}

TEST_CASE("what makes two domains one destination") {
  config::Config config;
  const auto add = [&](const std::string& name, config::TlsLevel tls) {
    config::Domain domain;
    domain.name = name;
    domain.primary = {{"mx1.example.com", 25}};
    domain.tls = tls;
    config.domains.push_back(domain);
  };
  add("a.example", config::TlsLevel::may);
  add("b.example", config::TlsLevel::may);
  add("c.example", config::TlsLevel::verify);
  CHECK(settings_for(config, "a.example").key == settings_for(config, "b.example").key);
  CHECK(settings_for(config, "a.example").key != settings_for(config, "c.example").key);
  CHECK(settings_for(config, "").request.domain == "a.example");
  CHECK_FALSE(settings_for(config, "stranger.example").request.own);
  CHECK(settings_for(config, "stranger.example").request.hosts.empty());
  CHECK(name_of(config, "a.stranger.example") != name_of(config, "b.stranger.example"));
  config.delivery.smarthost = {"smart.example", 25};
  CHECK(name_of(config, "a.stranger.example") == name_of(config, "b.stranger.example"));
}

TEST_CASE("what is remembered over a restart comes back as it was, and rubbish is an error") {
  const test::FakeClock clock;
  Memory memory;
  Remembered& one = memory["example.com"];
  one.key = "own,1,,1,mx1:25";
  one.health = Health::suspect;
  one.since = clock.now();
  one.reason = "host said \"no\" \xff";
  one.on_trial = true;
  one.downtime.begin(clock.now() - 10h);
  one.downtime.end(clock.now() - 5h);
  one.downtime.begin(clock.now());
  one.hosts = {{"mx1", *Endpoint::parse("[2001:db8::1]:25")}};
  const auto back = memory_from_json(to_json(memory));
  REQUIRE(back.has_value());
  const Remembered& same = back->at("example.com");
  CHECK(same.key == one.key);
  CHECK(same.health == Health::suspect);
  CHECK(same.since == one.since);
  CHECK(same.on_trial);
  CHECK(same.downtime.spans() == one.downtime.spans());
  CHECK(same.hosts == one.hosts);
  for (const char* bad : {"", "{", "[]", "null", "[]x", "{\"k\": {}}", "{\"k\": {\"health\": 5}}"}) {
    CHECK_FALSE(memory_from_json(bad).has_value());
  }
  CHECK(memory_from_json(to_json({})).has_value());
  CHECK(load_memory("/no/such/file").error().kind == ErrorKind::not_found);
}

}  // namespace
}  // namespace greymx::relay

#include <fmt/format.h>

#include "access/decision.hpp"
#include "dnsbl/health.hpp"
#include "fixture.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/memory_store.hpp"
#include "support/recording_alerts.hpp"
#include "support/recording_log.hpp"
#include "support/run.hpp"
#include "support/scripted_resolver.hpp"

using namespace greymx;
using namespace greymx::access;
using namespace std::chrono_literals;
using config::CheckMode;
using test::run;

namespace {

constexpr const char* zone =
    "7.100.51.198.in-addr.arpa PTR mail.sender.example\n"
    "mail.sender.example A 198.51.100.7\n"
    "8.100.51.198.in-addr.arpa PTR bulk.sender.example\n"
    "bulk.sender.example A 198.51.100.8\n"
    "sender.example MX 10 mail.sender.example\n"
    "sender.example TXT \"v=spf1 ip4:198.51.100.0/24 -all\"\n"
    "customers.sender.example TXT \"v=spf1 ip4:203.0.113.9 -all\"\n"
    "wide.example MX 10 mail.sender.example\n"
    "wide.example TXT \"v=spf1 +all\"\n"
    "trouble.example ANY SERVFAIL\n"
    "9.100.51.198.bl.example A 127.0.0.2\n"
    "9.100.51.198.bl.example TXT \"spam source\"\n"
    "7.100.51.198.allow.example A 127.0.0.2\n"
    "listed.example.dbl.example A 127.0.1.2\n"
    "listed.example A 192.0.2.1\n";

struct World {
  test::TempDir directory;
  test::FakeClock clock;
  test::RecordingLog log;
  test::RecordingAlerts alerts;
  Metrics metrics;
  test::FakePrimaries primaries;
  test::ScriptedResolver resolver{zone};
  asio::io_context io{1};
  std::shared_ptr<config::Config> config = std::make_shared<config::Config>();
  test::MemoryStore* store = nullptr;
  std::unique_ptr<greylist::Greylister> greylister;
  std::unique_ptr<RecipientMemory> memory;
  std::shared_ptr<dnsbl::Lists> lists;
  std::unique_ptr<Pipeline> pipeline;
  std::unique_ptr<SessionChecks> session;
  Facts facts;
  int transactions = 0;

  World() {
    config->hostname = "mx2.example.com";
    config->domains.emplace_back().name = "example.com";
    config->domains[0].verify_recipients = false;
    config->access.trusted_networks = {*Network::parse("192.0.2.0/24")};
    config->greylist.mode = CheckMode::off;
    facts.helo = "mail.sender.example";
    facts.protocol = "ESMTP";
    facts.client.address = *IpAddress::parse("198.51.100.7");
    facts.sender = Mailbox::split("joe@sender.example");
  }
  ~World() { stop(); }
  void stop() {
    session.reset();
    if (pipeline) run(io, pipeline->stop());
    pipeline.reset();
    memory.reset();
    if (greylister) greylister->stop();
  }
  void from(std::string_view address) { facts.client = {.address = *IpAddress::parse(address)}; }
  void file(std::string& key, const std::string& name, std::string_view content) {
    key = test::write(directory, name, content);
  }
  void list(const std::string& name, int weight = 1) {
    auto& list = config->dnsbl.lists.emplace_back();
    list.zone = name;
    list.weight = weight;
    list.self_test = false;
  }
  void greylisting(CheckMode mode = CheckMode::reject) { config->greylist.mode = mode; }

  void start() {
    auto unowned = std::make_unique<test::MemoryStore>();
    store = unowned.get();
    greylister = std::make_unique<greylist::Greylister>(config, std::move(unowned), clock, log, metrics, alerts);
    auto opened = RecipientMemory::open(directory / "memory", primaries, clock, log, metrics, alerts);
    REQUIRE(opened);
    memory = std::move(*opened);
    const auto shared = shared_anew();
    const auto health =
        std::make_shared<dnsbl::Health>(config, clock, log, metrics, alerts, [] { return std::vector<IpAddress>(); });
    if (!config->dnsbl.lists.empty() || !config->dnsbl.domain_lists.empty()) {
      lists = std::make_shared<dnsbl::Lists>(config, resolver, health, log, metrics);
    }
    pipeline = std::make_unique<Pipeline>(io.get_executor(), shared, resolver);
    pipeline->update(shared, lists);
    connect();
  }
  std::shared_ptr<const Shared> shared_anew() {
    const Tables::Loaded tables = Tables::load(*config);
    REQUIRE(tables.tables);
    return std::make_shared<Shared>(
        Shared{config, tables.tables, memory.get(), greylister.get(), &primaries, &clock, &log, &metrics, &alerts});
  }
  void connect() {
    facts.client.trusted = contains(config->access.trusted_networks, facts.client.address);
    session = pipeline->begin(facts.client);
    facts.client.name = run(io, session->client_name());
  }
  void mail() {
    facts.instance = std::to_string(++transactions);
    session->mail(facts);
  }
  Verdict verdict(std::string_view recipient) {  // within the transaction
    return run(io, session->recipient(facts, Mailbox::split(recipient)));
  }
  Verdict rcpt(std::string_view recipient = "user@example.com") {  // in a transaction of its own
    if (!pipeline) start();
    mail();
    return verdict(recipient);
  }
  std::string reply(std::string_view recipient = "user@example.com") {
    const Verdict got = rcpt(recipient);
    return got.pass() ? "" : got.reply->to_string();
  }
  Verdict data(std::vector<Mailbox> recipients) { return run(io, session->data(facts, std::move(recipients))); }
  Explained explain(std::string_view recipient = "user@example.com") {
    if (!pipeline) start();
    return run(io, pipeline->explain(facts, Mailbox::split(recipient)));
  }
};

std::string names(const std::vector<Step>& steps) {
  std::string text;
  for (const Step& step : steps) text += step.check + "=" + step.result + " ";
  return text;
}

}  // namespace

TEST_CASE("a good client passes") {
  World world;
  const Verdict verdict = world.rcpt();
  CHECK(verdict.pass());
  CHECK(verdict.check.empty());
  CHECK(world.facts.client.name == "mail.sender.example");
}

TEST_CASE("relay control comes first and nothing overrides it") {
  World world;
  world.file(world.config->access.clients, "clients", "198.51.100.7 OK\n192.0.2.1 OK\n");
  world.file(world.config->access.recipients, "recipients", "example.org OK\n");
  CHECK(world.reply("a@example.org") == "554 5.7.1 <a@example.org>: Relay access denied");
  world.facts.helo = "-bad";
  const Verdict verdict = world.rcpt("a%example.org@example.com");
  CHECK(verdict.reply->to_string() == "554 5.7.1 <a%example.org@example.com>: Relay access denied");
  CHECK(verdict.check == "relay_control");
  CHECK(verdict.counts_as_error);
  world.from("192.0.2.1");
  world.connect();
  CHECK(world.facts.client.trusted);
  CHECK(world.reply("a@example.org") == "554 5.7.1 <a@example.org>: Relay access denied");
}

TEST_CASE("checks run in the order of relay.conf, each can warn or be off") {
  struct Row {
    const char* check;
    CheckMode config::Access::* mode;
    const char* reply;
  };
  const Row rows[] = {
      {"invalid_helo", &config::Access::invalid_helo, "501 5.5.2 <-bad>: Helo command rejected: Invalid name"},
      {"unauth_pipelining", &config::Access::unauth_pipelining,
       "503 5.5.0 <user@example.com>: Recipient address rejected: Improper use of SMTP command pipelining"},
      {"non_fqdn_sender", &config::Access::non_fqdn_sender,
       "504 5.5.2 <joe@absent>: Sender address rejected: need fully-qualified address"},
      {"unknown_sender_domain", &config::Access::unknown_sender_domain,
       "450 4.1.8 <joe@absent>: Sender address rejected: Domain not found"},
      {"early_talker", &config::Access::early_talker, "550 5.5.1 Protocol error"},
  };
  const auto guilty = [](World& world) {
    world.facts.helo = "-bad";
    world.facts.improper_pipelining = world.facts.early_talker = true;
    world.facts.sender = Mailbox::split("joe@absent");
  };
  {
    World world;
    guilty(world);
    for (const Row& row : rows) (*world.config).access.*row.mode = CheckMode::warn;
    const Verdict verdict = world.rcpt();
    CHECK(verdict.pass());
    REQUIRE(verdict.warnings.size() == std::size(rows));
    for (std::size_t i = 0; i < std::size(rows); ++i) CHECK(verdict.warnings[i].to_string() == rows[i].reply);
  }
  for (std::size_t first = 0; first < std::size(rows); ++first) {
    INFO(rows[first].check);
    World world;
    guilty(world);
    for (std::size_t i = 0; i < first; ++i) (*world.config).access.*rows[i].mode = CheckMode::off;
    const Verdict verdict = world.rcpt();
    REQUIRE(verdict.reply);
    CHECK(verdict.reply->to_string() == rows[first].reply);
    CHECK(verdict.check == rows[first].check);
    CHECK(verdict.warnings.empty());
    CHECK(verdict.counts_as_error == verdict.reply->permanent());
  }
  World world;
  guilty(world);
  for (const Row& row : rows) (*world.config).access.*row.mode = CheckMode::off;
  CHECK(world.reply() == "");
  CHECK(world.resolver.count("absent MX") == 0);
}

TEST_CASE("an access file may refuse any part, with its text and code") {
  World world;
  config::Access& access = world.config->access;
  world.file(access.clients, "clients", "198.51.100.8 REJECT\nunknown 450 4.7.25 cannot find your hostname\n");
  world.file(access.helo, "helo", "localhost 550 5.7.9 that is me\n");
  world.file(access.senders, "senders", "<> DUNNO\nbad@sender.example REJECT we know you\n");
  world.file(access.recipients, "recipients",
             "trap@ REJECT\nlater@example.com DEFER\ncode@example.com 551 5.1.6 moved\n");
  world.from("198.51.100.8");
  CHECK(world.reply() == "554 5.7.1 <bulk.sender.example[198.51.100.8]>: Client host rejected: Access denied");
  world.from("198.51.100.10");
  world.connect();
  const Verdict verdict = world.rcpt();
  CHECK(verdict.reply->to_string() ==
        "450 4.7.25 <unknown[198.51.100.10]>: Client host rejected: cannot find your hostname");
  CHECK(verdict.check == "access.clients");
  CHECK_FALSE(verdict.counts_as_error);
  world.from("198.51.100.7");
  world.connect();
  world.facts.helo = "localhost";
  CHECK(world.reply() == "550 5.7.9 <localhost>: Helo command rejected: that is me");
  world.facts.helo = "mail.sender.example";
  world.facts.sender = Mailbox::split("Bad@sender.example");
  CHECK(world.reply() == "554 5.7.1 <Bad@sender.example>: Sender address rejected: we know you");
  world.facts.sender = {};
  CHECK(world.reply() == "");
  CHECK(world.reply("\"trap\"@example.com") ==
        "554 5.7.1 <\"trap\"@example.com>: Recipient address rejected: Access denied");
  CHECK(world.reply("later@example.com") == "450 4.7.1 <later@example.com>: Recipient address rejected: Access denied");
  CHECK(world.reply("code@example.com") == "551 5.1.6 <code@example.com>: Recipient address rejected: moved");
}

TEST_CASE("OK skips the later files, checks, block lists and greylist, never recipient validity") {
  World world;
  world.list("bl.example");
  world.greylisting();
  world.from("198.51.100.9");
  world.facts.helo = "-bad";
  world.file(world.config->access.clients, "clients", "198.51.100.9 OK\n");
  world.file(world.config->access.senders, "senders", "sender.example REJECT\n");
  world.file(world.config->domains[0].recipients, "list", "user\n");
  CHECK(world.reply() == "");
  CHECK(world.store->records.empty());
  CHECK(world.reply("other@example.com") ==
        "550 5.1.1 <other@example.com>: Recipient address rejected: User unknown in relay recipient table");
}

TEST_CASE("bare Postmaster is always taken, postmaster@ and abuse@ from those who keep the rules") {
  World world;
  world.list("bl.example");
  world.greylisting();
  world.from("198.51.100.9");
  CHECK(world.reply("postmaster@example.com") == "");
  CHECK(world.reply("abuse@example.com") == "");
  world.facts.helo = "-bad";
  world.facts.sender = Mailbox::split("joe@absent");
  CHECK(world.reply("Postmaster") == "");
  CHECK(world.reply("postmaster@example.com") == "501 5.5.2 <-bad>: Helo command rejected: Invalid name");
  CHECK(world.reply("abuse@example.com") == "501 5.5.2 <-bad>: Helo command rejected: Invalid name");
}

TEST_CASE("trusted clients skip all but relay control and recipient validity") {
  World world;
  world.from("192.0.2.1");
  world.list("bl.example");
  world.greylisting();
  world.facts.helo = "-bad";
  world.facts.sender = Mailbox::split("joe@absent");
  world.file(world.config->access.clients, "clients", "192.0.2.1 REJECT\n");
  world.config->domains[0].verify_recipients = true;
  world.primaries.answers["user@example.com"] = Callout::accepted;
  CHECK(world.reply() == "");
  CHECK(world.reply("other@example.com") ==
        "550 5.1.1 <other@example.com>: Recipient address rejected: User unknown in relay recipient table");
  CHECK(world.resolver.count("1.2.0.192.bl.example A") == 0);
  CHECK(world.resolver.count("absent MX") == 0);
}

TEST_CASE("a remark, header, hold or discard of an access file comes with the verdict, a header once a message") {
  World world;
  world.file(world.config->access.senders, "senders", "/./ PREPEND X-Seen: yes\n");
  world.file(world.config->access.recipients, "recipients",
             "warn@example.com WARN look here\ninfo@example.com INFO\nhold@example.com HOLD\n"
             "hold2@example.com HOLD for review\ndiscard@example.com DISCARD\n");
  const auto remark = [&](const char* recipient) {
    const Verdict verdict = world.verdict(recipient);
    REQUIRE(verdict.pass());
    REQUIRE(verdict.remarks.size() == 1);
    return verdict.remarks[0].label + ": " + verdict.remarks[0].text;
  };
  CHECK(world.rcpt("warn@example.com").headers == std::vector<std::string>{"X-Seen: yes"});
  CHECK(remark("warn@example.com") == "warn: look here");
  CHECK(remark("info@example.com") == "info: ");
  CHECK(remark("hold@example.com") == "hold: <hold@example.com>: Recipient address triggers HOLD action");
  CHECK(remark("hold2@example.com") == "hold: <hold2@example.com>: Recipient address for review");
  CHECK(remark("discard@example.com") == "discard: <discard@example.com>: Recipient address triggers DISCARD action");
  CHECK(world.verdict("hold@example.com").hold);
  CHECK(world.verdict("discard@example.com").discard);
  CHECK(world.verdict("hold@example.com").headers.empty());
  CHECK(world.rcpt("hold@example.com").headers.size() == 1);
  world.facts.helo = "-bad";
  const Verdict refused = world.rcpt("hold@example.com");
  CHECK_FALSE(refused.pass());
  CHECK(refused.headers.empty());
  CHECK_FALSE(refused.hold);
}

TEST_CASE("temporary trouble counts only if nothing refuses later") {
  struct Row {
    const char* sender;     // trouble.example: DNS fails
    const char* recipient;  // what the access file says of it
    const char* client;     // .9 is listed
    const char* reply;
  };
  const Row rows[] = {
      {"joe@trouble.example", "user@example.com", "198.51.100.7",
       "450 4.1.8 <joe@trouble.example>: Sender address rejected: Domain not found"},
      {"joe@trouble.example", "user@example.com", "198.51.100.9",
       "554 5.7.1 Service unavailable; Client host [198.51.100.9] blocked using bl.example; spam source"},
      {"joe@sender.example", "soft@example.com", "198.51.100.7",
       "450 4.7.1 <soft@example.com>: Recipient address rejected: not now"},
      {"joe@trouble.example", "soft@example.com", "198.51.100.7",
       "450 4.7.1 <soft@example.com>: Recipient address rejected: not now"},
      {"joe@sender.example", "soft@example.com", "198.51.100.9",
       "554 5.7.1 Service unavailable; Client host [198.51.100.9] blocked using bl.example; spam source"},
      {"joe@trouble.example", "nobody@example.com", "198.51.100.7",
       "550 5.1.1 <nobody@example.com>: Recipient address rejected: User unknown in relay recipient table"},
      {"joe@trouble.example", "ok@example.com", "198.51.100.7", ""},
  };
  for (const Row& row : rows) {
    INFO(row.sender << " " << row.recipient << " " << row.client);
    World world;
    world.list("bl.example");
    world.file(world.config->access.recipients, "recipients",
               "soft@example.com DEFER_IF_PERMIT not now\nok@example.com OK\n");
    world.file(world.config->domains[0].recipients, "list", "user\nsoft\nok\n");
    world.facts.sender = Mailbox::split(row.sender);
    world.from(row.client);
    CHECK(world.reply(row.recipient) == row.reply);
  }
}

TEST_CASE("our own domains' DNS is never needed") {
  World world;
  world.facts.sender = Mailbox::split("boss@example.com");
  world.resolver.add("example.com ANY SERVFAIL\n");
  CHECK(world.reply() == "");
  CHECK(world.resolver.count("example.com MX") == 0);
  CHECK(world.resolver.count("example.com A") == 0);
}

TEST_CASE("block lists: asked once a session at connect, per domain, warn and off") {
  World world;
  world.list("bl.example");
  world.config->domains.emplace_back().name = "open.example";
  world.config->domains[1].dnsbl = world.config->domains[1].verify_recipients = false;
  world.from("198.51.100.9");
  world.start();
  CHECK(world.resolver.count("9.100.51.198.bl.example A") == 1);
  const Verdict verdict = world.rcpt();
  CHECK(verdict.reply->code == 554);
  CHECK(verdict.check == "dnsbl");
  CHECK(world.reply("user@open.example") == "");
  CHECK(world.reply("postmaster@example.com") == "");
  CHECK(world.reply("Postmaster") == "");
  CHECK(world.reply("abuse@example.com") == "");
  CHECK_FALSE(world.rcpt().pass());
  CHECK(world.resolver.count("9.100.51.198.bl.example A") == 1);
  world.stop();
  world.config->dnsbl.mode = CheckMode::warn;
  const Verdict warned = world.rcpt();
  CHECK(warned.pass());
  REQUIRE(warned.warnings.size() == 1);
  CHECK(warned.warnings[0].text.starts_with("Service unavailable; Client host [198.51.100.9] blocked using"));
  world.stop();
  world.config->dnsbl.mode = CheckMode::off;
  world.resolver.clear_asked();
  CHECK(world.reply() == "");
  CHECK(world.resolver.count("9.100.51.198.bl.example A") == 0);
}

TEST_CASE("domain lists see sender, HELO and client name") {
  World world;
  auto& list = world.config->dnsbl.domain_lists.emplace_back();
  list.zone = "dbl.example";
  list.self_test = false;
  world.facts.sender = Mailbox::split("joe@listed.example");
  CHECK(world.reply().starts_with(
      "554 5.7.1 Service unavailable; Sender address [joe@listed.example] blocked using dbl.example"));
  world.facts.sender = Mailbox::split("joe@sender.example");
  world.facts.helo = "listed.example";
  CHECK(world.reply().starts_with(
      "554 5.7.1 Service unavailable; Helo command [listed.example] blocked using dbl.example"));
  world.facts.helo = "mail.sender.example";
  CHECK(world.reply() == "");
  CHECK(world.resolver.count("mail.sender.example.dbl.example A") > 0);
}

TEST_CASE("greylisting: deferred, then passed with one header a message") {
  World world;
  world.greylisting();
  const Verdict verdict = world.rcpt();
  REQUIRE(verdict.reply);
  CHECK(verdict.reply->to_string() ==
        "450 4.2.0 <user@example.com>: Recipient address rejected: Greylisted, please try again later");
  CHECK(verdict.check == "greylist");
  CHECK_FALSE(verdict.counts_as_error);
  REQUIRE(verdict.notes.size() == 1);
  CHECK(verdict.notes[0].starts_with("action=greylist, reason=new, client_name=mail.sender.example"));
  world.rcpt("other@example.com");
  world.clock.advance(300s);
  const Verdict passed = world.rcpt();
  CHECK(passed.pass());
  REQUIRE(passed.headers.size() == 1);
  CHECK(passed.headers[0].starts_with("X-Greylist: delayed 300 seconds by "));
  CHECK(world.verdict("other@example.com").headers.empty());
}

TEST_CASE("not greylisted: postmaster, abuse, allow lists, the primary itself, domains and times that do without") {
  World world;
  world.greylisting();
  world.list("allow.example", -1);
  world.config->domains.emplace_back().name = "open.example";
  world.config->domains[1].greylist = world.config->domains[1].verify_recipients = false;
  CHECK(world.reply() == "");  // the allow list
  world.from("198.51.100.11");
  world.connect();
  CHECK(world.reply("postmaster@example.com") == "");
  CHECK(world.reply("Abuse@example.com") == "");
  CHECK(world.reply("user@open.example") == "");
  CHECK_FALSE(world.rcpt().pass());
  world.primaries.addresses.insert(world.facts.client.address);
  CHECK(world.reply() == "");
  world.primaries.addresses.clear();
  world.stop();
  world.config->greylist.primary_up_only = true;
  CHECK_FALSE(world.rcpt().pass());
  world.primaries.down.insert("example.com");
  CHECK(world.reply() == "");
}

TEST_CASE("greylist in warn mode says what it would have done") {
  World world;
  world.greylisting(CheckMode::warn);
  const Verdict verdict = world.rcpt();
  CHECK(verdict.pass());
  REQUIRE(verdict.warnings.size() == 1);
  CHECK(verdict.warnings[0].code == 450);
  CHECK(verdict.warnings[0].text.find("Greylisted") != std::string::npos);
}

TEST_CASE("the null sender is greylisted at DATA, so that a call back has its answer") {
  World world;
  world.greylisting();
  world.facts.sender = {};
  const std::vector<Mailbox> recipients{Mailbox::split("user@example.com")};
  CHECK(world.rcpt().pass());
  const Verdict verdict = world.data(recipients);
  REQUIRE(verdict.reply);
  CHECK(verdict.reply->to_string() ==
        "450 4.2.0 <user@example.com>: Recipient address rejected: Greylisted, please try again later");
  CHECK_FALSE(verdict.counts_as_error);
  CHECK(verdict.notes.size() == 1);
  world.clock.advance(300s);
  CHECK(world.rcpt().pass());
  CHECK(world.data({Mailbox::split("other@example.com")}).pass());
  const Verdict passed = world.data(recipients);
  CHECK(passed.pass());
  CHECK(passed.headers.size() == 1);
  CHECK(world.rcpt("postmaster@example.com").pass());
  CHECK(world.data({Mailbox::split("postmaster@example.com")}).pass());
}

TEST_CASE("all recipients of a null sender begin to wait at once") {
  World world;
  world.greylisting();
  world.facts.sender = {};
  const std::vector<Mailbox> recipients{Mailbox::split("user@example.com"), Mailbox::split("other@example.com")};
  const auto send = [&] {
    CHECK(world.rcpt("user@example.com").pass());
    CHECK(world.verdict("other@example.com").pass());
    CHECK(world.verdict("other@example.com").pass());
    return world.data(recipients);
  };
  const Verdict verdict = send();
  REQUIRE(verdict.reply);
  CHECK(verdict.reply->to_string().starts_with("450 4.2.0 <user@example.com>: "));
  CHECK(verdict.notes.size() == 2);
  CHECK(verdict.headers.empty());
  world.clock.advance(300s);
  const Verdict passed = send();
  CHECK(passed.pass());
  CHECK(passed.headers.size() == 1);
}

TEST_CASE("the greylist's header comes with the first recipient that is taken") {
  World world;
  world.greylisting();
  world.config->domains[0].verify_recipients = true;
  world.primaries.answers["user@example.com"] = Callout::accepted;
  world.primaries.answers["gone@example.com"] = Callout::refused;
  CHECK(world.rcpt("gone@example.com").reply->code == 450);
  CHECK(world.verdict("user@example.com").reply->code == 450);
  world.clock.advance(300s);
  CHECK(world.rcpt("gone@example.com").reply->code == 550);
  const Verdict passed = world.verdict("user@example.com");
  CHECK(passed.pass());
  CHECK(passed.headers.size() == 1);
}

TEST_CASE("improper pipelining after DATA is refused there") {
  World world;
  CHECK(world.rcpt().pass());
  world.facts.improper_pipelining = true;
  CHECK(world.data({Mailbox::split("user@example.com")}).reply->to_string() ==
        "503 5.5.0 <DATA>: Data command rejected: Improper use of SMTP command pipelining");
  world.stop();
  world.config->access.unauth_pipelining = CheckMode::warn;
  world.start();
  world.mail();
  const Verdict verdict = world.data({});
  CHECK(verdict.pass());
  CHECK(verdict.warnings.size() == 1);
}

TEST_CASE("a retry from another address of the sender's SPF pool passes; a record that passes everybody is none") {
  for (const char* sender : {"joe@sender.example", "joe@wide.example"}) {
    World world;
    world.greylisting();
    world.config->greylist.auto_whitelist_clients = 0;
    world.config->greylist.ipv4_prefix = 32;
    world.facts.sender = Mailbox::split(sender);
    world.from("198.51.100.20");
    CHECK_FALSE(world.rcpt().pass());
    world.clock.advance(300s);
    world.from("198.51.100.21");
    world.connect();
    CHECK(world.rcpt().pass() == (world.facts.sender.domain == "sender.example"));
  }
}

TEST_CASE("who may use the sender's domain: SPF, or a confirmed name in its organisation") {
  World world;
  world.start();
  const auto authorised = [&](const char* sender) {
    world.facts.sender = Mailbox::split(sender);
    world.mail();
    return run(world.io, world.session->authorised(world.facts));
  };
  CHECK(authorised("joe@sender.example") == Authorised::client_name);
  CHECK(authorised("joe@news.sender.example") == Authorised::client_name);
  CHECK(authorised("joe@customers.sender.example") == Authorised::no);  // SPF says fail
  CHECK(authorised("joe@wide.example") == Authorised::no);
  CHECK(authorised("joe@listed.example") == Authorised::no);
  CHECK(authorised("joe@trouble.example") == Authorised::unknown);
  CHECK(authorised("") == Authorised::no);
  world.from("198.51.100.22");
  world.connect();
  CHECK(authorised("joe@sender.example") == Authorised::spf);
  world.from("203.0.113.1");
  world.connect();
  CHECK(authorised("joe@sender.example") == Authorised::no);
}

TEST_CASE("where SPF decides nothing, nobody waits for it") {
  World world;
  SECTION("no report depends on it") {
    world.config->queue.bounce = config::BounceMode::never;
  }
  SECTION("there is no domain to ask") {
    world.greylisting();
    world.config->access.non_fqdn_sender = CheckMode::off;
    world.facts.sender = Mailbox::split("joe");
  }
  world.from("198.51.100.22");
  world.start();
  const auto begin = std::chrono::steady_clock::now();
  world.rcpt();
  world.clock.advance(300s);
  CHECK(world.rcpt().pass());
  CHECK(run(world.io, world.session->authorised(world.facts)) != Authorised::spf);
  CHECK(std::chrono::steady_clock::now() - begin < 5s);
}

TEST_CASE("the primary is asked only about those who passed everything, and for postmaster never") {
  World world;
  world.greylisting();
  world.config->domains[0].verify_recipients = true;
  world.primaries.answers["user@example.com"] = Callout::accepted;
  CHECK(world.rcpt().reply->code == 450);
  CHECK(world.primaries.asked.empty());
  world.clock.advance(300s);
  CHECK(world.rcpt().pass());
  CHECK_FALSE(world.primaries.asked.empty());
  world.primaries.asked.clear();
  CHECK(world.rcpt().pass());
  CHECK(world.reply("postmaster@example.com") == "");
  CHECK(world.primaries.asked.empty());
  world.memory->refused("gone@example.com");
  const Verdict known_bad = world.rcpt("gone@example.com");
  CHECK(known_bad.reply->to_string() ==
        "550 5.1.1 <gone@example.com>: Recipient address rejected: User unknown in relay recipient table");
  CHECK(known_bad.check == "verify_recipients");
  CHECK(known_bad.notes.empty());
  CHECK(world.primaries.asked.empty());
}

TEST_CASE("what the primary says decides; what it does not say is a later question") {
  World world;
  world.config->domains[0].verify_recipients = true;
  world.primaries.answers = {{"user@example.com", Callout::accepted}, {"odd@example.com", Callout::inconclusive}};
  CHECK(world.reply() == "");
  const Verdict refused = world.rcpt("nobody@example.com");
  CHECK(refused.reply->to_string() ==
        "550 5.1.1 <nobody@example.com>: Recipient address rejected: User unknown in relay recipient table");
  CHECK(refused.check == "callout");
  CHECK(world.reply("odd@example.com") ==
        "450 4.1.1 <odd@example.com>: Recipient address rejected: unverified address: the primary said so");
}

TEST_CASE("while the primary is down, the known are taken, the refused refused, the others as configured") {
  struct Row {
    config::UnknownWhileDown policy;
    const char* reply;
  };
  const Row rows[] = {
      {config::UnknownWhileDown::accept, ""},
      {config::UnknownWhileDown::defer,
       "450 4.1.1 <new@example.com>: Recipient address rejected: unverified address: the primary cannot be asked"},
      {config::UnknownWhileDown::reject,
       "550 5.1.1 <new@example.com>: Recipient address rejected: User unknown in relay recipient table"},
  };
  for (const Row& row : rows) {
    World world;
    world.config->domains[0].verify_recipients = true;
    world.config->domains[0].unknown_while_down = row.policy;
    world.primaries.down.insert("example.com");
    world.start();
    world.memory->accepted("known@example.com");
    world.memory->refused("gone@example.com");
    CHECK(world.reply("known@example.com") == "");
    CHECK(world.rcpt("gone@example.com").reply->code == 550);
    CHECK(world.reply("new@example.com") == row.reply);
    CHECK(world.primaries.asked.empty());
  }
}

TEST_CASE("while the primary is down, nobody is refused for what the memory cannot tell, or for its taking everybody") {
  World world;
  world.config->domains[0].verify_recipients = true;
  world.config->domains[0].unknown_while_down = config::UnknownWhileDown::reject;
  SECTION("a store in trouble") {
    const test::FullDisk full;
    world.start();
    world.primaries.down.insert("example.com");
    CHECK(world.reply("new@example.com") ==
          "450 4.1.1 <new@example.com>: Recipient address rejected: unverified address: the primary cannot be asked");
  }
  SECTION("a primary that takes everybody") {
    world.primaries.otherwise = Callout::accepted;
    CHECK(world.reply("one@example.com") == "");
    world.primaries.down.insert("example.com");
    CHECK(world.reply("two@example.com") == "");
  }
}

TEST_CASE("a primary that goes down while it is asked is believed for what it said long ago") {
  World world;
  world.config->domains[0].verify_recipients = true;
  world.config->domains[0].unknown_while_down = config::UnknownWhileDown::reject;
  world.primaries.answers["user@example.com"] = Callout::accepted;
  CHECK(world.reply() == "");
  world.clock.advance(32 * 24h);
  world.primaries.otherwise = world.primaries.answers["user@example.com"] = Callout::inconclusive;
  world.primaries.dies_when_asked = true;
  CHECK(world.reply() == "");
  CHECK(world.primaries.down.contains("example.com"));
  world.primaries.down.clear();
  CHECK(world.rcpt("new@example.com").check == "callout");
}

TEST_CASE("a listed client is told so although its recipient is deferred while the primary is down") {
  World world;
  world.list("bl.example");
  world.config->domains[0].verify_recipients = true;
  world.config->domains[0].unknown_while_down = config::UnknownWhileDown::defer;
  world.primaries.down.insert("example.com");
  world.from("198.51.100.9");
  CHECK(world.rcpt().reply->code == 554);
}

TEST_CASE("lookups are waited for together, and a session that is gone harms none of them") {
  World world;
  world.list("bl.example");
  world.resolver.delay("7.100.51.198.in-addr.arpa", 2s, world.clock);
  world.resolver.delay("7.100.51.198.bl.example", 3s, world.clock);
  world.resolver.delay("sender.example", 4s, world.clock);
  const auto shared_start = [&] {
    world.facts.client.name = "given.example";
    world.start();
    world.mail();
  };
  shared_start();
  bool done = false;
  const auto session = [](World& w, bool& ended) -> Task<> {
    const Verdict verdict = co_await w.session->recipient(w.facts, Mailbox::split("user@example.com"));
    ended = verdict.pass();
  };
  Gate gate(world.io.get_executor());
  gate.spawn("session", session(world, done));
  world.io.restart();
  world.io.poll();
  CHECK_FALSE(done);
  world.clock.advance(4s);  // the slowest, not the sum of 9 s
  world.resolver.tick();
  while (!done) world.io.restart(), world.io.run_one();
  run(world.io, gate.close());

  world.facts.client.name = "unknown";
  world.session = world.pipeline->begin(world.facts.client);
  world.facts.sender = Mailbox::split("other@sender.example");
  world.mail();
  world.io.restart();
  world.io.poll();
  world.session.reset();
  world.clock.advance(60s);
  world.resolver.tick();
  world.io.restart();
  world.io.poll();
  SUCCEED("nothing was touched after its end: the sanitizers would tell");
}

TEST_CASE("explain shows every check in order and stores nothing") {
  World world;
  world.greylisting();
  world.list("bl.example");
  world.config->domains[0].verify_recipients = true;
  const auto [steps, verdict] = world.explain();
  CHECK(names(steps) ==
        "client_name=pass relay_control=pass access.clients=skipped access.helo=skipped access.senders=skipped "
        "access.recipients=skipped invalid_helo=pass unauth_pipelining=pass non_fqdn_sender=pass "
        "unknown_sender_domain=pass non_fqdn_recipient=pass unknown_recipient_domain=pass early_talker=pass "
        "recipients=skipped verify_recipients=unknown dnsbl=pass greylist=defer callout=skipped ");
  CHECK(verdict.reply->code == 450);
  CHECK(world.store->records.empty());
  CHECK(world.primaries.asked.empty());
}

TEST_CASE("explain says why a client has no name") {
  World world;
  world.resolver.add(
      "10.100.51.198.in-addr.arpa PTR other.example\nother.example A 192.0.2.1\n"
      "11.100.51.198.in-addr.arpa ANY SERVFAIL\n");
  const auto why = [&](std::string_view address) {
    world.from(address);
    return world.explain().steps.front().detail;
  };
  CHECK(why("198.51.100.7") == "mail.sender.example");
  CHECK(why("198.51.100.10") == "unknown: other.example does not resolve to the address");
  CHECK(why("198.51.100.11") == "unknown: DNS failed or did not answer in time");
  CHECK(why("198.51.100.12") == "unknown: no PTR record");
}

TEST_CASE("explain goes on after the check that decides") {
  World world;
  world.list("bl.example");
  world.from("198.51.100.9");
  world.facts.helo = "-bad";
  world.file(world.config->access.senders, "senders", "# nobody\nsender.example DUNNO\n");
  const auto [steps, verdict] = world.explain();
  const std::string all = names(steps);
  CHECK(all.find("access.senders=pass invalid_helo") == std::string::npos);  // access.recipients lies between
  CHECK(all.find("invalid_helo=reject") != std::string::npos);
  CHECK(all.find("dnsbl=reject") != std::string::npos);
  CHECK(verdict.check == "invalid_helo");
  const auto find = [&](const std::string& name) {
    return *std::find_if(steps.begin(), steps.end(), [&](const Step& step) { return step.check == name; });
  };
  CHECK(find("access.senders").detail == "line 2");
  CHECK(find("unknown_sender_domain").detail == "MX mail.sender.example");
  CHECK(find("dnsbl").detail.find("bl.example: listed 127.0.0.2 +1") != std::string::npos);

  CHECK(names(world.explain("user@example.org").steps).find("relay_control=reject access.clients=skipped") !=
        std::string::npos);
  world.from("192.0.2.9");
  CHECK(names(world.explain().steps).find("invalid_helo=skipped") != std::string::npos);
}

TEST_CASE("a session keeps the configuration that it began with") {
  World world;
  world.start();
  auto changed = std::make_shared<config::Config>(*world.config);
  changed->domains[0].name = "example.org";
  world.config = changed;
  world.pipeline->update(world.shared_anew(), nullptr);
  CHECK(world.rcpt().pass());
  CHECK_FALSE(world.rcpt("user@example.org").pass());
  world.connect();
  CHECK_FALSE(world.rcpt().pass());
  CHECK(world.rcpt("user@example.org").pass());
}

TEST_CASE_METHOD(World, "of a crowd of clients a bounded number is looked up at once, and each in the end") {
  start();
  resolver.clear_asked();
  std::vector<std::unique_ptr<SessionChecks>> crowd;
  for (unsigned i = 0; i < 600; ++i) {
    const std::string reverse = fmt::format("9.{}.{}.203.in-addr.arpa", i % 256, i / 256);
    resolver.delay(reverse, 1s, clock);
    crowd.push_back(pipeline->begin({.address = *IpAddress::parse(fmt::format("203.{}.{}.9", i / 256, i % 256))}));
  }
  io.restart();
  io.poll();
  CHECK(resolver.asked().size() == 250);
  crowd[599].reset();  // it hung up while it waited for its turn
  for (int i = 0; i < 3; ++i) {
    clock.advance(1s);
    resolver.tick();
    io.restart();
    io.poll();
  }
  CHECK(resolver.asked().size() == 599);
  CHECK(run(io, crowd[598]->client_name()) == "unknown");
}

TEST_CASE_METHOD(World, "however many clients and slow names a network has, others have their turn") {
  start();
  resolver.clear_asked();
  std::vector<std::unique_ptr<SessionChecks>> crowd;
  for (unsigned i = 0; i < 600; ++i) {
    const unsigned network = i % 3, host = i / 3;
    resolver.delay(fmt::format("{}.{}.0.203.in-addr.arpa", host, network), 1s, clock);
    resolver.delay(fmt::format("slow{}.example", i), 1s, clock);
    Facts slow = facts;
    slow.client = {.address = *IpAddress::parse(fmt::format("203.0.{}.{}", network, host))};
    slow.sender = Mailbox::split(fmt::format("a@slow{}.example", i));
    crowd.push_back(pipeline->begin(slow.client));
    crowd.back()->mail(slow);
  }
  io.restart();
  io.poll();
  const auto asked = [&](std::string_view type) {
    return std::ranges::count_if(resolver.asked(), [&](const auto& question) { return question.ends_with(type); });
  };
  CHECK(asked("PTR") < 100);
  CHECK(asked("MX") < 100);
  from("198.51.100.8");
  connect();
  CHECK(facts.client.name == "bulk.sender.example");
  CHECK(rcpt().pass());
  for (int i = 0; i < 20; ++i) {
    clock.advance(1s);
    resolver.tick();
    io.restart();
    io.poll();
  }
  CHECK(asked("PTR") == 601);
}

TEST_CASE_METHOD(World, "a session that names many senders in a row has one looked up at a time, and the last") {
  list("bl.example");
  config->dnsbl.domain_lists.emplace_back().zone = "dbl.example";
  config->dnsbl.domain_lists.back().check_client = config->dnsbl.domain_lists.back().check_helo = false;
  start();
  resolver.clear_asked();
  for (int i = 0; i < 1000; ++i) {
    const std::string domain = fmt::format("slow{}.example", i);
    resolver.delay(domain, 5s, clock);
    resolver.delay(domain + ".dbl.example", 5s, clock);
    facts.sender = Mailbox::split("a@" + domain);
    mail();
    io.restart();
    io.poll();
  }
  CHECK(resolver.asked() == std::vector<std::string>{"slow0.example MX", "slow0.example.dbl.example A"});
  const auto settle = [&] {
    for (int i = 0; i < 4; ++i) {
      clock.advance(5s);
      resolver.tick();
      io.restart();
      io.poll();
    }
  };
  settle();
  CHECK(resolver.count("slow999.example MX") == 1);
  CHECK(resolver.count("slow999.example.dbl.example A") == 1);
  CHECK(resolver.count("slow1.example MX") + resolver.count("slow998.example MX") == 0);
  settle();
  facts.sender = Mailbox::split("joe@sender.example");
  CHECK(rcpt().pass());
}

TEST_CASE_METHOD(World, "a session that names many senders in a row has one SPF record evaluated at a time") {
  config->access.unknown_sender_domain = CheckMode::off;
  start();
  resolver.clear_asked();
  for (int i = 0; i < 100; ++i) {
    const std::string domain = fmt::format("slow{}.example", i);
    resolver.delay(domain, 5s, clock);
    facts.sender = Mailbox::split("a@" + domain);
    CHECK(rcpt("postmaster@example.com").pass());
    io.restart();
    io.poll();
  }
  CHECK(std::ranges::count_if(resolver.asked(), [](const auto& question) { return question.ends_with("TXT"); }) == 1);
}

TEST_CASE_METHOD(World, "a client's slow name does not hold up the lists of addresses") {
  list("bl.example");
  start();
  resolver.delay("9.100.51.198.in-addr.arpa", 60s, clock);
  resolver.clear_asked();
  session = pipeline->begin({.address = *IpAddress::parse("198.51.100.9")});
  io.restart();
  io.poll();
  CHECK(resolver.count("9.100.51.198.bl.example TXT") == 1);  // the whole score is known
  clock.advance(60s);
  resolver.tick();
  io.restart();
  io.poll();
}

TEST_CASE_METHOD(World, "many clients' slow names hold up nobody's list of addresses") {
  list("bl.example");
  config->dnsbl.domain_lists.emplace_back().zone = "dbl.example";
  start();
  std::vector<std::unique_ptr<SessionChecks>> crowd;
  for (unsigned i = 0; i < 300; ++i) {
    resolver.delay(fmt::format("{}.{}.0.203.in-addr.arpa", i % 256, i / 256), 60s, clock);
    crowd.push_back(pipeline->begin({.address = *IpAddress::parse(fmt::format("203.0.{}.{}", i / 256, i % 256))}));
  }
  from("198.51.100.9");
  session = pipeline->begin(facts.client);
  io.restart();
  io.poll();
  CHECK(resolver.count("9.100.51.198.bl.example A") == 1);
  for (int i = 0; i < 2; ++i) {
    clock.advance(60s);
    resolver.tick();
    io.restart();
    io.poll();
  }
}

TEST_CASE_METHOD(World, "a client's name is looked up in lists of domains, whoever told it") {
  config->dnsbl.domain_lists.emplace_back().zone = "dbl.example";
  resolver.add("12.100.51.198.in-addr.arpa PTR listed.example\nlisted.example A 198.51.100.12\n");
  const std::string refused = "554 5.7.1 Service unavailable; Client host [listed.example] blocked using dbl.example";
  from("198.51.100.12");
  CHECK(reply().starts_with(refused));
  from("198.51.100.13");
  facts.client.name = "listed.example";
  connect();
  CHECK(reply().starts_with(refused));
}

TEST_CASE_METHOD(World, "lists that were not asked in time are logged and counted, and count as not listed") {
  list("bl.example");
  resolver.delay("7.100.51.198.bl.example", 60s, clock);
  start();
  config->dns.timeout = 0s;  // as long as we wait
  CHECK(rcpt().pass());
  CHECK(
      log.contains("dnsbl: warning: mail.sender.example[198.51.100.7] passes for not listed: some lists were not "
                   "asked in time"));
  CHECK(metrics.value("dnsbl_lookups_total", {{"list", "all"}, {"result", "timeout"}}) == 1);

  resolver.delay("8.100.51.198.in-addr.arpa", 60s, clock);  // but no list asks for the name
  from("198.51.100.8");
  connect();
  CHECK(rcpt().pass());
  CHECK(metrics.value("dnsbl_lookups_total", {{"list", "all"}, {"result", "timeout"}}) == 1);
  clock.advance(60s);
  resolver.tick();
  io.restart();
  io.poll();
}

TEST_CASE_METHOD(World, "what is known of a client and a sender's domain serves the next for 5 s, not explain") {
  const std::vector<std::string> questions = {"7.100.51.198.in-addr.arpa PTR", "7.100.51.198.bl.example A",
                                              "sender.example MX"};
  const auto asked = [&] {
    std::vector<std::size_t> times;
    for (const std::string& one : questions) times.push_back(resolver.count(one));
    return times;
  };
  using Times = std::vector<std::size_t>;
  const auto again = [&] {
    from("198.51.100.7");
    connect();
  };
  list("bl.example");
  CHECK(rcpt().pass());
  CHECK(asked() == Times(3, 1));
  again();
  CHECK(facts.client.name == "mail.sender.example");
  CHECK(rcpt().pass());
  CHECK(asked() == Times(3, 1));
  from("198.51.100.7");
  explain();
  CHECK(asked() == Times(3, 2));
  clock.advance(5s);
  again();
  CHECK(rcpt().pass());
  CHECK(asked() == Times(3, 3));

  pipeline->update(shared_anew(), lists);
  again();
  CHECK(rcpt().pass());
  CHECK(asked() == Times(3, 4));
}

TEST_CASE_METHOD(World, "a name that XCLIENT told serves its own session only") {
  list("bl.example");
  facts.client.name = "told.example";
  CHECK(rcpt().pass());
  CHECK(facts.client.name == "told.example");
  from("198.51.100.7");
  connect();
  CHECK(facts.client.name == "mail.sender.example");
}

TEST_CASE_METHOD(World, "what is known of a client without its score serves only who wants none") {
  config->access.trusted_networks = {*Network::parse("198.51.100.9")};
  list("bl.example");
  start();
  from("198.51.100.9");
  connect();
  io.restart();
  io.poll();
  session = pipeline->begin({.address = facts.client.address});  // no longer trusted
  facts.client.trusted = false;
  CHECK(reply().starts_with("554 5.7.1 Service unavailable; Client host [198.51.100.9] blocked"));
}

TEST_CASE_METHOD(World, "what DNS failed to say of a client or sender is asked again by the next") {
  list("bl.example");
  resolver.add("10.100.51.198.in-addr.arpa ANY SERVFAIL\n7.100.51.198.bl.example ANY SERVFAIL\n");
  facts.sender.domain = "trouble.example";
  from("198.51.100.10");
  CHECK_FALSE(rcpt().pass());
  from("198.51.100.10");
  connect();
  CHECK_FALSE(rcpt().pass());
  CHECK(resolver.count("10.100.51.198.in-addr.arpa PTR") == 2);
  CHECK(resolver.count("trouble.example MX") == 2);
  for (int i = 0; i < 2; ++i) {
    from("198.51.100.7");
    connect();
    rcpt();
  }
  CHECK(resolver.count("7.100.51.198.bl.example A") == 2);
}

TEST_CASE_METHOD(World, "a lookup that began before a reload is not kept for the sessions after it") {
  start();
  from("198.51.100.8");
  resolver.delay("8.100.51.198.in-addr.arpa", 1s, clock);
  const auto before = pipeline->begin(facts.client);
  io.restart();
  io.poll();
  pipeline->update(shared_anew(), lists);
  clock.advance(1s);
  resolver.tick();
  io.restart();
  io.poll();
  CHECK(run(io, before->client_name()) == "bulk.sender.example");
  const auto after = pipeline->begin(facts.client);
  io.restart();
  io.poll();
  CHECK(resolver.count("8.100.51.198.in-addr.arpa PTR") == 2);
}

#include "greylist/greylister.hpp"

#include <filesystem>

#include "base/files.hpp"
#include "greylist/store.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/late_series.hpp"
#include "support/memory_store.hpp"
#include "support/recording_alerts.hpp"
#include "support/recording_log.hpp"
#include "support/run.hpp"

using namespace greymx;
using namespace greymx::greylist;
using namespace std::chrono_literals;

namespace {

// An engine over records in memory, at the time of the documented vectors.
struct Fixture {
  explicit Fixture(const std::function<void(config::Config&)>& change = {}) {
    configuration.hostname = "mx2.example.net";
    if (change) change(configuration);
    greylister.emplace(std::make_shared<const config::Config>(configuration), std::move(owned), clock, log, metrics,
                       alerts);
  }
  ~Fixture() { CHECK(test::late_series(metrics, "greymx_greylist_decisions_total").empty()); }
  Answer check(Request request) { return test::run(greylister->check(std::move(request))); }
  double decisions(const std::string& verdict, const std::string& reason) const {
    return metrics.value("greylist_decisions_total", {{"verdict", verdict}, {"reason", reason}});
  }

  config::Config configuration;
  test::FakeClock clock{WallTime(1800000000s)};
  test::RecordingLog log;
  test::RecordingAlerts alerts;
  Metrics metrics;
  std::unique_ptr<test::MemoryStore> owned = std::make_unique<test::MemoryStore>();
  test::MemoryStore& store = *owned;
  std::optional<Greylister> greylister;
};

Request mail(std::string client = "192.0.2.77", std::string sender = "Bob+x@Ex.com",
             std::string recipient = "User+ext@Dom.ORG") {
  return {.client = IpAddress::parse(client).value(),
          .client_name = "mail.ex.com",
          .sender = std::move(sender),
          .recipient = std::move(recipient),
          .helo = "mail.ex.com",
          .queue_id = {},
          .instance = "i1",
          .spf_domain = {},
          .test_time = {}};
}

}  // namespace

TEST_CASE("the documented course of one mail") {
  Fixture f([](config::Config& config) { config.greylist.sender_pools = false; });
  Answer answer = f.check(mail());
  CHECK(answer.action == Action::defer);
  CHECK(answer.reason == "new");
  CHECK(answer.text == "Greylisted, please try again later");
  CHECK(answer.header.empty());
  CHECK(answer.log_line ==
        "action=greylist, reason=new, client_name=mail.ex.com, client_address=192.0.2.77, sender=Bob+x@Ex.com, "
        "recipient=User+ext@Dom.ORG");

  f.clock.advance(100s);
  answer = f.check(mail());
  CHECK(answer.reason == "early-retry (200s missing)");

  f.clock.advance(200s);
  answer = f.check(mail());
  CHECK(answer.action == Action::pass);
  CHECK(answer.header.starts_with("X-Greylist: delayed 300 seconds by greymx-"));
  CHECK(answer.header.find(" at mx2.example.net; Fri, 15 Jan 2027 ") != std::string::npos);
  CHECK(answer.log_line ==
        "action=pass, reason=triplet found, delay=300, client_name=mail.ex.com, client_address=192.0.2.77, "
        "sender=Bob+x@Ex.com, recipient=User+ext@Dom.ORG");

  f.clock.advance(1s);
  answer = f.check(mail());
  CHECK(answer.action == Action::pass);
  CHECK(answer.header.empty());
  CHECK(f.check(mail("192.0.2.2")).action == Action::pass);
  CHECK(f.store.records.at("192.0.2.0/bob@ex.com/user+ext@dom.org").first == 1800000000);
  CHECK(f.store.records.at("awl/192.0.2.77").passes == 1);
  CHECK(f.decisions("greylist", "new") == 1);
  CHECK(f.decisions("greylist", "early-retry") == 1);
  CHECK(f.decisions("pass", "triplet found") == 3);
  const std::string metrics = f.metrics.text();  // the first retry is the one that came too early
  CHECK(metrics.find("greymx_greylist_first_retry_seconds_count 1\n") != std::string::npos);
  CHECK(metrics.find("greymx_greylist_first_retry_seconds_sum 100\n") != std::string::npos);
  CHECK(metrics.find("greymx_greylist_first_retry_seconds_bucket{le=\"30\"} 0\n") != std::string::npos);
}

TEST_CASE("a message gets one header, however many of its recipients waited") {
  Fixture f;
  Request first = mail(), second = mail();
  second.recipient = "other@dom.org";
  f.check(first);
  f.check(second);
  f.clock.advance(300s);
  CHECK_FALSE(f.check(first).header.empty());
  const Answer answer = f.check(second);
  CHECK(answer.header.empty());
  CHECK(answer.log_line.find("delay=") == std::string::npos);
  Fixture without([](config::Config& config) { config.greylist.header = false; });
  without.check(first);
  without.clock.advance(300s);
  CHECK(without.check(first).header.empty());
}

TEST_CASE("empty attributes are left out of the log line and odd bytes made safe") {
  Fixture f;
  Request request = mail("192.0.2.77", "", "a@b\n.c");
  request.client_name = "";
  CHECK(f.check(request).log_line == "action=greylist, reason=new, client_address=192.0.2.77, recipient=a@b?.c");
}

TEST_CASE("the text tells seconds and domain where it is asked to, the first time") {
  Fixture f([](config::Config& config) { config.greylist.text = "wait %s s, see %r (%s, %r)"; });
  CHECK(f.check(mail()).text == "wait 300 s, see Dom.ORG (%s, %r)");
  CHECK(f.check(mail("192.0.2.77", "a@b.c", "Postmaster1")).text == "wait 300 s, see Postmaster1 (%s, %r)");
}

TEST_CASE("postmaster and abuse are never greylisted") {
  Fixture f;
  for (const char* recipient : {"Postmaster", "postmaster@dom.org", "ABUSE@dom.org", "abuse+x@dom.org"}) {
    const Answer answer = f.check(mail("192.0.2.77", "a@b.c", recipient));
    CHECK(answer.reason == "recipient whitelist");
  }
  CHECK(f.store.records.empty());
  CHECK(f.check(mail("192.0.2.77", "a@b.c", "postmasters@dom.org")).reason == "new");
}

TEST_CASE("whitelist files are asked first, clients before recipients, and reread as a whole") {
  const std::filesystem::path directory =
      std::filesystem::temp_directory_path() / ("greylister." + std::to_string(getpid()));
  std::filesystem::create_directory(directory);
  const std::string clients = directory / "clients", recipients = directory / "recipients";
  REQUIRE(replace_file(clients, "ex.com\nbad line\n").has_value());
  REQUIRE(replace_file(recipients, "dom.org\n").has_value());
  Fixture f([&](config::Config& config) {
    config.greylist.whitelist_clients = {clients};
    config.greylist.whitelist_recipients = {recipients};
    config.greylist.whitelists_are_default = false;
  });
  CHECK(f.log.contains("greylist: warning: " + clients + ":2: "));
  CHECK(f.check(mail()).reason == "client whitelist");
  Request request = mail();
  request.client_name = "unknown";
  CHECK(f.check(request).reason == "recipient whitelist");

  REQUIRE(replace_file(clients, "other.example\na b\n").has_value());
  std::filesystem::remove(recipients);
  std::vector<std::string> left_out;
  const std::vector<std::string> problems = f.greylister->reload(f.greylister->config(), left_out);
  CHECK((problems.size() == 1 && problems[0].find(recipients) != std::string::npos));
  CHECK((left_out.size() == 1 && left_out[0].starts_with(clients + ":2: ")));
  CHECK(f.check(mail()).reason == "recipient whitelist");  // a list that cannot be read stays as it was
  CHECK(f.log.contains("the list read before stays in use"));
  CHECK(f.alerts.contains("greylist whitelist cannot be read"));
  std::filesystem::remove_all(directory);
}

TEST_CASE("pass and expect entries count until they end") {
  Fixture f;
  const Stamp end = 1800000000 + 900;
  REQUIRE(test::run(f.store.merge({{"pass/192.0.2.0/24", Record{.last = end}},
                                   {"pass/ann@sender.example", Record{}},
                                   {"pass/partner.example", Record{}},
                                   {"expect/user@dom.org", Record{.last = end}}}))
              .has_value());
  CHECK(f.check(mail()).reason == "pass entry");
  CHECK(f.check(mail("198.51.100.1")).reason == "expected");
  CHECK(f.check(mail("198.51.100.1", "Ann@Sender.example", "x@dom.org")).reason == "pass entry");
  CHECK(f.check(mail("198.51.100.1", "someone@sub.partner.example", "x@dom.org")).reason == "pass entry");
  CHECK(f.check(mail("198.51.100.1", "someone@else.example", "x@dom.org")).reason == "new");
  f.clock.advance(900s);
  CHECK(f.check(mail()).reason == "new");
  CHECK(f.check(mail("198.51.100.1")).reason == "new");
  CHECK(f.check(mail("198.51.100.1", "Ann@Sender.example", "x@dom.org")).reason == "pass entry");
}

TEST_CASE("a store that fails lets mail through, counts it and says so once a minute") {
  Fixture f;
  f.store.broken = true;
  for (int i = 0; i < 3; ++i) {
    const Answer answer = f.check(mail());
    CHECK(answer.action == Action::pass);
    CHECK(answer.reason == "store error");
  }
  CHECK(f.log.count("no answer from the store (the store is broken): 1 let through") == 1);
  CHECK(f.log.count("no answer from the store") == 1);
  CHECK(f.decisions("pass", "store error") == 3);
  Fixture strict([](config::Config& config) { config.greylist.defer_on_error = true; });
  strict.store.broken = true;
  CHECK(strict.check(mail()).action == Action::defer);
}

TEST_CASE("in warn mode everything passes, is told apart, and is remembered") {
  Fixture f([](config::Config& config) { config.greylist.mode = config::CheckMode::warn; });
  Answer answer = f.check(mail());
  CHECK(answer.action == Action::pass);
  CHECK(answer.would_defer);
  CHECK(answer.text == "Greylisted, please try again later");
  CHECK(answer.log_line.starts_with("action=pass, reason=dry-run would greylist, client_name="));
  CHECK(f.decisions("pass", "dry-run") == 1);
  f.clock.advance(300s);
  answer = f.check(mail());
  CHECK_FALSE(answer.would_defer);
  CHECK(answer.reason == "triplet found");
  CHECK(answer.header.empty());  // nobody waited
  CHECK(answer.log_line.find("delay=") == std::string::npos);
  Fixture off([](config::Config& config) { config.greylist.mode = config::CheckMode::off; });
  CHECK(off.check(mail()).action == Action::pass);
  CHECK(off.store.records.empty());
}

TEST_CASE("explaining stores, counts and logs nothing") {
  Fixture f;
  Request request = mail();
  request.dry_run = true;
  const Answer answer = f.check(request);
  CHECK(answer.action == Action::defer);
  CHECK(answer.reason == "new");
  CHECK(f.store.records.empty());
  CHECK(f.log.lines().empty());
  CHECK(f.decisions("greylist", "new") == 0);
}

TEST_CASE("the system clock may step back: nobody waits longer, and it is said") {
  Fixture f;
  f.check(mail());
  f.clock.advance(200s);
  f.clock.set(f.clock.now() - 3600s);
  CHECK(f.check(mail()).reason == "early-retry (100s missing)");
  CHECK(f.log.contains("the system clock stepped back by 1h"));
  f.clock.advance(100s);
  CHECK(f.check(mail()).action == Action::pass);
  f.clock.set(f.clock.now() + 3600s);  // and is set right again
  f.check(mail("192.0.2.77", "new@sender.example"));
  CHECK(f.store.records.at("192.0.2.0/new@sender.example/user+ext@dom.org").first == 1800000300);
}

TEST_CASE("a clock that was years ahead and is set right dates no record years ahead") {
  Fixture f;
  const WallTime right = f.clock.now();
  f.clock.set(right + std::chrono::years(5));
  f.check(mail());
  f.clock.set(right);
  f.check(mail("192.0.2.77", "new@sender.example"));
  CHECK(f.store.records.at("192.0.2.0/new@sender.example/user+ext@dom.org").first == 1800000000 + 48 * 3600);
  f.clock.advance(300s);
  const Answer answer = f.check(mail("192.0.2.77", "new@sender.example"));
  CHECK(answer.action == Action::pass);
  CHECK(answer.header.ends_with(rfc5322_date(right + 300s)));
}

TEST_CASE("a client that earned it is whitelisted, and the log says so") {
  Fixture f;
  for (int i = 0; i < 5; ++i) {
    const Request request = mail("192.0.2.77", "s" + std::string(i + 1, 'x') + "@ex.com");
    f.check(request);
    f.clock.advance(4000s);
    f.check(request);
  }
  CHECK(f.log.count("greylist: whitelisted: mail.ex.com[192.0.2.77]") == 1);
  CHECK(f.check(mail("192.0.2.77", "another@ex.com")).reason == "client AWL");
}

TEST_CASE("a retry from another address of the sender's pool passes") {
  Fixture f;
  Request request = mail("192.0.2.77");
  request.client_name = "unknown";
  request.spf_domain = "ex.com";
  f.check(request);
  f.clock.advance(300s);
  request.client = *IpAddress::parse("198.51.100.9");
  CHECK(Fixture(f.configuration.greylist.sender_pools ? std::function<void(config::Config&)>() : nullptr)
            .check(request)
            .action == Action::defer);
  CHECK(f.check(request).action == Action::pass);
  Request by_name = mail("203.0.113.1", "carol@ex.com");
  f.check(by_name);
  f.clock.advance(300s);
  by_name.client = *IpAddress::parse("198.51.100.10");
  CHECK(f.check(by_name).action == Action::pass);
  by_name.client_name = "unknown";
  by_name.client = *IpAddress::parse("198.51.101.10");
  CHECK(f.check(by_name).action == Action::defer);
}

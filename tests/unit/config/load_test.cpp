#include "config/reader.hpp"

#include <algorithm>

#include "base/files.hpp"
#include "base/mailbox.hpp"
#include "support/catch.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;
using namespace greymx::config;
using namespace std::chrono_literals;

namespace {

const std::string minimal =
    "hostname = \"mx2.example.net\"\n"
    "[domains.\"example.com\"]\n"
    "primary = [\"mx1.example.com\"]\n";

Loaded read(const std::string& text) {
  return parse(text, "/etc/greymx/relay.conf");
}

Config good(const std::string& text) {
  const Loaded loaded = read(text);
  for (const Diagnostic& error : loaded.errors) UNSCOPED_INFO(error.to_string());
  REQUIRE(loaded.config);
  return *loaded.config;
}

Config with(const std::string& lines) {
  return good(minimal + lines);
}

std::string all_errors(const Loaded& loaded) {
  std::string text;
  for (const Diagnostic& error : loaded.errors) text += error.to_string() + "\n";
  return text;
}

}  // namespace

TEST_CASE("a file with errors still tells where the daemon is") {
  const std::string control = "[listen]\ncontrol = \"/run/mx/control\"\n";
  CHECK(read(minimal).control == "/run/greymx/control");
  CHECK(read(minimal + control).control == "/run/mx/control");
  CHECK(read(minimal + "[smtp]\nbaner = 1\n").control == "/run/greymx/control");
  CHECK(read(minimal + "[smtp]\nbanner = ESMTP\n").control == "/run/greymx/control");
  CHECK(read(minimal + control + "[smtp]\nbanner = ESMTP\n").control == "/run/mx/control");
  CHECK(read(minimal + "[listen]\ncontrol = 5\n").control.empty());
  CHECK(read(minimal + "[listen]\ncontrol = /run/mx/control\n").control.empty());
  CHECK(load("/no/such/file").control.empty());
}

TEST_CASE("three lines are enough, and everything else has its default") {
  const Config c = good(minimal);
  CHECK(c.file == "/etc/greymx/relay.conf");
  CHECK(c.hostname == "mx2.example.net");
  CHECK(c.user == "greymx");
  CHECK(c.group == "greymx");
  CHECK(c.workers == 0);
  CHECK(c.shutdown_grace == 30s);
  REQUIRE(c.listen.smtp.size() == 2);
  CHECK(c.listen.smtp[0].endpoint.to_string() == "[::]:25");
  CHECK(c.listen.smtp[1].endpoint.to_string() == "0.0.0.0:25");
  CHECK_FALSE(c.listen.smtp[0].proxy_protocol);
  CHECK(c.listen.policy.empty());
  REQUIRE(c.listen.http.size() == 1);
  CHECK(c.listen.http[0].to_string() == "127.0.0.1:8025");
  CHECK(c.listen.control == "/run/greymx/control");
  CHECK(c.queue_path == "/var/spool/greymx");
  CHECK(c.state_path == "/var/lib/greymx");
  REQUIRE(c.domains.size() == 1);
  const Domain& d = c.domains[0];
  CHECK(d.name == "example.com");
  CHECK_FALSE(d.wildcard);
  CHECK(d.primary == std::vector<HostPort>{{"mx1.example.com", 25}});
  CHECK(d.recipients.empty());
  CHECK(d.verify_recipients);
  CHECK(d.unknown_while_down == UnknownWhileDown::accept);
  CHECK(d.greylist);
  CHECK(d.dnsbl);
  CHECK(d.tls == TlsLevel::may);
  CHECK(d.xforward);
  CHECK(d.fingerprint.empty());
  CHECK_FALSE(c.smtp.reject_bare_lf);
  CHECK(c.smtp.banner == "ESMTP greymx");
  CHECK(c.limits.connections == 10000);
  CHECK(c.limits.connections_per_client == 20);
  CHECK(c.limits.rate_per_client == Rate{60, 60s});
  CHECK(c.limits.data_rate_min == Rate{1024, 1s});
  CHECK(c.limits.message_size == 50ULL << 20);
  CHECK(c.limits.recipients_per_message == 1000);
  CHECK(c.limits.errors == 20);
  CHECK(c.limits.min_free_space == 256ULL << 20);
  CHECK(c.limits.buffer_memory == 64ULL << 20);
  CHECK(c.limits.command_timeout == 300s);
  CHECK(c.limits.data_timeout == 300s);
  CHECK(c.tls.certificate.empty());
  CHECK(c.tls.key.empty());
  CHECK(c.tls.inbound == TlsLevel::may);
  REQUIRE(c.access.trusted_networks.size() == 2);
  CHECK(c.access.trusted_networks[0].to_string() == "127.0.0.0/8");
  CHECK(c.access.trusted_networks[1].to_string() == "::1/128");
  CHECK(c.access.proxy_networks.empty());
  CHECK((c.access.clients + c.access.helo + c.access.senders + c.access.recipients).empty());
  for (const CheckMode mode :
       {c.access.invalid_helo, c.access.unauth_pipelining, c.access.non_fqdn_sender, c.access.unknown_sender_domain,
        c.access.non_fqdn_recipient, c.access.unknown_recipient_domain, c.access.early_talker}) {
    CHECK(mode == CheckMode::reject);
  }
  CHECK(c.access.early_talker_wait == 0s);
  CHECK(c.dns.servers.empty());
  CHECK(c.dns.timeout == 5s);
  CHECK(c.dns.attempts == 2);
  CHECK(c.dns.cache_size == 100000);
  CHECK(c.dnsbl == Dnsbl{CheckMode::reject, 1, 1h, {}, {}});
  const Greylist& g = c.greylist;
  CHECK(g.mode == CheckMode::reject);
  CHECK(g.store == "bdb");
  CHECK(g.delay == 5min);
  CHECK(g.retry_window == 48h);
  CHECK(g.max_age == 35 * 24h);
  CHECK(g.auto_whitelist_clients == 5);
  CHECK_FALSE(g.defer_on_error);
  CHECK(g.ipv4_prefix == 24);
  CHECK(g.ipv6_prefix == 64);
  CHECK_FALSE(g.lookup_by_host);
  CHECK(g.whitelist_clients == std::vector<std::string>{"/etc/greymx/whitelist_clients"});
  CHECK(g.whitelist_recipients == std::vector<std::string>{"/etc/greymx/whitelist_recipients"});
  CHECK(g.whitelists_are_default);
  CHECK(g.sender_pools);
  CHECK(g.text == "Greylisted, please try again later");
  CHECK(g.header);
  CHECK_FALSE(g.primary_up_only);
  CHECK(c.queue == Queue{1min, 1h, 14 * 24h, 30 * 24h, 5 * 24h, 0s, BounceMode::verified, false});
  CHECK(c.delivery.concurrency == 20);
  CHECK(c.delivery.concurrency_start == 2);
  CHECK(c.delivery.mx_port == 25);
  CHECK_FALSE(c.delivery.private_targets);
  CHECK(c.delivery.probe_interval == 30s);
  CHECK(c.delivery.messages_per_connection == 100);
  CHECK_FALSE(c.delivery.smarthost);
  CHECK(c.delivery.connect_timeout == 30s);
  CHECK(c.alerts_to.empty());
  CHECK(c.log == LogSettings{"stderr", "greymx", false, Level::info, "mx2.example.net"});
}

TEST_CASE("the defaults of domains and lists are those in the table of keys") {
  const auto spelt = [](const std::vector<Key>& keys) {
    std::string lines;
    for (const Key& key : keys) {
      if (!key.default_text.empty()) lines += key.name + " = " + key.default_text + "\n";
    }
    return lines;
  };
  const std::string start = "hostname = \"mx2.example.net\"\n[domains.\"example.com\"]\n";
  const std::string list = "[[dnsbl.lists]]\nzone = \"a.test\"\n";
  const std::string domain_list = "[[dnsbl.domain_lists]]\nzone = \"b.test\"\n";
  const Config c =
      good(start + spelt(domain_keys()) + list + spelt(list_keys()) + domain_list + spelt(domain_list_keys()));
  CHECK(c == good(start + list + domain_list));
}

TEST_CASE("every value is read") {
  const Config c = good(R"(
hostname = "MX9.Example.NET"
user = "mail"
group = "mail"
workers = 3
shutdown_grace = "1m30s"
[listen]
smtp = ["127.0.0.1:2525", { address = "[::1]:2526", proxy_protocol = true }]
policy = ["127.0.0.1:10023", "unix:policy.sock"]
http = []
control = "run/control"
[paths]
queue = "/srv/queue"
state = "../state"
[domains."example.com"]
primary = ["mx1.example.com:2525", "[2001:db8::1]:26", "192.0.2.1"]
recipients = "valid"
verify_recipients = false
unknown_while_down = "defer"
greylist = false
dnsbl = false
tls = "verify"
xforward = false
fingerprint = "AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA"
[domains."*.bücher.example"]
[smtp]
bare_lf = "reject"
banner = "ESMTP"
[limits]
rate_per_client = "5/1h"
data_rate_min = "0B/1s"
message_size = "1KiB"
[tls]
certificate = "cert.pem"
key = "/k.pem"
inbound = "encrypt"
[access]
trusted_networks = []
proxy_networks = ["192.0.2.0/24", "2001:db8::1"]
senders = "senders"
invalid_helo = "warn"
early_talker = "off"
early_talker_wait = "2s"
[dns]
servers = ["127.0.0.1", "[::1]:5353"]
[dnsbl]
mode = "warn"
threshold = 3
[[dnsbl.lists]]
zone = "ZEN.example.org."
replies = ["127.0.0.[2..11]"]
weight = -2
self_test = false
reason = "no"
[[dnsbl.domain_lists]]
zone = "dbl.example.org"
check = ["helo"]
[greylist]
on_error = "defer"
when = "primary-up"
whitelist_clients = ["a", "/b"]
[queue]
bounce = "never"
[delivery]
smarthost = "smtp.example.net:587"
[alerts]
to = ["admin@example.org"]
[log]
target = "logs/mail.log"
tag = "postfix-greymx"
format = "json"
level = "error"
)");
  CHECK(c.hostname == "mx9.example.net");
  CHECK(c.user == "mail");
  CHECK(c.workers == 3);
  CHECK(c.shutdown_grace == 90s);
  CHECK(c.listen.smtp[1].endpoint.to_string() == "[::1]:2526");
  CHECK(c.listen.smtp[1].proxy_protocol);
  CHECK(c.listen.policy[0].endpoint.to_string() == "127.0.0.1:10023");
  CHECK(c.listen.policy[1].unix_path == "/etc/greymx/policy.sock");
  CHECK(c.listen.http.empty());
  CHECK(c.listen.control == "/etc/greymx/run/control");
  CHECK(c.queue_path == "/srv/queue");
  CHECK(c.state_path == "/etc/state");
  const Domain& d = c.domains[0];
  CHECK(d.primary == std::vector<HostPort>{{"mx1.example.com", 2525}, {"2001:db8::1", 26}, {"192.0.2.1", 25}});
  CHECK(d.recipients == "/etc/greymx/valid");
  CHECK_FALSE(d.verify_recipients);
  CHECK(d.unknown_while_down == UnknownWhileDown::defer);
  CHECK_FALSE(d.greylist);
  CHECK_FALSE(d.dnsbl);
  CHECK(d.tls == TlsLevel::verify);
  CHECK_FALSE(d.xforward);
  CHECK(d.fingerprint == std::string(64, 'a'));
  CHECK(c.domains[1].name == "xn--bcher-kva.example");
  CHECK(c.domains[1].wildcard);
  CHECK(c.smtp.reject_bare_lf);
  CHECK(c.smtp.banner == "ESMTP");
  CHECK(c.limits.rate_per_client == Rate{5, 1h});
  CHECK(c.limits.data_rate_min.count == 0);
  CHECK(c.limits.message_size == 1024);
  CHECK(c.tls == Tls{"/etc/greymx/cert.pem", "/k.pem", TlsLevel::encrypt});
  CHECK(c.access.trusted_networks.empty());
  CHECK(c.access.proxy_networks[1].to_string() == "2001:db8::1/128");
  CHECK(c.access.senders == "/etc/greymx/senders");
  CHECK(c.access.invalid_helo == CheckMode::warn);
  CHECK(c.access.early_talker == CheckMode::off);
  CHECK(c.access.early_talker_wait == 2s);
  CHECK(c.dns.servers[0].to_string() == "127.0.0.1:53");
  CHECK(c.dns.servers[1].to_string() == "[::1]:5353");
  CHECK(c.dnsbl.mode == CheckMode::warn);
  CHECK(c.dnsbl.threshold == 3);
  CHECK(c.dnsbl.lists[0] ==
        DnsblList{"zen.example.org", {*Pattern::parse("127.0.0.[2..11]")}, -2, false, "no", true, true, true});
  CHECK(c.dnsbl.domain_lists[0] == DnsblList{"dbl.example.org", {}, 1, true, "", false, true, false});
  CHECK(c.greylist.defer_on_error);
  CHECK(c.greylist.primary_up_only);
  CHECK(c.greylist.whitelist_clients == std::vector<std::string>{"/etc/greymx/a", "/b"});
  CHECK(c.queue.bounce == BounceMode::never);
  CHECK(c.delivery.smarthost == HostPort{"smtp.example.net", 587});
  CHECK(c.alerts_to == std::vector<std::string>{"admin@example.org"});
  CHECK(c.log == LogSettings{"/etc/greymx/logs/mail.log", "postfix-greymx", true, Level::error, "mx9.example.net"});
  CHECK(with("[log]\nlevel = \"debug\"\n").log.level == Level::info);
}

TEST_CASE("alerts go to addresses that every smarthost takes") {
  const Config c = with("[alerts]\nto = [\"Admin@BÜCHER.example\", \"ops@Example.ORG.\"]\n");
  CHECK(c.alerts_to == std::vector<std::string>{"Admin@xn--bcher-kva.example", "ops@example.org"});
}

TEST_CASE("domains keep the order of the file, whatever their names") {
  const Config c = good(
      "hostname = "
      "\"mx2.example.net\"\n[domains.\"z.example\"]\n[domains.\"a.example\"]\n[domains.\"m.example\"]\n[queue]\n");
  REQUIRE(c.domains.size() == 3);
  CHECK(c.domains[0].name == "z.example");
  CHECK(c.domains[1].name == "a.example");
  CHECK(c.domains[2].name == "m.example");
}

TEST_CASE("the exact domain is found before the longest wildcard") {
  const Config c = good(
      "hostname = "
      "\"mx2.example.net\"\n[domains.\"*.example.com\"]\n[domains.\"*.b.example.com\"]\n[domains.\"a.example.com\"]\n"
      "[domains.\"bücher.example\"]\n");
  const auto found = [&](std::string_view name) -> std::string {
    const Domain* domain = c.find_domain(name);
    return domain == nullptr ? "" : (domain->wildcard ? "*." : "") + domain->name;
  };
  CHECK(found("A.Example.Com") == "a.example.com");
  CHECK(found("a.example.com.") == "a.example.com");
  CHECK(found("x.example.com") == "*.example.com");
  CHECK(found("x.y.example.com") == "*.example.com");
  CHECK(found("x.b.example.com") == "*.b.example.com");
  CHECK(found("b.example.com") == "*.example.com");
  CHECK(found("BÜCHER.example") == "xn--bcher-kva.example");
  CHECK(found("example.com").empty());
  CHECK(found("badexample.com").empty());
  CHECK(found("example.org").empty());
  CHECK(found("").empty());
  CHECK(found("[192.0.2.1]").empty());
  CHECK(found("a.example.com.evil.example").empty());
}

TEST_CASE("each mistake is told with its place and what would be right") {
  struct Row {
    const char* text;
    const char* error;  // without the file
  };
  const Row rows[] = {
      // unknown keys
      {"hostnme = \"x\"", "1:1: hostnme: unknown key; did you mean \"hostname\"?"},
      {"[limit]", "1:2: limit: unknown key; did you mean \"limits\"?"},
      {"[limits]\nconections = 1", "2:1: limits.conections: unknown key; did you mean \"connections\"?"},
      {"[limits]\nretry_min = \"1m\"", "2:1: limits.retry_min: unknown key; did you mean \"queue.retry_min\"?"},
      {"[dnsbl]\nlist = []", "2:1: dnsbl.list: unknown key; did you mean \"lists\"?"},
      {"[dnsbl]\nzone = \"bl.test\"", "2:1: dnsbl.zone: unknown key; did you mean \"[[dnsbl.lists]]\"?"},
      {"[tls]\nxyz = 1", "2:1: tls.xyz: unknown key; known here are certificate, inbound, key"},
      {"[domains.\"a.example\"]\nprimry = []",
       "2:1: domains.\"a.example\".primry: unknown key; did you mean \"primary\"?"},
      {"[domains.\"a.example\"]\nxyz = []",
       "2:1: domains.\"a.example\".xyz: unknown key; known here are dnsbl, fingerprint, greylist, "},
      {"[[dnsbl.lists]]\nzone = \"a.test\"\nwieght = 1",
       "3:1: dnsbl.lists.wieght: unknown key; did you mean \"weight\"?"},
      {"domain = 1", "1:1: domain: unknown key; did you mean \"domains\"?"},
      // wrong types
      {"hostname = 5", "1:12: hostname: expected a full host name, such as \"mx2.example.net\", found the integer 5"},
      {"workers = \"2\"", "1:11: workers: expected a whole number, such as 100, found the string \"2\""},
      {"workers = 1.5", "1:11: workers: expected a whole number, such as 100, found the number 1.5"},
      {"limits = 5", "1:10: limits: expected a table, such as [limits], found the integer 5"},
      {"[greylist]\nheader = \"yes\"",
       "2:10: greylist.header: expected a boolean, such as true, found the string \"yes\""},
      {"[greylist]\ndelay = 300",
       "2:9: greylist.delay: expected a duration with its unit, such as \"300s\", found the integer 300"},
      {"[greylist]\ndelay = true",
       "2:9: greylist.delay: expected a duration, such as \"1h30m\", found the boolean true"},
      {"[limits]\nmessage_size = 50",
       "2:16: limits.message_size: expected a size with its unit, such as \"50B\", found the integer 50"},
      {"[listen]\nsmtp = \"0.0.0.0:25\"",
       "2:8: listen.smtp: expected a list, such as [\"0.0.0.0:25\"], found the string \"0.0.0.0:25\""},
      {"[listen]\nhttp = [8025]",
       "2:9: listen.http: expected an address with its port, such as \"0.0.0.0:25\", found the integer 8025"},
      {"[tls]\nkey = []", "2:7: tls.key: expected a path, such as \"/var/lib/greymx\", found a list"},
      {"shutdown_grace = 2026-11-23",
       "1:18: shutdown_grace: expected a duration, such as \"1h30m\", found a date or time"},
      {"domains = []", "1:11: domains: expected a table, such as [domains.\"example.com\"], found a list"},
      {"[domains]\n\"a.example\" = \"mx1\"",
       "2:15: domains.\"a.example\": expected a table, such as [domains.\"example.com\"], found the string \"mx1\""},
      {"[dnsbl]\nlists = [\"zen.example.org\"]",
       "2:10: dnsbl.lists: expected a table, such as { zone = \"zen.spamhaus.org\" }, found the string"},
      {"[dnsbl.lists]\nzone = \"x\"",
       "1:1: dnsbl.lists: expected a list of tables, such as [[dnsbl.lists]], found a table"},
      {"[access]\ninvalid_helo = true",
       "2:16: access.invalid_helo: expected one of \"reject\" | \"warn\" | \"off\", such as \"reject\", found the "
       "boolean true"},
      // values that are none
      {"hostname = \"mx2\"", "1:12: hostname: \"mx2\" is not a full host name; write for example \"mx2.example.net\""},
      {"hostname = \"192.0.2.1\"", "1:12: hostname: \"192.0.2.1\" is not a full host name"},
      {"user = \"\"", "1:8: user: \"\" is not an account's name"},
      {"[greylist]\ndelay = \"5 minutes\"",
       "2:9: greylist.delay: \"5 minutes\" is not a duration; write for example \"1h30m\""},
      {"[limits]\nmessage_size = \"50MB\"",
       "2:16: limits.message_size: \"50MB\" is not a size; write for example \"50MiB\""},
      {"[limits]\nrate_per_client = \"60\"",
       "2:19: limits.rate_per_client: \"60\" is not a rate; write for example \"60/1m\""},
      {"[limits]\ndata_rate_min = \"1/1s\"",
       "2:17: limits.data_rate_min: \"1/1s\" is not a rate of bytes; write for example \"1KiB/1s\""},
      {"[listen]\nsmtp = [\"25\"]",
       "2:9: listen.smtp: \"25\" is not an address with its port; write for example \"0.0.0.0:25\""},
      {"[listen]\nsmtp = [\"localhost:25\"]", "2:9: listen.smtp: \"localhost:25\" is not an address with its port"},
      {"[listen]\nsmtp = [{ proxy_protocol = true }]",
       "2:9: listen.smtp: address is missing; write for example { address = \"0.0.0.0:25\""},
      {"[listen]\nsmtp = [{ address = \"0.0.0.0:25\", prxy = 1 }]",
       "2:42: listen.smtp: unknown key \"prxy\"; known are \"address\" and \"proxy_protocol\""},
      {"[listen]\nsmtp = [\"0.0.0.0:0\"]", "2:9: listen.smtp: \"0.0.0.0:0\" is not an address with its port"},
      {"[listen]\ncontrol = \"\"",
       "2:11: listen.control: must not be empty; write for example \"/run/greymx/control\""},
      {"[listen]\npolicy = [\"unix:\"]", "2:11: listen.policy: \"unix:\" is not an address with its port"},
      {"[access]\ntrusted_networks = [\"10.0.0.1/8\"]",
       "2:21: access.trusted_networks: \"10.0.0.1/8\" is not a network without host bits"},
      {"[access]\nearly_talker = \"rejekt\"",
       "2:16: access.early_talker: \"rejekt\" is not one of \"reject\" | \"warn\" | \"off\"; did you mean \"reject\"?"},
      {"[smtp]\nbare_lf = \"keep\"", "2:11: smtp.bare_lf: \"keep\" is not one of \"normalize\" | \"reject\""},
      {"[smtp]\nbanner = \"a\\nb\"", "2:10: smtp.banner: control characters"},
      {"[smtp]\nbanner = \"Grüße\"", "2:10: smtp.banner: \"Grüße\" is not a text of at most 400 ASCII characters"},
      {"[dns]\nservers = [\"ns.example.net\"]",
       "2:12: dns.servers: \"ns.example.net\" is not an address with an optional port; write for example "
       "\"127.0.0.1:53\""},
      {"[greylist]\nstore = \"redis\"",
       "2:9: greylist.store: \"redis\" is not a store that exists yet; write for example \"bdb\""},
      {"[delivery]\nsmarthost = \"a b\"", "2:13: delivery.smarthost: \"a b\" is not a host with an optional port"},
      {"[alerts]\nto = [\"admin\"]",
       "2:7: alerts.to: \"admin\" is not a mail address; write for example \"postmaster@example.com\""},
      {"[alerts]\nto = [\"<a@example.com>\"]", "2:7: alerts.to: \"<a@example.com>\" is not a mail address"},
      {"[log]\ntarget = \"sylog\"",
       "2:10: log.target: \"sylog\" is not \"stderr\" | \"syslog\" | \"journal\" | path (with a \"/\"); did you mean "
       "\"syslog\"?"},
      {"[log]\ntag = \"a b\"", "2:7: log.tag: \"a b\" is not a word of letters, digits"},
      {"[log]\nlevel = \"verbose\"",
       "2:9: log.level: \"verbose\" is not one of \"debug\" | \"info\" | \"warning\" | \"error\""},
      {"[domains.\"a b\"]", "1:10: domains.\"a b\": not a domain name; write for example [domains.\"example.com\"]"},
      {"[domains.\"192.0.2.1\"]", "1:10: domains.\"192.0.2.1\": not a domain name"},
      {"[domains.\"*\"]", "1:10: domains.\"*\": not a domain name"},
      {"[domains.example.com]\nprimary = []",
       "1:10: domains.\"example\": the dots of a domain need quotes: [domains.\"example.com\"]"},
      {"[domains.mx.example.com]",
       "1:10: domains.\"mx\": the dots of a domain need quotes: [domains.\"mx.example.com\"]"},
      {"[domains.\"a.example\"]\nprimary = { host = \"mx1.example.com\" }",
       "2:11: domains.\"a.example\".primary: expected a list, such as [\"mx1.example.com\"], found a table"},
      {"[domains.\"a.example\"]\nprimary = [\"2001:db8::1\"]",
       "2:12: domains.\"a.example\".primary: \"2001:db8::1\" is not a host with an optional port"},
      {"[domains.\"a.example\"]\nfingerprint = \"ab\"",
       "2:15: domains.\"a.example\".fingerprint: \"ab\" is not a SHA-256 fingerprint of 64 hex digits"},
      {"[[dnsbl.lists]]\nweight = 1",
       "1:1: dnsbl.lists: zone is missing; write for example zone = \"zen.spamhaus.org\""},
      {"[[dnsbl.lists]]\nzone = \"a b\"", "2:8: dnsbl.lists.zone: \"a b\" is not a DNS zone"},
      {"[[dnsbl.lists]]\nzone = \"a.test\"\nreplies = [\"127.0.0.300\"]",
       "3:12: dnsbl.lists.replies: \"127.0.0.300\" is not a reply pattern (in 127.0.0.0/8, not of error codes alone); "
       "write for example \"127.0.0.[2..11]\""},
      {"[[dnsbl.lists]]\nzone = \"a.test\"\nreplies = [\"10.0.0.1\"]",
       "3:12: dnsbl.lists.replies: \"10.0.0.1\" is not"},
      {"[[dnsbl.domain_lists]]\nzone = \"a.test\"\ncheck = []",
       "3:9: dnsbl.domain_lists.check: must not be empty; write for example [\"sender\", \"helo\"]"},
      {"[[dnsbl.domain_lists]]\nzone = \"a.test\"\ncheck = [\"sendr\"]",
       "3:10: dnsbl.domain_lists.check: \"sendr\" is not one of \"sender\" | \"helo\" | \"client\"; did you mean "
       "\"sender\"?"},
      // bounds
      {"workers = 257", "1:11: workers: 257 is out of range; allowed are 0 to 256"},
      {"workers = -1", "1:11: workers: -1 is out of range; allowed are 0 to 256"},
      {"shutdown_grace = \"2h\"", "1:18: shutdown_grace: 2h is out of range; allowed are 0s to 1h"},
      {"shutdown_grace = \"100000d\"", "1:18: shutdown_grace: 100000d is out of range; allowed are 0s to 1h"},
      {"shutdown_grace = \"3601s\"", "1:18: shutdown_grace: 3601s is out of range; allowed are 0s to 1h"},
      {"[limits]\nmessage_size = \"17GiB\"",
       "2:16: limits.message_size: 17GiB is out of range; allowed are 1KiB to 16GiB"},
      {"[greylist]\nipv4_prefix = 33", "2:15: greylist.ipv4_prefix: 33 is out of range; allowed are 1 to 32"},
      {"[delivery]\nmx_port = 65536", "2:11: delivery.mx_port: 65536 is out of range; allowed are 1 to 65535"},
      // combinations
      {"[queue]\nretry_min = \"2h\"", "2:13: queue.retry_min: 2h is longer than queue.retry_max (1h)"},
      {"[queue]\nretry_max = \"30s\"", "2:13: queue.retry_min: 1m is longer than queue.retry_max (30s)"},
      {"[queue]\nlifetime = \"31d\"", "2:12: queue.lifetime: 31d is longer than queue.lifetime_max (30d)"},
      {"[queue]\ndelay_warning = \"15d\"", "2:17: queue.delay_warning: 15d is longer than queue.lifetime (14d)"},
      {"[greylist]\nretry_window = \"5m\"",
       "2:16: greylist.delay: 5m is not shorter than greylist.retry_window (5m), so no retry could ever pass"},
      {"[greylist]\nmax_age = \"1d\"", "2:11: greylist.retry_window: 2d is longer than greylist.max_age (1d)"},
      {"[delivery]\nconcurrency = 1", "2:15: delivery.concurrency_start: 2 is more than delivery.concurrency (1)"},
      {"[domains.\"x.example\"]\nprimary = [\"mx.x.example\"]\ntls = \"none\"\nfingerprint = \""
       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
       "4:15: domains.\"x.example\".fingerprint: tls = \"none\" looks at no certificate"},
      {"[tls]\ncertificate = \"c\"", "2:15: tls.certificate: tls.key, the certificate's private key, is missing"},
      {"[tls]\nkey = \"k\"", "2:7: tls.key: tls.certificate, the key's certificate, is missing"},
      {"[tls]\ninbound = \"encrypt\"", "2:11: tls.inbound: \"encrypt\" without tls.certificate would refuse all mail"},
      {"[limits]\nrate_per_client = \"0/1m\"", "2:19: limits.rate_per_client: 0 would refuse every client"},
      {"[listen]\nsmtp = [\"0.0.0.0:25\", \"0.0.0.0:25\"]",
       "2:8: listen.smtp: 0.0.0.0:25 is listened on twice; keep one of them"},
      {"[listen]\nsmtp = [\"127.0.0.1:8025\"]", "1:1: listen.http: 127.0.0.1:8025 is listened on twice"},
      {"[listen]\nsmtp = [{ address = \"0.0.0.0:25\", proxy_protocol = true }]",
       "2:8: listen.smtp: proxy_protocol needs the proxy's address in access.proxy_networks, which is empty"},
      {"[paths]\nqueue = \"\"", "2:9: paths.queue: must not be empty; write for example \"/var/spool/greymx\""},
      {"[greylist]\nwhitelist_clients = [\"\"]", "2:22: greylist.whitelist_clients: must not be empty"},
      {"[listen]\ncontrol = \"/"
       "012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"
       "1\"",
       "2:11: listen.control: the path of a socket must be shorter than 108 bytes"},
      {"[domains.\"a.example\"]\n[domains.\"A.example\"]",
       "2:10: domains.\"A.example\": this domain stands here twice; keep one of them"},
      {"[[dnsbl.lists]]\nzone = \"a.test\"\n[[dnsbl.lists]]\nzone = \"A.test.\"",
       "3:1: dnsbl.lists: zone \"a.test\" stands here twice; keep one of them"},
      // TOML
      {"hostname = mx2.example.net", "1:12: TOML: value: could not determine value type; texts need quotes"},
      {"[greylist]\ndelay = 5m",
       "2:10: TOML: decimal integer: expected digit, saw 'm'; durations, sizes and addresses need quotes, for example "
       "\"5m\""},
      {"[listen]\nhttp = [0.0.0.0:25]",
       "2:12: TOML: floating-point: expected decimal digit or exponent, saw '.'; durations, sizes and addresses need "
       "quotes"},
      {"[greylist]\nheader = True", "2:10: TOML: boolean: expected 'true', saw 'T'; write true or false"},
      {"user = \"greymx",
       "1:15: TOML: string: unescaped control characters other than TAB (U+0009) are explicitly prohibited; is the "
       "closing quote missing?"},
      {"user = \"a\"\nuser = \"b\"",
       "2:8: TOML: key-value pair: cannot redefine existing string 'user'; it stands here twice"},
      {"[limits]\n[limits]", "2:1: TOML: table header: cannot redefine existing table 'limits'; it stands here twice"},
      {"[domains.\"b.test\"]\n[domains.\"b.test\"]",
       "2:1: TOML: table header: cannot redefine existing table 'domains.\"b.test\"'; it stands here twice"},
      {"['limits']\n [ 'limits' ] # [c]",
       "2:2: TOML: table header: cannot redefine existing table ''limits''; it stands here twice"},
      {"[domains.\"b.test\"]\n[[domains.\"b.test\"]]",
       "2:1: TOML: table header: cannot redefine existing table 'domains.\"b.test\"' as array-of-tables; it stands"},
      {"workers", "1:8: TOML: key-value pair: expected '='"},
      {"# ü\nuser = \"\\\"ü\" # ü\ngroup = '\\' # ü\nü = 1",
       "4:1: TOML: root table: expected keys, tables, whitespace or comments, saw 'ü'"},
      {"user = \"\"\"ü\\\"\"\"\"\ngroup = '''ü''' ü",
       "2:17: TOML: key-value pair: expected a comment or whitespace, saw 'ü'"},
      {"user = \"a\"\n[log]\n#\x1b[2J", "3:2: TOML: comment: control characters other than TAB"},
      {"[log]\n [[[dnsbl.lists]]]\nzone = 1",
       "2:4: TOML: key: expected bare key starting character or string delimiter, saw '['"},
      {"[log]\n[,", "2:2: TOML: key: expected bare key starting character or string delimiter, saw ','"},
      {"user = \"\xff\"", "1:8: TOML: Encountered invalid utf-8 sequence; the file must be UTF-8"},
  };
  for (const Row& row : rows) {
    const std::string own_domain = "\n[domains.\"last.example\"]\n";
    const bool whole = std::string_view(row.text).find("domains") == std::string_view::npos;
    const Loaded loaded = read(row.text + (whole ? own_domain : "\n"));
    INFO(row.text);
    INFO(all_errors(loaded));
    REQUIRE(loaded.errors.size() == 1);
    CHECK_FALSE(loaded.config);
    CHECK(loaded.errors[0].to_string().starts_with(std::string("/etc/greymx/relay.conf:") + row.error));
  }
}

TEST_CASE("all mistakes are told at once, TOML's own included, in the order of the file") {
  const Loaded loaded = read(
      "user = 3\n"
      "hostname = mx2\n"
      "workers = = 2\n"
      "[limits\n"
      "errors = 5\n"
      "[queue]\n"
      "retry_min = \"x\"\n"
      "retry_mix = 1\n"
      "smtp = [\n"
      "  \"a\"\n"
      "  \"b\"\n"
      "]\n"
      "[log]\n"
      "tag = 'x\n"
      "level = \"loud\"\n");
  INFO(all_errors(loaded));
  std::vector<std::size_t> lines;
  for (const Diagnostic& error : loaded.errors) lines.push_back(error.line);
  CHECK(lines == std::vector<std::size_t>{1, 2, 3, 4, 7, 8, 9, 11, 14, 15});
}

TEST_CASE("a bracket that is never closed is one mistake, not many") {
  const Loaded loaded = read("[listen]\nsmtp = [\n\"0.0.0.0:25\",\nhttp = []\ncontrol = \"x\"\n[limits]\nerrors = 5\n");
  INFO(all_errors(loaded));
  REQUIRE(loaded.errors.size() == 1);
  CHECK(loaded.errors[0].line == 4);
}

TEST_CASE("a mistake does not make others that follow from it") {
  const Loaded loaded = read("[queue]\nretry_max = \"oops\"\nretry_min = \"5h\"\n[domains.\"a.example\"]\n");
  INFO(all_errors(loaded));
  REQUIRE(loaded.errors.size() == 1);
  CHECK(loaded.errors[0].line == 2);
}

TEST_CASE("without a domain there is nothing to do, and an example is given") {
  const Loaded loaded = read("hostname = \"mx2.example.net\"\n");
  REQUIRE(loaded.errors.size() == 1);
  CHECK(loaded.errors[0].text ==
        "there is no domain to relay for; add for example [domains.\"example.com\"] and below it primary = "
        "[\"mx1.example.com\"]");
  CHECK(read("hostname = \"mx2.example.net\"\n[domains]\n").errors.size() == 1);
}

TEST_CASE("without hostname it is the system's full name, or an error that names the remedy") {
  const Loaded loaded = read("[domains.\"example.com\"]\n");
  if (loaded.config) {
    CHECK(is_hostname(loaded.config->hostname, 2));
  } else {
    REQUIRE(loaded.errors.size() == 1);
    CHECK(loaded.errors[0].text.find("write for example hostname = \"mx2.example.net\"") != std::string::npos);
  }
}

TEST_CASE("fewer recipients than RFC 5321 asks for is a warning") {
  const Loaded loaded = read(minimal + "[limits]\nrecipients_per_message = 50\n");
  CHECK(loaded.config);
  REQUIRE(loaded.warnings.size() == 1);
  CHECK(loaded.warnings[0].to_string() ==
        "/etc/greymx/relay.conf:5:26: limits.recipients_per_message: RFC 5321 4.5.3.1.8 asks for at least 100");
}

TEST_CASE("the default whitelists may be absent, even if they are written out") {
  const test::TempDir dir;
  const std::string text = minimal +
                           "[greylist]\nwhitelist_clients = [\"whitelist_clients\"]\nwhitelist_recipients = [\"" +
                           (dir / "whitelist_recipients") + "\"]\n";
  const Loaded loaded = parse(text, dir / "relay.conf");
  REQUIRE(loaded.config);
  CHECK(loaded.config->greylist.whitelists_are_default);
  CHECK(loaded.config->greylist.whitelist_clients == std::vector<std::string>{dir / "whitelist_clients"});
}

TEST_CASE("a default whitelist beside a named one counts only if it is there") {
  const test::TempDir dir;
  const std::string text = minimal + "[greylist]\nwhitelist_recipients = [\"mine\"]\n";
  Loaded loaded = parse(text, dir / "relay.conf");
  REQUIRE(loaded.config);
  CHECK_FALSE(loaded.config->greylist.whitelists_are_default);
  CHECK(loaded.config->greylist.whitelist_clients.empty());
  CHECK(loaded.config->greylist.whitelist_recipients == std::vector<std::string>{dir / "mine"});
  REQUIRE(replace_file(dir / "whitelist_clients", ""));
  loaded = parse(text, dir / "relay.conf");
  CHECK(loaded.config->greylist.whitelist_clients == std::vector<std::string>{dir / "whitelist_clients"});
}

TEST_CASE("files are read, and files that cannot be are told apart") {
  const test::TempDir dir;
  REQUIRE(replace_file(dir / "relay.conf", minimal));
  const Loaded loaded = load(dir / "relay.conf");
  REQUIRE(loaded.config);
  CHECK(loaded.config->file == dir / "relay.conf");
  CHECK(load(dir / "none").errors[0].to_string() ==
        (dir / "none") + ": not found; name the configuration with -c FILE");
  CHECK(load(dir.path()).errors[0].text.starts_with("cannot be read (read "));
}

TEST_CASE("text from the file cannot steer the terminal that shows the error") {
  const Loaded loaded = read(minimal + "\"\\u001b[2J\" = 1\n[smtp]\nbare_lf = \"\\u001b[2J\"\n");
  REQUIRE(loaded.errors.size() == 2);
  for (const Diagnostic& error : loaded.errors) CHECK(error.to_string().find('\x1b') == std::string::npos);
}

TEST_CASE("what needs a restart is named, and nothing else") {
  const Config running = with("");
  CHECK(needs_restart(running, with("")).empty());
  const std::pair<const char*, const char*> rows[] = {
      {"[listen]\nsmtp = []", "listen.smtp"},
      {"[listen]\nsmtp = [{ address = \"[::]:25\" }, \"0.0.0.0:26\"]", "listen.smtp"},
      {"[listen]\npolicy = [\"unix:/x\"]", "listen.policy"},
      {"[listen]\nhttp = []", "listen.http"},
      {"[listen]\ncontrol = \"/x\"", "listen.control"},
      {"[paths]\nqueue = \"/x\"", "paths.queue"},
      {"[paths]\nstate = \"/x\"", "paths.state"},
  };
  for (const auto& [lines, name] : rows) CHECK(needs_restart(running, with(lines)) == std::vector<std::string>{name});
  const Config other = good("user = \"u\"\ngroup = \"g\"\nworkers = 7\n" + minimal);
  CHECK(needs_restart(running, other) == std::vector<std::string>{"user", "group", "workers"});
  Config store = running;
  store.greylist.store = "other";
  CHECK(needs_restart(running, store) == std::vector<std::string>{"greylist.store"});
  CHECK(needs_restart(running, with("[limits]\nerrors = 3\n[log]\ntag = \"x\"\n[domains.\"b.example\"]")).empty());
}

TEST_CASE("what is wrong with a file is said where the configuration names it") {
  const Loaded loaded = read("group = \"g\"\n" + minimal +
                             "recipients = \"lists/users\"\n[tls]\nkey = \"/etc/key\"\ncertificate = \"c\"\n"
                             "[paths]\nqueue = \"/q\"\n[greylist]\nwhitelist_clients = [\"/a\", \"/b\"]\n"
                             "whitelist_recipients = [\"/b\"]\n"
                             "[domains.\"z.example\"]\nrecipients = \"lists/users\"\n");
  REQUIRE(loaded.config);
  const auto about = [&](const std::string& text) { return loaded.about(text).to_string(); };
  CHECK(about("open /etc/greymx/lists/users: No such file or directory") ==
        "/etc/greymx/relay.conf:5:14: open /etc/greymx/lists/users: No such file or directory");
  CHECK(about("/etc/key: no key") == "/etc/greymx/relay.conf:7:7: /etc/key: no key");
  CHECK(about("hostname \"x\" is odd") == "/etc/greymx/relay.conf:2:12: hostname \"x\" is odd");
  const auto is_at = [&](const char* place, const std::string& text) {
    CHECK(about(text) == fmt::format("/etc/greymx/relay.conf:{}: {}", place, text));
  };
  is_at("1:1", "user \"greymx\" does not exist: make it (--home /q )");
  is_at("1:9", "group \"g\" does not exist: make it (--home /q )");
  is_at("12:28", "greylist.whitelist_clients: open /b: No such file or directory");
  is_at("13:25", "greylist.whitelist_recipients: open /b: No such file or directory");
  is_at("12:21", "greylist.whitelist_clients: too large");
  is_at("15:14", "domains.\"z.example\".recipients: /etc/greymx/lists/users: No such file or directory");
  is_at("5:14", "domains.\"example.com\".recipients: /etc/greymx/lists/users: No such file or directory");
}

#include "admin/check.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <unistd.h>

#include "admin/views.hpp"
#include "base/account.hpp"
#include "base/files.hpp"
#include "base/mailbox.hpp"
#include "base/metrics.hpp"
#include "base/sockets.hpp"
#include "dns/ares_resolver.hpp"
#include "dnsbl/health.hpp"
#include "relay/connector.hpp"
#include "relay/resolve.hpp"
#include "smtp/client_session.hpp"

namespace greymx::admin {

namespace {

using Report = std::function<void(const CheckLine&)>;

SteadyTime soon(int seconds = 10) {
  return std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
}

class Machine {
 public:
  Machine(config::ConfigPtr config, const Report& report, dns::Resolver& resolver)
      : config_(std::move(config)), report_(report), resolver_(resolver) {}

  Task<> check() {
    co_await names();
    co_await ports();
    co_await tlsa(certificates());
    for (const config::Domain& domain : config_->domains) co_await check_domain(domain);
    co_await lists();
    disk();
    clock();
  }

 private:
  void say(std::string name, CheckResult result, std::string text, std::string remedy = {}) {
    report_({std::move(name), result, std::move(text), std::move(remedy)});
  }

  Task<> names() {
    local_ = relay::interface_addresses();
    const dns::Answer answer = co_await dns::lookup_addresses(resolver_, config_->hostname, soon());
    report_(judge_name(config_->hostname, answer, local_));
    ours_ = answer.addresses;
    for (const IpAddress& address : ours_) {
      const dns::ClientName name = co_await dns::lookup_client_name(resolver_, address, soon());
      report_(judge_ptr(config_->hostname, address, name));
      const spf::Query query{address, "", config_->hostname, config_->hostname};
      const spf::Outcome outcome = co_await spf::check_host(resolver_, query, soon());
      report_(judge_spf(config_->hostname, address, outcome));
    }
  }

  // A greeting, or at least nobody else's port.
  Task<> ports() {
    for (const config::SmtpListener& listener : config_->listen.smtp) {
      const std::string name = "port " + listener.endpoint.to_string();
      Endpoint to = listener.endpoint;
      if (to.address == IpAddress()) to.address = *IpAddress::parse("127.0.0.1");
      if (to.address == *IpAddress::parse("::")) to.address = *IpAddress::parse("::1");
      auto connected = co_await smtp::connect(to, soon(5));
      if (!connected) {
        can_bind(name, listener.endpoint);
        continue;
      }
      if (listener.proxy_protocol) {
        say(name, CheckResult::ok, "listening, behind a proxy");
        continue;
      }
      // Our own greeting names us, which a client session takes for a loop: that is the proof.
      smtp::ClientSession session(std::move(*connected), config_->hostname, {});
      const auto answer = co_await with_deadline(session.greet(), soon(15));
      const bool us = answer && answer->kind == smtp::Answer::Kind::loop;
      say(name, us ? CheckResult::ok : CheckResult::fail, us ? "greymxd answers" : "something else listens there",
          us ? "" : "stop the other mail server, then start greymxd");
    }
  }

  void can_bind(const std::string& name, const Endpoint& endpoint) {
    boost::system::error_code error;
    asio::io_context io;
    const auto acceptor = bind_tcp(io.get_executor(), endpoint, error);
    if (lacks_ipv6(endpoint, error)) {
      say(name, CheckResult::warn, "this machine has no IPv6",
          "take it out of listen.smtp, or leave it: it does no harm");
    } else if (error) {
      say(name, CheckResult::fail, "cannot be used: " + error.message(),
          "run this check as root; free the port or correct listen.smtp");
    } else {
      say(name, CheckResult::warn, "free, nobody listens", "start greymxd: systemctl start greymx");
    }
  }

  // Those of ours that name us.
  std::vector<Certificate> certificates() {
    const config::Tls& tls = config_->tls;
    if (tls.certificate.empty()) {
      say("certificate", CheckResult::warn, "none, STARTTLS is not offered", "set tls.certificate and tls.key");
      return {};
    }
    const Result<std::string> pem = read_file(tls.certificate, 1 << 20);
    if (!pem) {
      say("certificate", CheckResult::fail, pem.error().text, "correct tls.certificate");
      return {};
    }
    report_(judge_certificates(config_->hostname, *pem));
    return certificates_for(config_->hostname, *pem);
  }

  Task<> tlsa(std::vector<Certificate> certificates) {
    const dns::Answer answer = co_await resolver_.lookup("_25._tcp." + config_->hostname, dns::Type::tlsa, soon());
    report_(judge_tlsa(config_->hostname, answer, certificates));
  }

  Task<> check_domain(const config::Domain& domain) {
    if (!domain.wildcard) {
      const dns::Answer mx = co_await resolver_.lookup(domain.name, dns::Type::mx, soon());
      report_(judge_mx(domain.name, config_->hostname, mx));
      co_await sts(domain.name);
      if (!ours_.empty()) {
        const spf::Query query{ours_.front(), "postmaster@" + domain.name, config_->hostname, config_->hostname};
        const spf::Outcome outcome = co_await spf::check_host(resolver_, query, soon());
        report_(judge_spf(domain.name, ours_.front(), outcome));
      }
    }
    co_await primary(domain);
  }

  Task<> sts(const std::string& domain) {
    const dns::Answer announced = co_await resolver_.lookup("_mta-sts." + domain, dns::Type::txt, soon());
    if (announced.texts.empty() || !announced.texts.front().starts_with("v=STSv1")) co_return;
    const Result<std::string> policy = co_await fetch_policy("mta-sts." + domain);
    if (policy) {
      report_(judge_sts(domain, config_->hostname, *policy));
    } else {
      say("MTA-STS of " + domain, CheckResult::warn,
          "announced, but the policy cannot be fetched: " + policy.error().text,
          "mend https://mta-sts." + domain + "/.well-known/mta-sts.txt");
    }
  }

  Task<Result<std::string>> fetch_policy(std::string host) {
    const SteadyTime deadline = soon(15);
    const dns::Answer addresses = co_await dns::lookup_addresses(resolver_, host, deadline);
    if (addresses.outcome != dns::Outcome::found) co_return fail(ErrorKind::not_found, "no address");
    auto stream = co_await smtp::connect({addresses.addresses.front(), 443}, deadline);
    if (!stream) co_return std::unexpected(stream.error());
    smtp::TlsClient tls(smtp::CertificateCheck::name, "");
    const auto shaken = co_await tls.handshake(**stream, host, 443, deadline);
    if (!shaken) co_return std::unexpected(shaken.error());
    const std::string request = "GET /.well-known/mta-sts.txt HTTP/1.0\r\nHost: " + host + "\r\n\r\n";
    const auto sent = co_await (*stream)->write(request, deadline);
    if (!sent) co_return std::unexpected(sent.error());
    std::string reply;
    std::vector<char> buffer(8192);
    while (reply.size() < (64 << 10)) {
      const smtp::ReadEvent event = co_await (*stream)->read_some(buffer, deadline);
      if (event.status != smtp::ReadStatus::data) break;
      reply.append(buffer.data(), event.bytes);
    }
    const auto body = reply.find("\r\n\r\n");
    if (body == reply.npos || reply.find(" 200 ") > 12)
      co_return fail(ErrorKind::invalid, "the server does not say 200");
    co_return reply.substr(body + 4);
  }

  // Would the primary take mail for the domain from us? Asked as a callout is: RCPT TO its postmaster, then QUIT.
  Task<> primary(const config::Domain& domain) {
    const std::string shown = domain.shown_name();
    const relay::RouteRequest request{domain.primary, domain.name, config_->delivery.mx_port, true,
                                      config_->delivery.private_targets};
    relay::Identity identity{config_->hostname, local_, {}};
    for (const config::SmtpListener& listener : config_->listen.smtp) identity.listeners.push_back(listener.endpoint);
    std::vector<relay::Host> known;
    std::mt19937 random(std::random_device{}());
    const relay::Route route = co_await relay::find_route(request, resolver_, identity, known, random, soon());
    if (route.hosts.empty()) {
      say("primary of " + shown, CheckResult::fail, printable(route.reason),
          "set primary = [\"host\"] for the domain, or mend its MX records");
    }
    for (const relay::Host& host : route.hosts) {
      bool again_plain = false;
      const std::optional<relay::Outcome> trouble = co_await ask(host, domain, domain.tls, again_plain);
      if (!trouble) {
        say("primary of " + shown, CheckResult::ok, host.remote() + (domain.wildcard ? " answers" : " takes our mail"));
        continue;
      }
      bool taken_plain = false;
      if (again_plain) {
        const std::optional<relay::Outcome> plain = co_await ask(host, domain, config::TlsLevel::none, again_plain);
        taken_plain = !plain;
      }
      say("primary of " + shown, taken_plain ? CheckResult::warn : CheckResult::fail, printable(trouble->reason),
          taken_plain ? "mail goes there without TLS: mend it, or set tls = \"none\" for the domain"
                      : remedy(*trouble));
    }
  }

  static const char* remedy(const relay::Outcome& trouble) {
    if (!trouble.said.empty())
      return "let the primary take mail from this machine, past its own block lists and greylist";
    if (trouble.dsn.starts_with("4.7.")) return "mend its TLS, or ask for less with the domain's tls and fingerprint";
    return "is it running, and does a firewall let us through?";
  }

  // Absent: a delivery would get as far as its content.
  Task<std::optional<relay::Outcome>> ask(relay::Host host, const config::Domain& domain, config::TlsLevel level,
                                          bool& again_plain) {
    auto connected = co_await smtp::connect(host.endpoint, soon());
    if (!connected) co_return relay::unreachable(host, connected.error().text);
    smtp::ClientTimeouts timeouts;
    timeouts.greeting = timeouts.ehlo = timeouts.tls = timeouts.mail = timeouts.rcpt = std::chrono::seconds(20);
    smtp::ClientSession session(std::move(*connected), config_->hostname, timeouts);
    smtp::TlsClient tls(relay::certificate_check(level, domain.fingerprint), domain.fingerprint);
    smtp::Answer answer = co_await session.greet();
    if (answer.positive() && level != config::TlsLevel::none) {
      const bool demanded = relay::demands_tls(level, domain.fingerprint);
      std::optional<relay::Outcome> trouble = co_await relay::secure(session, tls, host, demanded, again_plain);
      if (trouble) co_return trouble;
    }
    if (answer.positive() && !domain.wildcard) {
      answer = co_await session.verify("postmaster@" + domain.name);
    }
    if (answer.kind == smtp::Answer::Kind::reply) {
      co_await session.quit();
    }
    if (answer.positive()) co_return std::nullopt;
    co_return relay::judge(answer, host);
  }

  Task<> lists() {
    for (const dnsbl::List& list : dnsbl::make_lists(config_->dnsbl)) {
      if (!list.self_test) continue;
      const dnsbl::TestResult test = co_await dnsbl::test_points(resolver_, list, soon());
      if (test.reason.empty()) {
        say("list " + list.shown, CheckResult::ok, "test points answer");
      } else {
        say("list " + list.shown, CheckResult::fail, test.reason,
            "use a resolver of your own (dns.servers): public lists refuse the big open ones; remove a closed list");
      }
    }
  }

  void disk() {
    const auto free = system_files()->free_bytes(config_->queue_path);
    if (free) report_(judge_space(*free, config_->limits.min_free_space));
    for (const std::string& path : {config_->queue_path, config_->state_path}) may_write(path);
    if (const auto log = check_log_as_daemon(); !log) say_log_trouble(log.error().text);
    if (!config_->tls.key.empty()) {
      struct stat found{};
      const bool read = stat(config_->tls.key.c_str(), &found) == 0 && (found.st_mode & S_IROTH) != 0;
      if (read)
        say("permissions", CheckResult::fail, config_->tls.key + " can be read by everybody",
            "chmod o-rwx " + config_->tls.key);
    }
  }

  // A greymxd that root starts makes the file, or takes over root's.
  void say_log_trouble(const std::string& text) {
    struct stat found{};
    const bool there = stat(config_->log.target.c_str(), &found) == 0;
    const bool by_root = geteuid() == 0 && (there ? S_ISREG(found.st_mode) && found.st_uid == 0 : errno == ENOENT) &&
                         std::filesystem::is_directory(std::filesystem::path(config_->log.target).parent_path());
    say("log", by_root ? CheckResult::warn : CheckResult::fail, text,
        by_root ? "only a greymxd that root starts, not as its user, can do so" : "");
  }

  // Root may write any file, and a stranger perhaps none that greymxd may.
  Result<> check_log_as_daemon() {
    const passwd* user = getpwnam(config_->user.c_str());
    if (!in_file(config_->log) || user == nullptr || user->pw_uid == geteuid()) return check_log(config_->log);
    if (geteuid() != 0) return {};
    bool asked = false;
    const Result<> result = act_as(account_of(*user), [&] {
      asked = true;
      return check_log(config_->log);
    });
    return asked ? result : check_log(config_->log);  // a container's root may lack the right
  }

  // With all of its groups, as systemd starts it.
  Account account_of(const passwd& user) const {
    const group* found = getgrnam(config_->group.c_str());
    Account account{user.pw_uid, found != nullptr ? found->gr_gid : user.pw_gid};
    int count = 0;
    getgrouplist(user.pw_name, account.gid, nullptr, &count);
    account.groups.resize(static_cast<std::size_t>(count));
    getgrouplist(user.pw_name, account.gid, account.groups.data(), &count);
    return account;
  }

  void may_write(const std::string& path) {
    struct stat found{};
    const passwd* user = getpwnam(config_->user.c_str());
    const auto is_ours = [&](uid_t owner) {  // whoever asks, or runs greymxd without root
      if (user != nullptr && owner == user->pw_uid) return true;
      return owner == geteuid() && (owner != 0 || user == nullptr);
    };
    const std::string make = fmt::format("install -d -o {} -g {} -m 0750 {}", config_->user, config_->group, path);
    const std::string own = fmt::format("chown -R {}:{} {}", config_->user, config_->group, path);
    const bool usual = path == "/var/spool/greymx" || path == "/var/lib/greymx";
    const int error = stat(path.c_str(), &found) == 0 ? 0 : errno;
    if (error == ENOENT) {
      say("permissions", CheckResult::warn, path + " is not there yet",
          usual ? "greymxd makes it when root or systemd starts it; else: " + make
                : "greymxd makes it when root starts it; else: " + make +
                      "; systemd's unit also needs ReadWritePaths=" + path);
    } else if (error != 0) {
      say("permissions", CheckResult::fail, path + ": " + std::strerror(error), make);
    } else if (!is_ours(found.st_uid) || (found.st_mode & S_IWOTH) != 0) {
      say("permissions", CheckResult::fail, path + " does not belong to " + config_->user + " alone",
          fmt::format("{}; chmod 0750 {}", own, path));
    } else if (const std::string foreign = find_foreign(path, is_ours); !foreign.empty()) {
      say("permissions", CheckResult::fail, foreign + " does not belong to " + config_->user, own);
    } else {
      say("permissions", CheckResult::ok, path);
    }
  }

  // As a queue that was moved here by root leaves it.
  static std::string find_foreign(const std::string& directory, const auto& is_ours) {
    for (const std::string& name : system_files()->list(directory).value_or(std::vector<std::string>())) {
      if (name == "lost+found") continue;  // of a file system of its own
      const std::string path = concat({directory, "/", name});
      struct stat found{};
      if (lstat(path.c_str(), &found) == 0 && !is_ours(found.st_uid)) return path;
    }
    return {};
  }

  void clock() {
    timex state{};
    const bool synchronised = adjtimex(&state) != TIME_ERROR;
    say("clock", synchronised ? CheckResult::ok : CheckResult::warn, synchronised ? "synchronised" : "not synchronised",
        synchronised ? "" : "run an NTP client: greylisting, expiry and log times depend on it");
  }

  config::ConfigPtr config_;
  const Report& report_;
  dns::Resolver& resolver_;
  std::vector<IpAddress> local_;  // of the interfaces
  std::vector<IpAddress> ours_;   // of our name
};

}  // namespace

void check_machine(config::ConfigPtr config, const Report& report) {
  asio::io_context io;
  const SystemClock clock;
  Metrics metrics;
  const dns::DnsSettings settings{config->dns.servers, config->dns.timeout, config->dns.attempts, 1000};
  const auto resolver = dns::make_resolver(io.get_executor(), settings, clock, metrics);
  Machine machine(config, report, *resolver);
  Gate gate(io.get_executor());
  gate.spawn("check", machine.check());
  while (gate.size() != 0) io.run_one();  // not run(): the resolver's sockets may stay open
}

}  // namespace greymx::admin

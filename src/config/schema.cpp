// The table of all keys: name, default, what is allowed, where it goes. Everything that knows keys reads it: the
// loader, its messages, and the checks of conf/relay.conf and relay.conf(5).
#include "base/mailbox.hpp"
#include "config/reader.hpp"

namespace greymx::config {

namespace {

using namespace std::chrono_literals;
constexpr Seconds day = 24h;
constexpr std::uint64_t KiB = 1ULL << 10;
constexpr std::uint64_t MiB = 1ULL << 20;
constexpr std::uint64_t GiB = 1ULL << 30;

template <class Object, class Reader, class Field>
Key key(std::string name, std::string default_text, Reader reader, Field field) {
  Key row{std::move(name), std::move(default_text), false, {}, {}};
  row.read = [reader, field](const Scope& scope, const toml::node& node, void* object) {
    reader(scope, node, field(*static_cast<Object*>(object)));
  };
  row.equal = [field](const void* a, const void* b) {
    return field(*static_cast<const Object*>(a)) == field(*static_cast<const Object*>(b));
  };
  return row;
}

Key restart(Key row) {
  row.restart = true;
  return row;
}

#define FIELD(member) [](auto& object) -> auto& { return object.member; }
#define WHOLE [](auto& object) -> auto& { return object; }

std::optional<std::string> plain(std::string_view text) {
  return std::string(text);
}

std::optional<std::string> printable_ascii(std::string_view text) {
  if (!is_ascii(text) || text.size() > 400) return std::nullopt;
  return std::string(text);
}

std::optional<std::string> full_name(std::string_view text) {
  const bool named = is_hostname(text, 2) && text.find_first_not_of("0123456789.") != std::string_view::npos;
  return named ? canonical_domain(text) : std::nullopt;
}

std::optional<std::string> account(std::string_view text) {
  if (text.empty()) return std::nullopt;
  return std::string(text);
}

// The domain as A-labels, so that mail to it needs no SMTPUTF8.
std::optional<std::string> mailbox(std::string_view text) {
  const Mailbox address = Mailbox::split(text);
  const auto domain = canonical_domain(address.domain);
  const bool plain_local = text.find_first_of(" <>\"") == std::string_view::npos && is_ascii(address.local);
  if (address.local.empty() || !plain_local || !domain) return std::nullopt;
  return address.local + "@" + *domain;
}

std::optional<std::string> tag(std::string_view text) {
  const bool good = !text.empty() && text.size() <= 48 &&
                    text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
                        std::string_view::npos;
  if (!good) return std::nullopt;
  return std::string(text);
}

std::optional<std::string> fingerprint(std::string_view text) {
  return text.empty() ? std::optional<std::string>(text) : parse_fingerprint(text);
}

std::optional<std::string> store(std::string_view text) {
  return text == "bdb" ? std::optional<std::string>(text) : std::nullopt;
}

std::optional<HostPort> host_port(std::string_view text) {
  return parse_host_port(text);
}

// Port 0 would be another one at each start.
std::optional<Endpoint> fixed_port(std::string_view text) {
  const auto endpoint = Endpoint::parse(text);
  return endpoint && endpoint->port != 0 ? endpoint : std::nullopt;
}

std::optional<Endpoint> name_server(std::string_view text) {
  if (const auto address = IpAddress::parse(text)) return Endpoint{*address, 53};
  return fixed_port(text);
}

std::optional<Pattern> listing(std::string_view text) {
  const auto pattern = Pattern::parse(text);
  return pattern && pattern->can_list() ? pattern : std::nullopt;
}

const Word<std::string> text{"a text", "text", plain};
const Word<std::string> ascii_text{"a text of at most 400 ASCII characters", "text", printable_ascii};
const Word<std::string> zone{"a DNS zone", "zen.spamhaus.org", canonical_domain};
const Word<Pattern> reply{"a reply pattern (in 127.0.0.0/8, not of error codes alone)", "127.0.0.[2..11]", listing};
const Word<Endpoint> listener{"an address with its port", "0.0.0.0:25", fixed_port};
const Word<Network> network{"a network without host bits", "192.0.2.0/24", Network::parse};
const Choice<CheckMode> check_mode{{{"reject", CheckMode::reject}, {"warn", CheckMode::warn}, {"off", CheckMode::off}}};

// "0.0.0.0:25", or { address = "0.0.0.0:25", proxy_protocol = true }
struct SmtpListenerReader {
  void operator()(const Scope& scope, const toml::node& node, SmtpListener& into) const {
    const toml::table* table = node.as_table();
    if (table == nullptr) return listener(scope, node, into.endpoint);
    if (!table->contains("address"))
      scope.wrong(node, "address is missing; write for example { address = \"0.0.0.0:25\", proxy_protocol = true }");
    for (const auto& [name, value] : *table) {
      if (name == "address") {
        listener(scope, value, into.endpoint);
      } else if (name == "proxy_protocol") {
        Boolean()(scope, value, into.proxy_protocol);
      } else {
        scope.wrong(value,
                    fmt::format("unknown key {}; known are \"address\" and \"proxy_protocol\"", in_quotes(name.str())));
      }
    }
  }
};

// "127.0.0.1:10023" or "unix:/path"
struct PolicyListenerReader {
  void operator()(const Scope& scope, const toml::node& node, PolicyListener& into) const {
    static constexpr std::string_view prefix = "unix:";
    const auto value = read_text(scope, node, "an address with its port, or unix:PATH", "\"127.0.0.1:10023\"");
    if (!value) return;
    if (value->starts_with(prefix) && value->size() > prefix.size()) {
      into.unix_path = resolve(scope.folder, value->substr(prefix.size()));
    } else {
      listener(scope, node, into.endpoint);
    }
  }
};

struct SmarthostReader {
  void operator()(const Scope& scope, const toml::node& node, std::optional<HostPort>& into) const {
    const auto value = read_text(scope, node, "host, host:port or [IPv6]:port", "\"smtp.example.net:25\"");
    if (!value) return;
    const Word<HostPort> host{"a host with an optional port", "smtp.example.net:25", host_port};
    into = value->empty() ? std::nullopt : host.read(scope, node);
  }
};

struct DomainChecksReader {
  void operator()(const Scope& scope, const toml::node& node, DnsblList& into) const {
    const Choice<int> choice{{{"sender", 0}, {"helo", 1}, {"client", 2}}};
    std::vector<int> chosen;
    ListOf<Choice<int>>{choice, R"(["sender", "helo"])"}(scope, node, chosen);
    if (const auto* array = node.as_array(); array != nullptr && array->empty())
      scope.wrong(node, R"(must not be empty; write for example ["sender", "helo"])");
    const auto has = [&](int which) { return std::find(chosen.begin(), chosen.end(), which) != chosen.end(); };
    into.check_sender = has(0);
    into.check_helo = has(1);
    into.check_client = has(2);
  }
};

struct LogTargetReader {
  static constexpr std::string_view allowed = R"("stderr" | "syslog" | "journal" | path)";
  void operator()(const Scope& scope, const toml::node& node, std::string& into) const {
    const std::vector<std::string> names = {"stderr", "syslog", "journal"};
    const auto value = read_text(scope, node, allowed, "\"stderr\"");
    if (!value) return;
    if (std::find(names.begin(), names.end(), *value) != names.end()) {
      into = *value;
    } else if (value->find('/') != std::string::npos) {
      into = resolve(scope.folder, *value);
    } else {
      const std::string meant = nearest(*value, names);
      scope.wrong(node, fmt::format("{} is not {} (with a \"/\"){}", in_quotes(*value), allowed,
                                    meant.empty() ? "" : "; did you mean " + in_quotes(meant) + "?"));
    }
  }
};

}  // namespace

// clang-format off
const std::vector<Key>& config_keys() {
  using C = Config;
  static const std::vector<Key> rows = {
      key<C>("hostname", "", Word<std::string>{"a full host name", "mx2.example.net", full_name}, FIELD(hostname)),
      restart(key<C>("user", "\"greymx\"", Word<std::string>{"an account's name", "greymx", account}, FIELD(user))),
      restart(key<C>("group", "\"greymx\"", Word<std::string>{"a group's name", "greymx", account}, FIELD(group))),
      restart(key<C>("workers", "0", Integer{0, 256}, FIELD(workers))),
      key<C>("shutdown_grace", "\"30s\"", duration(0s, 1h), FIELD(shutdown_grace)),

      restart(key<C>("listen.smtp", R"(["[::]:25", "0.0.0.0:25"])", ListOf<SmtpListenerReader>{{}, R"(["0.0.0.0:25"])"}, FIELD(listen.smtp))),
      restart(key<C>("listen.policy", "[]", ListOf<PolicyListenerReader>{{}, R"(["127.0.0.1:10023"])"}, FIELD(listen.policy))),
      restart(key<C>("listen.http", R"(["127.0.0.1:8025"])", ListOf<Word<Endpoint>>{listener, R"(["127.0.0.1:8025"])"}, FIELD(listen.http))),
      restart(key<C>("listen.control", "\"/run/greymx/control\"", Path{.example = "\"/run/greymx/control\""}, FIELD(listen.control))),

      restart(key<C>("paths.queue", "\"/var/spool/greymx\"", Path{.example = "\"/var/spool/greymx\""}, FIELD(queue_path))),
      restart(key<C>("paths.state", "\"/var/lib/greymx\"", Path{}, FIELD(state_path))),

      key<C>("smtp.bare_lf", "\"normalize\"", Choice<bool>{{{"normalize", false}, {"reject", true}}}, FIELD(smtp.reject_bare_lf)),
      key<C>("smtp.banner", "\"ESMTP greymx\"", ascii_text, FIELD(smtp.banner)),

      key<C>("limits.connections", "10000", Integer{1, 1'000'000}, FIELD(limits.connections)),
      key<C>("limits.connections_per_client", "20", Integer{1, 1'000'000}, FIELD(limits.connections_per_client)),
      key<C>("limits.rate_per_client", "\"60/1m\"", Word<Rate>{"a rate", "60/1m", parse_count_rate}, FIELD(limits.rate_per_client)),
      key<C>("limits.data_rate_min", "\"1KiB/1s\"", Word<Rate>{"a rate of bytes", "1KiB/1s", parse_byte_rate}, FIELD(limits.data_rate_min)),
      key<C>("limits.message_size", "\"50MiB\"", size(1 * KiB, 16 * GiB), FIELD(limits.message_size)),
      // A record of a message with all its recipients' states fits a quarter of the queue's segments.
      key<C>("limits.recipients_per_message", "1000", Integer{1, 10'000}, FIELD(limits.recipients_per_message)),
      key<C>("limits.errors", "20", Integer{1, 10'000}, FIELD(limits.errors)),
      key<C>("limits.min_free_space", "\"256MiB\"", size(0, 1024 * GiB), FIELD(limits.min_free_space)),
      key<C>("limits.buffer_memory", "\"64MiB\"", size(1 * MiB, 64 * GiB), FIELD(limits.buffer_memory)),
      key<C>("limits.command_timeout", "\"5m\"", duration(1s, 1h), FIELD(limits.command_timeout)),
      key<C>("limits.data_timeout", "\"5m\"", duration(1s, 1h), FIELD(limits.data_timeout)),

      key<C>("tls.certificate", "\"\"", Path{.optional = true}, FIELD(tls.certificate)),
      key<C>("tls.key", "\"\"", Path{.optional = true}, FIELD(tls.key)),
      key<C>("tls.inbound", "\"may\"", Choice<TlsLevel>{{{"none", TlsLevel::none}, {"may", TlsLevel::may}, {"encrypt", TlsLevel::encrypt}}}, FIELD(tls.inbound)),

      key<C>("access.trusted_networks", R"(["127.0.0.0/8", "::1/128"])", ListOf<Word<Network>>{network, R"(["127.0.0.0/8"])"}, FIELD(access.trusted_networks)),
      key<C>("access.proxy_networks", "[]", ListOf<Word<Network>>{network, R"(["192.0.2.10"])"}, FIELD(access.proxy_networks)),
      key<C>("access.clients", "\"\"", Path{.optional = true}, FIELD(access.clients)),
      key<C>("access.helo", "\"\"", Path{.optional = true}, FIELD(access.helo)),
      key<C>("access.senders", "\"\"", Path{.optional = true}, FIELD(access.senders)),
      key<C>("access.recipients", "\"\"", Path{.optional = true}, FIELD(access.recipients)),
      key<C>("access.invalid_helo", "\"reject\"", check_mode, FIELD(access.invalid_helo)),
      key<C>("access.unauth_pipelining", "\"reject\"", check_mode, FIELD(access.unauth_pipelining)),
      key<C>("access.non_fqdn_sender", "\"reject\"", check_mode, FIELD(access.non_fqdn_sender)),
      key<C>("access.unknown_sender_domain", "\"reject\"", check_mode, FIELD(access.unknown_sender_domain)),
      key<C>("access.non_fqdn_recipient", "\"reject\"", check_mode, FIELD(access.non_fqdn_recipient)),
      key<C>("access.unknown_recipient_domain", "\"reject\"", check_mode, FIELD(access.unknown_recipient_domain)),
      key<C>("access.early_talker", "\"reject\"", check_mode, FIELD(access.early_talker)),
      key<C>("access.early_talker_wait", "\"0s\"", duration(0s, 1min), FIELD(access.early_talker_wait)),

      key<C>("dns.servers", "[]", ListOf<Word<Endpoint>>{{"an address with an optional port", "127.0.0.1:53", name_server}, R"(["127.0.0.1:53"])"}, FIELD(dns.servers)),
      key<C>("dns.timeout", "\"5s\"", duration(1s, 1min), FIELD(dns.timeout)),
      key<C>("dns.attempts", "2", Integer{1, 10}, FIELD(dns.attempts)),
      key<C>("dns.cache_size", "100000", Integer{0, 10'000'000}, FIELD(dns.cache_size)),

      key<C>("dnsbl.mode", "\"reject\"", check_mode, FIELD(dnsbl.mode)),
      key<C>("dnsbl.threshold", "1", Integer{1, 1000}, FIELD(dnsbl.threshold)),
      key<C>("dnsbl.cache_ttl_max", "\"1h\"", duration(0s, 7 * day), FIELD(dnsbl.cache_ttl_max)),

      key<C>("greylist.mode", "\"reject\"", check_mode, FIELD(greylist.mode)),
      restart(key<C>("greylist.store", "\"bdb\"", Word<std::string>{"a store that exists yet", "bdb", store}, FIELD(greylist.store))),
      key<C>("greylist.delay", "\"5m\"", duration(0s, 1 * day), FIELD(greylist.delay)),
      key<C>("greylist.retry_window", "\"2d\"", duration(1s, 100 * day), FIELD(greylist.retry_window)),
      key<C>("greylist.max_age", "\"35d\"", duration(1s, 1000 * day), FIELD(greylist.max_age)),
      key<C>("greylist.auto_whitelist_clients", "5", Integer{0, 10'000}, FIELD(greylist.auto_whitelist_clients)),
      key<C>("greylist.on_error", "\"pass\"", Choice<bool>{{{"pass", false}, {"defer", true}}}, FIELD(greylist.defer_on_error)),
      key<C>("greylist.ipv4_prefix", "24", Integer{1, 32}, FIELD(greylist.ipv4_prefix)),
      key<C>("greylist.ipv6_prefix", "64", Integer{1, 128}, FIELD(greylist.ipv6_prefix)),
      key<C>("greylist.lookup_by_host", "false", Boolean{}, FIELD(greylist.lookup_by_host)),
      key<C>("greylist.whitelist_clients", R"(["whitelist_clients"])", ListOf<Path>{{}, R"(["whitelist_clients"])"}, FIELD(greylist.whitelist_clients)),
      key<C>("greylist.whitelist_recipients", R"(["whitelist_recipients"])", ListOf<Path>{{}, R"(["whitelist_recipients"])"}, FIELD(greylist.whitelist_recipients)),
      key<C>("greylist.sender_pools", "true", Boolean{}, FIELD(greylist.sender_pools)),
      key<C>("greylist.text", "\"Greylisted, please try again later\"", ascii_text, FIELD(greylist.text)),
      key<C>("greylist.header", "true", Boolean{}, FIELD(greylist.header)),
      key<C>("greylist.when", "\"always\"", Choice<bool>{{{"always", false}, {"primary-up", true}}}, FIELD(greylist.primary_up_only)),

      key<C>("queue.retry_min", "\"1m\"", duration(1s, 1 * day), FIELD(queue.retry_min)),
      key<C>("queue.retry_max", "\"1h\"", duration(1s, 7 * day), FIELD(queue.retry_max)),
      key<C>("queue.lifetime", "\"14d\"", duration(1min, 1000 * day), FIELD(queue.lifetime)),
      key<C>("queue.lifetime_max", "\"30d\"", duration(1min, 1000 * day), FIELD(queue.lifetime_max)),
      key<C>("queue.bounce_lifetime", "\"5d\"", duration(1min, 1000 * day), FIELD(queue.bounce_lifetime)),
      key<C>("queue.delay_warning", "\"0s\"", duration(0s, 100 * day), FIELD(queue.delay_warning)),
      key<C>("queue.bounce", "\"verified\"", Choice<BounceMode>{{{"always", BounceMode::always}, {"verified", BounceMode::verified}, {"never", BounceMode::never}}}, FIELD(queue.bounce)),
      key<C>("queue.count_downtime", "false", Boolean{}, FIELD(queue.count_downtime)),

      key<C>("delivery.concurrency", "20", Integer{1, 1000}, FIELD(delivery.concurrency)),
      key<C>("delivery.concurrency_start", "2", Integer{1, 1000}, FIELD(delivery.concurrency_start)),
      key<C>("delivery.mx_port", "25", Integer{1, 65535}, FIELD(delivery.mx_port)),
      key<C>("delivery.private_targets", "false", Boolean{}, FIELD(delivery.private_targets)),
      key<C>("delivery.probe_interval", "\"30s\"", duration(1s, 1h), FIELD(delivery.probe_interval)),
      key<C>("delivery.messages_per_connection", "100", Integer{1, 1'000'000}, FIELD(delivery.messages_per_connection)),
      key<C>("delivery.smarthost", "\"\"", SmarthostReader{}, FIELD(delivery.smarthost)),
      key<C>("delivery.connect_timeout", "\"30s\"", duration(1s, 5min), FIELD(delivery.connect_timeout)),

      key<C>("alerts.to", "[]", ListOf<Word<std::string>>{{"a mail address", "postmaster@example.com", mailbox}, R"(["postmaster@example.com"])"}, FIELD(alerts_to)),

      key<C>("log.target", "\"stderr\"", LogTargetReader{}, FIELD(log.target)),
      key<C>("log.tag", "\"greymx\"", Word<std::string>{"a word of letters, digits, \"-\", \"_\" and \".\"", "greymx", tag}, FIELD(log.tag)),
      key<C>("log.format", "\"text\"", Choice<bool>{{{"text", false}, {"json", true}}}, FIELD(log.json)),
      key<C>("log.level", "\"info\"", Choice<Level>{{{"debug", Level::info}, {"info", Level::info}, {"warning", Level::warning}, {"error", Level::error}}}, FIELD(log.level)),
  };
  return rows;
}

const std::vector<Key>& domain_keys() {
  static const std::vector<Key> rows = {
      key<Domain>("primary", "[]", ListOf<Word<HostPort>>{{"a host with an optional port", "mx1.example.com:25", host_port}, R"(["mx1.example.com"])"}, FIELD(primary)),
      key<Domain>("recipients", "\"\"", Path{.optional = true}, FIELD(recipients)),
      key<Domain>("verify_recipients", "true", Boolean{}, FIELD(verify_recipients)),
      key<Domain>("unknown_while_down", "\"accept\"", Choice<UnknownWhileDown>{{{"accept", UnknownWhileDown::accept}, {"defer", UnknownWhileDown::defer}, {"reject", UnknownWhileDown::reject}}}, FIELD(unknown_while_down)),
      key<Domain>("greylist", "true", Boolean{}, FIELD(greylist)),
      key<Domain>("dnsbl", "true", Boolean{}, FIELD(dnsbl)),
      key<Domain>("tls", "\"may\"", Choice<TlsLevel>{{{"none", TlsLevel::none}, {"may", TlsLevel::may}, {"encrypt", TlsLevel::encrypt}, {"verify", TlsLevel::verify}}}, FIELD(tls)),
      key<Domain>("xforward", "true", Boolean{}, FIELD(xforward)),
      key<Domain>("fingerprint", "\"\"", Word<std::string>{"a SHA-256 fingerprint of 64 hex digits (openssl x509 -noout -fingerprint -sha256 prints it)", "9F:86:D0:81:…", fingerprint}, FIELD(fingerprint)),
  };
  return rows;
}

const std::vector<Key>& list_keys() {
  static const std::vector<Key> rows = {
      key<DnsblList>("zone", "", zone, FIELD(zone)),
      key<DnsblList>("replies", "[]", ListOf<Word<Pattern>>{reply, R"(["127.0.0.[2..11]"])"}, FIELD(replies)),
      key<DnsblList>("weight", "1", Integer{-1000, 1000}, FIELD(weight)),
      key<DnsblList>("self_test", "true", Boolean{}, FIELD(self_test)),
      key<DnsblList>("reason", "\"\"", text, FIELD(reason)),
  };
  return rows;
}

const std::vector<Key>& domain_list_keys() {
  static const std::vector<Key> rows = [] {
    std::vector<Key> all = list_keys();
    all.push_back(key<DnsblList>("check", R"(["sender", "helo", "client"])", DomainChecksReader{}, WHOLE));
    return all;
  }();
  return rows;
}
// clang-format on

}  // namespace greymx::config

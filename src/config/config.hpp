// relay.conf as the program sees it: immutable, complete, checked. Made by config/load; shared by pointer; a reload
// makes a new one and parts switch over when told. A session keeps the one it began with.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ip.hpp"
#include "base/log.hpp"
#include "config/pattern.hpp"

namespace greymx::config {

using Seconds = std::chrono::seconds;

enum class CheckMode : std::uint8_t { off, warn, reject };
enum class TlsLevel : std::uint8_t { none, may, encrypt, verify };

// "host", "host:port", "[v6]:port", "192.0.2.1:25"
struct HostPort {
  std::string host;  // a name or an address without brackets
  std::uint16_t port = 25;
  bool operator==(const HostPort&) const = default;
  std::string to_string() const;  // "host:port", "[v6]:port"
};

struct SmtpListener {
  Endpoint endpoint;
  bool proxy_protocol = false;
  bool operator==(const SmtpListener&) const = default;
};

// A policy listener: TCP or a Unix socket.
struct PolicyListener {
  Endpoint endpoint;
  std::string unix_path;  // set: a Unix socket, endpoint unused
  bool operator==(const PolicyListener&) const = default;
};

struct Listen {
  std::vector<SmtpListener> smtp;
  std::vector<PolicyListener> policy;
  std::vector<Endpoint> http;
  std::string control = "/run/greymx/control";
  bool operator==(const Listen&) const = default;
};

enum class UnknownWhileDown : std::uint8_t { accept, defer, reject };

struct Domain {
  std::string name;               // lower-case A-labels, without "*."
  bool wildcard = false;          // "*.example.com": every subdomain, not the domain itself
  std::vector<HostPort> primary;  // empty: by MX
  std::string recipients;         // absolute path or empty
  bool verify_recipients = true;
  UnknownWhileDown unknown_while_down = UnknownWhileDown::accept;
  bool greylist = true;
  bool dnsbl = true;
  TlsLevel tls = TlsLevel::may;
  bool xforward = true;
  std::string fingerprint;  // lower-case hex SHA-256 without colons, or empty

  std::string shown_name() const { return (wildcard ? "*." : "") + name; }  // as relay.conf has it
  bool operator==(const Domain&) const = default;
};

struct Smtp {
  bool reject_bare_lf = false;
  std::string banner = "ESMTP greymx";
  bool operator==(const Smtp&) const = default;
};

struct Rate {
  std::uint64_t count = 0;
  Seconds period{1};
  bool operator==(const Rate&) const = default;
};

struct Limits {
  std::uint32_t connections = 10000;
  std::uint32_t connections_per_client = 20;
  Rate rate_per_client{60, Seconds{60}};
  Rate data_rate_min{1024, Seconds{1}};  // bytes
  std::uint64_t message_size = 50ULL << 20;
  std::uint32_t recipients_per_message = 1000;
  std::uint32_t errors = 20;
  std::uint64_t min_free_space = 256ULL << 20;
  std::uint64_t buffer_memory = 64ULL << 20;
  Seconds command_timeout{300};
  Seconds data_timeout{300};
  bool operator==(const Limits&) const = default;
};

struct Tls {
  std::string certificate;
  std::string key;
  TlsLevel inbound = TlsLevel::may;  // none, may, encrypt
  bool operator==(const Tls&) const = default;
};

struct Access {
  std::vector<Network> trusted_networks;
  std::vector<Network> proxy_networks;
  std::string clients, helo, senders, recipients;  // absolute paths or empty
  CheckMode invalid_helo = CheckMode::reject;
  CheckMode unauth_pipelining = CheckMode::reject;
  CheckMode non_fqdn_sender = CheckMode::reject;
  CheckMode unknown_sender_domain = CheckMode::reject;
  CheckMode non_fqdn_recipient = CheckMode::reject;
  CheckMode unknown_recipient_domain = CheckMode::reject;
  CheckMode early_talker = CheckMode::reject;
  Seconds early_talker_wait{0};
  bool operator==(const Access&) const = default;
};

struct Dns {
  std::vector<Endpoint> servers;  // empty: resolv.conf
  Seconds timeout{5};
  std::uint32_t attempts = 2;
  std::uint32_t cache_size = 100000;
  bool operator==(const Dns&) const = default;
};

struct DnsblList {
  std::string zone;              // lower-case A-labels
  std::vector<Pattern> replies;  // empty = default rule
  int weight = 1;
  bool self_test = true;
  std::string reason;
  bool check_sender = true, check_helo = true, check_client = true;  // of a domain list
  bool operator==(const DnsblList&) const = default;
};

struct Dnsbl {
  CheckMode mode = CheckMode::reject;
  int threshold = 1;
  Seconds cache_ttl_max{3600};
  std::vector<DnsblList> lists;
  std::vector<DnsblList> domain_lists;
  bool operator==(const Dnsbl&) const = default;
};

struct Greylist {
  CheckMode mode = CheckMode::reject;
  std::string store = "bdb";
  Seconds delay{300};
  Seconds retry_window{2 * 86400};
  Seconds max_age{35 * 86400};
  std::uint32_t auto_whitelist_clients = 5;
  bool defer_on_error = false;
  unsigned ipv4_prefix = 24;
  unsigned ipv6_prefix = 64;
  bool lookup_by_host = false;
  std::vector<std::string> whitelist_clients;     // absolute paths
  std::vector<std::string> whitelist_recipients;  // absolute paths
  bool whitelists_are_default = true;             // the default files may be absent
  bool sender_pools = true;
  std::string text = "Greylisted, please try again later";
  bool header = true;
  bool primary_up_only = false;  // when = "primary-up"
  bool operator==(const Greylist&) const = default;
};

enum class BounceMode : std::uint8_t { always, verified, never };

struct Queue {
  Seconds retry_min{60};
  Seconds retry_max{3600};
  Seconds lifetime{14 * 86400};
  Seconds lifetime_max{30 * 86400};
  Seconds bounce_lifetime{5 * 86400};
  Seconds delay_warning{0};
  BounceMode bounce = BounceMode::verified;
  bool count_downtime = false;
  bool operator==(const Queue&) const = default;
};

struct Delivery {
  std::uint32_t concurrency = 20;
  std::uint32_t concurrency_start = 2;
  std::uint16_t mx_port = 25;
  bool private_targets = false;
  Seconds probe_interval{30};
  std::uint32_t messages_per_connection = 100;
  std::optional<HostPort> smarthost;  // none: by MX
  Seconds connect_timeout{30};
  bool operator==(const Delivery&) const = default;
};

struct Config {
  std::string file;  // absolute path it was read from
  std::string hostname;
  std::string user = "greymx";
  std::string group = "greymx";
  std::uint32_t workers = 0;
  Seconds shutdown_grace{30};
  Listen listen;
  std::string queue_path = "/var/spool/greymx";
  std::string state_path = "/var/lib/greymx";
  std::vector<Domain> domains;  // in file order; the first takes bare Postmaster
  Smtp smtp;
  Limits limits;
  Tls tls;
  Access access;
  Dns dns;
  Dnsbl dnsbl;
  Greylist greylist;
  Queue queue;
  Delivery delivery;
  std::vector<std::string> alerts_to;
  LogSettings log;

  // The entry that covers `domain` (any case, U- or A-labels): the exact name first, then the longest wildcard;
  // nullptr = not ours, relaying to it is denied.
  const Domain* find_domain(std::string_view domain) const;
  bool operator==(const Config&) const = default;
};

using ConfigPtr = std::shared_ptr<const Config>;

}  // namespace greymx::config

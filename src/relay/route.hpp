// Where mail for a domain goes: hosts in the order in which they are tried. The decision is pure; the look-ups before
// it are in resolve.hpp.
//
// Rules: RFC 5321 5.1, RFC 7505. Explicit primaries are taken in their order, no MX is asked. Of MX hosts, ourselves
// and everything of equal or worse preference is left out, so that mail never loops. Nothing that DNS says about our
// own domains or explicit hosts is a reason to return mail.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "dns/resolver.hpp"
#include "relay/outcome.hpp"

namespace greymx::relay {

// Who we are, as others see us.
struct Identity {
  std::string hostname;
  std::vector<IpAddress> addresses;  // of all interfaces
  std::vector<Endpoint> listeners;   // 0.0.0.0 and :: stand for all addresses

  bool is_listener(const Endpoint& endpoint) const;
  // As an MX: the port does not matter (it may be forwarded to us), except on loopback, which is not for others.
  bool is_us(const Endpoint& endpoint) const;
};
std::vector<IpAddress> interface_addresses();

// What is asked for: explicit hosts, or a domain by MX.
struct RouteRequest {
  std::vector<config::HostPort> hosts;  // empty: by MX
  std::string domain;                   // A-labels, or "[literal]"
  std::uint16_t mx_port = 25;
  bool own = true;             // a domain of ours: trouble never returns mail
  bool allow_private = false;  // targets on loopback and private networks, by MX
};

// What DNS said about one host.
struct HostAnswer {
  std::string name;
  std::uint16_t port = 25;
  std::uint16_t preference = 0;  // by MX
  dns::Answer addresses;
};

struct Route {
  std::vector<Host> hosts;
  bool partial = false;  // DNS fails for some host: there may be more
  // No hosts: why, and whether that is for good (only ever by MX, for domains that are not ours).
  std::string dsn;
  std::string reason;
  bool permanent = false;
};

// By MX: `mx` is the answer to the MX question. Explicit: found, and its records unused.
Route plan_route(const RouteRequest& request, const dns::Answer& mx, std::vector<HostAnswer> hosts,
                 const Identity& identity, std::mt19937& random);

}  // namespace greymx::relay

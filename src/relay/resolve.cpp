#include "relay/resolve.hpp"

#include <algorithm>

namespace greymx::relay {

namespace {

constexpr std::size_t most_hosts = 16;     // MX records looked at
constexpr std::size_t most_addresses = 8;  // of one host

// What DNS cannot say now of a family, it said before.
void recall(dns::Answer& answer, bool v4, const HostAnswer& host, const std::vector<Host>& known) {
  if (answer.outcome != dns::Outcome::failed) return;
  for (const Host& before : known) {
    const bool same = before.name == host.name && before.endpoint.port == host.port;
    if (!same || before.endpoint.address.is_v4() != v4) continue;
    answer.outcome = dns::Outcome::found;
    answer.addresses.push_back(before.endpoint.address);
  }
}

Task<HostAnswer> look_up(HostAnswer host, dns::Resolver& resolver, std::vector<Host> known, SteadyTime deadline) {
  if (const std::optional<IpAddress> address = IpAddress::parse(host.name)) {
    host.addresses.outcome = dns::Outcome::found;
    host.addresses.addresses = {*address};
    co_return host;
  }
  dns::BothFamilies both = co_await dns::lookup_both(resolver, host.name, deadline);
  recall(both.v4, true, host, known);
  recall(both.v6, false, host, known);
  host.addresses = dns::one_answer(std::move(both));
  if (host.addresses.addresses.size() > most_addresses) host.addresses.addresses.resize(most_addresses);
  co_return host;
}

// "[192.0.2.1]", "[IPv6:2001:db8::1]"
std::string literal_address(const std::string& domain) {
  std::string text = domain.substr(1, domain.find(']') - 1);
  if (equals_ignoring_case(text.substr(0, 5), "IPv6:")) text.erase(0, 5);
  return text;
}

std::vector<HostAnswer> hosts_of(const RouteRequest& request, const dns::Answer& mx) {
  std::vector<HostAnswer> hosts;
  for (const config::HostPort& host : request.hosts) hosts.push_back({host.host, host.port, 0, {}});
  for (const dns::Mx& record : mx.mx) {
    if (!record.host.empty() && hosts.size() < most_hosts) {
      hosts.push_back({record.host, request.mx_port, record.preference, {}});
    }
  }
  // No MX: the domain's own address (RFC 5321 5.1). Never where there are MX records, usable or not.
  if (request.hosts.empty() && mx.outcome == dns::Outcome::no_record) {
    hosts.push_back({request.domain, request.mx_port, 0, {}});
  }
  return hosts;
}

}  // namespace

Task<Route> find_route(RouteRequest request, dns::Resolver& resolver, const Identity& identity,
                       std::vector<Host>& known, std::mt19937& random, SteadyTime deadline) {
  dns::Answer mx;
  mx.outcome = dns::Outcome::found;
  if (request.hosts.empty() && request.domain.starts_with('[')) {
    mx.mx = {{0, literal_address(request.domain)}};
  } else if (request.hosts.empty()) {
    mx = co_await resolver.lookup(request.domain, dns::Type::mx, deadline);
  }
  if (mx.outcome == dns::Outcome::failed && !known.empty()) co_return Route{known, true, {}, {}, false};
  std::vector<Task<HostAnswer>> lookups;
  for (HostAnswer& host : hosts_of(request, mx)) lookups.push_back(look_up(std::move(host), resolver, known, deadline));
  std::vector<HostAnswer> hosts = co_await join_all(std::move(lookups));
  Route route = plan_route(request, mx, std::move(hosts), identity, random);
  if (!route.hosts.empty()) known = route.hosts;
  co_return route;
}

}  // namespace greymx::relay

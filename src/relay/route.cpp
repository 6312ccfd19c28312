#include "relay/route.hpp"

#include <fmt/format.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <algorithm>

namespace greymx::relay {

namespace {

Route no_route(const RouteRequest& request, std::string dsn, std::string reason, bool permanent = false) {
  // What an admin configured is his to mend.
  const bool final = permanent && !request.own && request.hosts.empty();
  return {{}, false, (final ? "5." : "4.") + dsn, printable(reason), final};
}

// IPv6 and IPv4 in turns, so that a family that is dead here never hides the other: an attempt tries only a few.
std::vector<IpAddress> interleave(const std::vector<IpAddress>& addresses) {
  std::vector<IpAddress> families[2];
  for (const IpAddress& address : addresses) families[address.is_v4() ? 1 : 0].push_back(address);
  std::vector<IpAddress> result;
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    for (const auto& family : families) {
      if (i < family.size()) result.push_back(family[i]);
    }
  }
  return result;
}

// The hosts that are better than we are; `listed` tells whether we are among them at all.
std::vector<HostAnswer> better_than_us(std::vector<HostAnswer> hosts, const Identity& identity, bool& listed) {
  unsigned ours = 0x10000;
  for (const HostAnswer& host : hosts) {
    const bool us = equals_ignoring_case(host.name, identity.hostname) ||
                    std::any_of(host.addresses.addresses.begin(), host.addresses.addresses.end(),
                                [&](const IpAddress& address) { return identity.is_us({address, host.port}); });
    if (us) ours = std::min<unsigned>(ours, host.preference);
  }
  listed = ours != 0x10000;
  std::erase_if(hosts, [ours](const HostAnswer& host) { return host.preference >= ours; });
  return hosts;
}

std::optional<Route> mx_trouble(const RouteRequest& request, const dns::Answer& mx) {
  const std::string& domain = request.domain;
  if (mx.outcome == dns::Outcome::failed) {
    return no_route(request, "4.3", fmt::format("Host or domain name not found. MX of {}: {}", domain, mx.error));
  }
  if (mx.outcome == dns::Outcome::no_domain) {
    return no_route(request, "4.4", fmt::format("Host or domain name not found. {} does not exist", domain), true);
  }
  const bool null_mx = mx.outcome == dns::Outcome::found && mx.mx.size() == 1 && mx.mx.front().host.empty();
  if (null_mx) return no_route(request, "1.10", fmt::format("Domain {} does not accept mail (nullMX)", domain), true);
  return std::nullopt;
}

// Why no host is left.
Route nobody(const RouteRequest& request, const std::vector<HostAnswer>& hosts, const std::string& refused) {
  if (!refused.empty()) return no_route(request, "4.4", refused, true);
  const auto failed = std::find_if(hosts.begin(), hosts.end(), [](const HostAnswer& host) {
    return host.addresses.outcome == dns::Outcome::failed;
  });
  if (failed != hosts.end()) {
    return no_route(
        request, "4.3",
        fmt::format("Host or domain name not found. Address of {}: {}", failed->name, failed->addresses.error));
  }
  const std::string name = hosts.empty() ? request.domain : hosts.front().name;
  return no_route(request, "4.4", fmt::format("Host or domain name not found. {} has no address", name), true);
}

}  // namespace

bool Identity::is_listener(const Endpoint& endpoint) const {
  const bool local = endpoint.address.is_loopback() ||
                     std::find(addresses.begin(), addresses.end(), endpoint.address) != addresses.end();
  return std::any_of(listeners.begin(), listeners.end(), [&](const Endpoint& listener) {
    const bool any = local && listener.address.is_v4() == endpoint.address.is_v4() &&
                     listener.address == (listener.address.is_v4() ? IpAddress::v4(0) : IpAddress::v6({}));
    return listener.port == endpoint.port && (any || listener.address == endpoint.address);
  });
}

bool Identity::is_us(const Endpoint& endpoint) const {
  if (is_listener(endpoint)) return true;
  if (endpoint.address.is_loopback()) return false;
  const auto same = [&](const Endpoint& listener) { return listener.address == endpoint.address; };
  return std::find(addresses.begin(), addresses.end(), endpoint.address) != addresses.end() ||
         std::any_of(listeners.begin(), listeners.end(), same);
}

std::vector<IpAddress> interface_addresses() {
  std::vector<IpAddress> result;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return result;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr) continue;
    if (entry->ifa_addr->sa_family == AF_INET) {
      const auto* v4 = reinterpret_cast<const sockaddr_in*>(entry->ifa_addr);
      result.push_back(IpAddress::v4(ntohl(v4->sin_addr.s_addr)));
    } else if (entry->ifa_addr->sa_family == AF_INET6) {
      const auto* v6 = reinterpret_cast<const sockaddr_in6*>(entry->ifa_addr);
      std::array<std::uint8_t, 16> bytes{};
      std::copy_n(v6->sin6_addr.s6_addr, bytes.size(), bytes.begin());
      result.push_back(IpAddress::v6(bytes));
    }
  }
  freeifaddrs(list);
  return result;
}

Route plan_route(const RouteRequest& request, const dns::Answer& mx, std::vector<HostAnswer> hosts,
                 const Identity& identity, std::mt19937& random) {
  const bool by_mx = request.hosts.empty();
  if (by_mx) {
    if (std::optional<Route> trouble = mx_trouble(request, mx)) return std::move(*trouble);
    bool listed = false;
    const bool any = !hosts.empty();
    hosts = better_than_us(std::move(hosts), identity, listed);
    if (hosts.empty() && any && listed) {
      return no_route(request, "4.6", fmt::format("mail for {} loops back to myself", request.domain), true);
    }
    std::shuffle(hosts.begin(), hosts.end(), random);
    std::sort(hosts.begin(), hosts.end(),
              [](const HostAnswer& a, const HostAnswer& b) { return a.preference < b.preference; });
  }
  Route route;
  std::string refused;
  for (const HostAnswer& host : hosts) {
    route.partial = route.partial || host.addresses.outcome == dns::Outcome::failed;
    for (const IpAddress& address : interleave(host.addresses.addresses)) {
      const Host target{host.name, {address, host.port}};
      if (!by_mx && identity.is_listener(target.endpoint)) {
        refused =
            fmt::format("mail for {} loops back to myself: {} is a listener of ours", request.domain, target.remote());
      } else if (by_mx && !request.allow_private && address.is_private()) {
        refused = fmt::format("{} is a private address: delivery.private_targets is false", target.label());
      } else {
        route.hosts.push_back(target);
      }
    }
  }
  return route.hosts.empty() ? nobody(request, hosts, refused) : route;
}

}  // namespace greymx::relay

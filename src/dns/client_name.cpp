#include <algorithm>

#include "base/mailbox.hpp"
#include "dns/resolver.hpp"

namespace greymx::dns {
namespace {

constexpr std::size_t max_names = 5;
constexpr std::size_t max_addresses = 16;

// An address is no name, even where a PTR record says so: it would end up in logs and whitelists as one.
bool usable(const std::string& name) {
  return is_hostname(name) && !IpAddress::parse(name);
}

}  // namespace

Task<ClientName> lookup_client_name(Resolver& resolver, IpAddress ip, SteadyTime deadline) {
  const Type type = ip.is_v4() ? Type::a : Type::aaaa;
  ClientName result;
  const Answer pointers = co_await resolver.lookup(ip.reverse_name(), Type::ptr, deadline);
  result.failed = pointers.outcome == Outcome::failed;
  for (std::size_t i = 0; i < std::min(pointers.names.size(), max_names); ++i) {
    const std::string& name = pointers.names[i];
    if (!usable(name)) continue;
    if (result.unconfirmed.empty()) result.unconfirmed = name;
    const Answer addresses = co_await resolver.lookup(name, type, deadline);
    const auto end =
        addresses.addresses.begin() + static_cast<std::ptrdiff_t>(std::min(addresses.addresses.size(), max_addresses));
    if (std::find(addresses.addresses.begin(), end, ip) != end) {
      result.name = name;
      result.failed = false;
      co_return result;
    }
    result.failed = result.failed || addresses.outcome == Outcome::failed;
  }
  co_return result;
}

}  // namespace greymx::dns

#include "dns/resolver.hpp"

#include <algorithm>
#include <iterator>

namespace greymx::dns {

std::string_view to_string(Type type) {
  switch (type) {
    case Type::a:
      return "A";
    case Type::ns:
      return "NS";
    case Type::cname:
      return "CNAME";
    case Type::soa:
      return "SOA";
    case Type::ptr:
      return "PTR";
    case Type::mx:
      return "MX";
    case Type::txt:
      return "TXT";
    case Type::aaaa:
      return "AAAA";
    case Type::tlsa:
      return "TLSA";
  }
  return "?";
}

void Resolver::forget(const std::string&, Type) {}

Task<Answer> lookup_addresses(Resolver& resolver, std::string name, SteadyTime deadline) {
  Task<Answer> first = resolver.lookup(name, Type::a, deadline);
  Task<Answer> second = resolver.lookup(name, Type::aaaa, deadline);
  Answer v4 = co_await std::move(first);
  Answer v6 = co_await std::move(second);
  if (v4.outcome == Outcome::found && v6.outcome == Outcome::found) {
    std::ranges::move(v6.addresses, std::back_inserter(v4.addresses));
    v4.ttl = std::min(v4.ttl, v6.ttl);
    v4.age = std::max(v4.age, v6.age);
    co_return std::move(v4);
  }
  for (const Outcome wanted : {Outcome::found, Outcome::failed, Outcome::no_record}) {
    for (Answer* answer : {&v4, &v6}) {
      if (answer->outcome == wanted) co_return std::move(*answer);
    }
  }
  co_return std::move(v4);  // no_domain, both
}

}  // namespace greymx::dns

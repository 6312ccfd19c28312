#include "dns/resolver.hpp"

#include <algorithm>
#include <iterator>

namespace greymx::dns {

std::string_view to_string(Type type) {
  switch (type) {
    case Type::a:
      return "A";
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

Task<BothFamilies> lookup_both(Resolver& resolver, std::string name, SteadyTime deadline) {
  Task<Answer> first = resolver.lookup(name, Type::a, deadline);
  Task<Answer> second = resolver.lookup(name, Type::aaaa, deadline);
  BothFamilies both;
  both.v4 = co_await std::move(first);
  both.v6 = co_await std::move(second);
  co_return both;
}

Answer one_answer(BothFamilies both) {
  auto& [v4, v6] = both;
  if (v4.outcome == Outcome::found && v6.outcome == Outcome::found) {
    std::ranges::move(v6.addresses, std::back_inserter(v4.addresses));
    v4.ttl = std::min(v4.ttl, v6.ttl);
    v4.age = std::max(v4.age, v6.age);
    return std::move(v4);
  }
  for (const Outcome wanted : {Outcome::found, Outcome::failed, Outcome::no_record}) {
    for (Answer* answer : {&v4, &v6}) {
      if (answer->outcome == wanted) return std::move(*answer);
    }
  }
  return std::move(v4);  // no_domain, both
}

Task<Answer> lookup_addresses(Resolver& resolver, std::string name, SteadyTime deadline) {
  BothFamilies both = co_await lookup_both(resolver, std::move(name), deadline);
  co_return one_answer(std::move(both));
}

}  // namespace greymx::dns

// Looking things up in DNS: the interface that all checks use, so that tests script the answers.
//
// Thread: a Resolver belongs to one executor; call it there only. Every lookup ends by its deadline.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/async.hpp"
#include "base/ip.hpp"

namespace greymx::dns {

enum class Type : std::uint16_t { a = 1, cname = 5, soa = 6, ptr = 12, mx = 15, txt = 16, aaaa = 28, tlsa = 52 };
std::string_view to_string(Type type);

enum class Outcome : std::uint8_t {
  found,      // at least one record of the type asked for, after following CNAMEs
  no_record,  // the name exists, no record of this type (NODATA, RFC 2308 2.2)
  no_domain,  // NXDOMAIN
  failed,     // SERVFAIL, REFUSED, timeout, malformed or oversized answer, loop: nobody knows
};

struct Mx {
  std::uint16_t preference = 0;
  std::string host;  // without final dot; "" for the null MX (RFC 7505)
  bool operator==(const Mx&) const = default;
};

// Records of the type that was asked for; only that member is filled. Names are lower-case without a final dot.
struct Answer {
  Outcome outcome = Outcome::failed;
  std::vector<IpAddress> addresses;   // A, AAAA
  std::vector<Mx> mx;                 // sorted by preference, file order within
  std::vector<std::string> texts;     // TXT, strings of one record joined; TLSA, RDATA in lower-case hex
  std::vector<std::string> names;     // PTR, CNAME
  std::chrono::seconds ttl{0};        // the smallest along the way, or the negative TTL (SOA)
  std::chrono::seconds age{0};        // how long ago it was fetched; 0 = fresh
  std::chrono::microseconds took{0};  // to fetch it; 0: it was in the cache
  std::string error;                  // outcome failed: "SERVFAIL", "timeout", …
};

class Resolver {
 public:
  virtual ~Resolver() = default;
  // Asks at once, where it can; the task waits for the answer. So several calls, then several awaits, take as long as
  // the slowest. `name` without a search list; a final dot is fine. A name that is no domain name is no_domain, without
  // asking.
  virtual Task<Answer> lookup(std::string name, Type type, SteadyTime deadline) = 0;
  // Drops what is cached for a question: who thinks an answer too old forgets it and asks again.
  virtual void forget(const std::string& name, Type type);
};

// A and AAAA, asked together.
struct BothFamilies {
  Answer v4, v6;
};
Task<BothFamilies> lookup_both(Resolver& resolver, std::string name, SteadyTime deadline);
// found if either is; otherwise failed if either failed. ttl is the smaller of those found.
Answer one_answer(BothFamilies both);
Task<Answer> lookup_addresses(Resolver& resolver, std::string name, SteadyTime deadline);

// The forward-confirmed PTR name of an address (RFC 1912 2.1; Postfix's rule): at most 5 names tried, at most 16
// addresses each, all by the deadline; the first that has `ip` among its A/AAAA wins.
struct ClientName {
  std::string name;         // lower-case; empty = none confirmed
  bool failed = false;      // DNS trouble: nobody knows
  std::string unconfirmed;  // first PTR name, for the log and explain only
};
Task<ClientName> lookup_client_name(Resolver& resolver, IpAddress ip, SteadyTime deadline);

}  // namespace greymx::dns

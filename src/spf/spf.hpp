// SPF (RFC 7208): is this client allowed to use this sender's domain? Evaluated over our resolver, with the RFC's
// limits: 10 terms that need DNS (4.6.4), 10 MX or PTR names, 2 void lookups.
//
// Thread: the resolver's. Ends by the deadline (temperror).
#pragma once

#include <string>

#include "dns/resolver.hpp"

namespace greymx::spf {

enum class Result : std::uint8_t { none, neutral, pass, fail, softfail, temperror, permerror };
std::string_view to_string(Result result);

struct Query {
  IpAddress client;
  std::string sender;  // local@domain; empty local part means postmaster; null sender: postmaster@HELO (2.4)
  std::string helo;
  std::string receiver;  // our name, for %{r}
};

struct Outcome {
  Result result = Result::none;
  std::string domain;       // the domain that was checked
  std::string mechanism;    // what matched: "ip4:192.0.2.0/24", "include:x", "default"
  std::string problem;      // for permerror and temperror
  std::string explanation;  // exp= text after expansion (6.2); empty if none
  unsigned lookups = 0;
};

Task<Outcome> check_host(dns::Resolver& resolver, Query query, SteadyTime deadline);

// check_host(), but neutral instead of pass if a client that has nothing to do with the domain would pass too
// (198.18.0.1 for benchmarks, RFC 2544; 3fff::1 for documentation, RFC 9637): that says nothing about who the client
// is.
Task<Outcome> authorise(dns::Resolver& resolver, Query query, SteadyTime deadline);

}  // namespace greymx::spf

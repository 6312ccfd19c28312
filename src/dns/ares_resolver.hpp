// The real Resolver: c-ares under Asio, one per network thread, with a TTL cache in front.
//
// Servers are asked in turn, the one that answered last first: on SERVFAIL, REFUSED or a malformed answer the next one
// at once, after a timeout the next one, `attempts` times each. Truncated answers are fetched over TCP. Identical
// questions in flight are one question; it goes on for the cache when those who asked have left at their deadline.
//
// Destroy on the executor's thread and before its context, when no lookup is about to start; those that wait end as
// failed ("stopping").
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "base/clock.hpp"
#include "base/ip.hpp"
#include "base/metrics.hpp"
#include "dns/resolver.hpp"

namespace greymx::dns {

inline constexpr std::size_t max_lookups = 10000;  // questions in flight; beyond: failed "too many lookups"

struct DnsSettings {
  std::vector<Endpoint> servers;  // empty: those of /etc/resolv.conf, read now
  std::chrono::milliseconds timeout{5000};
  unsigned attempts = 2;
  std::size_t cache_size = 100000;
  bool operator==(const DnsSettings&) const = default;
};

// The servers of /etc/resolv.conf; the local one (RFC 1035's default) if there are none.
std::vector<Endpoint> system_servers();

// Reads files: call at start-up or reload, before privileges and the view of the file system shrink (c-ares 1.18
// without /dev/urandom falls back to predictable query IDs). Throws std::runtime_error if c-ares cannot start (no
// memory).
std::unique_ptr<Resolver> make_resolver(asio::any_io_executor executor, DnsSettings settings, const Clock& clock,
                                        Metrics& metrics);

}  // namespace greymx::dns

// The PROXY protocol, versions 1 and 2: what a load balancer says of the client before the first byte of SMTP. Pure;
// fuzzed.
//
// Spec: HAProxy's proxy-protocol.txt, 2.1 and 2.2. Only its TCP forms name a client; UNKNOWN, LOCAL and other families
// mean "the connection itself".
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/ip.hpp"

namespace greymx::smtp {

struct ProxyHeader {
  enum class Status : std::uint8_t { need_more, invalid, complete };
  static constexpr std::size_t max_size = 4096;  // TLVs included; more is invalid

  Status status = Status::need_more;
  std::size_t size = 0;            // complete: octets it took
  std::optional<Endpoint> client;  // complete: absent if it names none
};

ProxyHeader parse_proxy_header(std::string_view bytes);

}  // namespace greymx::smtp

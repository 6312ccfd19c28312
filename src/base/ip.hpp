// IP addresses, networks and endpoints. IPv4-mapped IPv6 addresses are folded to IPv4 when they are made, here and
// nowhere else. Pure values: copy freely, any thread.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace greymx {

class IpAddress {
 public:
  IpAddress() = default;  // 0.0.0.0
  static IpAddress v4(std::uint32_t host_order);
  static IpAddress v6(const std::array<std::uint8_t, 16>& bytes);  // folds ::ffff:a.b.c.d
  // "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"; no brackets, no scope, no leading zeros in octets.
  static std::optional<IpAddress> parse(std::string_view text);

  bool is_v4() const { return is_v4_; }
  std::uint32_t v4_value() const;                                       // host order; only if is_v4()
  const std::array<std::uint8_t, 16>& bytes() const { return bytes_; }  // v4 in the first four
  unsigned bits() const { return is_v4_ ? 32 : 128; }
  IpAddress masked(unsigned prefix) const;
  bool is_loopback() const;
  // RFC 1918, 6598, 3927, 4193, 4291 link-local, loopback, unspecified, multicast: never a public MX.
  bool is_private() const;
  std::string to_string() const;        // "192.0.2.1", "2001:db8::1" (RFC 5952)
  std::string to_literal() const;       // RFC 5321 address literal: "[192.0.2.1]", "[IPv6:2001:db8::1]"
  std::string reversed_labels() const;  // "1.2.0.192" or 32 nibbles: the left part of a DNSBL or PTR name (RFC 5782)
  std::string reverse_name() const;     // of the PTR record: "1.2.0.192.in-addr.arpa"
  std::string uncompressed() const;     // IPv6 as eight groups without leading zeros, no "::" (postgrey's key form)

  auto operator<=>(const IpAddress&) const = default;

 private:
  std::array<std::uint8_t, 16> bytes_{};
  bool is_v4_ = true;
};

struct Network {
  IpAddress address;  // masked
  unsigned prefix = 32;

  // "192.0.2.0/24", "2001:db8::/32", a bare address (full prefix); host bits set are an error.
  static std::optional<Network> parse(std::string_view text);
  bool contains(const IpAddress& ip) const;
  std::string to_string() const;
  auto operator<=>(const Network&) const = default;
};

bool contains(const std::vector<Network>& networks, const IpAddress& ip);

// The unit in which strangers are counted: an IPv4 address, an IPv6 /64.
IpAddress client_unit(const IpAddress& ip);

struct Endpoint {
  IpAddress address;
  std::uint16_t port = 0;

  static std::optional<Endpoint> parse(std::string_view text);  // "192.0.2.1:25", "[2001:db8::1]:25"
  std::string to_string() const;
  auto operator<=>(const Endpoint&) const = default;
};

}  // namespace greymx

template <>
struct std::hash<greymx::IpAddress> {
  std::size_t operator()(const greymx::IpAddress& ip) const noexcept;
};

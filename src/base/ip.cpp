#include "base/ip.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>

#include "base/text.hpp"

namespace greymx {

namespace {

constexpr std::array<std::uint8_t, 12> mapped_prefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

constexpr const char* private_ranges[] = {
    "0.0.0.0/8",   "10.0.0.0/8",  "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    "224.0.0.0/4", "240.0.0.0/4", "::/128",        "::1/128",     "fc00::/7",       "fe80::/10",     "ff00::/8",
};

}  // namespace

IpAddress IpAddress::v4(std::uint32_t host_order) {
  IpAddress ip;
  for (unsigned i = 0; i < 4; ++i) ip.bytes_[i] = static_cast<std::uint8_t>(host_order >> (24 - 8 * i));
  return ip;
}

IpAddress IpAddress::v6(const std::array<std::uint8_t, 16>& bytes) {
  IpAddress ip;
  if (std::equal(mapped_prefix.begin(), mapped_prefix.end(), bytes.begin())) {
    std::copy(bytes.begin() + 12, bytes.end(), ip.bytes_.begin());
  } else {
    ip.is_v4_ = false;
    ip.bytes_ = bytes;
  }
  return ip;
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  const std::string copy(text);
  if (copy.size() >= INET6_ADDRSTRLEN || copy.find('\0') != std::string::npos) return std::nullopt;
  in_addr four{};
  if (inet_pton(AF_INET, copy.c_str(), &four) == 1) return v4(ntohl(four.s_addr));
  std::array<std::uint8_t, 16> six{};
  if (inet_pton(AF_INET6, copy.c_str(), six.data()) == 1) return v6(six);
  return std::nullopt;
}

std::uint32_t IpAddress::v4_value() const {
  std::uint32_t value = 0;
  for (unsigned i = 0; i < 4; ++i) value = value << 8 | bytes_[i];
  return value;
}

IpAddress IpAddress::masked(unsigned prefix) const {
  IpAddress result = *this;
  for (unsigned bit = 0; bit < bits(); bit += 8) {
    std::uint8_t& byte = result.bytes_[bit / 8];
    if (bit >= prefix) {
      byte = 0;
    } else if (prefix - bit < 8) {
      byte = static_cast<std::uint8_t>(byte & 0xff << (8 - (prefix - bit)));
    }
  }
  return result;
}

bool IpAddress::is_loopback() const {
  static constexpr std::array<std::uint8_t, 16> v6_loopback = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  return is_v4_ ? bytes_[0] == 127 : bytes_ == v6_loopback;
}

bool IpAddress::is_private() const {
  static const std::vector<Network> networks = [] {
    std::vector<Network> all;
    for (const char* range : private_ranges) all.push_back(*Network::parse(range));
    return all;
  }();
  return greymx::contains(networks, *this);
}

std::string IpAddress::to_string() const {
  char text[INET6_ADDRSTRLEN] = {};
  if (!is_v4_) return inet_ntop(AF_INET6, bytes_.data(), text, sizeof text);
  char* end = text;
  for (std::size_t i = 0; i < 4; ++i) {  // inet_ntop goes through sprintf, and every log line has an address
    if (i > 0) *end++ = '.';
    end = std::to_chars(end, std::end(text), bytes_[i]).ptr;
  }
  return {text, end};
}

std::string IpAddress::to_literal() const {
  return (is_v4_ ? "[" : "[IPv6:") + to_string() + "]";
}

std::string IpAddress::reversed_labels() const {
  if (is_v4_) return v4(std::byteswap(v4_value())).to_string();
  std::string text;
  for (auto byte = bytes_.rbegin(); byte != bytes_.rend(); ++byte) {
    text += fmt::format("{}{:x}.{:x}", text.empty() ? "" : ".", *byte & 15, *byte >> 4);
  }
  return text;
}

std::string IpAddress::reverse_name() const {
  return reversed_labels() + (is_v4_ ? ".in-addr.arpa" : ".ip6.arpa");
}

std::string IpAddress::uncompressed() const {
  if (is_v4_) return to_string();
  std::string text;
  for (std::size_t i = 0; i < bytes_.size(); i += 2) {
    text += fmt::format("{}{:x}", i == 0 ? "" : ":", bytes_[i] << 8 | bytes_[i + 1]);
  }
  return text;
}

std::optional<Network> Network::parse(std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto address = IpAddress::parse(text.substr(0, slash));
  if (!address) return std::nullopt;
  Network network{*address, address->bits()};
  if (slash != std::string_view::npos) {
    // "::ffff:192.0.2.0/120" counts 128 bits, of which the first 96 are folded away.
    const bool folded = address->is_v4() && text.find(':') != std::string_view::npos;
    const auto prefix = plain_number(text.substr(slash + 1), folded ? 128 : address->bits());
    if (!prefix || (folded && *prefix < 96)) return std::nullopt;
    network.prefix = folded ? *prefix - 96 : *prefix;
  }
  if (network.address.masked(network.prefix) != network.address) return std::nullopt;
  return network;
}

bool Network::contains(const IpAddress& ip) const {
  return ip.is_v4() == address.is_v4() && ip.masked(prefix) == address;
}

std::string Network::to_string() const {
  return fmt::format("{}/{}", address.to_string(), prefix);
}

bool contains(const std::vector<Network>& networks, const IpAddress& ip) {
  return std::any_of(networks.begin(), networks.end(), [&](const Network& network) { return network.contains(ip); });
}

IpAddress client_unit(const IpAddress& ip) {
  return ip.is_v4() ? ip : ip.masked(64);
}

std::optional<Endpoint> Endpoint::parse(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const bool has_colons = host.find(':') != std::string_view::npos;
  const auto address = IpAddress::parse(host);
  const auto port = plain_number(text.substr(colon + 1), 65535);
  if (!address || !port || bracketed != has_colons) return std::nullopt;
  return Endpoint{*address, static_cast<std::uint16_t>(*port)};
}

std::string Endpoint::to_string() const {
  const std::string host = address.to_string();
  return address.is_v4() ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

}  // namespace greymx

std::size_t std::hash<greymx::IpAddress>::operator()(const greymx::IpAddress& ip) const noexcept {
  std::uint64_t halves[2];
  std::memcpy(halves, ip.bytes().data(), sizeof halves);
  const std::uint64_t mixed = (halves[0] ^ (halves[1] + 0x9e3779b97f4a7c15)) * 0xff51afd7ed558ccd;
  return static_cast<std::size_t>(mixed ^ mixed >> 32);
}

#include "smtp/proxy_header.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/text.hpp"

namespace greymx::smtp {

namespace {

using Status = ProxyHeader::Status;

constexpr std::string_view signature_v2("\r\n\r\n\0\r\nQUIT\n", 12);
constexpr std::string_view signature_v1("PROXY ");
constexpr std::size_t max_v1 = 107;  // with CRLF
constexpr std::size_t fixed_v2 = 16;

// "PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\n"
ProxyHeader parse_v1(std::string_view bytes) {
  const std::size_t end = bytes.substr(0, max_v1).find("\r\n");
  if (end == std::string_view::npos) return {bytes.size() < max_v1 ? Status::need_more : Status::invalid, 0, {}};
  std::string_view line = bytes.substr(signature_v1.size(), end - signature_v1.size());
  const std::size_t size = end + 2;
  if (line == "UNKNOWN" || line.starts_with("UNKNOWN ")) return {Status::complete, size, {}};
  std::array<std::string_view, 5> words;
  for (std::string_view& word : words) {
    word = line.substr(0, line.find(' '));
    line.remove_prefix(std::min(word.size() + 1, line.size()));
  }
  const auto source = IpAddress::parse(words[1]);
  const auto destination = IpAddress::parse(words[2]);
  const auto port = plain_number(words[3], 65535);
  const bool family = words[0] == "TCP4" ? words[1].find(':') == std::string_view::npos : words[0] == "TCP6";
  const bool ends_well = line.empty() && bytes[end - 1] != ' ';
  if (!family || !source || !destination || !port || !plain_number(words[4], 65535) || !ends_well) {
    return {Status::invalid, 0, {}};
  }
  return {Status::complete, size, Endpoint{*source, static_cast<std::uint16_t>(*port)}};
}

std::uint16_t big_endian(std::string_view bytes) {
  return static_cast<std::uint16_t>(static_cast<unsigned char>(bytes[0]) << 8 | static_cast<unsigned char>(bytes[1]));
}

ProxyHeader parse_v2(std::string_view bytes) {
  if (bytes.size() < fixed_v2) return {};
  const unsigned version = static_cast<unsigned char>(bytes[12]) >> 4;
  const unsigned command = static_cast<unsigned char>(bytes[12]) & 15;
  const unsigned family = static_cast<unsigned char>(bytes[13]);
  const std::size_t length = big_endian(bytes.substr(14));
  const std::size_t size = fixed_v2 + length;
  if (version != 2 || command > 1 || size > ProxyHeader::max_size) return {Status::invalid, 0, {}};
  if (bytes.size() < size) return {};
  const std::string_view addresses = bytes.substr(fixed_v2, length);
  const std::size_t width = family == 0x11 ? 4 : family == 0x21 ? 16 : 0;  // TCP over IPv4, IPv6
  if (command == 0 || width == 0) return {Status::complete, size, {}};
  if (length < 2 * width + 4) return {Status::invalid, 0, {}};
  std::array<std::uint8_t, 16> source{};
  std::memcpy(source.data(), addresses.data(), width);
  const auto v4 = static_cast<std::uint32_t>(big_endian(addresses)) << 16 | big_endian(addresses.substr(2));
  const IpAddress address = width == 4 ? IpAddress::v4(v4) : IpAddress::v6(source);
  return {Status::complete, size, Endpoint{address, big_endian(addresses.substr(2 * width))}};
}

}  // namespace

ProxyHeader parse_proxy_header(std::string_view bytes) {
  if (bytes.substr(0, signature_v2.size()) == signature_v2.substr(0, bytes.size())) {
    return bytes.size() < signature_v2.size() ? ProxyHeader{} : parse_v2(bytes);
  }
  if (bytes.substr(0, signature_v1.size()) == signature_v1.substr(0, bytes.size())) {
    return bytes.size() < signature_v1.size() ? ProxyHeader{} : parse_v1(bytes);
  }
  return {Status::invalid, 0, {}};
}

}  // namespace greymx::smtp

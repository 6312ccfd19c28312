// DNS messages for tests, written byte by byte so that they can be wrong.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "dns/resolver.hpp"

namespace greymx::test {

using Bytes = std::vector<std::uint8_t>;

inline Bytes operator+(Bytes left, const Bytes& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}
inline Bytes u16(unsigned value) {
  return {static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value)};
}
inline Bytes u32(std::uint32_t value) {
  return u16(value >> 16) + u16(value & 0xffff);
}
inline Bytes raw(std::string_view text) {
  return {text.begin(), text.end()};
}
inline Bytes label(std::string_view text) {
  return Bytes{static_cast<std::uint8_t>(text.size())} + raw(text);
}

inline Bytes wire_name(const std::string& name) {
  Bytes bytes;
  std::istringstream labels{name};
  for (std::string part; std::getline(labels, part, '.');) bytes = bytes + label(part);
  return bytes + Bytes{0};
}
inline Bytes pointer(unsigned offset) {
  return u16(0xc000 | offset);
}

inline Bytes record(const Bytes& owner, dns::Type type, std::uint32_t ttl, const Bytes& data, unsigned dns_class = 1) {
  return owner + u16(static_cast<unsigned>(type)) + u16(dns_class) + u32(ttl) +
         u16(static_cast<unsigned>(data.size())) + data;
}
inline Bytes soa(const std::string& owner, std::uint32_t ttl, std::uint32_t minimum) {
  return record(
      wire_name(owner), dns::Type::soa, ttl,
      wire_name("ns." + owner) + wire_name("hostmaster." + owner) + u32(1) + u32(2) + u32(3) + u32(4) + u32(minimum));
}

struct Message {
  unsigned id = 0;
  unsigned flags = 0x8180;  // response, recursion desired and available
  unsigned rcode = 0;
  Bytes question;  // name, type, class
  std::vector<Bytes> answers;
  std::vector<Bytes> authority;

  Message() = default;
  Message(const std::string& name, dns::Type type)
      : question(wire_name(name) + u16(static_cast<unsigned>(type)) + u16(1)) {}

  Bytes bytes() const {
    Bytes all = u16(id) + u16(flags | rcode) + u16(question.empty() ? 0 : 1) +
                u16(static_cast<unsigned>(answers.size())) + u16(static_cast<unsigned>(authority.size())) + u16(0) +
                question;
    for (const Bytes& one : answers) all = all + one;
    for (const Bytes& one : authority) all = all + one;
    return all;
  }
};

}  // namespace greymx::test

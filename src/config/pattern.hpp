// Which answers of a list count: "127.0.0.2", "127.0.0.[2..11]", "127.0.[0;1].[2;4..7]". Pure.
#pragma once

#include <array>
#include <bitset>
#include <optional>
#include <string_view>

#include "base/ip.hpp"

namespace greymx::config {

class Pattern {
 public:
  // Four octets, each a number of at most three digits or "[N;N..N]"; nullopt for anything else.
  static std::optional<Pattern> parse(std::string_view text);
  bool matches(const IpAddress& address) const;
  // Whether it matches more than what is never a listing: addresses outside 127.0.0.0/8 and lists' error codes.
  bool can_list() const;
  bool operator==(const Pattern&) const = default;

 private:
  std::array<std::bitset<256>, 4> octets_;
};

}  // namespace greymx::config

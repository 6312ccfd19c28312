// SPF record text -> terms (RFC 7208 4.6.1, 5, 6). Pure. A syntax error anywhere makes the whole record void (4.6).
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "spf/spf.hpp"

namespace greymx::spf {

enum class Kind : std::uint8_t { all, include, a, mx, ptr, ip4, ip6, exists };

struct Mechanism {
  Kind kind = Kind::all;
  Result qualifier = Result::pass;  // the result if it matches
  std::string domain;               // domain-spec; empty = the domain being checked
  IpAddress address;                // ip4, ip6
  unsigned prefix4 = 32;
  unsigned prefix6 = 128;
  std::string text;  // as written, without qualifier
};

struct Record {
  std::vector<Mechanism> mechanisms;
  std::string redirect;     // domain-spec or empty
  std::string explanation;  // domain-spec of exp=, or empty
};

// "v=spf1", any case, then a space or nothing (4.5).
bool is_spf_record(std::string_view text);
// `text` is one; the error says which term is wrong.
std::expected<Record, std::string> parse_record(std::string_view text);

}  // namespace greymx::spf

// Answer bytes from a DNS server -> Answer (RFC 1035 4). Pure. The bytes are hostile: everything read is bounded by the
// packet, and what is kept of it by the limits below.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "dns/resolver.hpp"

namespace greymx::dns {

inline constexpr std::size_t max_records = 64;  // looked at in one section; the rest is ignored
inline constexpr std::size_t max_mx = 16;       // kept, the most preferred ones
inline constexpr std::size_t max_text = 4096;   // one joined TXT record; a longer one is ignored
inline constexpr unsigned max_cnames = 8;

// The form in which names are asked, cached and compared: lower-case A-labels without a final dot. More than hostnames:
// any printable ASCII but backslash (SPF macros make such names). nullopt: no such name can exist (RFC 1035 2.3.4).
std::optional<std::string> question_name(std::string_view name);

// What `packet` says about `name` (a question_name) and `type`. Records count only if their owner is `name` or what its
// CNAMEs lead to. An answer to another question, a truncated or malformed one, and any rcode but NOERROR and NXDOMAIN
// are `failed`. Odd bytes in names become '?', which no hostname contains.
Answer parse_answer(std::span<const std::uint8_t> packet, std::string_view name, Type type);

Answer failed_answer(std::string error);

}  // namespace greymx::dns

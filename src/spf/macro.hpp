// SPF macros (RFC 7208 7): checked and expanded. Pure.
#pragma once

#include <string>
#include <string_view>

#include "spf/spf.hpp"

namespace greymx::spf {

// domain-spec (7.1): a macro-string that ends in a macro or in a top label that is not all digits.
bool is_domain_spec(std::string_view text);
// Explanation text may also use %{c}, %{r} and %{t}.
bool is_macro_string(std::string_view text, bool explanation);
// Does it contain %{p}, which costs lookups?
bool needs_validated_name(std::string_view text);

struct MacroValues {
  IpAddress client;
  std::string local, sender_domain;  // of the sender: %{l}, %{o}, together %{s}
  std::string helo, receiver;
  std::string domain;                 // the one being checked: %{d}
  std::string validated = "unknown";  // %{p}
};
// `text` must have passed the check above. Stops after some KB.
std::string expand(std::string_view text, const MacroValues& values);
// Without final dot; of more than 253 characters labels are dropped on the left (7.3).
std::string expand_domain(std::string_view text, const MacroValues& values);

}  // namespace greymx::spf

// One table row of the SPF tests: who asks, and what RFC 7208 says.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spf/spf.hpp"

namespace greymx::test {

struct SpfCase {
  std::string_view name;
  std::string_view sender;
  spf::Result result;
  std::string_view client = "192.0.2.10";
  std::string_view helo = "mail.example.org";
  std::optional<std::string_view> explanation = std::nullopt;
};

// Runs all against one zone, each in a section of its own name.
void check_spf(std::string_view zone, const std::vector<SpfCase>& cases);

}  // namespace greymx::test

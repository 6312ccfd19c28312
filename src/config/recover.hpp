// TOML that goes on after its syntax errors, so that one run of greymxd -t shows them all. For load.cpp.
#pragma once

#include "config/reader.hpp"

namespace greymx::config {

struct Recovered {
  std::optional<toml::table> table;  // absent if an error left nothing to go on with
  bool whole = false;                // false if lines were left out: what is missing may stand in them
};

Recovered parse_toml(std::string text, Report& report);

}  // namespace greymx::config

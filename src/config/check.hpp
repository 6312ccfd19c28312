// What no single key can tell: combinations that make no sense. For load.cpp.
#pragma once

#include "config/reader.hpp"

namespace greymx::config {

void check(const Config& config, Report& report);

}  // namespace greymx::config

// The series of a family that came later than at the start, when all that can be should be there with value 0, but for
// the codes that access files make up.
#pragma once

#include <set>
#include <sstream>
#include <string>

#include "base/metrics.hpp"

namespace greymx::test {

inline std::string late_series(const Metrics& metrics, const std::string& family) {
  const auto series = [&](const Metrics& some) {
    std::set<std::string> names;
    std::istringstream text(some.text());
    for (std::string line; std::getline(text, line);) {
      const bool made_up = line.find("check=\"access.") != std::string::npos;
      if (line.starts_with(family + "{") && !made_up) names.insert(line.substr(0, line.rfind(' ')));
    }
    return names;
  };
  std::string late;
  const std::set<std::string> known = series(Metrics());
  for (const std::string& name : series(metrics)) {
    if (!known.contains(name)) late += name + "\n";
  }
  return late;
}

}  // namespace greymx::test

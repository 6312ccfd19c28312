#include "config/config.hpp"

#include <fmt/format.h>

#include "base/mailbox.hpp"

namespace greymx::config {

std::string HostPort::to_string() const {
  if (host.find(':') != std::string::npos) return fmt::format("[{}]:{}", host, port);
  return fmt::format("{}:{}", host, port);
}

const Domain* Config::find_domain(std::string_view domain) const {
  const auto name = canonical_domain(domain);
  if (!name) return nullptr;
  const Domain* best = nullptr;
  for (const Domain& candidate : domains) {
    if (!candidate.wildcard) {
      if (candidate.name == *name) return &candidate;
    } else if (is_in_domain(*name, candidate.name) && name->size() > candidate.name.size()) {
      if (best == nullptr || candidate.name.size() > best->name.size()) best = &candidate;
    }
  }
  return best;
}

}  // namespace greymx::config

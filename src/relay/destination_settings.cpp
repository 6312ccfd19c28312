#include <fmt/format.h>

#include "relay/destination.hpp"

namespace greymx::relay {

namespace {

constexpr char all_reports[] = "(reports)";  // no domain

}  // namespace

std::string shown_domain(const config::Config& config, const std::string& domain) {
  return domain.empty() && !config.domains.empty() ? config.domains.front().shown_name() : domain;
}

std::string example_of(const config::Domain& domain) {
  return domain.wildcard ? "any." + domain.name : domain.name;
}

bool has_one_destination(const config::Domain& domain) {
  return !domain.wildcard || !domain.primary.empty();
}

const config::Domain* entry_for(const config::Config& config, const std::string& domain) {
  if (domain.empty() && !config.domains.empty()) return &config.domains.front();
  return config.find_domain(domain);
}

std::string name_of(const config::Config& config, const std::string& domain) {
  const config::Domain* entry = entry_for(config, domain);
  if (entry != nullptr && has_one_destination(*entry)) return entry->shown_name();
  if (entry == nullptr && config.delivery.smarthost) return all_reports;
  return entry != nullptr && domain.empty() ? entry->name : domain;
}

DestinationSettings settings_for(const config::Config& config, const std::string& domain) {
  DestinationSettings settings;
  const config::Domain* entry = entry_for(config, domain);
  settings.request.domain = entry != nullptr && domain.empty() ? entry->name : domain;
  settings.request.mx_port = config.delivery.mx_port;
  settings.request.allow_private = config.delivery.private_targets;
  settings.request.own = entry != nullptr;
  if (entry != nullptr) {
    settings.label = entry->shown_name();
    settings.request.hosts = entry->primary;
    settings.tls = entry->tls;
    settings.fingerprint = entry->fingerprint;
    settings.xforward = entry->xforward;
  } else {
    settings.label = reports_label;
    if (config.delivery.smarthost) settings.request.hosts = {*config.delivery.smarthost};
  }
  settings.key = fmt::format("{},{},{},{}", settings.request.own ? "own" : "report", static_cast<int>(settings.tls),
                             settings.fingerprint, settings.xforward);
  for (const config::HostPort& host : settings.request.hosts) settings.key += "," + host.to_string();
  if (settings.request.hosts.empty()) {
    settings.key +=
        fmt::format(",mx:{}:{},{}", settings.request.domain, settings.request.mx_port, settings.request.allow_private);
  }
  return settings;
}

}  // namespace greymx::relay

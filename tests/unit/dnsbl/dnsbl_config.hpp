// Block list settings for tests.
#pragma once

#include <memory>
#include <string>

#include "config/config.hpp"

namespace greymx::test {

inline config::DnsblList block_list(std::string zone, int weight = 1) {
  config::DnsblList list;
  list.zone = std::move(zone);
  list.weight = weight;
  return list;
}
inline config::ConfigPtr with(config::Dnsbl settings) {
  auto config = std::make_shared<config::Config>();
  config->dnsbl = std::move(settings);
  return config;
}

}  // namespace greymx::test

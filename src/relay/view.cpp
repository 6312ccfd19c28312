#include "relay/view.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace greymx::relay {

View::View(config::ConfigPtr config, const std::map<std::string, std::shared_ptr<Destination>>& by_key)
    : config_(std::move(config)) {
  add_destinations(by_key);
  bool unlimited = false;
  for (const config::Domain& domain : config_->domains) {
    const auto it = by_key.find(settings_for(*config_, example_of(domain)).key);
    PrimaryStatus status;
    const bool one_way = has_one_destination(domain);
    if (one_way && it != by_key.end()) status = it->second->status();
    status.domain = domain.shown_name();
    status_.push_back(std::move(status));
    const Seen mine = one_way && it != by_key.end() ? by_key_[it->first] : Seen();
    if (one_way) by_entry_[&domain] = mine;
    unlimited = unlimited || mine.size_limit == 0;
    largest_size_limit_ = std::max(largest_size_limit_, mine.size_limit);
  }
  if (unlimited) largest_size_limit_ = 0;
}

void View::add_destinations(const std::map<std::string, std::shared_ptr<Destination>>& by_key) {
  for (const auto& [key, one] : by_key) {
    by_key_[key] = {one->doubtful() ? Health::up : one->health().health(), one->size_limit()};
    const bool named = one->own() && !one->settings().request.hosts.empty();
    for (const Host& host : one->known_hosts()) {
      if (one->own()) own_addresses_.insert(host.endpoint.address);
      if (named) primary_addresses_.insert(host.endpoint.address);
    }
    if (!one->own()) status_.push_back(one->status());
    if (one->own() && !named) add_subdomain(*one);
  }
}

// Its mail waits for a reason and a time of its own.
void View::add_subdomain(const Destination& one) {
  const config::Domain* entry = config_->find_domain(one.settings().request.domain);
  if (entry == nullptr || has_one_destination(*entry) || one.ignored()) return;
  PrimaryStatus status = one.status();
  status.wildcard = entry->shown_name();
  status_.push_back(std::move(status));
}

// Of the subdomains that are not up and have mail: any stranger can ask for one that is down.
View::Worst View::worst_of(const std::set<std::string>& waiting) const {
  Worst worst;
  for (const PrimaryStatus& status : status_) {
    const bool counts = !status.wildcard.empty() && waiting.contains(status.domain);
    if (!counts || look(status.domain).health == Health::up) continue;
    const PrimaryStatus*& known = worst[status.wildcard];
    if (known == nullptr || known->health < status.health) known = &status;
  }
  return worst;
}

// Asked at every RCPT: for entries with one destination without building its key.
View::Seen View::look(const std::string& domain) const {
  const config::Domain* entry = config_->find_domain(domain);
  if (const auto it = by_entry_.find(entry); it != by_entry_.end()) return it->second;
  const auto it = by_key_.find(settings_for(*config_, domain).key);
  return it == by_key_.end() ? Seen() : it->second;
}

std::string View::hosts(const std::string& domain) const {
  const config::Domain* entry = config_->find_domain(domain);
  if (entry == nullptr) return {};
  if (entry->primary.empty()) return fmt::format("mx:{}", config_->delivery.mx_port);
  std::string text;
  for (const config::HostPort& host : entry->primary) text += (text.empty() ? "" : ",") + host.to_string();
  return text;
}

std::vector<PrimaryStatus> View::status(const std::vector<queue::DomainSummary>& queued) const {
  std::vector<PrimaryStatus> list = status_;
  std::map<std::string, WallTime> next;
  std::set<std::string> waiting;
  for (const queue::DomainSummary& summary : queued) {
    waiting.insert(summary.domain);
    if (summary.next_due == WallTime::max()) continue;  // held
    const config::Domain* entry = entry_for(*config_, summary.domain);
    const std::string name = entry != nullptr ? entry->shown_name() : summary.domain;
    const auto due = next.emplace(name, summary.next_due).first;
    due->second = std::min(due->second, summary.next_due);
  }
  const Worst worst = worst_of(waiting);
  for (PrimaryStatus& status : list) {
    if (const auto subdomain = worst.find(status.domain); subdomain != worst.end()) {
      const std::string entry = status.domain;
      status = *subdomain->second;
      status.last_error = status.domain + ": " + status.last_error;
      status.domain = entry;
      status.wildcard.clear();
    }
    const auto due = next.find(status.domain);
    if (status.health == Health::up && due != next.end()) status.next_attempt = due->second;
  }
  return list;
}

}  // namespace greymx::relay

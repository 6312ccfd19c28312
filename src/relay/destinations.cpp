#include "relay/destinations.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/files.hpp"

namespace greymx::relay {

namespace {

constexpr std::size_t most_passing = 1000;  // of ours that relay.conf does not name, all together
constexpr std::size_t most_missed = 100;    // …that are kept without mail since they are down

}  // namespace

Destinations::Destinations(Parts& parts) : parts_(parts), state_file_(parts.config->state_path + "/primaries.json") {}

// --- which there are -------------------------------------------------------------------------------------------------

Destinations::Pointer Destinations::of(const std::string& domain) {
  if (Pointer known = find(domain)) return known;
  const std::string name = name_of(*parts_.config, domain);
  const DestinationSettings settings = settings_for(*parts_.config, domain);
  Pointer& found = by_key_[settings.key];
  const bool fresh = !found;
  if (fresh) found = std::make_shared<Destination>(parts_, settings);
  by_name_[name] = found;
  // Where a wildcard's subdomains had one primary until now, each goes on with its history, whatever it moves to.
  const auto known = before(name);
  if (found->own() && known != memory_.end()) {
    Remembered past = known->second;
    if (!fresh) {  // its own present counts
      past.health = Health::up;
      past.on_trial = false;
      past.downtime.end(parts_.clock.now());
    }
    found->inherit(past);
  }
  if (fresh) found->start();
  return found;
}

Destinations::Pointer Destinations::find(const std::string& domain) const {
  const auto it = by_name_.find(name_of(*parts_.config, domain));
  return it == by_name_.end() ? nullptr : it->second;
}

// Of what relay.conf names; all else comes and goes with its mail.
std::set<std::string> Destinations::named_keys() const {
  std::set<std::string> keys;
  for (const config::Domain& domain : parts_.config->domains) {
    if (has_one_destination(domain)) keys.insert(settings_for(*parts_.config, example_of(domain)).key);
  }
  return keys;
}

// What relay.conf names, what has mail, and with them all that is remembered.
void Destinations::add_known() {
  const config::Config& config = *parts_.config;
  for (const config::Domain& domain : config.domains) {
    if (has_one_destination(domain)) of(example_of(domain));
  }
  for (const queue::DomainSummary& summary : parts_.spool.domains()) {
    if (entry_for(config, summary.domain) != nullptr) of(summary.domain);
  }
  for (const auto& [name, before] : memory_) {
    const std::string domain = name.starts_with("*.") ? "any" + name.substr(1) : name;
    const config::Domain* entry = entry_for(config, domain);
    if (entry != nullptr && (domain == name || has_one_destination(*entry))) of(domain)->inherit(before);
  }
}

void Destinations::drop(const std::set<std::string>& needed, bool in_use_too) {
  std::size_t missed = 0;
  for (auto it = by_key_.begin(); it != by_key_.end();) {
    const Destination& one = *it->second;
    const auto in_use = [&] { return !one.unused() || (one.missed() && ++missed <= most_missed); };
    if (needed.contains(it->first) || (!in_use_too && in_use())) {
      ++it;
      continue;
    }
    std::erase_if(by_name_, [&](const auto& entry) { return entry.second == it->second; });
    it->second->retire();
    it = by_key_.erase(it);
  }
}

void Destinations::reload(config::ConfigPtr config) {
  remember();
  const config::ConfigPtr before = std::exchange(parts_.config, std::move(config));
  for (const queue::DomainSummary& summary : parts_.spool.domains()) {
    const std::string& domain = summary.domain;
    const bool moves = settings_for(*before, domain).key != settings_for(*parts_.config, domain).key;
    // What its old primary, or having none, made it wait for is over.
    if (moves) parts_.spool.make_domain_due(domain, parts_.clock.now());
  }
  by_name_.clear();
  add_known();
  std::set<std::string> needed;
  for (const auto& [name, one] : by_name_) needed.insert(one->settings().key);
  drop(needed, true);
  for (const auto& [key, one] : by_key_) one->reload();
}

void Destinations::tick() {
  const WallTime now = parts_.clock.now();
  std::set<std::string> needed = named_keys();
  for (const queue::DomainSummary& summary : parts_.spool.domains()) {
    if (summary.next_due <= now) of(summary.domain)->work(summary.domain);
    const bool waits = summary.next_due != WallTime::max();  // not held
    const Pointer one = find(summary.domain);
    if (one && (one->own() || waits)) needed.insert(one->settings().key);
  }
  tick_all();
  drop(needed, false);
}

// From another one each time: strangers share their workers, and those that never answer must not be first for ever.
void Destinations::tick_all() {
  if (by_key_.empty()) return;
  auto it = std::next(by_key_.begin(), static_cast<std::ptrdiff_t>(parts_.random() % by_key_.size()));
  for (std::size_t left = by_key_.size(); left > 0; --left) {
    it->second->tick();
    if (++it == by_key_.end()) it = by_key_.begin();
  }
}

void Destinations::clock_is_back() {
  set_memory_back();
  for (const auto& [key, one] : by_key_) one->clock_is_back();
}

void Destinations::retire() {
  for (const auto& [key, one] : by_key_) one->retire();
}

bool Destinations::crowded() const {
  const auto ours = std::ranges::count_if(by_key_, [](const auto& entry) { return entry.second->own(); });
  return static_cast<std::size_t>(ours) > parts_.config->domains.size() + most_passing;
}

// --- what is remembered ----------------------------------------------------------------------------------------------

const Downtime* Destinations::downtime_of(const std::string& domain) const {
  const Pointer now = find(domain);
  if (now && now->own()) return &now->health().downtime();
  const auto known = before(name_of(*parts_.config, domain));
  return known == memory_.end() ? nullptr : &known->second.downtime;
}

std::string Destinations::trouble_of(const std::string& domain) const {
  const Pointer one = find(domain);
  return one && one->health().health() != Health::up ? one->health().reason() : "";
}

Memory::const_iterator Destinations::before(const std::string& name) const {
  auto found = memory_.find(name);
  for (auto dot = name.find('.'); found == memory_.end() && dot != name.npos; dot = name.find('.', dot + 1)) {
    found = memory_.find("*" + name.substr(dot));
  }
  return found;
}

// No outage that goes on can have begun later than now.
void Destinations::set_memory_back() {
  const WallTime now = parts_.clock.now();
  for (auto& [name, one] : memory_) {
    one.since = std::min(one.since, now);
    one.downtime.begun_by(now);
  }
}

void Destinations::remember() {
  const WallTime oldest = parts_.clock.now() - parts_.config->queue.lifetime_max;
  const bool certain = parts_.clock_is_sure();
  const std::set<std::string> named = named_keys();
  Memory next;
  for (const auto& [name, one] : by_name_) {
    const bool passing = !named.contains(one->settings().key);
    if (!one->own() || (passing && next.size() > named.size() + most_passing)) continue;
    next[name] = one->remembered();
    if (certain) next[name].downtime.forget_before(oldest);
  }
  // A domain that relay.conf names no more may come back.
  for (const queue::DomainSummary& summary : parts_.spool.domains()) {
    const auto known = before(name_of(*parts_.config, summary.domain));
    if (known != memory_.end()) next.insert(*known);
  }
  memory_ = std::move(next);
}

void Destinations::start() {
  if (Result<Memory> loaded = load_memory(state_file_)) {
    memory_ = std::move(*loaded);
    set_memory_back();
  } else {
    const Error& why = loaded.error();
    if (why.kind != ErrorKind::not_found)
      parts_.log.warning("qmgr", fmt::format("{}: {}; the history of outages begins anew", state_file_, why.text));
    if (parts_.spool.totals().messages > 0) assume_outage();
  }
  add_known();
}

// The history is lost, or came without the queue: whatever is in the queue may have waited through an outage, and what
// it waited for may have come back half dead.
void Destinations::assume_outage() {
  const config::Config& config = *parts_.config;
  Remembered unknown;
  const WallTime end = parts_.clock.now() - std::chrono::seconds(1);  // an outage that begins now is another
  unknown.downtime.restore({{WallTime(), end}});
  for (const config::Domain& domain : config.domains) memory_[domain.shown_name()] = unknown;
  unknown.since = end;
  unknown.on_trial = true;
  for (const queue::DomainSummary& summary : parts_.spool.domains()) memory_[name_of(config, summary.domain)] = unknown;
  parts_.log.warning("qmgr", "no outage is remembered: the time until now does not count towards queue.lifetime");
}

Task<bool> Destinations::save() {
  remember();
  auto write = [file = state_file_, text = to_json(memory_)] { return replace_file(file, text); };
  const Result<> written = co_await offload(parts_.disk, std::move(write));
  if (!written && saved_) parts_.log.warning("qmgr", "state not saved: " + written.error().text);
  saved_ = written.has_value();
  co_return saved_;
}

}  // namespace greymx::relay

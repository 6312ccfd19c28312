// DNS answers kept for their TTL. Bounded by what they weigh, not by their number alone: an attacker's domain may have
// answers of many kilobytes. Pure: time is passed in. Not thread-safe.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/bounded.hpp"
#include "dns/resolver.hpp"

namespace greymx::dns {

class Cache {
 public:
  explicit Cache(std::size_t capacity) : entries_(capacity), capacity_(capacity) {}

  // With `age` filled in; nullopt when there is none that is still good.
  std::optional<Answer> find(const std::string& name, Type type, SteadyTime now);
  // Kept for its TTL, but found at most a day, negative at most an hour (RFC 2308 5 suggests 1 to 3), failed 5 seconds.
  void store(const std::string& name, Type type, const Answer& answer, SteadyTime now);
  void erase(const std::string& name, Type type);
  std::size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::unique_ptr<const Answer> answer;  // null: one without records or error, which most are
    SteadyTime fetched;
    std::chrono::seconds lifetime, ttl;
    std::size_t weight;
    Outcome outcome;
  };
  void let_go(const std::optional<Entry>& entry) { weight_ -= entry ? entry->weight : 0; }

  LruMap<std::string, Entry> entries_;
  std::size_t capacity_;
  std::size_t weight_ = 0;  // of all; an entry of up to 256 bytes weighs 1
};

}  // namespace greymx::dns

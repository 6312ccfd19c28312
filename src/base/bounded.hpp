// Containers for what strangers can make grow: both have hard caps.
#pragma once

#include <cstddef>
#include <list>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/id.hpp"

namespace greymx {

// The least recently used entry makes way. Not thread-safe.
template <class Key, class Value, class Hash = std::hash<Key>>
class LruMap {
 public:
  explicit LruMap(std::size_t capacity) : capacity_(capacity) {}

  Value* find(const Key& key) {  // marks it as used; valid until the next insert
    const auto it = index_.find(&key);
    if (it == index_.end()) return nullptr;
    order_.splice(order_.begin(), order_, it->second);
    return &it->second->second;
  }
  Value& insert(Key key, Value value) {  // replaces
    if (Value* const known = find(key)) return *known = std::move(value);
    while (order_.size() >= capacity_ && !order_.empty()) take_oldest();
    order_.emplace_front(std::move(key), std::move(value));
    index_.emplace(&order_.front().first, order_.begin());
    return order_.front().second;
  }
  std::optional<Value> take(const Key& key) {  // it is in the map no more
    const auto at = index_.find(&key);
    return at == index_.end() ? std::nullopt : take(at);
  }
  std::optional<Value> take_oldest() {  // the one that makes way next
    return order_.empty() ? std::nullopt : take(index_.find(&order_.back().first));
  }
  bool erase(const Key& key) { return take(key).has_value(); }
  std::size_t size() const { return order_.size(); }
  void clear() {
    index_.clear();
    order_.clear();
  }
  auto begin() const { return order_.begin(); }
  auto end() const { return order_.end(); }

 private:
  struct HashOf {
    std::size_t operator()(const Key* key) const { return Hash{}(*key); }
  };
  struct Same {
    bool operator()(const Key* a, const Key* b) const { return *a == *b; }
  };
  using Order = std::list<std::pair<Key, Value>>;
  using Index = std::unordered_map<const Key*, typename Order::iterator, HashOf, Same>;

  std::optional<Value> take(typename Index::iterator at) {
    const auto entry = at->second;
    std::optional<Value> value = std::move(entry->second);
    index_.erase(at);
    order_.erase(entry);  // last: the index's key is in it, and so may the caller's be
    return value;
  }

  std::size_t capacity_;
  Order order_;  // most recent first
  Index index_;
};

// `rate` tokens a `period`, at most `rate` saved up. Time is passed in.
class TokenBucket {
 public:
  TokenBucket(double rate, std::chrono::duration<double> period, SteadyTime now)
      : rate_(rate), per_second_(rate / period.count()), tokens_(rate), last_(now) {}
  bool take(SteadyTime now, double tokens = 1) {
    const double passed = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    tokens_ = std::min(rate_, tokens_ + passed * per_second_);
    if (tokens_ < tokens) return false;
    tokens_ -= tokens;
    return true;
  }

 private:
  double rate_;
  double per_second_;
  double tokens_;
  SteadyTime last_;
};

}  // namespace greymx

// A greylist store in memory, for tests: every call completes at once on the caller's thread. `broken` makes it fail,
// `breaks_at_erase` from the first erase on.
#pragma once

#include <map>

#include "greylist/store.hpp"
#include "greylist/triplet.hpp"

namespace greymx::test {

class MemoryStore final : public greylist::Store {
 public:
  std::map<std::string, greylist::Record> records;
  bool broken = false, breaks_at_erase = false;

  Task<Result<greylist::Outcome>> decide(greylist::Question question, SteadyTime) override {
    if (broken) co_return fail(ErrorKind::temporary, "the store is broken");
    greylist::Found found;
    for (const std::string& key : question.keys) found.triplets.push_back({find(key)});
    found.client.record = find(question.client_key);
    const greylist::Outcome outcome = greylist::decide(question, found);
    if (!question.writes(outcome.pass())) co_return outcome;
    for (std::size_t i = 0; i < found.triplets.size(); ++i) {
      if (found.triplets[i].write) records[question.keys[i]] = *found.triplets[i].record;
    }
    if (found.client.write) records[question.client_key] = *found.client.record;
    co_return outcome;
  }

  Task<Result<std::vector<greylist::Stored>>> scan(std::string after, std::size_t limit) override {
    if (broken) co_return fail(ErrorKind::temporary, "the store is broken");
    std::vector<greylist::Stored> result;
    for (auto it = records.upper_bound(after); it != records.end() && result.size() < limit; ++it) {
      result.push_back({it->first, it->second});
    }
    co_return result;
  }

  Task<Result<>> merge(std::vector<greylist::Stored> incoming) override {
    if (broken) co_return fail(ErrorKind::temporary, "the store is broken");
    for (const auto& [key, record] : incoming) {
      const auto old = find(key);
      records[key] = old && !is_manual(key) ? greylist::merge(*old, record, rules_) : record;
    }
    refresh_manual();
    co_return Result<>{};
  }

  Task<Result<std::size_t>> erase(std::vector<std::string> keys) override {
    if (broken) co_return fail(ErrorKind::temporary, "the store is broken");
    std::size_t count = 0;
    for (const std::string& key : keys) count += records.erase(key);
    refresh_manual();
    broken = breaks_at_erase;
    co_return count;
  }

  Entries manual() const override { return manual_; }

  greylist::Totals totals() const override {
    greylist::Totals totals;
    for (const auto& [key, record] : records) {
      const greylist::Kind kind = greylist::kind_of(key);
      if (greylist::is_triplet(kind)) ++(record.passed ? totals.passed : totals.waiting);
      if (kind == greylist::Kind::client || kind == greylist::Kind::hashed_client) ++totals.clients;
      if (kind == greylist::Kind::hashed || kind == greylist::Kind::hashed_client) ++totals.hashed;
    }
    return totals;
  }

  std::string trouble() const override { return broken ? "the store is broken" : ""; }
  void reload(const greylist::Rules& rules) override { rules_ = rules; }
  void stop() override {}

 private:
  std::optional<greylist::Record> find(const std::string& key) const {
    const auto it = records.find(key);
    return it == records.end() ? std::nullopt : std::optional(it->second);
  }
  static bool is_manual(const std::string& key) {
    return greylist::kind_of(key) == greylist::Kind::pass || greylist::kind_of(key) == greylist::Kind::expect;
  }
  void refresh_manual() {
    auto entries = std::make_shared<std::vector<greylist::Stored>>();
    for (const auto& [key, record] : records) {
      if (is_manual(key)) entries->push_back({key, record});
    }
    manual_ = entries;
  }

  greylist::Rules rules_;
  Entries manual_ = std::make_shared<const std::vector<greylist::Stored>>();
};

}  // namespace greymx::test

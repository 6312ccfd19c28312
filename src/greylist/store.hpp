// Where the greylist keeps what it knows. A small interface, so that a store shared by several MXs fits behind it:
// every decision is one atomic read-decide-write with a deadline, and nothing else is on a mail's way.
//
// Threads: coroutines are called on any network thread and resume there; the work runs elsewhere. health(), manual()
// and totals() may be called from any thread and never block. Fails: timed_out (the deadline), temporary (the store is
// down; it comes back by itself), stopping.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/async.hpp"
#include "greylist/decide.hpp"

namespace greymx::greylist {

struct Stored {
  std::string key;
  Record record;
};

struct Totals {
  std::uint64_t waiting = 0;  // triplets that never passed
  std::uint64_t passed = 0;
  std::uint64_t clients = 0;         // counted towards automatic whitelisting, or beyond
  std::uint64_t hashed = 0;          // of all these, those with postgrey --privacy's hashed keys
  std::uint64_t never_returned = 0;  // mails that expired unpassed or made way, ever
  std::uint64_t records() const { return waiting + passed + clients; }
  bool operator==(const Totals&) const = default;
};

class Store {
 public:
  using Entries = std::shared_ptr<const std::vector<Stored>>;

  virtual ~Store() = default;
  // Reads what the question names, calls greylist::decide(), writes what changed.
  virtual Task<Result<Outcome>> decide(Question question, SteadyTime deadline) = 0;
  // Records with a key greater than `after`, in the order of keys, at most `limit` (which bounds the work: a thousand
  // at most). Fewer than asked for is not the end; nothing is.
  virtual Task<Result<std::vector<Stored>>> scan(std::string after, std::size_t limit) = 0;
  // Each is merge()d with what stands under its key; `pass` and `expect` entries replace it.
  virtual Task<Result<>> merge(std::vector<Stored> records) = 0;
  virtual Task<Result<std::size_t>> erase(std::vector<std::string> keys) = 0;  // how many existed
  // All `pass` and `expect` entries; a new object whenever one changed. Never null.
  virtual Entries manual() const = 0;
  virtual Totals totals() const = 0;
  virtual std::string trouble() const = 0;      // empty: it works
  virtual void reload(const Rules& rules) = 0;  // for expiry and merging
  virtual void stop() = 0;                      // answers what waits, flushes, closes; idempotent
};

}  // namespace greymx::greylist

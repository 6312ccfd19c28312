// The greylist's records in a Berkeley DB environment: what a store does inside one transaction. Two databases:
// `records.db` maps keys to encoded records; `index.db` holds, in the same transactions,
//   w first key          what never passed, oldest first: expiry and the cap over all
//   n kind network first key   the same by the network that sent it last: the cap for each network
//   s kind network first key   the same by IPv6 /48
//   p day key            what passed, and clients, by the day they were last seen: expiry
//   t                    the totals
//
// Thread: one, the store's. Every call needs begin() before it; after an error the transaction is dropped and the
// table must be opened anew.
#pragma once

#include <optional>

#include "base/bounded.hpp"
#include "greylist/bdb.hpp"
#include "greylist/store.hpp"

namespace greymx::greylist {

struct Caps {
  std::uint64_t records = 20'000'000;
  std::uint64_t waiting = 5'000'000;        // triplets that never passed
  std::uint64_t waiting_per_network = 200;  // of each kind of key, by /24 or /64
  std::uint64_t waiting_per_site = 1000;    // of each kind of key, by IPv6 /48
};

class Table {
 public:
  // Opens the databases and reads a sample; permanent if they do not fit together.
  static Result<std::unique_ptr<Table>> open(bdb::Environment& environment, const Caps& caps);

  Result<> begin();
  Result<> commit();  // the totals with it

  Result<Outcome> decide(const Question& question);
  Result<std::vector<Stored>> scan(std::string_view after, std::size_t limit, std::string_view prefix = {});
  Result<> merge(const Stored& stored, const Rules& rules);
  Result<bool> erase(const std::string& key);
  // Removes at most `limit` records whose time is over; returns how many.
  Result<std::size_t> expire(Stamp now, const Rules& rules, std::size_t limit);

  const Totals& totals() const { return totals_; }

 private:
  Table(bdb::Environment& environment, bdb::Database records, bdb::Database index, const Caps& caps)
      : environment_(environment), records_(records), index_(index), caps_(caps) {}
  Result<std::optional<Record>> find(const std::string& key);
  Result<> change(const std::string& key, const std::optional<Record>& from, const std::optional<Record>& to);
  void count(const std::string& key, const Record& record, bool add);
  Result<std::uint64_t> count_waiting(const std::string& prefix, std::uint64_t enough);
  Result<> make_room(const std::string& key, const Record& record);
  Result<> drop(const std::string& key);
  // By the index entries from `prefix` on, `except` left out; false: there was none.
  Result<bool> drop_oldest(const std::string& prefix, const std::string& except);
  Result<> bound(const std::string& prefix, std::uint64_t cap, const std::string& except);
  // Keys at the end of at most `limit` index entries from `prefix` on whose time is <= `until`.
  Result<std::vector<std::string>> indexed(const std::string& prefix, Stamp until, std::size_t limit);

  bdb::Environment& environment_;
  bdb::Database records_;
  bdb::Database index_;
  Caps caps_;
  Totals totals_;
  std::optional<Totals> stored_totals_;  // absent: none yet
  std::optional<bdb::Transaction> transaction_;
  // How many wait under the prefixes that a cap counts under, of those that were asked for last.
  LruMap<std::string, std::uint64_t> waiting_{10'000};
};

}  // namespace greymx::greylist

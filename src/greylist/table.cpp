#include "greylist/table.hpp"

#include <algorithm>
#include <cstring>

#include "greylist/triplet.hpp"

namespace greymx::greylist {

namespace {

constexpr Stamp day = 86400;
constexpr Stamp any_time = INT64_MAX;
constexpr std::string_view totals_key = "t";
constexpr std::size_t time_size = 8;

// Big-endian, so that the order of keys is the order of time; times before 1970 count as 1970.
std::string time_bytes(Stamp time) {
  std::string text(time_size, '\0');
  auto value = static_cast<std::uint64_t>(std::max<Stamp>(time, 0));
  for (std::size_t i = time_size; i-- > 0; value >>= 8) text[i] = static_cast<char>(value & 0xff);
  return text;
}
Stamp time_at(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < time_size; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return static_cast<Stamp>(value);
}

constexpr std::size_t site_prefix_size = 8;
std::size_t network_prefix_size(char family) {
  return family == '4' ? 6 : 11;
}

std::string network_prefix(Kind kind, const IpAddress& client) {
  const IpAddress network = counted_network(client).address;
  std::string text{'n', static_cast<char>('0' + static_cast<int>(kind)), network.is_v4() ? '4' : '6'};
  const std::size_t bytes = network_prefix_size(text[2]) - text.size();
  return text.append(reinterpret_cast<const char*>(network.bytes().data()), bytes);
}

// Of an IPv6 client the /48, which is what one customer may have.
std::string site_prefix(Kind kind, const IpAddress& client) {
  std::string text{'s', static_cast<char>('0' + static_cast<int>(kind))};
  return text.append(reinterpret_cast<const char*>(client.bytes().data()), site_prefix_size - text.size());
}

// Of an index entry, the prefix that a cap counts under; empty: none does.
std::string counted_prefix(const std::string& entry) {
  const std::size_t size = entry[0] == 's' ? site_prefix_size : entry[0] == 'n' ? network_prefix_size(entry[2]) : 0;
  return entry.substr(0, size);
}

bool is_manual(Kind kind) {
  return kind == Kind::pass || kind == Kind::expect;
}

// The index entries that belong to a record, in one order, so that two of the same shape compare one by one.
std::vector<std::string> entries_of(const std::string& key, const Record& record) {
  const Kind kind = kind_of(key);
  if (is_manual(kind)) return {};
  if (record.passed) return {"p" + time_bytes(record.last / day) + key};
  std::vector<std::string> entries{"w" + time_bytes(record.first) + key};
  if (kind == Kind::hashed) return entries;  // whose network it was is unknown
  entries.push_back(network_prefix(kind, record.client) + time_bytes(record.first) + key);
  if (!record.client.is_v4()) entries.push_back(site_prefix(kind, record.client) + time_bytes(record.first) + key);
  return entries;
}

}  // namespace

Result<std::unique_ptr<Table>> Table::open(bdb::Environment& environment, const Caps& caps) {
  auto records = environment.database("records.db");
  if (!records) return std::unexpected(records.error());
  auto index = environment.database("index.db");
  if (!index) return std::unexpected(index.error());
  std::unique_ptr<Table> table(new Table(environment, *records, *index, caps));
  if (auto begun = table->begin(); !begun) return std::unexpected(begun.error());
  std::string totals;
  const auto found = index->get(*table->transaction_, totals_key, totals);
  if (!found) return std::unexpected(found.error());
  const auto sample = table->scan({}, 100);
  if (!sample) return std::unexpected(sample.error());
  if (*found ? totals.size() != sizeof(Totals) : !sample->empty()) {
    return fail(ErrorKind::permanent, "index.db does not belong to records.db");
  }
  if (*found) {
    std::memcpy(&table->totals_, totals.data(), sizeof(Totals));
    table->stored_totals_ = table->totals_;
  }
  if (table->totals_.records() > 0 && sample->empty()) {
    return fail(ErrorKind::permanent, "what index.db counts is not in records.db");
  }
  table->transaction_.reset();
  return table;
}

Result<> Table::begin() {
  auto begun = environment_.begin();
  if (!begun) return std::unexpected(begun.error());
  transaction_.emplace(std::move(*begun));
  return {};
}

Result<> Table::commit() {
  if (totals_ != stored_totals_) {
    const std::string_view bytes(reinterpret_cast<const char*>(&totals_), sizeof totals_);
    if (auto put = index_.put(*transaction_, totals_key, bytes); !put) return put;
    stored_totals_ = totals_;
  }
  auto committed = transaction_->commit();
  transaction_.reset();
  return committed;
}

Result<std::optional<Record>> Table::find(const std::string& key) {
  std::string bytes;
  const auto found = records_.get(*transaction_, key, bytes);
  if (!found) return std::unexpected(found.error());
  return *found ? decode(key, bytes) : std::nullopt;
}

void Table::count(const std::string& key, const Record& record, bool add) {
  const Kind kind = kind_of(key);
  const auto adjust = [&](std::uint64_t& total) { total += add ? 1 : -1; };
  if (is_triplet(kind)) adjust(record.passed ? totals_.passed : totals_.waiting);
  if (kind == Kind::client || kind == Kind::hashed_client) adjust(totals_.clients);
  if (kind == Kind::hashed || kind == Kind::hashed_client) adjust(totals_.hashed);
}

Result<> Table::change(const std::string& key, const std::optional<Record>& from, const std::optional<Record>& to) {
  const auto before = from ? entries_of(key, *from) : std::vector<std::string>();
  const auto after = to ? entries_of(key, *to) : std::vector<std::string>();
  for (const std::string& entry : before) {
    if (std::find(after.begin(), after.end(), entry) != after.end()) continue;
    auto erased = index_.erase(*transaction_, entry);
    if (!erased) return std::unexpected(erased.error());
    std::uint64_t* const waiting = *erased ? waiting_.find(counted_prefix(entry)) : nullptr;
    if (waiting != nullptr && *waiting > 0) --*waiting;
  }
  for (const std::string& entry : after) {
    if (std::find(before.begin(), before.end(), entry) != before.end()) continue;
    if (auto put = index_.put(*transaction_, entry, {}); !put) return put;
    if (std::uint64_t* const waiting = waiting_.find(counted_prefix(entry))) ++*waiting;
  }
  if (from) count(key, *from, false);
  if (to) {
    count(key, *to, true);
    return records_.put(*transaction_, key, encode(key, *to));
  }
  auto erased = records_.erase(*transaction_, key);
  return erased ? Result<>{} : std::unexpected(erased.error());
}

Result<std::vector<std::string>> Table::indexed(const std::string& prefix, Stamp until, std::size_t limit) {
  std::vector<std::string> keys;
  auto scanned = index_.scan(*transaction_, prefix, [&](std::string_view entry, std::string_view) {
    if (!entry.starts_with(prefix) || entry.size() < prefix.size() + time_size) return false;
    if (time_at(entry.substr(prefix.size())) > until) return false;
    keys.emplace_back(entry.substr(prefix.size() + time_size));
    return keys.size() < limit;
  });
  if (!scanned) return std::unexpected(scanned.error());
  return keys;
}

Result<> Table::drop(const std::string& key) {
  auto record = find(key);
  if (!record) return std::unexpected(record.error());
  if (!*record) return fail(ErrorKind::permanent, "index.db names a record that is not there");
  if (!(*record)->passed && !is_pool(kind_of(key))) ++totals_.never_returned;
  return change(key, *record, std::nullopt);
}

Result<bool> Table::drop_oldest(const std::string& prefix, const std::string& except) {
  auto oldest = indexed(prefix, any_time, 2);
  if (!oldest) return std::unexpected(oldest.error());
  std::erase(*oldest, except);
  if (oldest->empty()) return false;
  auto dropped = drop(oldest->front());
  return dropped ? Result<bool>(true) : std::unexpected(dropped.error());
}

// How many wait under the prefix; if they are more than `enough`, it may say one more than that.
Result<std::uint64_t> Table::count_waiting(const std::string& prefix, std::uint64_t enough) {
  if (const std::uint64_t* known = waiting_.find(prefix)) return *known;
  std::uint64_t count = 0;
  auto counted = index_.scan(*transaction_, prefix, [&](std::string_view entry, std::string_view) {
    return entry.starts_with(prefix) && ++count <= enough;
  });
  if (!counted) return std::unexpected(counted.error());
  return waiting_.insert(prefix, count);
}

Result<> Table::bound(const std::string& prefix, std::uint64_t cap, const std::string& except) {
  const auto count = count_waiting(prefix, cap);
  if (!count) return std::unexpected(count.error());
  if (*count <= cap) return {};
  const auto dropped = drop_oldest(prefix, except);
  return dropped ? Result<>{} : std::unexpected(dropped.error());
}

// At a cap the oldest record that never passed makes way; if all have passed, the one unseen for longest.
Result<> Table::make_room(const std::string& key, const Record& record) {
  const Kind kind = kind_of(key);
  if (!record.passed && kind != Kind::hashed) {
    auto bounded = bound(network_prefix(kind, record.client), caps_.waiting_per_network, key);
    if (bounded && !record.client.is_v4()) {
      bounded = bound(site_prefix(kind, record.client), caps_.waiting_per_site, key);
    }
    if (!bounded) return bounded;
  }
  while (totals_.waiting > caps_.waiting || totals_.records() > caps_.records) {
    auto dropped = drop_oldest("w", key);
    if (dropped && !*dropped) dropped = drop_oldest("p", key);
    if (!dropped) return std::unexpected(dropped.error());
    if (!*dropped) break;
  }
  return {};
}

Result<Outcome> Table::decide(const Question& question) {
  Found found;
  std::vector<std::pair<std::string, std::optional<Record>>> before;  // under the key it was found by
  const auto look_up = [&](const std::string& key, const std::string& hashed) -> Result<Slot> {
    auto record = key.empty() ? Result<std::optional<Record>>() : find(key);
    bool by_hash = false;
    if (record && !*record && !hashed.empty()) {
      record = find(hashed);
      by_hash = record && *record;
    }
    if (!record) return std::unexpected(record.error());
    before.emplace_back(by_hash ? hashed : key, *record);
    return Slot{*record};
  };
  auto client = look_up(question.client_key, question.hashed_client_key);
  if (!client) return std::unexpected(client.error());
  found.client = *client;
  for (std::size_t i = 0; i < question.keys.size(); ++i) {
    auto slot = look_up(question.keys[i], i == 0 ? question.hashed_key : std::string());
    if (!slot) return std::unexpected(slot.error());
    found.triplets.push_back(*slot);
  }
  const Outcome outcome = greylist::decide(question, found);
  if (!question.writes(outcome.pass())) return outcome;

  std::vector<Stored> counted;  // by a cap that did not count them before
  for (std::size_t i = 0; i < before.size(); ++i) {
    const Slot& slot = i == 0 ? found.client : found.triplets[i - 1];
    if (!slot.write) continue;
    const std::string& key = i == 0 ? question.client_key : question.keys[i - 1];
    auto& [old_key, old_record] = before[i];
    if (old_key != key) {  // a hashed record is known by its name from now on
      if (auto moved = change(old_key, old_record, std::nullopt); !moved) return std::unexpected(moved.error());
      old_record.reset();
    }
    if (auto changed = change(key, old_record, slot.record); !changed) return std::unexpected(changed.error());
    if (!old_record || old_record->passed != slot.record->passed ||
        counted_network(old_record->client) != counted_network(slot.record->client)) {
      counted.push_back({key, *slot.record});
    }
  }
  // Not before all are written: what makes way may be one of them.
  for (const auto& [key, record] : counted) {
    if (auto made = make_room(key, record); !made) return std::unexpected(made.error());
  }
  return outcome;
}

Result<std::vector<Stored>> Table::scan(std::string_view after, std::size_t limit, std::string_view prefix) {
  std::vector<Stored> found;
  std::size_t seen = 0;
  const std::string from = std::max(after.empty() ? std::string() : std::string(after) + '\0', std::string(prefix));
  auto scanned = records_.scan(*transaction_, from, [&](std::string_view key, std::string_view value) {
    if (!key.starts_with(prefix)) return false;
    if (auto record = decode(key, value)) found.push_back({std::string(key), std::move(*record)});
    return ++seen < limit;
  });
  if (!scanned) return std::unexpected(scanned.error());
  return found;
}

Result<> Table::merge(const Stored& stored, const Rules& rules) {
  auto old = find(stored.key);
  if (!old) return std::unexpected(old.error());
  const bool manual = is_manual(kind_of(stored.key));
  const Record record = *old && !manual ? greylist::merge(**old, stored.record, rules) : stored.record;
  auto changed = change(stored.key, *old, record);
  if (changed && !*old && !manual) changed = make_room(stored.key, record);
  return changed;
}

Result<bool> Table::erase(const std::string& key) {
  auto record = find(key);
  if (!record) return std::unexpected(record.error());
  if (!*record) return false;
  auto changed = change(key, *record, std::nullopt);
  return changed ? Result<bool>(true) : std::unexpected(changed.error());
}

Result<std::size_t> Table::expire(Stamp now, const Rules& rules, std::size_t limit) {
  // What never passed is kept for a second retry window, as the record of who never came back.
  auto keys = indexed("w", now - 2 * rules.retry_window - 1, limit);
  if (!keys) return std::unexpected(keys.error());
  if (keys->size() < limit) {
    auto passed = indexed("p", (now - rules.max_age) / day - 1, limit - keys->size());
    if (!passed) return std::unexpected(passed.error());
    keys->insert(keys->end(), passed->begin(), passed->end());
  }
  for (const std::string& key : *keys) {
    if (auto dropped = drop(key); !dropped) return std::unexpected(dropped.error());
  }
  return keys->size();
}

}  // namespace greymx::greylist

#include "access/recipient_store.hpp"

#include <fmt/format.h>

#include <charconv>

#include "base/mailbox.hpp"

namespace greymx::access {

namespace {

constexpr std::chrono::minutes retry{1};
constexpr std::size_t slice = 1000;
constexpr std::size_t most_records =
    1'000'000;                            // what deliveries and callouts bring in a month; then only memory learns
constexpr std::size_t longest_key = 512;  // RFC 5321 4.5.3.1: 320

// "+1795449663 PRIMARY" or "-1795449663 PRIMARY", in hex; without, where that was not noted
std::string encode(const Remembered& record) {
  std::string text = fmt::format("{}{}", record.good ? '+' : '-', record.at);
  if (record.primary != 0) text += fmt::format(" {:x}", record.primary);
  return text;
}

Remembered decode(std::string_view value) {
  Remembered record;
  if (value.empty() || (value[0] != '+' && value[0] != '-')) return record;
  const char* const last = value.data() + value.size();
  auto number = std::from_chars(value.data() + 1, last, record.at);
  if (number.ec == std::errc() && number.ptr != last && *number.ptr == ' ')
    number = std::from_chars(number.ptr + 1, last, record.primary, 16);
  if (number.ec != std::errc() || number.ptr != last) return {};
  record.good = value[0] == '+';
  return record;
}

}  // namespace

RecipientStore::RecipientStore(std::string directory, const Clock& clock, Log& log, Alerts& alerts)
    : directory_(std::move(directory)), clock_(clock), log_(log), alerts_(alerts) {
  ready();
}

Result<> RecipientStore::prove(bdb::Environment& environment) {
  const auto database = environment.database("recipients.db");
  if (!database) return std::unexpected(database.error());
  const auto transaction = environment.begin();
  if (!transaction) return std::unexpected(transaction.error());
  database_ = *database;
  std::size_t left = slice;
  return database_->scan(*transaction, "", [&](auto, auto) { return --left > 0; });
}

bool RecipientStore::ready() {
  if (environment_) return true;
  if (clock_.steady() < try_again_) return false;
  try_again_ = clock_.steady() + retry;
  auto opened = bdb::open_or_replace({.base = directory_}, [this](auto& environment) { return prove(environment); });
  if (!opened) {
    log_.warning("verify", "recipient memory cannot be opened: " + printable(opened.error().text));
    return false;
  }
  if (!opened->set_aside.empty()) {
    alerts_.raise("the recipient memory was damaged",
                  "It starts anew; the primary will be asked again. The damaged files are in " + opened->set_aside);
  }
  environment_ = std::move(opened->environment);
  return true;
}

// One transaction; on any error the environment is closed, since what follows would fail as well, and false comes back.
template <class Work>
bool RecipientStore::work(Work work) {
  if (!ready()) return false;
  auto result = [&]() -> Result<> {
    auto transaction = environment_->begin();
    if (!transaction) return std::unexpected(transaction.error());
    const Result<> done = work(*transaction);
    return done ? transaction->commit() : done;
  }();
  if (result) return true;
  log_.warning("verify", "recipient memory fails and is opened again in a minute: " + printable(result.error().text));
  environment_.reset();
  try_again_ = clock_.steady() + retry;
  return false;
}

std::optional<Remembered> RecipientStore::get(const std::string& key) {
  Remembered record;
  const bool read = work([&](const bdb::Transaction& transaction) -> Result<> {
    std::string value;
    const auto found = database_->get(transaction, key, value);
    if (found && *found) record = decode(value);
    return found ? Result<>() : std::unexpected(found.error());
  });
  return read ? std::optional(record) : std::nullopt;
}

void RecipientStore::put(const Records& records) {
  work([&](const bdb::Transaction& transaction) -> Result<> {
    for (const auto& [key, record] : records) {
      if (key.size() > longest_key || size_ >= most_records) continue;
      const auto done = database_->put(transaction, key, encode(record));
      if (!done) return done;
      ++size_;
    }
    return {};
  });
}

bool RecipientStore::expire(const std::function<bool(const std::string& key, const Remembered&)>& expired) {
  std::size_t seen = 0;
  std::string last;
  work([&](const bdb::Transaction& transaction) -> Result<> {
    std::vector<std::string> gone;
    const auto scanned = database_->scan(transaction, next_, [&](std::string_view key, std::string_view value) {
      last = key;
      if (expired(last, decode(value))) gone.push_back(last);
      return ++seen < slice;
    });
    if (!scanned) return scanned;
    counted_ += seen - gone.size();
    for (const std::string& key : gone) {
      const auto erased = database_->erase(transaction, key);
      if (!erased) return std::unexpected(erased.error());
    }
    return {};
  });
  const bool end = seen < slice;
  next_ = end ? "" : last + '\0';
  if (end) size_ = std::exchange(counted_, 0);
  return end;
}

void RecipientStore::flush() {
  if (!environment_) return;
  const auto flushed = environment_->flush();
  const auto checked = flushed ? environment_->checkpoint() : flushed;
  if (!checked) log_.warning("verify", "recipient memory: " + printable(checked.error().text));
}

}  // namespace greymx::access

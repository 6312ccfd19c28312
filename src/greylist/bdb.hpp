// Berkeley DB 5.3 with the sharp edges taken off: one transactional environment in a directory, used by one process,
// that survives kill -9, a full disk and damaged files. Knows nothing of what is stored.
//
// Layout below the base directory: `db/` (the environment), `lock` (held by open_or_replace's caller as long as it
// uses the base), `corrupt-<time>/` (environments that could not be used any more, for the admin), `salvage-<time>/`
// (the same, while there are records in them to be taken over).
//
// Threads: get, put, erase, scan, begin and commit on one thread at a time (locks of one's own are not detected as
// deadlocks); flush() and checkpoint() from one other thread. Everything blocks: never on a network thread.
// Errors: permanent = the environment is damaged or panicked: close it and open it again, which recovers; no_space and
// temporary = the disk is full or unwell: what was committed is safe, close and try again later.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/files.hpp"
#include "base/result.hpp"

struct __db;
struct __db_env;
struct __db_txn;

namespace greymx::bdb {

// Aborts when it goes, unless committed.
class Transaction {
 public:
  explicit Transaction(__db_txn* handle) : handle_(handle) {}
  Transaction(Transaction&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Result<> commit();  // written to the log file, not synced: survives kill -9, flush() makes it survive power loss
  __db_txn* handle() const { return handle_; }

 private:
  __db_txn* handle_;
};

// A sorted map of byte strings, keys up to 512 bytes and values up to 1 KiB.
class Database {
 public:
  explicit Database(__db* handle) : handle_(handle) {}
  Result<bool> get(const Transaction& transaction, std::string_view key, std::string& value);  // false: not there
  Result<> put(const Transaction& transaction, std::string_view key, std::string_view value);
  Result<bool> erase(const Transaction& transaction, std::string_view key);  // false: was not there
  // From the first key >= `from` on, in order, until the visitor returns false. It must not change anything.
  using Visitor = std::function<bool(std::string_view key, std::string_view value)>;
  Result<> scan(const Transaction& transaction, std::string_view from, const Visitor& visit);

 private:
  __db* handle_;
};

struct Settings {
  std::string base;
  std::size_t cache = 32UL << 20;
  std::string expendable{};   // a database that can be made again from the others: given up first
  bool to_salvage = false;    // a damaged environment holds what cannot be had elsewhere
  bool catastrophic = false;  // recover from all log files there are: for a copy that was made of a live environment
};

class Environment {
 public:
  // Runs recovery; makes the directory if it is absent.
  static Result<std::unique_ptr<Environment>> open(const Settings& settings);
  ~Environment();  // a checkpoint, if all is well, and close
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  Result<Database> database(const std::string& name);  // created if absent; valid while the environment is
  Result<Transaction> begin();
  Result<> flush();
  // When it is due: after 8 MiB of log, 5 minutes, or 10 seconds if little has changed; removes old log files.
  Result<> checkpoint();
  // Set if the log broke off before its end: what was committed last is lost.
  const std::string& loss() const { return loss_; }

 private:
  explicit Environment(__db_env* handle) : handle_(handle) {}
  bool checkpoint_due();

  __db_env* handle_;
  std::chrono::steady_clock::time_point checkpoint_ = std::chrono::steady_clock::now();
  std::vector<std::pair<std::string, __db*>> databases_;
  std::string loss_;
};

struct Opened {
  std::unique_ptr<Environment> environment;
  std::string set_aside;  // where the damaged one went; empty: none was
};
// Opens the environment and `prove`s it (opens its databases, reads a sample). If it is damaged even after recovery,
// recovery runs once more without the expendable database, so that what only the log knows reaches the others' files;
// then it is moved aside and a new one opened. A full or failing disk is an error and moves nothing.
Result<Opened> open_or_replace(const Settings& settings, const std::function<Result<>(Environment&)>& prove);
// db/ -> salvage-<time>/ or corrupt-<time>/, of which the last three are kept.
Result<std::string> set_aside(const std::string& base, bool to_salvage);
std::vector<std::string> unsalvaged(const std::string& base);  // all salvage-<time>/, oldest first
// salvage-<time>/ -> corrupt-<time>/: its records have been taken over.
Result<std::string> set_salvaged(const std::string& base, const std::string& directory);

// Every key and value that still stands in a database file, read page by page without Berkeley DB, which gives up at
// the first damaged page. Damaged, outdated or doubled pairs are among them: the visitor judges.
enum class Pages : std::uint8_t { with_checksum, plain };
Result<> salvage(const std::string& file,
                 const std::function<void(std::string_view key, std::string_view value)>& visit,
                 Pages pages = Pages::with_checksum);

}  // namespace greymx::bdb

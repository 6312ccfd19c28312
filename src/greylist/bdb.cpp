#include "greylist/bdb.hpp"

#include <db.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <filesystem>

namespace greymx::bdb {

namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t page_size = 4096;
constexpr std::uint64_t checkpoint_bytes = 8U << 20;
constexpr std::uint64_t small_checkpoint = 2U << 20;
constexpr std::uint32_t log_file_size = 10U << 20;
constexpr std::size_t most_value = 1024;
constexpr std::size_t most_key = 2048;  // of postgrey: two addresses and a network, or a host name
constexpr std::size_t kept_aside = 3;
constexpr std::string_view corrupt = "corrupt", salvageable = "salvage";  // -<time>: directories moved aside

// A full disk, a file that may not be opened and a damaged one all end in DB_RUNRECOVERY; which it was, only the failed
// system call tells. Berkeley DB says what went wrong through a callback, hundreds of times: the first line is the
// cause.
thread_local int call_error = 0;
thread_local std::string first_message;

// Berkeley DB takes a short write for an error without a cause; here the rest is tried, and its error is the cause.
template <class Write>
ssize_t write_all(std::size_t size, Write write_from) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t written = write_from(done);
    if (written > 0) {
      done += static_cast<std::size_t>(written);
    } else if (errno != EINTR) {
      call_error = errno;
      return -1;
    }
  }
  return static_cast<ssize_t>(size);
}
ssize_t noting_pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  const char* from = static_cast<const char*>(bytes);
  return write_all(size, [&](std::size_t done) {
    return ::pwrite(fd, from + done, size - done, offset + static_cast<off_t>(done));
  });
}
ssize_t noting_write(int fd, const void* bytes, size_t size) {
  const char* from = static_cast<const char*>(bytes);
  return write_all(size, [&](std::size_t done) { return ::write(fd, from + done, size - done); });
}
int noting_fsync(int fd) {
  const int result = ::fdatasync(fd);
  if (result != 0) call_error = errno;
  return result;
}

// What is not there, or is there already, Berkeley DB deals with.
int noting_open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const int fd = ::open(path, flags, va_arg(rest, int));  // Berkeley DB always passes the mode
  va_end(rest);
  if (fd == -1 && errno != ENOENT && errno != EEXIST) call_error = errno;
  return fd;
}

void note_message(const DB_ENV*, const char*, const char* message) {
  if (first_message.empty()) first_message = message;
}

// Runs one call and translates what it says; DB_NOTFOUND is left to the caller.
template <class Call>
Result<int> guarded(const char* what, Call call) {
  call_error = 0;
  first_message.clear();
  const int code = call();
  if (code == 0 || code == DB_NOTFOUND) return code;
  const std::string text =
      fmt::format("{}: {}{}{}", what, db_strerror(code), first_message.empty() ? "" : ": ", first_message);
  if (call_error != 0) {
    auto error = fail_errno(call_error, what);
    return fail(call_error == EFBIG ? ErrorKind::no_space : error.error().kind, text);
  }
  constexpr std::array unwell{ENOSPC, EDQUOT, EFBIG, EACCES, EPERM, EROFS, ENOMEM, EMFILE, ENFILE, EAGAIN, EBUSY};
  const bool world = std::find(unwell.begin(), unwell.end(), code) != unwell.end();
  return fail(world ? ErrorKind::temporary : ErrorKind::permanent, text);
}

template <class Call>
Result<> guarded_void(const char* what, Call call) {
  const auto code = guarded(what, call);
  return code ? Result<>{} : std::unexpected(code.error());
}

DBT bytes(std::string_view text) {
  DBT dbt{};
  dbt.data = const_cast<char*>(text.data());  // Berkeley DB does not write through it
  dbt.size = static_cast<std::uint32_t>(text.size());
  return dbt;
}
DBT room(std::span<char> buffer) {
  DBT dbt{};
  dbt.data = buffer.data();
  dbt.ulen = static_cast<std::uint32_t>(buffer.size());
  dbt.flags = DB_DBT_USERMEM;
  return dbt;
}
std::string_view view(const DBT& dbt) {
  return {static_cast<const char*>(dbt.data), dbt.size};
}

// The newest log file's number and where its content ends, before recovery touches it: the file is made in its full
// size, with zeros to be written over.
std::pair<std::uint32_t, std::uint64_t> end_of_log(const std::string& directory) {
  const auto files = system_files();
  std::string newest;
  const auto is_log = [](std::string_view name) {
    return name.size() == 14 && name.starts_with("log.") && name.find_first_not_of("0123456789", 4) == name.npos;
  };
  for (const std::string& name : files->list(directory).value_or(std::vector<std::string>())) {
    if (is_log(name)) newest = name;  // the list is sorted
  }
  auto content = newest.empty() ? Result<std::string>() : read_file(directory + "/" + newest, log_file_size);
  if (!content || newest.empty()) return {0, 0};
  return {static_cast<std::uint32_t>(std::stoul(newest.substr(4))), content->find_last_not_of('\0') + 1};
}

}  // namespace

Transaction::~Transaction() {
  if (handle_ != nullptr) handle_->abort(handle_);
}

Result<> Transaction::commit() {
  __db_txn* handle = std::exchange(handle_, nullptr);  // gone, whatever commit says
  return guarded_void("commit", [&] { return handle->commit(handle, 0); });
}

Result<bool> Database::get(const Transaction& transaction, std::string_view key, std::string& value) {
  std::array<char, most_value> buffer;
  DBT wanted = bytes(key), found = room(buffer);
  const auto code = guarded("get", [&] { return handle_->get(handle_, transaction.handle(), &wanted, &found, 0); });
  if (!code) return std::unexpected(code.error());
  if (*code == DB_NOTFOUND) return false;
  value.assign(view(found));
  return true;
}

Result<> Database::put(const Transaction& transaction, std::string_view key, std::string_view value) {
  DBT k = bytes(key), v = bytes(value);
  return guarded_void("put", [&] { return handle_->put(handle_, transaction.handle(), &k, &v, 0); });
}

Result<bool> Database::erase(const Transaction& transaction, std::string_view key) {
  DBT k = bytes(key);
  const auto code = guarded("delete", [&] { return handle_->del(handle_, transaction.handle(), &k, 0); });
  if (!code) return std::unexpected(code.error());
  return *code != DB_NOTFOUND;
}

Result<> Database::scan(const Transaction& transaction, std::string_view from, const Visitor& visit) {
  DBC* cursor = nullptr;
  auto opened = guarded_void("cursor", [&] { return handle_->cursor(handle_, transaction.handle(), &cursor, 0); });
  if (!opened) return opened;
  const std::unique_ptr<DBC, void (*)(DBC*)> closer(cursor, [](DBC* c) { c->close(c); });
  std::array<char, most_key> key_buffer;
  std::array<char, most_value> value_buffer;
  std::copy(from.begin(), from.end(), key_buffer.begin());
  DBT key = room(key_buffer), value = room(value_buffer);
  key.size = static_cast<std::uint32_t>(from.size());
  for (std::uint32_t flags = DB_SET_RANGE;; flags = DB_NEXT) {
    const auto code = guarded("scan", [&] { return cursor->get(cursor, &key, &value, flags); });
    if (!code) return std::unexpected(code.error());
    if (*code == DB_NOTFOUND || !visit(view(key), view(value))) return {};
  }
}

Result<std::unique_ptr<Environment>> Environment::open(const Settings& settings) {
  static const bool noting = [] {
    db_env_set_func_pwrite(noting_pwrite);
    db_env_set_func_write(noting_write);
    db_env_set_func_fsync(noting_fsync);
    db_env_set_func_open(noting_open);
    return true;
  }();
  static_cast<void>(noting);
  const std::string directory = settings.base + "/db";
  if (auto made = system_files()->make_directory(directory); !made) return std::unexpected(made.error());
  const auto [last_log, last_size] = end_of_log(directory);

  DB_ENV* handle = nullptr;
  auto created = guarded_void("environment", [&] { return db_env_create(&handle, 0); });
  if (!created) return std::unexpected(created.error());
  std::unique_ptr<Environment> environment(new Environment(handle));  // a failed open needs close as well
  handle->set_errcall(handle, note_message);
  handle->set_cachesize(handle, 0, static_cast<std::uint32_t>(settings.cache), 1);
  handle->set_lg_max(handle, log_file_size);
  handle->set_lk_detect(handle, DB_LOCK_DEFAULT);
  // Private regions live on the heap: nothing stale survives a crash, and a full disk cannot end us by SIGBUS.
  const std::uint32_t flags = DB_CREATE | DB_PRIVATE | DB_INIT_TXN | DB_INIT_LOG | DB_INIT_MPOOL | DB_INIT_LOCK |
                              DB_THREAD | (settings.catastrophic ? DB_RECOVER_FATAL : DB_RECOVER);
  auto opened = guarded_void("open", [&] { return handle->open(handle, directory.c_str(), flags, 0600); });
  if (opened) opened = guarded_void("set flags", [&] { return handle->set_flags(handle, DB_TXN_WRITE_NOSYNC, 1); });
  if (!opened) return std::unexpected(opened.error());

  DB_LOG_STAT* stat = nullptr;
  if (handle->log_stat(handle, &stat, 0) == 0) {
    const auto end = std::pair<std::uint32_t, std::uint64_t>(stat->st_cur_file, stat->st_cur_offset);
    if (end < std::pair(last_log, last_size)) {
      environment->loss_ =
          fmt::format("the log of {} is unreadable after byte {} of file {}: what was stored last is lost", directory,
                      end.second, end.first);
    }
    free(stat);  // NOLINT: allocated by Berkeley DB
  }
  return environment;
}

Environment::~Environment() {
  // A panicked environment frees nothing on close, unless told to overlook the panic; it must then not be written to.
  call_error = 0;
  const bool well = !databases_.empty() && handle_->txn_checkpoint(handle_, 0, 0, 0) == 0;
  if (!well) handle_->set_flags(handle_, DB_NOPANIC, 1);
  for (auto& [name, database] : databases_) database->close(database, DB_NOSYNC);
  handle_->close(handle_, 0);
}

Result<Database> Environment::database(const std::string& name) {
  DB* database = nullptr;
  auto opened = guarded_void("database", [&] { return db_create(&database, handle_, 0); });
  if (!opened) return std::unexpected(opened.error());
  database->set_flags(database, DB_CHKSUM);
  database->set_pagesize(database, page_size);
  opened = guarded_void(name.c_str(), [&] {
    return database->open(database, nullptr, name.c_str(), nullptr, DB_BTREE,
                          DB_CREATE | DB_AUTO_COMMIT | DB_THREAD | DB_NOMMAP, 0600);
  });
  if (!opened) {
    database->close(database, DB_NOSYNC);
    return std::unexpected(opened.error());
  }
  databases_.emplace_back(name, database);
  return Database(database);
}

Result<Transaction> Environment::begin() {
  DB_TXN* transaction = nullptr;
  auto begun = guarded_void("transaction", [&] { return handle_->txn_begin(handle_, nullptr, &transaction, 0); });
  if (!begun) return std::unexpected(begun.error());
  return Transaction(transaction);
}

Result<> Environment::flush() {
  return guarded_void("log flush", [&] { return handle_->log_flush(handle_, nullptr); });
}

// A checkpoint bounds what recovery has to read and what a damaged log can take away. Where little has changed it costs
// next to nothing, so that it need not wait for its turn.
bool Environment::checkpoint_due() {
  DB_LOG_STAT* stat = nullptr;
  if (handle_->log_stat(handle_, &stat, 0) != 0) return true;  // the checkpoint will tell what is wrong
  const std::uint64_t bytes = (std::uint64_t{stat->st_wc_mbytes} << 20) + stat->st_wc_bytes;
  free(stat);  // NOLINT: allocated by Berkeley DB
  const auto age = std::chrono::steady_clock::now() - checkpoint_;
  return bytes >= checkpoint_bytes || (bytes > 0 && age >= (bytes <= small_checkpoint ? 10s : 300s));
}

Result<> Environment::checkpoint() {
  if (!checkpoint_due()) return {};
  checkpoint_ = std::chrono::steady_clock::now();
  auto done = guarded_void("checkpoint", [&] { return handle_->txn_checkpoint(handle_, 0, 0, DB_FORCE); });
  if (!done) return done;
  return guarded_void("log removal", [&] { return handle_->log_archive(handle_, nullptr, DB_ARCH_REMOVE); });
}

namespace {

// Paths of the directories below `base` whose names begin so, oldest first.
std::vector<std::string> named(const std::string& base, std::string_view word) {
  std::vector<std::string> found;
  for (const std::string& name : system_files()->list(base).value_or(std::vector<std::string>())) {
    if (name.starts_with(word) && name.substr(word.size()).starts_with('-')) found.push_back(base + '/' + name);
  }
  return found;
}

void remove_oldest_corrupt(const std::string& base) {
  const std::vector<std::string> old = named(base, corrupt);
  std::error_code ignored;
  for (std::size_t i = 0; i + kept_aside <= old.size(); ++i) std::filesystem::remove_all(old[i], ignored);
}

Result<std::string> move_directory(const std::string& from, const std::string& to) {
  auto moved = system_files()->rename(from, to);
  if (moved) return to;
  return fail(ErrorKind::temporary, fmt::format("cannot move {} to {}: {}", from, to, moved.error().text));
}

}  // namespace

Result<std::string> set_aside(const std::string& base, bool to_salvage) {
  // What is damaged while others wait to be salvaged into it, again and again, is not worth more of the disk.
  to_salvage = to_salvage && unsalvaged(base).size() < kept_aside;
  if (!to_salvage) remove_oldest_corrupt(base);
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  gmtime_r(&now.tv_sec, &parts);
  std::array<char, 32> text{};
  strftime(text.data(), text.size(), "%Y%m%dT%H%M%S", &parts);
  const std::string_view word = to_salvage ? salvageable : corrupt;
  return move_directory(base + "/db", fmt::format("{}/{}-{}.{:06}", base, word, text.data(), now.tv_nsec / 1000));
}

std::vector<std::string> unsalvaged(const std::string& base) {
  return named(base, salvageable);
}

Result<std::string> set_salvaged(const std::string& base, const std::string& directory) {
  remove_oldest_corrupt(base);
  const std::string time = directory.substr(base.size() + 1 + salvageable.size());
  return move_directory(directory, fmt::format("{}/{}{}", base, corrupt, time));
}

Result<Opened> open_or_replace(const Settings& settings, const std::function<Result<>(Environment&)>& prove) {
  Opened opened;
  Result<> proven;
  for (int attempt = 0; attempt < 4; ++attempt) {
    if (attempt == 2) {
      if (settings.expendable.empty()) continue;
      static_cast<void>(system_files()->remove(settings.base + "/db/" + settings.expendable));
    }
    if (attempt == 3) {
      auto aside = set_aside(settings.base, settings.to_salvage);
      if (!aside) return std::unexpected(aside.error());
      opened.set_aside = *aside;
    }
    auto environment = Environment::open(settings);
    proven = environment ? prove(**environment) : std::unexpected(environment.error());
    if (proven) {
      opened.environment = std::move(*environment);
      return opened;
    }
    if (proven.error().kind != ErrorKind::permanent) break;
  }
  return std::unexpected(proven.error());
}

namespace {

// A leaf page of Berkeley DB 5.3's B-tree: a header of 26 bytes, 32 with a checksum (number of entries at 20, type at
// 25); then 16-bit offsets of the entries, each a 16-bit length, a type byte and the bytes; keys and values alternate.
// Native byte order.
void salvage_page(std::string_view page, std::size_t offsets_at,
                  const std::function<void(std::string_view, std::string_view)>& visit) {
  constexpr std::size_t entries_at = 20, type_at = 25;
  constexpr char leaf = 5, inline_item = 1;
  const auto number = [&](std::size_t at) {
    std::uint16_t value = 0;
    std::memcpy(&value, page.data() + at, sizeof value);
    return std::size_t{value};
  };
  if (page[type_at] != leaf) return;
  const std::size_t entries = std::min(number(entries_at), (page_size - offsets_at) / 2);
  const auto item = [&](std::size_t index) -> std::string_view {
    const std::size_t at = number(offsets_at + 2 * index);
    if (at < offsets_at || at + 3 > page_size || page[at + 2] != inline_item || at + 3 + number(at) > page_size)
      return {};
    return page.substr(at + 3, number(at));
  };
  for (std::size_t i = 0; i + 1 < entries; i += 2) {
    const std::string_view key = item(i), value = item(i + 1);
    if (!key.empty()) visit(key, value);
  }
}

}  // namespace

Result<> salvage(const std::string& file, const std::function<void(std::string_view, std::string_view)>& visit,
                 Pages pages) {
  auto files = system_files();
  auto opened = files->open(file, OpenMode::read);
  if (!opened) return std::unexpected(opened.error());
  const auto size = (*opened)->size();
  if (!size) return std::unexpected(size.error());
  std::array<char, page_size> page{};
  const std::size_t offsets_at = pages == Pages::plain ? 26 : 32;
  for (std::uint64_t offset = 0; offset < *size; offset += page_size) {
    const auto got = (*opened)->read(offset, page);
    if (got && *got == page_size)
      salvage_page({page.data(), page.size()}, offsets_at, visit);  // a lost sector costs its page only
  }
  return {};
}

}  // namespace greymx::bdb

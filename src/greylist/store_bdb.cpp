#include "greylist/store_bdb.hpp"

#include <fmt/format.h>
#include <boost/asio/redirect_error.hpp>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "base/clock_watch.hpp"
#include "base/files.hpp"
#include "greylist/triplet.hpp"

namespace greymx::greylist {

namespace {

using namespace std::chrono_literals;
using Steady = std::chrono::steady_clock;

constexpr std::size_t most_waiting = 20'000;  // requests; beyond it they fail at once
constexpr std::size_t most_batch = 256;
constexpr std::size_t expiry_slice = 48;                   // about a millisecond
constexpr auto expiry_pause = 20ms, expiry_rest = 1000ms;  // between slices while there is more to expire, and not
constexpr auto flush_interval = 1000ms;
constexpr auto strike_memory = 1h;  // a second panic within this time is no accident: the files are damaged
constexpr std::string_view program = "greylist";

// One request on its way through the store's thread. The waiting coroutine sleeps on the timer, which both the
// deadline and the answer (through its executor) end.
class Job {
 public:
  Job(asio::any_io_executor executor, SteadyTime deadline) : timer(executor, deadline) {}
  virtual ~Job() = default;
  virtual Result<> run(Table& table) = 0;  // an error fails the whole batch
  virtual void fail(const Error& error) = 0;

  asio::steady_timer timer;             // waiter's thread only
  bool answered = false;                // waiter's thread only
  std::atomic<bool> abandoned = false;  // the deadline has passed: nobody wants it any more
};

template <class T>
class JobFor final : public Job {
 public:
  using Work = std::function<Result<T>(Table&)>;
  JobFor(asio::any_io_executor executor, SteadyTime deadline, Work work)
      : Job(std::move(executor), deadline), work_(std::move(work)) {}
  Result<> run(Table& table) override {
    result = work_(table);
    return result ? Result<>{} : std::unexpected(result.error());
  }
  void fail(const Error& error) override { result = std::unexpected(error); }
  Result<T> result = greymx::fail(ErrorKind::timed_out, "the store did not answer in time");

 private:
  Work work_;
};

struct Done {};

class BdbStore final : public Store {
 public:
  BdbStore(const BdbSettings& settings, std::unique_ptr<File> lock, const Clock& clock, Log& log, Alerts& alerts)
      : settings_(settings), lock_(std::move(lock)), clock_(clock), log_(log), alerts_(alerts), rules_(settings.rules) {
    attach();
    worker_ = std::thread([this] { work(); });
    keeper_ = std::thread([this] { keep(); });
  }
  ~BdbStore() override { stop(); }

  Task<Result<Outcome>> decide(Question question, SteadyTime deadline) override {
    return submit<Outcome>([question = std::move(question)](Table& table) { return table.decide(question); }, deadline);
  }
  Task<Result<std::vector<Stored>>> scan(std::string after, std::size_t limit) override {
    return submit<std::vector<Stored>>(
        [after = std::move(after), limit](Table& table) { return table.scan(after, limit); }, patient());
  }
  Task<Result<>> merge(std::vector<Stored> records) override {
    auto merged = co_await submit<Done>(
        [this, records = std::move(records)](Table& table) {
          const auto done = merge_all(table, records);
          return done ? Result<Done>() : std::unexpected(done.error());
        },
        patient());
    co_return merged ? Result<>{} : std::unexpected(merged.error());
  }
  Task<Result<std::size_t>> erase(std::vector<std::string> keys) override {
    return submit<std::size_t>([this, keys = std::move(keys)](Table& table) { return erase_all(table, keys); },
                               patient());
  }
  Entries manual() const override { return manual_.load(); }
  Totals totals() const override {
    const std::scoped_lock lock(mutex_);
    return totals_;
  }
  std::string trouble() const override {
    const std::scoped_lock lock(mutex_);
    return trouble_;
  }
  void reload(const Rules& rules) override {
    const std::scoped_lock lock(mutex_);
    rules_ = rules;
  }
  void stop() override;

 private:
  // What an admin asks for may wait behind mail.
  static SteadyTime patient() { return Steady::now() + 30s; }

  template <class T>
  Task<Result<T>> submit(typename JobFor<T>::Work work, SteadyTime deadline) {
    auto job = std::make_shared<JobFor<T>>(co_await asio::this_coro::executor, deadline, std::move(work));
    if (!enqueue(job)) co_return fail(ErrorKind::temporary, "the greylist store is overloaded or stopping");
    boost::system::error_code ignored;
    co_await job->timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    if (job->answered) co_return std::move(job->result);
    job->abandoned = true;
    co_return fail(ErrorKind::timed_out, "the greylist store did not answer in time");
  }

  bool enqueue(std::shared_ptr<Job> job);
  Result<> merge_all(Table& table, const std::vector<Stored>& records);
  Result<std::size_t> erase_all(Table& table, const std::vector<std::string>& keys);

  void work();
  void keep();
  void run_batch(std::vector<std::shared_ptr<Job>>& batch);
  Result<> in_transaction(const std::function<Result<>(Table&)>& body);
  void expire_some();
  void attach();
  void detach(const Error& error, Steady::duration pause);
  void failed(const Error& error);
  bool salvage(const std::string& directory);
  Result<> read_manual();
  Stamp wall_now() const { return std::chrono::floor<std::chrono::seconds>(clock_.now()).time_since_epoch().count(); }
  Rules rules() const {
    const std::scoped_lock lock(mutex_);
    return rules_;
  }

  const BdbSettings settings_;
  const std::unique_ptr<File> lock_;
  const Clock& clock_;
  Log& log_;
  Alerts& alerts_;

  // The store's thread only (the constructor's before it exists).
  std::unique_ptr<Table> table_;
  Steady::time_point reopen_at_, expire_at_;
  std::optional<Steady::time_point> last_strike_;
  bool manual_changed_ = false;
  ClockWatch watch_{clock_};

  std::mutex environment_mutex_;  // against closing it while the keeper flushes
  std::unique_ptr<bdb::Environment> environment_;
  std::atomic<Entries> manual_ = std::make_shared<const std::vector<Stored>>();

  mutable std::mutex mutex_;  // below
  std::condition_variable wake_, stopped_;
  std::deque<std::shared_ptr<Job>> waiting_;
  bool stopping_ = false;
  std::optional<Error> keeper_error_;
  Totals totals_;
  std::string trouble_;
  Rules rules_;

  std::thread worker_, keeper_;
};

bool BdbStore::enqueue(std::shared_ptr<Job> job) {
  bool first = false;
  {
    const std::scoped_lock lock(mutex_);
    if (stopping_ || waiting_.size() >= most_waiting) return false;
    first = waiting_.empty();
    waiting_.push_back(std::move(job));
  }
  if (first) wake_.notify_one();  // else it has been woken already
  return true;
}

Result<> BdbStore::merge_all(Table& table, const std::vector<Stored>& records) {
  const Rules current = rules();
  for (const Stored& stored : records) {
    if (auto merged = table.merge(stored, current); !merged) return std::unexpected(merged.error());
    manual_changed_ |= kind_of(stored.key) >= Kind::pass;
  }
  return {};
}

Result<std::size_t> BdbStore::erase_all(Table& table, const std::vector<std::string>& keys) {
  std::size_t count = 0;
  for (const std::string& key : keys) {
    const auto erased = table.erase(key);
    if (!erased) return std::unexpected(erased.error());
    count += *erased ? 1 : 0;
    manual_changed_ |= kind_of(key) >= Kind::pass;
  }
  return count;
}

void BdbStore::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    const auto until = table_ ? expire_at_ : reopen_at_;
    wake_.wait_until(lock, until, [&] { return stopping_ || keeper_error_ || !waiting_.empty(); });
    if (stopping_ && waiting_.empty()) break;
    const auto keeper_error = std::exchange(keeper_error_, std::nullopt);
    const std::size_t count = std::min(waiting_.size(), most_batch);
    std::vector<std::shared_ptr<Job>> batch(std::move_iterator(waiting_.begin()),
                                            std::move_iterator(waiting_.begin() + static_cast<std::ptrdiff_t>(count)));
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(count));
    lock.unlock();
    if (keeper_error && table_) failed(*keeper_error);
    if (!batch.empty()) run_batch(batch);
    const auto now = Steady::now();
    if (!table_ && now >= reopen_at_) attach();
    if (table_ && now >= expire_at_) expire_some();
    lock.lock();
  }
}

void BdbStore::run_batch(std::vector<std::shared_ptr<Job>>& batch) {
  const auto done = in_transaction([&](Table& table) -> Result<> {
    for (const auto& job : batch) {
      if (job->abandoned) continue;
      if (auto ran = job->run(table); !ran) return ran;
    }
    return {};
  });
  for (auto& job : batch) {
    if (!done) job->fail(done.error());
    asio::any_io_executor executor = job->timer.get_executor();
    asio::post(executor, [job = std::move(job)] {
      job->answered = true;
      job->timer.cancel();
    });
  }
}

Result<> BdbStore::in_transaction(const std::function<Result<>(Table&)>& body) {
  if (!table_) return fail(ErrorKind::temporary, "the greylist store is down: " + trouble());
  auto done = table_->begin();
  if (done) done = body(*table_);
  if (done) done = table_->commit();
  if (done && std::exchange(manual_changed_, false)) done = read_manual();
  if (!done) {
    failed(done.error());
    return done;
  }
  const std::scoped_lock lock(mutex_);
  totals_ = table_->totals();
  return {};
}

void BdbStore::expire_some() {
  bool more = false;
  const Rules current = rules();
  if (!watch_.settled(std::chrono::seconds(std::min(current.retry_window, current.max_age)))) {
    expire_at_ = Steady::now() + expiry_rest;
    return;
  }
  const auto done = in_transaction([&](Table& table) -> Result<> {
    const auto expired = table.expire(wall_now(), current, expiry_slice);
    if (!expired) return std::unexpected(expired.error());
    more = *expired == expiry_slice;
    return {};
  });
  expire_at_ = Steady::now() + (more ? expiry_pause : expiry_rest);
}

Result<> BdbStore::read_manual() {
  auto entries = std::make_shared<std::vector<Stored>>();
  auto begun = table_->begin();
  if (!begun) return begun;
  for (const std::string_view prefix : {"expect/", "pass/"}) {
    auto found = table_->scan({}, SIZE_MAX, prefix);
    if (!found) return std::unexpected(found.error());
    std::move(found->begin(), found->end(), std::back_inserter(*entries));
  }
  manual_ = std::move(entries);
  return table_->commit();
}

// Opens the environment, on the store's thread; leaves the store detached, and the next attempt set, if it cannot be.
void BdbStore::attach() {
  std::unique_ptr<Table> table;
  const bdb::Settings files{
      .base = settings_.directory, .cache = settings_.cache, .expendable = "index.db", .to_salvage = true};
  std::string damage;
  auto opened = bdb::open_or_replace(files, [&](bdb::Environment& environment) {
    table.reset();
    auto made = Table::open(environment, settings_.caps);
    if (made) table = std::move(*made);
    if (!made) damage = made.error().text;
    return made ? Result<>{} : std::unexpected(made.error());
  });
  if (!opened) return detach(opened.error(), settings_.reopen_after);
  {
    const std::scoped_lock lock(environment_mutex_);
    environment_ = std::move(opened->environment);
  }
  table_ = std::move(table);
  expire_at_ = Steady::now();
  if (!environment_->loss().empty()) {
    log_.warning(program, environment_->loss());
    alerts_.raise("greylist store lost its last changes", environment_->loss());
  }
  if (!damage.empty() && opened->set_aside.empty() && table_->totals().records() == 0) {
    log_.warning(program, "the store begins anew: " + damage);
    alerts_.raise("greylist store lost its records", damage + "; what was known of senders is gone");
  }
  for (const std::string& directory : bdb::unsalvaged(settings_.directory)) {
    if (!salvage(directory)) return;
  }
  manual_changed_ = true;
  if (!in_transaction([](Table&) { return Result<>{}; })) return;
  const std::scoped_lock lock(mutex_);
  if (!trouble_.empty()) log_.info(program, fmt::format("the store is back with {} records", totals_.records()));
  trouble_.clear();
}

void BdbStore::detach(const Error& error, Steady::duration pause) {
  table_.reset();
  {
    const std::scoped_lock lock(environment_mutex_);
    environment_.reset();
  }
  reopen_at_ = Steady::now() + pause;
  {
    const std::scoped_lock lock(mutex_);
    keeper_error_.reset();
    const bool known = !trouble_.empty();
    trouble_ = error.text;
    if (known) return;
  }
  log_.warning(program, "the store failed: " + error.text);
  alerts_.raise("greylist store failed",
                error.text + "; until it is open again, mail is handled as greylist.on_error says");
}

// Recovery does not look at every page. A second panic within an hour is damage that it passed over, and would again.
void BdbStore::failed(const Error& error) {
  detach(error, error.kind == ErrorKind::permanent ? 0ms : settings_.reopen_after);
  if (error.kind != ErrorKind::permanent) return;
  const auto now = Steady::now();
  if (!last_strike_ || now - *last_strike_ > strike_memory) {
    last_strike_ = now;
  } else if (bdb::set_aside(settings_.directory, true)) {
    last_strike_.reset();
  }
}

// The directory keeps its name until its records are safe in the store, so that no restart forgets it. False: the
// store is detached again.
bool BdbStore::salvage(const std::string& directory) {
  const Stamp now = wall_now();
  const Rules current = rules();
  std::vector<Stored> found;
  std::size_t count = 0;
  Result<> merged;
  const auto merge_found = [&] {
    if (merged) merged = in_transaction([&](Table& table) { return merge_all(table, std::exchange(found, {})); });
  };
  const auto read = bdb::salvage(directory + "/records.db", [&](std::string_view key, std::string_view value) {
    auto record = decode(key, value);
    if (!record || (record->passed && current.expired(*record, now))) return;
    found.push_back({std::string(key), std::move(*record)});
    ++count;
    if (found.size() >= most_batch) merge_found();
  });
  merge_found();
  if (!merged) return false;
  if (const auto flushed = environment_->flush(); !flushed) {
    failed(flushed.error());
    return false;
  }
  const auto moved = bdb::set_salvaged(settings_.directory, directory);
  const std::string text =
      fmt::format("the damaged store was moved to {}; {} records in it were whole and are in use{}",
                  moved.value_or(directory), count, read ? "" : " (" + read.error().text + ")");
  log_.warning(program, text);
  alerts_.raise("greylist store was damaged", text);
  return true;
}

// Beside the store's thread, so that no mail waits for the disk.
void BdbStore::keep() {
  std::unique_lock lock(mutex_);
  while (!stopped_.wait_for(lock, flush_interval, [&] { return stopping_; })) {
    lock.unlock();
    Result<> kept;
    {
      const std::scoped_lock environment_lock(environment_mutex_);
      if (environment_) kept = environment_->flush();
      if (environment_ && kept) kept = environment_->checkpoint();
    }
    lock.lock();
    if (kept) continue;
    keeper_error_ = kept.error();
    wake_.notify_one();
  }
}

void BdbStore::stop() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  stopped_.notify_all();
  if (worker_.joinable()) worker_.join();
  if (keeper_.joinable()) keeper_.join();
  table_.reset();
  environment_.reset();
}

}  // namespace

Result<std::unique_ptr<Store>> open_bdb_store(const BdbSettings& settings, const Clock& clock, Log& log,
                                              Alerts& alerts) {
  const auto files = system_files();
  if (auto made = files->make_directory(settings.directory); !made) return std::unexpected(made.error());
  auto lock = files->lock(settings.directory + "/lock");
  if (!lock) {
    return fail(lock.error().kind,
                fmt::format("greylist store {} is in use by another process, or cannot be locked: {}",
                            settings.directory, lock.error().text));
  }
  return std::make_unique<BdbStore>(settings, std::move(*lock), clock, log, alerts);
}

}  // namespace greymx::greylist

#include "base/log.hpp"

#include <fmt/format.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.hpp"
#include "base/log_target.hpp"

namespace greymx {

namespace {

using detail::LogRecord;
using detail::LogTarget;

// What may wait for a slow target. A burst of a second at full load is a tenth of it.
constexpr std::size_t queue_bytes = 16UL << 20;
constexpr std::size_t batch_records = 1000;
constexpr std::chrono::seconds flush_patience{5};
// After a batch the next may gather for so long: under load a line then costs no wake-up.
constexpr std::chrono::milliseconds gather_time{5};

std::size_t cost(const LogRecord& record) {
  return sizeof record + record.program.size() + record.id.size() + record.text.size();
}

// What waits to be written. The thread that writes shares it: stuck in a target that nobody reads, it outlives the log.
class LogQueue {
 public:
  explicit LogQueue(std::shared_ptr<LogTarget> target) : target_(std::move(target)) {}

  void push(LogRecord record) {
    const std::scoped_lock lock(mutex_);
    waiting_bytes_ += cost(record);
    waiting_.push_back(std::move(record));
    ++accepted_;
    while (waiting_bytes_ > queue_bytes && waiting_.size() > 1) {  // the oldest make way
      waiting_bytes_ -= cost(waiting_.front());
      waiting_.pop_front();
      ++finished_;
      ++lost_;
    }
    if (waiting_.size() == 1) wake_.notify_one();
  }

  void use(std::shared_ptr<LogTarget> target) {
    const std::scoped_lock lock(mutex_);
    target_ = std::move(target);
  }

  void flush() {
    std::unique_lock lock(mutex_);
    const std::uint64_t goal = accepted_;
    ++flushing_;
    wake_.notify_one();
    written_.wait_for(lock, flush_patience, [&] { return finished_ >= goal; });
    --flushing_;
  }

  // False: what waits could not be written in time.
  bool finish() {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    wake_.notify_one();
    return written_.wait_for(lock, flush_patience, [&] { return ended_; });
  }

  // Until finish().
  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
      if (waiting_.empty()) break;
      write_some(lock);
      if (waiting_.size() < batch_records)
        wake_.wait_for(lock, gather_time, [&] { return stopping_ || flushing_ > 0; });
    }
    ended_ = true;
    written_.notify_all();
  }

 private:
  void write_some(std::unique_lock<std::mutex>& lock) {
    std::vector<LogRecord> batch = take();
    const std::size_t count = batch.size();
    const std::uint64_t lost = std::exchange(lost_, 0);
    if (lost > 0) batch.insert(batch.begin(), loss(lost));
    const std::shared_ptr<LogTarget> target = target_;
    lock.unlock();
    const bool ok = target->write(batch);
    lock.lock();
    if (!ok) lost_ += lost + count;
    finished_ += count;
    written_.notify_all();
  }

  std::vector<LogRecord> take() {
    std::vector<LogRecord> batch;
    while (!waiting_.empty() && batch.size() < batch_records) {
      waiting_bytes_ -= cost(waiting_.front());
      batch.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    return batch;
  }

  static LogRecord loss(std::uint64_t lines) {
    return {SystemClock().now(),
            Level::warning,
            "master",
            {},
            fmt::format("{} log lines lost: the log target was too slow or refused them", lines)};
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable written_;
  std::deque<LogRecord> waiting_;
  std::size_t waiting_bytes_ = 0;
  std::uint64_t accepted_ = 0;
  std::uint64_t finished_ = 0;  // written or lost
  std::uint64_t lost_ = 0;      // not yet reported
  unsigned flushing_ = 0;
  bool stopping_ = false;
  bool ended_ = false;
  std::shared_ptr<LogTarget> target_;
};

class QueuedLog final : public TargetLog {
 public:
  QueuedLog(std::shared_ptr<LogTarget> target, const LogSettings& settings)
      : settings_(settings),
        level_(settings.level),
        queue_(std::make_shared<LogQueue>(std::move(target))),
        thread_([queue = queue_] { queue->run(); }) {}

  ~QueuedLog() override {
    const bool written = queue_->finish();
    written ? thread_.join() : thread_.detach();
  }

  void write(Level level, std::string_view program, std::string_view id, std::string_view text) override {
    if (level < level_.load(std::memory_order_relaxed)) return;
    queue_->push({SystemClock().now(), level, std::string(program), std::string(id), std::string(text)});
  }

  Result<> reconfigure(const LogSettings& settings) override {
    if (settings == settings_) return {};
    auto target = detail::open_target(settings);
    if (!target) return std::unexpected(std::move(target).error());
    queue_->use(std::move(*target));
    settings_ = settings;
    level_ = settings.level;
    warn_of_rotation(settings);
    return {};
  }

  void warn_of_rotation(const LogSettings& settings) {
    const std::string trouble = detail::rotation_trouble(settings);
    if (!trouble.empty()) warning("master", trouble);
  }

  void flush() override { queue_->flush(); }

 private:
  LogSettings settings_;
  std::atomic<Level> level_;
  const std::shared_ptr<LogQueue> queue_;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<TargetLog>> open_log(const LogSettings& settings) {
  auto target = detail::open_target(settings);
  if (!target) return std::unexpected(std::move(target).error());
  auto log = std::make_unique<QueuedLog>(std::move(*target), settings);
  log->warn_of_rotation(settings);
  return log;
}

}  // namespace greymx

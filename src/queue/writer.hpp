// The one thread that appends to the log. It takes all that waits, writes it in one go, syncs once, enters it in the
// books and wakes all: group commit. Changes and ends alone wait for `lazy_sync`, so that many share a sync.
//
// The instant of commitment is the return of File::sync() in commit(): before it nothing in the batch counts (a crash
// leaves a torn tail, which recovery cuts), after it everything does, whether or not anybody is told.
//
// When a write or sync fails, the segment is dead: it is cut back to what was synced, nobody in the batch is told yes,
// changes and ends are kept and go to a new segment, and the admin is alerted. The sync is never repeated: the kernel
// has marked the pages clean, and would say yes.
#pragma once

#include <condition_variable>
#include <functional>
#include <thread>

#include "base/alerts.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "queue/index.hpp"
#include "queue/open_segment.hpp"

namespace greymx::queue {

// What is needed to read a message's current state: taken under the lock, used without it.
struct Snapshot {
  Places places;
  std::shared_ptr<Segment> message, state;
  std::vector<Edit> edits;  // not on disk yet
};

class Writer {
 public:
  Writer(const SpoolSettings& settings, Books& books, SegmentStore& store, const Clock& clock, Log& log,
         Metrics& metrics, Alerts& alerts);

  void run();   // the thread's body: until stop(), and all that was handed over is durable
  void stop();  // any thread
  // One batch at most, now; false if nothing waited. run() does this; tests without threads call it themselves.
  bool commit();
  void seal(bool last);  // the open segment; `last`: cut to its length, for a clean stop

  // --- any thread
  void append(Append append);
  // False if there is no such message. When nobody is to get it any more, it ends.
  bool edit(QueueId id, Edit edit);
  bool end(QueueId id);
  std::optional<Snapshot> snapshot(QueueId id) const;
  // The state that the snapshot tells where to find, edits applied; if that record is damaged, what memory knows of it.
  Result<MessageState> state(QueueId id, const Snapshot& snapshot);
  std::string problem() const;              // why nothing can be written; empty if all is well
  std::uint64_t failures() const;           // so far: batches and appends that came to nothing
  std::size_t unsaved() const;              // changes and ends that wait for the disk
  std::vector<QueueId> take_ended_files();  // own files of messages whose end is durable

  std::function<void(const Entry&)> on_arrival = [](const Entry&) {};  // entered in the index; set before any thread
  std::function<void()> on_rotate = [] {};                             // a segment is full

 private:
  struct Batch {
    std::vector<Append> records;
    std::vector<Waiter> barriers;
  };

  Batch collect();
  void add_changes(Batch& batch);
  Result<> ensure_room(Batch& batch);
  void refuse_mail(Batch& batch, const Result<>& why);
  Result<> rotate(bool for_new_mail);
  Result<> write(Batch& batch);
  void settle(Batch& batch);
  void settle_record(const Append& append, WallTime now);
  void abandon(Batch& batch, const Error& error);
  Result<MessageState> known_state(QueueId id, const Snapshot& snapshot);
  void start_lazy();
  void end_now(QueueId id);
  Snapshot take_snapshot(QueueId id, const Places& places) const;
  Places* places(QueueId id);  // of a message, or of one whose end is not yet durable

  const SpoolSettings& settings_;
  Books& books_;
  SegmentStore& store_;
  const Clock& clock_;
  Log& log_;
  Metrics& metrics_;
  Alerts& alerts_;

  const std::uint64_t batch_limit_;
  std::optional<OpenSegment> open_;  // the writer's own

  // The rest is guarded by books_.mutex.
  std::condition_variable work_;
  std::deque<Append> queue_;
  std::map<QueueId, std::vector<Edit>> edits_;    // to be written
  std::map<QueueId, std::vector<Edit>> writing_;  // in the batch that is being written
  std::map<QueueId, Places> ends_, ending_;       // likewise
  std::vector<QueueId> ended_files_;
  std::size_t last_batch_ = 0;  // so many new messages were in it
  SteadyTime lazy_since_{};
  SteadyTime retry_at_{};
  std::string problem_;
  std::uint64_t failures_ = 0;
  bool stopping_ = false;
};

}  // namespace greymx::queue

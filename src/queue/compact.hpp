// Gives room back: moves what is still needed of a mostly dead segment to the head of the log, so that the segment can
// be used again. Runs in the background at a bounded rate.
//
// A message is copied with its current state in one record, which counts only if neither has moved meanwhile; ends are
// repeated if the record they end still stands elsewhere. Nothing is given up before its copy is synced.
#pragma once

#include "queue/recovery.hpp"
#include "queue/writer.hpp"

namespace greymx::queue {

class Compactor {
 public:
  Compactor(const SpoolSettings& settings, Books& books, Writer& writer, Quarantine& quarantine, Log& log);

  // At most one segment; false if there is nothing to gain, for which less is enough when room is `scarce`.
  // `pace(bytes)` is called when that much was handed to the writer; it waits until all of it is durable and as long as
  // the rate demands, and says false to stop.
  bool run(bool scarce, const std::function<bool(std::uint64_t bytes)>& pace);

 private:
  std::shared_ptr<Segment> choose(bool scarce);
  bool empty(Segment& segment, const std::function<bool(std::uint64_t bytes)>& pace);
  std::optional<Append> needed(std::uint32_t segment, const RecordHeader& header, std::uint64_t offset,
                               std::string_view head, std::string_view body);
  std::optional<Append> copy(QueueId id, const Snapshot& snapshot, std::string_view head, std::string_view body);
  void finish(Segment& segment, const Result<Segment::Walk>& walk, bool copied, bool unread);

  const SpoolSettings& settings_;
  Books& books_;
  Writer& writer_;
  Quarantine& quarantine_;
  Log& log_;
  unsigned idle_ = 0;
};

}  // namespace greymx::queue

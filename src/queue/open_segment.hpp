// The segment at the end of the log, while the writer fills it: greymx-spool(5). For one thread. Blocks.
#pragma once

#include <span>

#include "queue/append.hpp"
#include "queue/segment.hpp"

namespace greymx::queue {

class OpenSegment {
 public:
  // An empty one, or one whose batches are read again and summed up so far, to be sealed.
  OpenSegment(std::shared_ptr<Segment> segment, std::shared_ptr<File> file, std::uint64_t end = log_begin,
              SummaryBuilder summary = {});

  const std::shared_ptr<Segment>& segment() const { return segment_; }
  std::uint64_t end() const { return end_; }  // of what is durable
  // Is there room for a batch of these, and for summary and seal after it?
  bool fits(std::span<const Append> records) const;
  // As one batch, durable when this returns; each entry learns its offset. After an error the segment is dead: cut().
  Result<> write(std::span<Append> records);
  Result<> cut();  // back to what write() said yes to
  // Summary and seal behind the last batch, unless there is none. `last`: cut to its length, for a clean stop. What
  // write() said yes to is safe without; only the next start takes longer.
  Result<> seal(bool last);

 private:
  Result<> lay_down(std::span<Append> records);

  std::shared_ptr<Segment> segment_;
  std::shared_ptr<File> file_;
  std::uint64_t end_;
  SummaryBuilder summary_;
  std::vector<char> buffer_;
};

}  // namespace greymx::queue

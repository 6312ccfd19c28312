// Goes through the selected messages of a queue in order of arrival, a bounded page at a time. What comes after it
// began is none of them: returning messages queues reports. Blocks on disk.
#pragma once

#include <vector>

#include "admin/commands.hpp"

namespace greymx::admin {

class Walk {
 public:
  // `source` outlives it.
  Walk(const QueueSource& source, Selection select, WallTime now)
      : source_(source),
        select_(std::move(select)),
        now_(now),
        last_(source.newest()),
        total_(by_id() ? select_.ids.size() : source.count()) {}

  std::vector<queue::Message> page();  // may be empty before the end
  bool done() const { return done_; }
  std::uint64_t looked_at() const { return looked_at_; }
  std::uint64_t total() const { return std::max(total_, looked_at_); }
  void trouble(QueueId id, const Error& error);  // with one of a page's messages; none if it left meanwhile
  Ending ending() const;  // names what was asked for by ID but is not there, and what could not be read
  // Did anything match what narrows? If not, whatever does something with it has failed; a look at it has not.
  bool matched() const { return matched_ || !select_.narrows(); }

 private:
  bool by_id() const { return !select_.ids.empty(); }
  std::vector<QueueId> next_ids();

  const QueueSource& source_;
  Selection select_;
  WallTime now_;
  QueueId last_;
  std::uint64_t total_ = 0;
  std::uint64_t looked_at_ = 0;
  bool matched_ = false;
  QueueId after_{};
  bool done_ = false;
  std::string problem_;  // the first one
  std::size_t problems_ = 0;
};

}  // namespace greymx::admin

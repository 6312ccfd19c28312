// Reading a spool back at start, and what is done with the parts of it that cannot be read.
//
// Sealed segments are read from their summaries; others record by record, and their torn tail is cut. What is damaged
// is copied to corrupt/, reported with its place and length, and left behind when the rest of its segment is moved.
// What the disk does not give may heal: such a segment stays as it is, and the next start reads it again. Other I/O
// errors are returned. One thread, before any other is started.
#pragma once

#include <mutex>
#include <set>

#include "base/alerts.hpp"
#include "base/log.hpp"
#include "queue/index.hpp"

namespace greymx::queue {

// Keeps what is damaged for a person to look at, and tells one. Any thread; blocks.
class Quarantine {
 public:
  Quarantine(Files& files, std::string directory, Log& log, Alerts& alerts);
  // Told of once: who recovers the segment finds it, and who moves the rest of it away finds it again.
  Result<> keep(Segment& segment, const Damage& damage);
  // All that is damaged in a segment. False if that cannot be done, or what is unread may heal: it must not be changed
  // or given up until the next start looks at it again.
  bool secure(Segment& segment, bool unread, const std::vector<Damage>& damage);
  // Moves a file of the spool (path below its directory) as a whole.
  Result<> keep(const std::string& file, const std::string& why);
  void report(const std::string& text);
  void warn(const std::string& text) { log_.warning("spool", text); }

 private:
  Result<> make_directory();

  Files& files_;
  std::string directory_;
  Log& log_;
  Alerts& alerts_;
  std::mutex mutex_;
  std::set<std::pair<std::uint32_t, std::uint64_t>> told_;  // segment and offset
};

struct Recovered {
  QueueId newest;                   // of all that were ever seen
  std::uint32_t last_number = 0;    // of segments
  std::vector<std::uint32_t> free;  // numbers of .free files
  std::vector<QueueId> lost;        // in the index, but the file with their content is gone
};
Result<Recovered> recover(Files& files, const std::string& directory, Books& books, Quarantine& quarantine,
                          WallTime now);

}  // namespace greymx::queue

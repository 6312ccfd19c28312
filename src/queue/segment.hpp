// One file of the log, and the directory of them: greymx-spool(5).
//
// A segment's life: NNNNNNNN.free (blocks reserved, content of no meaning) -> NNNNNNNN.log under a number never used
// before, header synced before the name -> open (the writer appends) -> sealed (summary written), or merely closed
// after a failure -> when nothing in it is needed any more: renamed to .free, or removed.
//
// Blocks. Reading is for any thread; the rest belongs to one thread at a time, as said.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <random>

#include "base/files.hpp"
#include "queue/record.hpp"

namespace greymx::queue {

inline constexpr const char* log_suffix = ".log";
inline constexpr const char* free_suffix = ".free";
inline constexpr const char* large_directory = "/large";
inline constexpr const char* corrupt_directory = "/corrupt";

std::string segment_name(std::uint32_t number, std::string_view suffix);  // "00000012.log"
std::optional<std::uint32_t> parse_segment_name(std::string_view name, std::string_view suffix);
std::string large_path(const std::string& directory, QueueId id);

struct Record {
  RecordHeader header;
  std::string bytes;  // header, head, and the body if it was asked for
  std::string_view head() const { return std::string_view(bytes).substr(record_header_length, header.head_length); }
  std::string_view body() const { return std::string_view(bytes).substr(record_header_length + header.head_length); }
};

struct Damage {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  bool operator==(const Damage&) const = default;
};

class Segment {
 public:
  // invalid: the header is damaged; permanent: another version; not_found: no such file.
  static Result<std::shared_ptr<Segment>> open(Files& files, std::string directory, std::uint32_t number);
  Segment(Files& files, std::string directory, SegmentHeader header, std::shared_ptr<File> file, std::uint64_t size);

  std::uint32_t number() const { return header_.number; }
  const SegmentHeader& header() const { return header_; }
  std::string name() const { return segment_name(number(), log_suffix); }
  std::uint64_t size() const { return size_; }

  // The file, opened when first used: most segments of a long queue rest, and descriptors are few. rest() closes it
  // unless it was used since the last call.
  Result<std::shared_ptr<File>> file();
  void rest();

  // The record of `id`, its checksums verified; the body only if `body_length` says so. invalid: what stands there is
  // something else or damaged.
  Result<Record> read(QueueId id, std::uint64_t offset, std::uint32_t head_length, std::uint32_t body_length);

  // `unread`, here and below: the disk did not give all of it. That may heal: such a file stays as it is.
  struct Seal {
    std::uint64_t log_end = 0;           // 0: the segment is not sealed
    std::optional<std::string> summary;  // absent if it is damaged or unread
    bool unread = false;
  };
  Result<Seal> seal();

  // Calls back for every intact record but batches. Damage is reported unless it is the tail of the log: what lies
  // after the last batch, or in that, was never acknowledged. With `log_end` (of a sealed segment) nothing is tail.
  // Nor is it in a file that ends within a batch or block: files get their length before they get mail, and are only
  // ever cut behind a batch, so the disk has lost the end of that one.
  struct Walk {
    std::uint64_t last = log_begin;  // where the last batch begins
    std::uint64_t end = log_begin;   // of it, rounded up to a block
    bool torn = false;               // not all of it is there
    bool shortened = false;          // the file has lost its end
    bool cut = false;                // not sealed, it ends behind that batch: a write has failed, or it lost its end
    bool unread = false;             // and what it was counts as damaged
    std::vector<Damage> damage;
  };
  using Visit = std::function<void(const RecordHeader& header, std::uint64_t offset, std::string_view head,
                                   std::string_view body)>;
  Result<Walk> walk(const Visit& visit, std::uint64_t log_end = 0);

  Result<> cut(std::uint64_t size);   // truncates and syncs
  Result<> blank(std::uint64_t end);  // zeros over the block there, synced: no batch begins in it

 private:
  Result<std::string> bytes_at(std::uint64_t offset, std::uint64_t length, bool& unread);
  Result<std::optional<RecordHeader>> header_at(std::uint64_t offset, bool& unread);
  Result<> walk_batch(std::uint64_t offset, std::uint64_t length, const Visit& visit, std::vector<Damage>& damage,
                      bool& unread);

  Files& files_;
  std::string directory_;
  SegmentHeader header_;
  std::atomic<std::uint64_t> size_;
  std::mutex mutex_;  // of what follows
  std::shared_ptr<File> file_;
  bool used_ = false;
};

// Of a walk: shortened, cut.
std::string lost_end(const Segment& segment);
std::string may_have_lost_end(const Segment& segment);

// Makes segments ready ahead of need and takes back those that are not needed. next() is called by the writer, the
// rest by one other thread.
class SegmentStore {
 public:
  SegmentStore(Files& files, std::string directory, std::uint64_t segment_size);

  // After recovery: the highest number ever seen and the numbers of the .free files; those of another size are removed.
  Result<> adopt(std::uint32_t last_number, const std::vector<std::uint32_t>& free);
  // A new segment, durable under its name. A reserve of one is kept for changes and ends, so that mail can be
  // delivered and deleted when the disk is full: new mail does not get that.
  Result<std::shared_ptr<Segment>> next(WallTime now, bool for_new_mail);
  Result<> reserve();             // sees to it that the reserve is there: no new mail is written without
  Result<> refill(WallTime now);  // one segment made ready, one .free in reserve
  // The segment is needed no more: to be reused, or removed if `shared` (somebody still reads it) or enough are free.
  // Durable when this returns.
  Result<> retire(const Segment& segment, bool shared);
  std::uint64_t spare_bytes() const;

 private:
  Result<> make_free(bool zeroed);
  Result<std::shared_ptr<Segment>> make(WallTime now);
  Result<std::shared_ptr<Segment>> name(std::uint32_t free, const SegmentHeader& header);
  std::size_t spare() const;
  std::uint32_t take_number();
  std::string path(std::uint32_t number, const char* suffix) const;

  Files& files_;
  std::string directory_;
  std::uint64_t segment_size_;
  // Held from the number to the handing over of a segment: recovery reads segments by number, so the writer must get
  // them in that order, and wait for the one that is being made ready rather than overtake it.
  std::mutex making_;
  mutable std::mutex mutex_;  // of what follows
  std::uint32_t last_number_ = 0;
  std::deque<std::uint32_t> free_;
  std::shared_ptr<Segment> standby_;
  std::random_device random_;
};

}  // namespace greymx::queue

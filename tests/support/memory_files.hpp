// A disk in memory that fails, tears and forgets as told. Any thread.
//
// Strict where POSIX is: what was written is durable only after sync(), a name only after sync_directory() of its
// folder (folders themselves are durable at once). After a failed sync the pages count as clean, as on Linux: what
// they held is lost in a crash although a later sync succeeds.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <set>

#include "base/files.hpp"

namespace greymx::test {

enum class Fault : std::uint8_t {
  io_error,  // EIO, nothing done
  no_space,  // ENOSPC, nothing done
  torn,      // a write puts half of its bytes, then EIO; other operations: as io_error
};

// What survives of that which was not synced.
struct Crash {
  std::uint64_t keep_bytes = 0;                 // this many of the written bytes, in the order of writing…
  std::optional<unsigned> random_sectors = {};  // …or instead each 512-byte sector or not, by this seed
  std::size_t keep_entries = 0;                 // this many creations, renames and removals, in their order
};

class MemoryFiles : public Files {
 public:
  MemoryFiles();
  ~MemoryFiles() override;

  // The `n`-th operation from now on (1 = the next) fails, and if `dead`, all after it. Every call counts as one.
  void fail_at(std::uint64_t n, Fault fault = Fault::io_error, bool dead = false);
  void heal();                                         // no more planned faults
  std::uint64_t operations() const;                    // so far
  std::uint64_t count(const std::string& name) const;  // calls of one kind: "write", "sync", "rename", …
  void set_capacity(std::uint64_t bytes);              // all file sizes together

  // Power fails and comes back: open files are dead (EIO), locks free, contents what was durable plus `what`.
  void crash(const Crash& what = {});
  std::uint64_t unsynced_bytes() const;
  std::size_t unsynced_entries() const;
  // The same disk once more, unsynced state included, nothing open: to try every crash from one state.
  std::unique_ptr<MemoryFiles> clone() const;

  // Outside the count of operations, without faults, durable at once.
  std::optional<std::string> content(const std::string& path) const;
  void put(const std::string& path, std::string content);

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override;
  Result<> make_directory(const std::string& path) override;
  Result<> rename(const std::string& from, const std::string& to) override;
  Result<> remove(const std::string& path) override;
  Result<> sync_directory(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& directory) override;
  Result<std::uint64_t> free_bytes(const std::string& path) override;
  Result<std::unique_ptr<File>> lock(const std::string& path) override;

 private:
  struct Change {  // of a file's content: bytes at an offset, or (no bytes) a new size
    std::uint64_t number;
    std::uint64_t offset;
    std::string bytes;
    std::optional<std::uint64_t> size;
  };
  struct Node {
    std::string live;
    std::string durable;
    std::vector<Change> unsynced;
  };
  using Entries = std::map<std::string, std::shared_ptr<Node>>;
  struct Renaming {  // each path gets the node, or loses its name if null
    std::vector<std::pair<std::string, std::shared_ptr<Node>>> names;
  };
  class OpenFile;

  // Counts the call; the error if a fault is due.
  Result<> faulty(const std::string& name, const std::string& path);
  void enter(Renaming renaming);
  std::uint64_t used() const;
  std::vector<std::pair<Node*, Change>> unsynced() const;
  void keep_prefix(std::uint64_t bytes);
  void keep_sectors(unsigned seed);
  static void apply(std::string& content, const Change& change);
  static void name(Entries& entries, const Renaming& renaming);

  mutable std::recursive_mutex mutex_;
  Entries live_;
  Entries durable_;
  std::vector<Renaming> unsynced_entries_;
  std::set<std::string> directories_{"/"};
  std::set<std::string> locked_;
  std::map<std::string, std::uint64_t> counts_;
  std::uint64_t operations_ = 0;
  std::uint64_t changes_ = 0;
  std::uint64_t generation_ = 0;  // of power: files of an older one are dead
  std::uint64_t capacity_ = 1ULL << 40;
  std::uint64_t fail_at_ = 0;  // 0 = never
  Fault fault_ = Fault::io_error;
  bool stays_dead_ = false;
  bool dead_ = false;
};

}  // namespace greymx::test

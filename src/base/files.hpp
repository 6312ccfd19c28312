// The disk, as the spool sees it: an interface, so that tests can fail any operation, tear any write, and forget all
// that was not synced. All calls block; never on a network thread. Objects are used by one thread at a time, except
// that read() may be called from any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace greymx {

class File {
 public:
  virtual ~File() = default;
  virtual Result<std::size_t> read(std::uint64_t offset, std::span<char> into) = 0;  // short only at the end
  virtual Result<> write(std::uint64_t offset, std::span<const char> bytes) = 0;     // all or an error
  virtual Result<> sync() = 0;                                                       // fdatasync; never retried
  virtual Result<> allocate(std::uint64_t size) = 0;                                 // blocks reserved and zero
  virtual Result<> truncate(std::uint64_t size) = 0;
  virtual Result<std::uint64_t> size() = 0;
  virtual Result<> close() = 0;  // reports late write errors; the destructor closes silently
};

enum class OpenMode : std::uint8_t { read, write, create };  // create: read-write, must not exist, mode 0600

class Files {
 public:
  virtual ~Files() = default;
  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) = 0;
  virtual Result<> make_directory(const std::string& path) = 0;  // with parents, mode 0700; fine if it exists
  virtual Result<> rename(const std::string& from, const std::string& to) = 0;
  virtual Result<> remove(const std::string& path) = 0;
  virtual Result<> sync_directory(const std::string& path) = 0;
  virtual Result<std::vector<std::string>> list(const std::string& directory) = 0;  // names, sorted
  virtual Result<std::uint64_t> free_bytes(const std::string& path) = 0;            // for an unprivileged user
  // Held until the returned object dies; not_found if another process holds it (fcntl F_OFD_SETLK).
  virtual Result<std::unique_ptr<File>> lock(const std::string& path) = 0;
};

std::unique_ptr<Files> system_files();

// By which to see that a file has changed, or who may read it; all zero: it is absent.
struct FileStamp {
  std::int64_t modified = 0;  // nanoseconds
  std::int64_t changed = 0;   // the same, of its inode: permissions, too
  std::uint64_t size = 0;
  std::uint64_t inode = 0;
  static FileStamp of(const std::string& path);
  bool operator==(const FileStamp&) const = default;
};

// Whole small files, for configuration and lists. `limit` bytes at most.
Result<std::string> read_file(const std::string& path, std::size_t limit = 256UL << 20);
// Written beside and renamed over, synced, mode 0640.
Result<> replace_file(const std::string& path, std::string_view content);

}  // namespace greymx

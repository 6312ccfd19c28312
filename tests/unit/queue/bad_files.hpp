// A disk in memory of which parts are bad, as a test says.
#pragma once

#include <functional>

#include "support/memory_files.hpp"

namespace greymx::test {

class BadFiles final : public MemoryFiles {
 public:
  struct Call {
    std::string_view name;  // "open", "list", "read", "write", "sync", "truncate"
    const std::string& path;
    std::uint64_t offset = 0;     // of reads and writes, as the next
    std::string_view bytes = {};  // to be written, or as many as are to be read
  };
  // What a call fails with; asked before it is done.
  std::function<Result<>(const Call&)> fault = [](const Call&) { return Result<>(); };

  static Result<> io_error() { return fail(ErrorKind::temporary, "Input/output error"); }

  // All that stands below a directory of another disk.
  void copy(MemoryFiles& from, const std::string& directory) {
    const auto names = from.list(directory);
    if (!names) return;
    for (const std::string& name : *names) {
      const std::string path = directory + "/" + name;
      if (const auto content = from.content(path)) put(path, *content);
      copy(from, path);
    }
  }

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
    if (auto bad = fault({"open", path}); !bad) return std::unexpected(bad.error());
    auto file = MemoryFiles::open(path, mode);
    if (!file) return file;
    return std::make_unique<BadFile>(*this, path, std::move(*file));
  }
  Result<std::vector<std::string>> list(const std::string& directory) override {
    if (auto bad = fault({"list", directory}); !bad) return std::unexpected(bad.error());
    return MemoryFiles::list(directory);
  }

 private:
  class BadFile final : public File {
   public:
    BadFile(BadFiles& owner, std::string path, std::unique_ptr<File> file)
        : owner_(owner), path_(std::move(path)), file_(std::move(file)) {}
    Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
      if (auto bad = owner_.fault({"read", path_, offset, {into.data(), into.size()}}); !bad) {
        return std::unexpected(bad.error());
      }
      return file_->read(offset, into);
    }
    Result<> write(std::uint64_t offset, std::span<const char> bytes) override {
      const auto bad = owner_.fault({"write", path_, offset, {bytes.data(), bytes.size()}});
      return bad ? file_->write(offset, bytes) : bad;
    }
    Result<> sync() override {
      const auto bad = owner_.fault({"sync", path_});
      return bad ? file_->sync() : bad;
    }
    Result<> truncate(std::uint64_t size) override {
      const auto bad = owner_.fault({"truncate", path_, size});
      return bad ? file_->truncate(size) : bad;
    }
    Result<> allocate(std::uint64_t size) override { return file_->allocate(size); }
    Result<std::uint64_t> size() override { return file_->size(); }
    Result<> close() override { return file_->close(); }

   private:
    BadFiles& owner_;
    std::string path_;
    std::unique_ptr<File> file_;
  };
};

}  // namespace greymx::test

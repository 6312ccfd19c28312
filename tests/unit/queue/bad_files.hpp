// A disk in memory of which parts are bad, as a test says.
#pragma once

#include <functional>

#include "queue/format.hpp"
#include "support/memory_files.hpp"

namespace greymx::test {

class BadFiles final : public MemoryFiles {
 public:
  struct Call {
    std::string_view name;  // "open", "list", "read", "write", "sync", "truncate", "sync_directory"
    const std::string& path;
    std::uint64_t offset = 0;     // of reads and writes, as the next
    std::string_view bytes = {};  // to be written, or as many as are to be read
  };
  // What a call fails with; asked before it is done.
  std::function<Result<>(const Call&)> fault = [](const Call&) { return Result<>(); };

  static Result<> io_error() { return fail(ErrorKind::temporary, "Input/output error"); }

  // Reads of this block fail from now on, and nothing else.
  void lose(const std::string& lost, std::uint64_t number) {
    fault = [lost, number](const Call& call) {
      const bool hit = call.name == "read" && call.path == lost && call.offset < (number + 1) * queue::block &&
                       call.offset + call.bytes.size() > number * queue::block;
      return hit ? io_error() : Result<>();
    };
  }
  void mend() {
    fault = [](const Call&) { return Result<>(); };
  }

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
  Result<> sync_directory(const std::string& path) override {
    const auto bad = fault({"sync_directory", path});
    return bad ? MemoryFiles::sync_directory(path) : bad;
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

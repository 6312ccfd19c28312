#include "queue/content.hpp"

#include "queue/segment.hpp"

namespace greymx::queue {

namespace {

class TextContent final : public Content {
 public:
  explicit TextContent(std::string text) : text_(std::move(text)) {}
  std::uint64_t size() const override { return text_.size(); }
  Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
    if (offset >= text_.size()) return 0;
    return text_.copy(into.data(), into.size(), offset);
  }

 private:
  std::string text_;
};

class FileContent final : public Content {
 public:
  FileContent(std::unique_ptr<File> file, std::string path, std::uint64_t size, std::uint32_t crc)
      : file_(std::move(file)), path_(std::move(path)), size_(size), expected_(crc) {}

  std::uint64_t size() const override { return size_; }

  Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
    const auto read = file_->read(offset, into);
    if (!read || offset != checked_) return read;
    crc_ = crc32c({into.data(), *read}, crc_);
    checked_ += *read;
    if (checked_ == size_ && crc_ != expected_) return fail(ErrorKind::invalid, path_ + " is damaged");
    return read;
  }

 private:
  std::unique_ptr<File> file_;
  std::string path_;
  std::uint64_t size_;
  std::uint32_t expected_;
  std::uint32_t crc_ = 0;
  std::uint64_t checked_ = 0;
};

class Watched final : public Content {
 public:
  Watched(std::unique_ptr<Content> content, std::function<Error(Error)> on_error)
      : content_(std::move(content)), on_error_(std::move(on_error)) {}
  std::uint64_t size() const override { return content_->size(); }
  Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
    auto read = content_->read(offset, into);
    if (!read) return std::unexpected(on_error_(std::move(read.error())));
    return read;
  }

 private:
  std::unique_ptr<Content> content_;
  std::function<Error(Error)> on_error_;
};

}  // namespace

std::unique_ptr<Content> watch(std::unique_ptr<Content> content, std::function<Error(Error)> on_error) {
  return std::make_unique<Watched>(std::move(content), std::move(on_error));
}

std::unique_ptr<Content> make_content(std::string text) {
  return std::make_unique<TextContent>(std::move(text));
}

Result<std::unique_ptr<Content>> open_own_file(Files& files, const std::string& directory, QueueId id,
                                               const StoredMessage& stored) {
  std::string path = large_path(directory, id);
  auto file = files.open(path, OpenMode::read);
  if (!file && file.error().kind == ErrorKind::not_found) return fail(ErrorKind::invalid, path + " is gone");
  if (!file) return std::unexpected(file.error());
  const auto size = (*file)->size();
  if (!size) return std::unexpected(size.error());
  if (*size != stored.size) return fail(ErrorKind::invalid, path + " has the wrong length");
  return std::make_unique<FileContent>(std::move(*file), std::move(path), stored.size, stored.crc);
}

}  // namespace greymx::queue

#include "base/files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

namespace greymx {

namespace {

std::string folder_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent;
}

class SystemFile final : public File {
 public:
  SystemFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~SystemFile() override {
    if (fd_ >= 0) ::close(fd_);
  }
  SystemFile(const SystemFile&) = delete;
  SystemFile& operator=(const SystemFile&) = delete;

  Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
    std::size_t done = 0;
    while (done < into.size()) {
      const ssize_t n = ::pread(fd_, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
      if (n == 0) break;
      if (n > 0) {
        done += static_cast<std::size_t>(n);
      } else if (errno != EINTR) {
        return fail_errno(errno, "read " + path_);
      }
    }
    return done;
  }

  Result<> write(std::uint64_t offset, std::span<const char> bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n >= 0) {
        bytes = bytes.subspan(static_cast<std::size_t>(n));
        offset += static_cast<std::uint64_t>(n);
      } else if (errno != EINTR) {
        return fail_errno(errno, "write " + path_);
      }
    }
    return {};
  }

  Result<> sync() override { return check(::fdatasync(fd_), "sync"); }

  Result<> allocate(std::uint64_t size) override {
    if (::fallocate(fd_, 0, 0, static_cast<off_t>(size)) == 0) return {};
    if (errno != EOPNOTSUPP && errno != ENOSYS) return fail_errno(errno, "allocate " + path_);
    auto end = this->size();
    if (!end) return std::unexpected(std::move(end).error());
    static constexpr char zeros[65536] = {};
    for (std::uint64_t at = *end; at < size;) {
      const std::size_t length = std::min<std::uint64_t>(sizeof zeros, size - at);
      if (auto written = write(at, {zeros, length}); !written) return written;
      at += length;
    }
    return {};
  }

  Result<> truncate(std::uint64_t size) override {
    return check(::ftruncate(fd_, static_cast<off_t>(size)), "truncate");
  }

  Result<std::uint64_t> size() override {
    struct stat status{};
    if (::fstat(fd_, &status) != 0) return fail_errno(errno, "stat " + path_);
    return static_cast<std::uint64_t>(status.st_size);
  }

  Result<> close() override { return check(::close(std::exchange(fd_, -1)), "close"); }

  int fd() const { return fd_; }

 private:
  Result<> check(int outcome, const char* what) {
    if (outcome == 0) return {};
    return fail_errno(errno, std::string(what) + " " + path_);
  }

  int fd_;
  std::string path_;
};

Result<std::unique_ptr<SystemFile>> open_file(const std::string& path, int flags, mode_t mode = 0600) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY, mode);
  if (fd < 0) return fail_errno(errno, "open " + path);
  return std::make_unique<SystemFile>(fd, path);
}

class SystemFiles final : public Files {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
    if (mode == OpenMode::read) return open_file(path, O_RDONLY);
    if (mode == OpenMode::write) return open_file(path, O_RDWR);
    return open_file(path, O_RDWR | O_CREAT | O_EXCL);
  }

  Result<> make_directory(const std::string& path) override {
    if (::mkdir(path.c_str(), 0700) == 0) return sync_directory(folder_of(path));
    if (errno == EEXIST) return {};
    const std::string parent = folder_of(path);
    if (errno != ENOENT || parent == path) return fail_errno(errno, "make directory " + path);
    if (auto made = make_directory(parent); !made) return made;
    if (::mkdir(path.c_str(), 0700) != 0) return fail_errno(errno, "make directory " + path);
    return sync_directory(parent);
  }

  Result<> rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) == 0) return {};
    return fail_errno(errno, "rename " + from + " to " + to);
  }

  Result<> remove(const std::string& path) override {
    if (::unlink(path.c_str()) == 0) return {};
    return fail_errno(errno, "remove " + path);
  }

  Result<> sync_directory(const std::string& path) override {
    const auto directory = open_file(path, O_RDONLY | O_DIRECTORY);
    if (!directory) return std::unexpected(directory.error());
    if (::fsync((*directory)->fd()) == 0) return {};
    return fail_errno(errno, "sync directory " + path);
  }

  Result<std::vector<std::string>> list(const std::string& directory) override {
    std::error_code error;
    std::vector<std::string> names;
    std::filesystem::directory_iterator entry(directory, error);
    for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
      names.push_back(entry->path().filename());
    }
    if (error) return fail_errno(error.value(), "list " + directory);
    std::sort(names.begin(), names.end());
    return names;
  }

  Result<std::uint64_t> free_bytes(const std::string& path) override {
    struct statvfs status{};
    if (::statvfs(path.c_str(), &status) != 0) return fail_errno(errno, "free space of " + path);
    return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
  }

  // An open-file-description lock: unlike F_SETLK it is not lost when another descriptor of the file closes.
  Result<std::unique_ptr<File>> lock(const std::string& path) override {
    auto file = open_file(path, O_RDWR | O_CREAT);
    if (!file) return std::unexpected(std::move(file).error());
    struct flock whole{};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    if (::fcntl((*file)->fd(), F_OFD_SETLK, &whole) == 0) return std::move(*file);
    if (errno == EAGAIN || errno == EACCES) return fail(ErrorKind::not_found, path + " is locked by another process");
    return fail_errno(errno, "lock " + path);
  }
};

}  // namespace

std::unique_ptr<Files> system_files() {
  return std::make_unique<SystemFiles>();
}

FileStamp FileStamp::of(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return {};
  const auto nanoseconds = [](const timespec& time) { return time.tv_sec * 1'000'000'000LL + time.tv_nsec; };
  return {nanoseconds(status.st_mtim), nanoseconds(status.st_ctim), static_cast<std::uint64_t>(status.st_size),
          status.st_ino};
}

Result<std::string> read_file(const std::string& path, std::size_t limit) {
  auto file = open_file(path, O_RDONLY | O_NONBLOCK);  // a FIFO would wait for somebody who writes
  if (!file) return std::unexpected(std::move(file).error());
  struct stat status{};
  if (::fstat((*file)->fd(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) {
    return fail(ErrorKind::invalid, path + " is not a regular file");
  }
  std::string content;
  for (;;) {
    const std::size_t before = content.size();
    content.resize(before + std::min<std::size_t>(65536, limit + 1 - before));
    const auto n = (*file)->read(before, std::span(content).subspan(before));
    if (!n) return std::unexpected(n.error());
    content.resize(before + *n);
    if (content.size() > limit)
      return fail(ErrorKind::invalid, path + " is larger than " + std::to_string(limit) + " bytes");
    if (*n == 0) return content;
  }
}

Result<> replace_file(const std::string& path, std::string_view content) {
  // Always the same, so that what a killed process left of it is overwritten.
  const std::string temporary = path + ".new";
  const auto file = open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW);
  if (!file) return std::unexpected(file.error());
  const int fd = (*file)->fd();
  Result<> outcome = (*file)->write(0, content);
  if (outcome && ::fchmod(fd, 0640) != 0) outcome = fail_errno(errno, "chmod " + temporary);
  if (outcome && ::fsync(fd) != 0) outcome = fail_errno(errno, "sync " + temporary);
  if (outcome) outcome = (*file)->close();
  SystemFiles files;
  if (outcome) outcome = files.rename(temporary, path);
  if (!outcome) {
    ::unlink(temporary.c_str());
    return outcome;
  }
  return files.sync_directory(folder_of(path));
}

}  // namespace greymx

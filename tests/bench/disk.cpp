// What the disk itself can do: messages appended to one file and synced in groups, by one thread, with nothing else.
//
//   disk DIRECTORY [SIZE]
//
// The limit that the spool is measured against. "reserved": blocks allocated, as in a growing log; "written": a file
// that was written before, as a recycled segment.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

constexpr std::size_t file_size = 64 << 20;
constexpr std::size_t alignment = 4096;

void check(bool good, const char* what) {
  if (good) return;
  std::perror(what);
  std::exit(1);
}

// Messages a second.
double measure(const std::string& path, std::size_t message, std::size_t group, bool written) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  check(fd >= 0, path.c_str());
  check(::posix_fallocate(fd, 0, file_size) == 0, "posix_fallocate");
  const std::vector<char> zeros(1 << 20, '\0');
  for (std::size_t at = 0; written && at < file_size; at += zeros.size()) {
    check(::pwrite(fd, zeros.data(), zeros.size(), static_cast<off_t>(at)) > 0, "pwrite");
  }
  check(::fsync(fd) == 0, "fsync");
  const std::vector<char> batch((message * group + alignment - 1) / alignment * alignment, 'x');
  std::size_t groups = 0;
  const auto begin = std::chrono::steady_clock::now();
  std::chrono::duration<double> took{};
  for (std::size_t at = 0; at + batch.size() <= file_size && took.count() < 2; at += batch.size(), ++groups) {
    check(::pwrite(fd, batch.data(), batch.size(), static_cast<off_t>(at)) > 0, "pwrite");
    check(::fdatasync(fd) == 0, "fdatasync");
    took = std::chrono::steady_clock::now() - begin;
  }
  ::close(fd);
  ::unlink(path.c_str());
  return static_cast<double>(groups * group) / took.count();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: disk DIRECTORY [SIZE]\n");
    return 2;
  }
  const std::string path = std::string(argv[1]) + "/greymx-disk-bench";
  const std::size_t message = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 4096;
  std::printf("messages of %zu bytes a second\n%8s %10s %10s\n", message, "a sync", "reserved", "written");
  for (const std::size_t group : {1, 16, 64, 256}) {
    const double reserved = measure(path, message, group, false);
    std::printf("%8zu %10.0f %10.0f\n", group, reserved, measure(path, message, group, true));
  }
}

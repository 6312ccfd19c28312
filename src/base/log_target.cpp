#include "base/log_target.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/clock.hpp"
#include "base/mailbox.hpp"

namespace greymx::detail {

namespace {

pid_t process_id() {
  static const pid_t id = ::getpid();  // a call of the kernel, and every line wants it
  return id;
}

int priority(Level level) {
  static constexpr std::array<int, 3> priorities = {LOG_INFO, LOG_WARNING, LOG_ERR};
  return priorities.at(static_cast<std::size_t>(level));
}

const char* level_name(Level level) {
  static constexpr std::array<const char*, 3> names = {"info", "warning", "error"};
  return names.at(static_cast<std::size_t>(level));
}

// "ID: warning: text"; no byte of it can end the line or steer a terminal.
std::string message(const LogRecord& record) {
  const char* grade = record.level == Level::warning ? "warning: " : record.level == Level::error ? "error: " : "";
  std::string text = concat({record.id, record.id.empty() ? "" : ": ", grade, record.text});
  const auto unsafe = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  std::replace_if(text.begin(), text.end(), unsafe, '?');
  return text;
}

std::string ident(const LogSettings& settings, const LogRecord& record) {
  return settings.tag + "/" + record.program;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { reset(-1); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  void reset(int fd) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

constexpr int append_flags = O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY;

// Open already. What a container's /dev/stdout leads to cannot be opened anew when root is given up. -1 = none of them.
int standard_descriptor(const std::string& target) {
  if (target == "/dev/stdout") return STDOUT_FILENO;
  return target == "stderr" || target == "/dev/stderr" ? STDERR_FILENO : -1;
}

int open_file(const std::string& path) {
  return ::open(path.c_str(), append_flags | O_CREAT, 0640);
}

std::string folder_of(const LogSettings& settings) {
  return std::filesystem::path(settings.target).parent_path();
}

std::unexpected<Error> cannot_open(int error, const LogSettings& settings) {
  auto failure = fail_errno(error, "log.target: cannot open " + settings.target);
  failure.error().text += "; create its folder and give it to the user that greymxd runs as";
  if (error == EROFS) failure.error().text += " (ReadWritePaths= in the systemd unit)";
  return failure;
}

// A file or stderr: one write for all that waited.
class FileTarget final : public LogTarget {
 public:
  FileTarget(LogSettings settings, int fd) : settings_(std::move(settings)), fd_(fd) {}

  bool write(std::span<const LogRecord> records) override {
    if (settings_.target != "stderr" && !settings_.target.starts_with("/dev/")) follow();
    std::string lines = mid_line_ ? "\n" : "";
    for (const LogRecord& record : records) {
      lines += settings_.json ? json_line(settings_, record) : text_line(settings_, record);
      lines += '\n';
    }
    std::string_view rest = lines;
    while (!rest.empty()) {
      const ssize_t n = ::write(fd_.get(), rest.data(), rest.size());
      if (n >= 0) {
        rest.remove_prefix(static_cast<std::size_t>(n));
      } else if (errno == EAGAIN) {  // someone made our stderr non-blocking
        pollfd waiting{fd_.get(), POLLOUT, 0};
        ::poll(&waiting, 1, -1);
      } else if (errno != EINTR) {
        break;
      }
    }
    const std::size_t written = lines.size() - rest.size();
    if (written > 0) mid_line_ = lines[written - 1] != '\n';
    return rest.empty();
  }

 private:
  // logrotate moved the file away: a new one under its name. If none can be made, the old one stays, which may have no
  // name any more: stderr gets to know.
  void follow() {
    struct stat named{}, opened{};
    if (::fstat(fd_.get(), &opened) != 0) return;
    const bool there = ::stat(settings_.target.c_str(), &named) == 0;
    if (there && named.st_ino == opened.st_ino && named.st_dev == opened.st_dev) return;
    const int fd = open_file(settings_.target);
    const int error = errno;
    if (fd >= 0) {
      fd_.reset(fd);
      mid_line_ = false;
    }
    if (fd < 0 && !astray_) complain(error);
    astray_ = fd < 0;
  }

  void complain(int error) const {
    const std::string text =
        "the log file was moved away, and lines still go to it: " + cannot_open(error, settings_).error().text;
    const std::string line = text_line(settings_, {SystemClock().now(), Level::error, "master", {}, text}) + "\n";
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
  }

  LogSettings settings_;
  Descriptor fd_;
  bool astray_ = false;    // no new file could be made at the last try
  bool mid_line_ = false;  // a full disk took only a part of the last line
};

class SyslogTarget final : public LogTarget {
 public:
  SyslogTarget(LogSettings settings, sockaddr_un address)
      : settings_(std::move(settings)), address_(address), fd_(-1) {}

  Result<> connect() {
    fd_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (fd_.get() >= 0 && ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address_), sizeof address_) == 0)
      return {};
    return fail_errno(errno, address_.sun_path);
  }

  bool write(std::span<const LogRecord> records) override {
    bool all = true;
    for (const LogRecord& record : records) all = send(datagram(record)) && all;
    return all;
  }

 private:
  std::string datagram(const LogRecord& record) const {
    const std::string date = mailq_time(record.time).substr(4);  // "Nov 23 16:01:03"
    const std::string text = settings_.json ? json_line(settings_, record) : message(record);
    return fmt::format("<{}>{} {}[{}]: {}", LOG_MAIL | priority(record.level), date, ident(settings_, record),
                       process_id(), text);
  }

  // A daemon that was restarted has a new socket under the old name.
  bool send(const std::string& line) {
    for (int attempt = 0; attempt < 2; ++attempt) {
      if (::send(fd_.get(), line.data(), line.size(), MSG_NOSIGNAL) >= 0) return true;
      if (!connect()) return false;
    }
    return false;
  }

  LogSettings settings_;
  sockaddr_un address_;
  Descriptor fd_;
};

class JournalTarget final : public LogTarget {
 public:
  explicit JournalTarget(LogSettings settings) : settings_(std::move(settings)) {}

  bool write(std::span<const LogRecord> records) override {
    bool all = true;
    for (const LogRecord& record : records) {
      std::vector<std::string> fields = journal_fields(settings_, record);
      std::vector<iovec> parts;
      for (std::string& field : fields) parts.push_back({field.data(), field.size()});
      all = sd_journal_sendv(parts.data(), static_cast<int>(parts.size())) == 0 && all;
    }
    return all;
  }

 private:
  LogSettings settings_;
};

Result<std::unique_ptr<LogTarget>> open_descriptor(const LogSettings& settings) {
  const int standard = standard_descriptor(settings.target);
  const int fd = standard >= 0 ? ::fcntl(standard, F_DUPFD_CLOEXEC, 0) : open_file(settings.target);
  if (fd >= 0 || settings.target == "stderr") return std::make_unique<FileTarget>(settings, fd);
  return cannot_open(errno, settings);
}

Result<> check_file(const LogSettings& settings) {
  const Descriptor file(::open(settings.target.c_str(), append_flags | O_NONBLOCK));
  const bool pipe_without_reader = errno == ENXIO;
  if (file.get() >= 0 || pipe_without_reader) return {};
  const bool can_make = errno == ENOENT && ::eaccess(folder_of(settings).c_str(), W_OK | X_OK) == 0;
  if (can_make) return {};
  return cannot_open(errno, settings);
}

}  // namespace

std::string text_line(const LogSettings& settings, const LogRecord& record) {
  return concat({iso8601(record.time), " ", settings.hostname, " ", ident(settings, record), "[",
                 std::to_string(process_id()), "]: ", message(record)});
}

std::string json_line(const LogSettings& settings, const LogRecord& record) {
  nlohmann::ordered_json line = {{"time", iso8601(record.time)}, {"host", settings.hostname},
                                 {"tag", settings.tag},          {"program", record.program},
                                 {"pid", process_id()},          {"level", level_name(record.level)}};
  if (!record.id.empty()) line["id"] = record.id;
  line["text"] = record.text;
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::vector<std::string> journal_fields(const LogSettings& settings, const LogRecord& record) {
  std::vector<std::string> fields = {"MESSAGE=" + (settings.json ? json_line(settings, record) : message(record)),
                                     fmt::format("PRIORITY={}", priority(record.level)),
                                     fmt::format("SYSLOG_FACILITY={}", LOG_FAC(LOG_MAIL)),
                                     "SYSLOG_IDENTIFIER=" + ident(settings, record),
                                     fmt::format("SYSLOG_PID={}", process_id()),
                                     "GREYMX_PROGRAM=" + record.program};
  if (!record.id.empty()) fields.push_back("GREYMX_QUEUE_ID=" + record.id);
  return fields;
}

Result<std::unique_ptr<LogTarget>> open_syslog(const LogSettings& settings, const std::string& socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
  auto target = std::make_unique<SyslogTarget>(settings, address);
  if (auto connected = target->connect(); !connected) {
    return fail(connected.error().kind, "log.target = \"syslog\": " + connected.error().text +
                                            "; is a syslog daemon running? (\"journal\" and \"stderr\" need none)");
  }
  return target;
}

Result<std::unique_ptr<LogTarget>> open_journal(const LogSettings& settings, const std::string& socket_path) {
  if (::access(socket_path.c_str(), W_OK) == 0) return std::make_unique<JournalTarget>(settings);
  auto error = fail_errno(errno, "log.target = \"journal\": " + socket_path);
  error.error().text += "; does systemd-journald run? (\"syslog\", \"stderr\" and a file need none)";
  return error;
}

Result<std::unique_ptr<LogTarget>> open_target(const LogSettings& settings) {
  if (settings.target == "syslog") return open_syslog(settings, "/dev/log");
  if (settings.target == "journal") return open_journal(settings, "/run/systemd/journal/socket");
  return open_descriptor(settings);
}

std::string rotation_trouble(const LogSettings& settings) {
  const bool file = settings.target.starts_with('/') && !settings.target.starts_with("/dev/");
  const std::string folder = folder_of(settings);
  if (!file || ::eaccess(folder.c_str(), W_OK | X_OK) == 0) return {};
  return "log.target: " + folder + " cannot be written, so no new file can be made when this one is moved away: give " +
         "it to the user that greymxd runs as, or let logrotate make the file (create)";
}

}  // namespace greymx::detail

namespace greymx {

bool in_file(const LogSettings& settings) {
  return settings.target.starts_with('/') && !settings.target.starts_with("/dev/");
}

Result<> check_log(const LogSettings& settings) {
  const bool file = settings.target.starts_with('/') && detail::standard_descriptor(settings.target) < 0;
  if (file) return detail::check_file(settings);
  const auto target = detail::open_target(settings);
  return target ? Result<>{} : std::unexpected(target.error());
}

}  // namespace greymx

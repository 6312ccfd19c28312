// Where log lines go. For base/log.cpp and its tests only; all of it runs on the log's own thread.
#pragma once

#include <span>
#include <vector>

#include "base/log.hpp"

namespace greymx::detail {

struct LogRecord {
  WallTime time;
  Level level = Level::info;
  std::string program;
  std::string id;  // empty = none
  std::string text;
};

class LogTarget {
 public:
  virtual ~LogTarget() = default;
  // False: they could not be written, and are lost.
  virtual bool write(std::span<const LogRecord> records) = 0;
};

// The three shapes of a record, each without line end: "TIME HOST TAG/PROGRAM[PID]: ID: warning: text", the same as a
// JSON object, and the fields for the journal.
std::string text_line(const LogSettings& settings, const LogRecord& record);
std::string json_line(const LogSettings& settings, const LogRecord& record);
std::vector<std::string> journal_fields(const LogSettings& settings, const LogRecord& record);

Result<std::unique_ptr<LogTarget>> open_target(const LogSettings& settings);
// Empty, or a warning: once the file is moved away, we may make no new one.
std::string rotation_trouble(const LogSettings& settings);
// RFC 3164 datagrams; openlog() knows one ident only, we have one a program.
Result<std::unique_ptr<LogTarget>> open_syslog(const LogSettings& settings, const std::string& socket_path);
// Where no journal listens, sd_journal_sendv() says that all is well and loses the line.
Result<std::unique_ptr<LogTarget>> open_journal(const LogSettings& settings, const std::string& socket_path);

}  // namespace greymx::detail

// Log lines in Postfix's shape: "greymx/smtpd[PID]: ID: text". Any thread; never blocks on a slow target: lines are
// handed to a thread of their own, and if it cannot keep up the number of lost lines is logged.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/id.hpp"
#include "base/result.hpp"

namespace greymx {

enum class Level : std::uint8_t { info, warning, error };

class Log {
 public:
  virtual ~Log() = default;
  // `program` is Postfix's name for the part: "smtpd", "cleanup", "qmgr", "smtp", "bounce", "dnsbl", "greylist",
  // "master" (life of the daemon), "verify", "policy", "tls", "spool". `id` is empty when no message is concerned.
  // `text` must already be printable(); line ends in it become '?'.
  virtual void write(Level level, std::string_view program, std::string_view id, std::string_view text) = 0;

  void info(std::string_view program, std::string_view text) { write(Level::info, program, {}, text); }
  void info(std::string_view program, QueueId id, std::string_view text) {
    write(Level::info, program, id.to_string(), text);
  }
  // The text gets Postfix's "warning: " or "error: " before it.
  void warning(std::string_view program, std::string_view text) { write(Level::warning, program, {}, text); }
  void error(std::string_view program, std::string_view text) { write(Level::error, program, {}, text); }
};

struct LogSettings {
  std::string target = "stderr";  // "stderr" "syslog" "journal" or a file path, made anew once moved away (logrotate)
  std::string tag = "greymx";
  bool json = false;
  Level level = Level::info;
  std::string hostname;
  bool operator==(const LogSettings&) const = default;
};

class TargetLog : public Log {
 public:
  virtual Result<> reconfigure(const LogSettings& settings) = 0;  // on reload, by one thread; the same change nothing
  virtual void flush() = 0;
};
bool in_file(const LogSettings& settings);  // of ours; what is below /dev, such as a container's stdout, is root's
// A file that cannot be opened is an error with the remedy.
Result<std::unique_ptr<TargetLog>> open_log(const LogSettings& settings);
// Whether that would do; makes no file.
Result<> check_log(const LogSettings& settings);

}  // namespace greymx

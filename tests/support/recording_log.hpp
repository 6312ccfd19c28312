// Keeps what was logged, as "smtpd: ID: text" or "smtpd: text", warnings and errors with their prefix. Any thread.
#pragma once

#include <algorithm>
#include <mutex>
#include <string>
#include <vector>

#include "base/log.hpp"

namespace greymx::test {

class RecordingLog final : public Log {
 public:
  struct Line {
    Level level;
    std::string text;
  };

  void write(Level level, std::string_view program, std::string_view id, std::string_view text) override {
    std::string line = std::string(program) + ": ";
    if (!id.empty()) line += std::string(id) + ": ";
    if (level == Level::warning) line += "warning: ";
    if (level == Level::error) line += "error: ";
    line += text;
    const std::scoped_lock lock(mutex_);
    lines_.push_back({level, std::move(line)});
  }

  std::vector<Line> lines() const {
    const std::scoped_lock lock(mutex_);
    return lines_;
  }
  bool contains(std::string_view part) const { return count(part) > 0; }
  std::size_t count(std::string_view part) const {
    const std::scoped_lock lock(mutex_);
    return static_cast<std::size_t>(std::count_if(
        lines_.begin(), lines_.end(), [&](const Line& line) { return line.text.find(part) != std::string::npos; }));
  }
  std::string text() const {  // all lines, for INFO and CAPTURE
    std::string all;
    for (const Line& line : lines()) all += line.text + "\n";
    return all;
  }
  void clear() {
    const std::scoped_lock lock(mutex_);
    lines_.clear();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<Line> lines_;
};

}  // namespace greymx::test

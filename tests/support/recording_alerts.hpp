// Keeps the alerts that were raised. Any thread.
#pragma once

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/alerts.hpp"

namespace greymx::test {

class RecordingAlerts final : public Alerts {
 public:
  void raise(std::string_view subject, std::string_view text) override {
    const std::scoped_lock lock(mutex_);
    raised_.emplace_back(subject, text);
  }

  std::vector<std::pair<std::string, std::string>> raised() const {  // subject, text
    const std::scoped_lock lock(mutex_);
    return raised_;
  }
  bool contains(std::string_view part) const {  // of a subject or a text
    for (const auto& [subject, text] : raised()) {
      if (subject.find(part) != std::string::npos || text.find(part) != std::string::npos) return true;
    }
    return false;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::pair<std::string, std::string>> raised_;
};

}  // namespace greymx::test

// What needs a person, brought to a person: each alert is logged at once, counted, shown among the events, and mailed
// to alerts.to, at most one mail an hour a subject; what is raised in between is mailed when the hour is over, with how
// often that was. A mail that cannot be queued is tried again.
//
// Thread: stop() on the executor, the rest from any. Made before the spool and the relay are: what is raised until
// connect() is mailed then. The number of subjects remembered is bounded; the least recently raised makes way.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "admin/history.hpp"
#include "base/alerts.hpp"
#include "base/async.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"

namespace greymx::admin {

// The mail of an alert, headers and text, CRLF line ends. Pure.
std::string compose_alert(const std::string& hostname, const std::string& to, std::string_view subject,
                          std::string_view text, unsigned times, WallTime now);

class MailAlerts final : public Alerts {
 public:
  using Send = std::function<Task<Result<QueueId>>(std::string recipient, std::string content)>;  // relay.submit_report

  MailAlerts(asio::any_io_executor executor, const Clock& clock, Log& log, Metrics& metrics, History& history);
  ~MailAlerts() override;  // after stop()
  void raise(std::string_view subject, std::string_view text) override;
  // Who gets mail, from which host; again on reload.
  void configure(std::string hostname, std::vector<std::string> to);
  // Once; `look` is how often it looks for what has waited long enough.
  void connect(Send send, std::chrono::milliseconds look = std::chrono::minutes(1));
  Task<> stop();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace greymx::admin

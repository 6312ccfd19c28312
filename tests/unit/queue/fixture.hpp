// A spool on a disk in memory, without threads: each step happens when a test says so.
#pragma once

#include "queue/spool_impl.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/memory_files.hpp"
#include "support/recording_alerts.hpp"
#include "support/recording_log.hpp"

namespace greymx::test {

using namespace queue;
using namespace std::chrono_literals;

inline Envelope envelope_to(const std::vector<std::string>& recipients) {
  Envelope envelope;
  envelope.reverse_path = "sender@example.org";
  envelope.client.address = *IpAddress::parse("192.0.2.10");
  envelope.client.name = "mail.example.org";
  envelope.helo = "mail.example.org";
  envelope.protocol = "ESMTP";
  for (const std::string& address : recipients) envelope.recipients.push_back({address, {}, {}});
  return envelope;
}

inline RecipientState done() {
  RecipientState state;
  state.status = RecipientStatus::done;
  return state;
}

inline RecipientState deferred(WallTime next, std::string reason = "connection refused") {
  RecipientState state;
  state.next_attempt = next;
  state.reason = std::move(reason);
  state.attempts = 1;
  return state;
}

struct TestSpool {
  explicit TestSpool(std::shared_ptr<MemoryFiles> disk = std::make_shared<MemoryFiles>()) : files(std::move(disk)) {
    settings.path = "/spool";
    settings.segment_size = 256 * 1024;
    settings.large_message = 16 * 1024;
    settings.min_free_space = 1 << 20;
  }
  ~TestSpool() { io.stop(); }

  Result<> open() {
    spool.reset();
    auto opened = SpoolImpl::open(settings, *files, clock, log, metrics, alerts, false);
    if (!opened) return std::unexpected(opened.error());
    spool = std::move(*opened);
    return {};
  }

  // Runs to its end; the writer's and the pool's work happens as it is needed.
  template <class T>
  T wait(Task<T> task) {
    std::optional<T> result;
    asio::co_spawn(io, std::move(task), [&](std::exception_ptr thrown, T value) {
      if (thrown) std::rethrow_exception(thrown);
      result = std::move(value);
    });
    while (!result) {
      io.restart();
      io.poll();
      if (result || spool->commit()) continue;
      io.restart();
      io.run_one_for(1ms);
    }
    return std::move(*result);
  }

  Result<QueueId> accept(Envelope envelope, const std::string& content) {
    const auto incoming = spool->begin();
    for (std::size_t at = 0; at < content.size(); at += 8000) {
      const std::string piece = content.substr(at, 8000);
      const auto written = wait(incoming->write({piece.begin(), piece.end()}));
      if (!written) return std::unexpected(written.error());
    }
    const auto committed = wait(incoming->commit(std::move(envelope)));
    if (!committed) return std::unexpected(committed.error());
    return incoming->id();
  }
  QueueId must_accept(const std::vector<std::string>& recipients = {"user@example.com"},
                      const std::string& content = "Subject: hello\r\n\r\nworld\r\n") {
    const auto id = accept(envelope_to(recipients), content);
    INFO((id ? std::string() : id.error().text));
    REQUIRE(id.has_value());
    return *id;
  }
  std::string content(QueueId id) {
    auto loaded = wait(spool->load(id, 1 << 20));
    REQUIRE(loaded.has_value());
    return loaded->content;
  }
  void finish(QueueId id, std::size_t recipients = 1) {
    std::vector<std::pair<std::size_t, RecipientState>> changes;
    for (std::size_t i = 0; i < recipients; ++i) changes.emplace_back(i, done());
    spool->update(id, changes);
  }
  void sync() {
    while (spool->commit()) {
    }
  }
  void tidy() {
    for (int i = 0; i < 100 && spool->maintain(); ++i) {
    }
    spool->maintain();
  }
  // Power fails. The spool that was goes on with a disk that nobody will see again.
  void crash(const Crash& what = {}) {
    std::shared_ptr<MemoryFiles> survivor = files->clone();
    survivor->crash(what);
    spool.reset();
    files = std::move(survivor);
  }
  void clean_restart() {
    spool.reset();
    REQUIRE(open().has_value());
  }
  std::vector<std::string> logs() const {
    std::vector<std::string> names;
    const auto listed = files->list("/spool");
    for (const std::string& name : *listed) {
      if (name.ends_with(".log")) names.push_back(name);
    }
    return names;
  }

  std::shared_ptr<MemoryFiles> files;
  FakeClock clock;
  RecordingLog log;
  Metrics metrics;
  RecordingAlerts alerts;
  SpoolSettings settings;
  asio::io_context io{1};
  std::unique_ptr<SpoolImpl> spool;
};

}  // namespace greymx::test

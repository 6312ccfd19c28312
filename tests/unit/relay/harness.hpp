// A relay with a real spool on a disk in memory, a fake wall clock, scripted DNS and fake primaries on loopback.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/files.hpp"
#include "queue/spool.hpp"
#include "relay/memory.hpp"
#include "relay/relay.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/fake_primary.hpp"
#include "support/memory_files.hpp"
#include "support/recording_alerts.hpp"
#include "support/recording_log.hpp"
#include "support/run.hpp"
#include "support/scripted_resolver.hpp"
#include "support/temp_dir.hpp"

namespace greymx::relay {

struct Learnt final : RecipientObserver {
  std::vector<std::string> good, bad;
  void accepted(const std::string& address) override { good.push_back(address); }
  void refused(const std::string& address) override { bad.push_back(address); }
};

struct Message {
  std::string sender = "author@sender.example";
  std::vector<std::string> to = {"user@example.com"};
  std::string content = "Subject: test\r\n\r\nbody\r\n";
  std::function<void(Envelope&)> change{};  // of the envelope, last
};

class Harness {
 public:
  Harness() {
    config.hostname = "mx2.example.net";
    config.state_path = state_.path();
    // No history of outages is lost where a test begins with mail.
    (void)replace_file(state_ / "primaries.json", to_json({}));
    config.delivery.probe_interval = std::chrono::seconds(1);
    config.queue.retry_max = config.queue.retry_min;
    config.delivery.connect_timeout = std::chrono::seconds(10);
    open_spool();
  }
  ~Harness() {
    stop();
    if (spool) spool->stop();
    spool.reset();
    io.restart();
    io.poll();
  }

  config::Domain& add_domain(const std::string& name, std::vector<Endpoint> primaries) {
    config::Domain domain;
    domain.wildcard = name.starts_with("*.");
    domain.name = domain.wildcard ? name.substr(2) : name;
    for (const Endpoint& endpoint : primaries) domain.primary.push_back({endpoint.address.to_string(), endpoint.port});
    config.domains.push_back(std::move(domain));
    return config.domains.back();
  }
  void smarthost(const Endpoint& endpoint) {
    config.delivery.smarthost = {endpoint.address.to_string(), endpoint.port};
  }

  void open_spool() {
    queue::SpoolSettings settings;
    settings.path = "/spool";
    settings.min_free_space = 1;
    settings.segment_size = 1 << 20;
    settings.lazy_sync = std::chrono::milliseconds(1);
    auto opened = queue::Spool::open(settings, files, clock, log, metrics, alerts);
    if (!opened) FAIL(opened.error().text);
    spool = std::move(*opened);
  }

  void start() {
    relay = std::make_unique<Relay>(io.get_executor(),
                                    RelaySettings{std::make_shared<config::Config>(config), listeners, timeouts},
                                    *spool, dns, clock, log, metrics, alerts, &learnt);
    relay->start();
  }
  void stop(std::chrono::milliseconds grace = std::chrono::minutes(1)) {
    if (!relay) return;
    test::run(io, relay->stop(std::chrono::steady_clock::now() + grace));
    relay.reset();
  }
  void restart() {
    stop();
    spool->stop();
    spool.reset();
    open_spool();
    start();
  }

  QueueId put(const Message& message = {}) {
    Envelope envelope;
    envelope.reverse_path = message.sender;
    for (const std::string& address : message.to) envelope.recipients.push_back({address, {}, {}});
    envelope.client = {*IpAddress::parse("198.51.100.7"), 40000, "client.example", false};
    envelope.helo = "helo.example";
    envelope.protocol = "ESMTP";
    envelope.authorised = Authorised::spf;
    if (message.change) message.change(envelope);
    clock.advance(std::chrono::microseconds(1));
    return test::run(io, commit(*spool, std::move(envelope), message.content));
  }

  // Runs everything until the condition holds; fails the test when it does not in time.
  void until(const std::function<bool()>& condition, std::chrono::seconds patience = std::chrono::minutes(1)) {
    const auto limit = std::chrono::steady_clock::now() + patience;
    io.restart();
    while (!condition()) {
      if (std::chrono::steady_clock::now() > limit) FAIL("nothing happened in time; the log:\n" << log.text());
      io.run_for(std::chrono::milliseconds(2));
      io.restart();
    }
  }
  void until_logged(const std::string& text, std::size_t times = 1) {
    INFO("waiting for: " << text);
    until([&] { return log.count(text) >= times; });
  }
  void until_empty() {
    until([&] { return spool->totals().messages == 0; });
  }
  void until_health(Health health, const std::string& domain = "example.com") {
    until([&] { return relay->health(domain) == health; });
  }
  // Lets what is deferred be tried again, at the next tick.
  void later() { clock.advance(std::chrono::minutes(2)); }
  queue::Message peek(QueueId id) {
    auto message = spool->peek(id);
    if (!message) FAIL(message.error().text);
    return *message;
  }

  asio::io_context io{1};
  test::FakeClock clock;
  test::RecordingLog log;
  test::RecordingAlerts alerts;
  Metrics metrics;
  test::ScriptedResolver dns;
  test::MemoryFiles files;
  config::Config config;
  std::vector<Endpoint> listeners;
  // Where a test lets a server hang it sets shorter ones.
  smtp::ClientTimeouts timeouts = smtp::ClientTimeouts::all(std::chrono::seconds(60));
  Learnt learnt;
  std::unique_ptr<queue::Spool> spool;
  std::unique_ptr<Relay> relay;

 private:
  static Task<QueueId> commit(queue::Spool& spool, Envelope envelope, std::string content) {
    const std::unique_ptr<queue::Incoming> incoming = spool.begin();
    for (std::size_t i = 0; i < content.size(); i += 100'000) {
      std::vector<char> bytes(content.begin() + static_cast<std::ptrdiff_t>(i),
                              content.begin() + static_cast<std::ptrdiff_t>(std::min(content.size(), i + 100'000)));
      const Result<> written = co_await incoming->write(std::move(bytes));
      if (!written) throw std::runtime_error(written.error().text);
    }
    const Result<> done = co_await incoming->commit(std::move(envelope));
    if (!done) throw std::runtime_error(done.error().text);
    co_return incoming->id();
  }

  test::TempDir state_;
};

}  // namespace greymx::relay

// A daemon that is not there: a queue in memory and a relay that notes what it is told.
#pragma once

#include <algorithm>
#include <map>

#include "admin/commands.hpp"
#include "admin/history.hpp"
#include "sample.hpp"
#include "support/fake_clock.hpp"
#include "support/memory_store.hpp"
#include "support/recording_alerts.hpp"
#include "support/recording_log.hpp"
#include "support/run.hpp"

namespace greymx::test {

class TextContent final : public queue::Content {
 public:
  explicit TextContent(std::string text) : text_(std::move(text)) {}
  std::uint64_t size() const override { return text_.size(); }
  Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
    return text_.copy(into.data(), into.size(), offset);
  }

 private:
  std::string text_;
};

class FakeSpool final : public queue::Spool {
 public:
  std::map<QueueId, queue::Message> messages;
  std::map<QueueId, std::string> contents;
  std::optional<QueueId> in_delivery;
  std::map<QueueId, ErrorKind> unreadable;  // load() fails so
  queue::Totals state;

  void put(queue::Message message, std::string content) {
    contents[message.id] = std::move(content);
    messages[message.id] = std::move(message);
  }

  void stop() override {}
  void limit(std::uint64_t, std::uint64_t) override {}
  bool has_room(std::uint64_t) const override { return true; }
  std::unique_ptr<queue::Incoming> begin() override { return nullptr; }
  void on_work(std::function<void(std::string)>) override {}
  std::vector<queue::DomainSummary> domains() const override {
    std::map<std::string, queue::DomainSummary> sums;
    for (const auto& [id, message] : messages) {
      queue::DomainSummary& sum = sums[queue::schedule_domain(message.envelope.recipients.front().address)];
      if (sum.messages++ == 0) sum.oldest = id.time();
      sum.bytes += message.size;
    }
    std::vector<queue::DomainSummary> all;
    for (auto& [domain, sum] : sums) all.push_back(sum), all.back().domain = domain;
    return all;
  }
  std::optional<QueueId> take(const std::string&, WallTime, queue::Pick) override { return {}; }
  bool claim(QueueId, const std::string&) override { return false; }
  void release(QueueId, const std::string&) override {}
  Task<Result<queue::Loaded>> load(QueueId id, std::uint64_t whole_up_to) override {
    if (!contains(id)) co_return fail(ErrorKind::not_found, "gone");
    if (unreadable.contains(id)) co_return fail(unreadable.at(id), "damaged");
    queue::Loaded loaded;
    loaded.message = messages.at(id);
    const std::string& content = contents.at(id);
    if (content.size() <= whole_up_to) {
      loaded.content = content;
    } else {
      loaded.rest = std::make_unique<TextContent>(content);
    }
    co_return loaded;
  }
  void update(QueueId id, std::vector<std::pair<std::size_t, queue::RecipientState>> changes) override {
    for (auto& [index, change] : changes) messages.at(id).state.recipients.at(index) = std::move(change);
  }
  bool contains(QueueId id) const override { return messages.contains(id); }
  bool active(QueueId id) const override { return in_delivery == id; }
  bool held(QueueId id) const override { return messages.contains(id) && messages.at(id).state.held; }
  Result<> hold(QueueId id, std::string reason) override {
    messages.at(id).state.held = true;
    messages.at(id).state.hold_reason = std::move(reason);
    return {};
  }
  Result<> release_hold(QueueId id) override {
    messages.at(id).state.held = false;
    for (auto& recipient : messages.at(id).state.recipients) {
      if (recipient.status == queue::RecipientStatus::held) recipient.status = queue::RecipientStatus::pending;
    }
    return {};
  }
  Result<> remove(QueueId id) override {
    if (messages.erase(id) == 0) return fail(ErrorKind::not_found, "gone");
    return {};
  }
  Result<> make_due(QueueId id, WallTime when) override {
    if (!contains(id)) return fail(ErrorKind::not_found, "gone");
    for (auto& recipient : messages.at(id).state.recipients) recipient.next_attempt = when;
    return {};
  }
  void make_domain_due(const std::string&, WallTime) override {}
  queue::Totals totals() const override {
    queue::Totals totals = state;
    totals.messages = messages.size();
    return totals;
  }
  std::vector<QueueId> ids(QueueId after, std::size_t limit) const override {
    std::vector<QueueId> found;
    for (auto it = messages.upper_bound(after); it != messages.end() && found.size() < limit; ++it)
      found.push_back(it->first);
    return found;
  }
  QueueId newest() const override { return messages.empty() ? QueueId{} : messages.rbegin()->first; }
  Result<queue::Message> peek(QueueId id) override {
    if (!contains(id)) return fail(ErrorKind::not_found, "gone");
    return messages.at(id);
  }
};

inline Task<Result<>> note_bounce(std::vector<std::string>& calls, QueueId id) {
  calls.push_back("bounce " + id.to_string());
  co_return Result<>{};
}

inline Task<dnsbl::Score> note_dnsbl(std::vector<std::string>& calls, IpAddress address) {
  calls.push_back("dnsbl " + address.to_string());
  dnsbl::Score score;
  score.total = 2;
  score.results = {
      {"bl.test",
       "1.2.0.192.bl.test",
       "Client host",
       dnsbl::Outcome::listed,
       2,
       {*IpAddress::parse("127.0.0.2")},
       "spam seen",
       "",
       {}},
      {"dead.test", "1.2.0.192.dead.test", "Client host", dnsbl::Outcome::timeout, 1, {}, "", "timeout", {}}};
  score.reply_text = "Service unavailable; Client host [192.0.2.1] blocked using bl.test; spam seen";
  co_return score;
}

inline Task<access::Explained> note_explain(std::vector<std::string>& calls, Facts facts, Mailbox recipient) {
  calls.push_back("explain " + facts.client.to_string() + " " + facts.helo + " <" + facts.sender.to_string() + "> <" +
                  recipient.to_string() + ">");
  access::Explained explained;
  explained.steps = {{"relay_control", "b@example.com", "pass", "example.com"},
                     {"dnsbl", "192.0.2.1", "reject", "bl.test: 127.0.0.2"}};
  explained.verdict.check = "dnsbl";
  explained.verdict.reply = Reply{554, "5.7.1", "Service unavailable"};
  co_return explained;
}

struct FakeDaemon {
  asio::io_context io{1};  // dies after the pool, whose threads post to it
  FakeClock clock;
  RecordingLog log;
  Metrics metrics;
  FakeSpool spool;
  admin::History history;
  asio::thread_pool pool{1};
  std::shared_ptr<config::Config> config = std::make_shared<config::Config>();
  std::vector<relay::PrimaryStatus> primaries = {primary("example.com", relay::Health::down, "connection refused")};
  std::vector<dnsbl::ListStatus> lists = {{"bl.test", false, true, at(1795449000), "", 10, 4, 0},
                                          {"dead.test", false, false, at(1795449000), "no answer", 3, 0, 3}};
  std::vector<std::string> calls;
  std::function<void()> on_bounce;
  bool terminating = false;
  std::optional<WallTime> expiry = clock.now() + std::chrono::hours(24 * 61 + 5);
  Result<admin::Reloaded> reload_result;
  RecordingAlerts alerts;
  MemoryStore* store = nullptr;
  std::unique_ptr<greylist::Greylister> greylister;
  admin::Services services{
      .spool = spool,
      .metrics = metrics,
      .clock = clock,
      .log = log,
      .history = history,
      .pool = pool,
      .version = "0.1.0",
      .started = at(1795449000),
      .config = [this] { return config; },
      .relay = {.status = [this] { return primaries; },
                .flush = [this] { calls.push_back("flush"); },
                .flush_domain = [this](const auto& domain) { calls.push_back("flush " + domain); },
                .flush_message = [this](QueueId id, const auto& domains) { note_flush(id, domains); },
                .bounce =
                    [this](QueueId id, const auto&) {
                      if (on_bounce) on_bounce();
                      return note_bounce(calls, id);
                    }},
      .lists = [this] { return lists; },
      .dnsbl = [this](IpAddress address) { return note_dnsbl(calls, address); },
      .explain = [this](Facts facts, Mailbox to) { return note_explain(calls, std::move(facts), std::move(to)); },
      .reload = [this] { return reload_result; },
      .certificate_expiry = [this] { return expiry; },
      .terminating = [this] { return terminating; }};

  void note_flush(QueueId id, const std::set<std::string>& domains) {
    calls.push_back("flush " + id.to_string());
    for (const std::string& domain : domains) calls.back() += " " + domain;
  }

  FakeDaemon() {
    config->file = "/etc/greymx/relay.conf";
    config->hostname = "mx2.example.net";
    config->domains.emplace_back().name = "example.com";
    config->dnsbl.lists.emplace_back().zone = "bl.test";
    spool.state.free_bytes = 10ULL << 30;
    auto memory = std::make_unique<MemoryStore>();
    store = memory.get();
    greylister = std::make_unique<greylist::Greylister>(config, std::move(memory), clock, log, metrics, alerts);
    services.greylister = greylister.get();
  }
  ~FakeDaemon() { greylister->stop(); }
};

}  // namespace greymx::test

#include "dialogue/stack.hpp"

#include <fmt/format.h>

#include <fstream>
#include <stdexcept>

#include "config/load.hpp"
#include "support/certificate.hpp"
#include "support/memory_store.hpp"
#include "support/run.hpp"

namespace greymx::test {

using namespace std::chrono_literals;

namespace {

constexpr auto patience = 20s;  // of the machine's clock, for what other threads do

const std::map<std::string, std::string> defaults = {
    {"hostname", "\"mx2.example.net\""},
    {"domains.\"example.com\".primary", "[\"192.0.2.25\"]"},
    {"domains.\"example.com\".verify_recipients", "false"},
    {"greylist.mode", "\"off\""},
    {"greylist.whitelist_clients", "[]"},
    {"greylist.whitelist_recipients", "[]"},
};

config::ConfigPtr load(const std::map<std::string, std::string>& settings, const TempDir& directory) {
  std::map<std::string, std::string> all = settings;
  all.insert(defaults.begin(), defaults.end());
  std::string text;
  for (const auto& [key, value] : all) text += key + " = " + value + "\n";
  const config::Loaded loaded = config::parse(text, directory / "relay.conf");
  std::string problems;
  for (const config::Diagnostic& error : loaded.errors) problems += error.to_string() + "\n";
  if (!loaded.config) throw std::runtime_error("bad config:\n" + text + problems);
  return loaded.config;
}

class Body final : public smtp::Body {
 public:
  explicit Body(std::unique_ptr<queue::Incoming> incoming) : incoming_(std::move(incoming)) {}
  QueueId id() const override { return incoming_->id(); }
  Task<Result<>> write(std::span<const char> bytes) override {
    return incoming_->write(std::vector<char>(bytes.begin(), bytes.end()));
  }
  Task<Result<>> commit(Envelope envelope) override { return incoming_->commit(std::move(envelope)); }

 private:
  std::unique_ptr<queue::Incoming> incoming_;
};

class Admission final : public smtp::Admission {
 public:
  Admission(std::unique_ptr<access::SessionChecks> checks, const FakePrimaries& primaries)
      : checks_(std::move(checks)), primaries_(primaries) {}
  Task<std::string> client_name() override { return checks_->client_name(); }
  std::optional<std::string> known_client_name() const override { return checks_->known_client_name(); }
  void mail(const Facts& facts) override { checks_->mail(facts); }
  Task<Verdict> recipient(Facts facts, Mailbox recipient) override {
    return checks_->recipient(std::move(facts), std::move(recipient));
  }
  Task<Verdict> data(Facts facts, std::vector<Mailbox> recipients) override {
    return checks_->data(std::move(facts), std::move(recipients));
  }
  Task<Authorised> authorised(Facts facts) override { return checks_->authorised(std::move(facts)); }
  std::uint64_t size_limit(const std::string& domain) const override { return primaries_.size_limit(domain); }
  std::uint64_t largest_size_limit() const override { return primaries_.largest_size_limit(); }
  // Whether a node may be asked for, and what happens then, is the relay's: here only who reaches it.
  Task<Reply> etrn(Facts facts, std::string node) override {
    const bool may = facts.client.trusted || primaries_.is_primary_address(facts.client.address);
    if (!may) co_return Reply{459, "", fmt::format("Node {} not allowed", node)};
    co_return Reply{250, "", fmt::format("OK, queuing for node {} started", node)};
  }

 private:
  std::unique_ptr<access::SessionChecks> checks_;
  const FakePrimaries& primaries_;
};

}  // namespace

std::uint64_t FakePrimaries::size_limit(const std::string& domain) const {
  const auto found = sizes.find(domain);
  return found == sizes.end() ? 0 : found->second;
}

std::uint64_t FakePrimaries::largest_size_limit() const {
  return several_domains ? 0 : size_limit("example.com");
}

Task<access::Primaries::Answer> FakePrimaries::call(std::string address, SteadyTime) {
  const auto found = answers.find(address);
  Answer answer;
  if (up && found != answers.end()) answer.outcome = found->second;
  co_return answer;
}

class Stack::Intake final : public smtp::Intake {
 public:
  explicit Intake(queue::Spool& spool) : spool_(spool) {}
  bool has_room(std::uint64_t size) const override { return spool_.has_room(size); }
  std::unique_ptr<smtp::Body> begin() override { return std::make_unique<Body>(spool_.begin()); }

 private:
  queue::Spool& spool_;
};

class Stack::Policy final : public smtp::Policy {
 public:
  Policy(access::Pipeline& pipeline, const FakePrimaries& primaries) : pipeline_(pipeline), primaries_(primaries) {}
  std::unique_ptr<smtp::Admission> admit(const Client& client) override {
    return std::make_unique<Admission>(pipeline_.begin(client), primaries_);
  }

 private:
  access::Pipeline& pipeline_;
  const FakePrimaries& primaries_;
};

Stack::Stack(const std::map<std::string, std::string>& settings, const std::map<std::string, std::string>& files,
             bool tls, std::uint64_t disk) {
  disk_.set_capacity(disk);
  std::map<std::string, std::string> wanted = settings;
  for (const auto& [name, text] : files) std::ofstream(directory_ / name) << text;
  if (tls) {
    const Certificate pem = make_certificate("mx2.example.net");
    std::ofstream(directory_ / "cert.pem") << pem.certificate;
    std::ofstream(directory_ / "key.pem") << pem.key;
    wanted["tls.certificate"] = "\"cert.pem\"";
    wanted["tls.key"] = "\"key.pem\"";
  }
  config_ = load(wanted, directory_);
  resolver.add(
      "example.org MX 10 mail.example.org\nmail.example.org A 192.0.2.10\n10.2.0.192.in-addr.arpa PTR "
      "mail.example.org");

  queue::SpoolSettings spool_settings;
  spool_settings.path = "/spool";
  spool_settings.segment_size = 1 << 20;
  spool_settings.min_free_space = config_->limits.min_free_space;
  auto spool = queue::Spool::open(spool_settings, disk_, clock_, log, metrics, alerts);
  if (!spool) throw std::runtime_error(spool.error().text);
  spool_ = std::move(*spool);
  greylister_ =
      std::make_unique<greylist::Greylister>(config_, std::make_unique<MemoryStore>(), clock_, log, metrics, alerts);
  const auto tables = access::Tables::load(*config_);
  for (const config::Diagnostic& error : tables.errors) throw std::runtime_error(error.to_string());

  auto shared = std::make_shared<access::Shared>();
  shared->config = config_;
  shared->tables = tables.tables;
  shared->greylister = greylister_.get();
  primaries.several_domains = config_->domains.size() > 1;
  shared->primaries = &primaries;
  shared->clock = &clock_;
  shared->log = &log;
  shared->metrics = &metrics;
  shared->alerts = &alerts;
  const auto verifies = [](const config::Domain& domain) { return domain.verify_recipients; };
  if (std::any_of(config_->domains.begin(), config_->domains.end(), verifies)) {
    auto memory = access::RecipientMemory::open(directory_ / "recipients", primaries, clock_, log, metrics, alerts);
    if (!memory) throw std::runtime_error(memory.error().text);
    memory_ = std::move(*memory);
    shared->memory = memory_.get();
  }
  if (!config_->dnsbl.lists.empty() || !config_->dnsbl.domain_lists.empty()) {
    health_ =
        std::make_shared<dnsbl::Health>(config_, clock_, log, metrics, alerts, [] { return std::vector<IpAddress>(); });
    lists_ = std::make_shared<dnsbl::Lists>(config_, resolver, health_, log, metrics);
  }
  pipeline_ = std::make_unique<access::Pipeline>(io_.get_executor(), shared, resolver);
  pipeline_->update(shared, lists_);
  policy_ = std::make_unique<Policy>(*pipeline_, primaries);
  intake_ = std::make_unique<Intake>(*spool_);
  tls_ = std::make_unique<smtp::TlsServer>(clock_, log, metrics, alerts);
  if (const Result<> loaded = tls_->load(config_->tls); !loaded) throw std::runtime_error(loaded.error().text);
  connections_ = std::make_unique<smtp::Connections>(clock_, metrics);
}

Stack::~Stack() {
  disconnect();
  client_.reset();
  run(io_, pipeline_->stop());
  run(io_, gate_.close());
  greylister_->stop();
  if (memory_) memory_->stop();
  spool_->stop();
}

void Stack::settle() {
  io_.restart();
  io_.poll();
  if (gate_.size() == 0) session_.reset();
  if (client_) received_ += client_->take();
}

template <class Condition>
bool Stack::wait_for(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + patience;
  settle();
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    io_.restart();
    io_.run_one_for(10ms);
    settle();
  }
  return true;
}

void Stack::connect(const Endpoint& client) {
  disconnect();
  auto [ours, theirs] = PipeStream::make(io_.get_executor(), clock_, client, *Endpoint::parse("192.0.2.1:25"));
  client_ = std::move(ours);
  server_ = theirs.get();
  received_.clear();
  auto ticket = connections_->enter(config_->limits);
  if (!ticket) throw std::runtime_error("no place for another connection");
  const smtp::ServerParts parts{*policy_, *intake_, *tls_, clock_, log, metrics};
  session_ = std::make_shared<smtp::ServerSession>(parts, config_, std::move(theirs), std::move(ticket), false);
  gate_.spawn("session", session_->run());
}

void Stack::resize_disk(std::uint64_t bytes) {
  disk_.set_capacity(bytes);
  if (bytes <= config_->limits.min_free_space) return;
  wait_for([&] { return spool_->totals().accepting; });  // the spool may just have looked, and does so each second
}

void Stack::disconnect() {
  if (!client_) return;
  client_->close();
  if (!wait_for([&] { return gate_.size() == 0; })) throw std::runtime_error("the session does not end");
}

void Stack::send(const std::string& bytes) {
  client_->put(bytes);
}

std::optional<std::string> Stack::receive() {
  const auto line_is_there = [&] { return received_.find("\r\n") != std::string::npos; };
  wait_for([&] { return line_is_there() || client_->peer_closed(); });
  if (!line_is_there()) return std::nullopt;
  const std::size_t end = received_.find("\r\n");
  std::string line = received_.substr(0, end);
  received_.erase(0, end + 2);
  return line;
}

bool Stack::hung_up() {
  return wait_for([&] { return client_->peer_closed(); }) && received_.empty();
}

std::string Stack::unread() {
  settle();
  return received_;
}

void Stack::advance(std::chrono::microseconds by) {
  settle();
  clock_.advance(by);
  if (session_) server_->clock_changed();
  resolver.tick();
  settle();
}

void Stack::shut_down() {
  settle();
  if (session_) session_->shut_down();
  settle();
}

std::vector<queue::Message> Stack::queued() {
  std::vector<queue::Message> messages;
  for (const QueueId id : spool_->ids({}, 1000)) {
    auto message = spool_->peek(id);
    if (!message) throw std::runtime_error(message.error().text);
    messages.push_back(std::move(*message));
  }
  return messages;
}

std::string Stack::content(QueueId id) {
  const auto loaded = run(io_, spool_->load(id, 64 << 20));
  if (!loaded) throw std::runtime_error(loaded.error().text);
  return loaded->content;
}

}  // namespace greymx::test

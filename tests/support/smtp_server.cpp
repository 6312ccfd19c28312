#include "support/smtp_server.hpp"

namespace greymx::test {

class FakeIntake::Body final : public smtp::Body {
 public:
  Body(FakeIntake& owner, QueueId id) : owner_(owner), id_(id) { ++owner_.open; }
  ~Body() override { --owner_.open; }
  QueueId id() const override { return id_; }
  Task<Result<>> write(std::span<const char> bytes) override {
    content_.append(bytes.data(), bytes.size());
    ++owner_.writes;
    co_return owner_.write_result;
  }
  Task<Result<>> commit(Envelope envelope) override {
    if (owner_.commit_result) owner_.messages.push_back({std::move(envelope), std::move(content_)});
    co_return owner_.commit_result;
  }

 private:
  FakeIntake& owner_;
  QueueId id_;
  std::string content_;
};

std::unique_ptr<smtp::Body> FakeIntake::begin() {
  return std::make_unique<Body>(*this, ids_.next(clock_.now()));
}

class FakePolicy::Admission final : public smtp::Admission {
 public:
  explicit Admission(FakePolicy& owner) : owner_(owner) {}
  Task<std::string> client_name() override { co_return owner_.name; }
  std::optional<std::string> known_client_name() const override {
    return owner_.name_is_late ? std::nullopt : std::optional(owner_.name);
  }
  void mail(const Facts&) override {}
  Task<Verdict> recipient(Facts facts, Mailbox recipient) override {
    owner_.asked.push_back(facts);
    if (!owner_.recipient) co_return Verdict();
    co_return owner_.recipient(facts, recipient);
  }
  Task<Verdict> data(Facts facts, std::vector<Mailbox>) override {
    owner_.asked.push_back(facts);
    if (!owner_.data) co_return Verdict();
    co_return owner_.data(facts);
  }
  Task<Authorised> authorised(Facts) override { co_return Authorised::spf; }
  std::uint64_t size_limit(const std::string& domain) const override {
    const auto found = owner_.sizes.find(domain);
    return found == owner_.sizes.end() ? 0 : found->second;
  }
  std::uint64_t largest_size_limit() const override { return size_limit("example.com"); }
  Task<Reply> etrn(Facts facts, std::string node) override { co_return owner_.etrn(facts, node); }

 private:
  FakePolicy& owner_;
};

std::unique_ptr<smtp::Admission> FakePolicy::admit(const Client& client) {
  admitted.push_back(client);
  return std::make_unique<Admission>(*this);
}

config::Config server_config() {
  config::Config settings;
  settings.hostname = "mx2.example.net";
  config::Domain domain;
  domain.name = "example.com";
  settings.domains.push_back(domain);
  settings.access.trusted_networks = {*Network::parse("127.0.0.0/8")};
  return settings;
}

ServerRig::ServerRig(config::Config wanted, std::string client_endpoint, bool proxy_protocol)
    : settings(std::move(wanted)), client_(*Endpoint::parse(client_endpoint)), proxy_protocol_(proxy_protocol) {}

ServerRig::~ServerRig() {
  if (!client) return;
  client->close();
  pump();
  client.reset();
}

void ServerRig::start() {
  auto [ours, theirs] = PipeStream::make(io_.get_executor(), clock, client_, *Endpoint::parse("192.0.2.1:25"));
  client = std::move(ours);
  server = theirs.get();
  const smtp::ServerParts parts{policy, intake, tls, clock, log, metrics};
  auto entered = connections.enter(settings.limits);
  ticket = entered.get();
  session = std::make_shared<smtp::ServerSession>(parts, std::make_shared<config::Config>(settings), std::move(theirs),
                                                  std::move(entered), proxy_protocol_);
  gate_.spawn("session", session->run());
}

void ServerRig::pump() {
  io_.restart();
  io_.poll();
  if (gate_.size() == 0) session.reset();
}

std::string ServerRig::say(std::string bytes) {
  if (!client) start();
  if (!bytes.empty()) client->put(std::move(bytes));
  pump();
  return client->take();
}

std::string ServerRig::advance(std::chrono::seconds by) {
  clock.advance(by);
  if (session) server->clock_changed();
  pump();
  return client->take();
}

}  // namespace greymx::test

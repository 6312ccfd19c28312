#include "daemon/adapters.hpp"

namespace greymx::daemon {

namespace {

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
  Admission(std::unique_ptr<access::SessionChecks> checks, relay::Relay& relay)
      : checks_(std::move(checks)), relay_(relay) {}
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
  std::uint64_t size_limit(const std::string& domain) const override { return relay_.size_limit(domain); }
  std::uint64_t largest_size_limit() const override { return relay_.largest_size_limit(); }
  Task<Reply> etrn(Facts facts, std::string node) override { return relay_.etrn(std::move(node), facts.client); }

 private:
  std::unique_ptr<access::SessionChecks> checks_;
  relay::Relay& relay_;
};

}  // namespace

std::unique_ptr<smtp::Body> Intake::begin() {
  return std::make_unique<Body>(spool_->begin());
}

std::unique_ptr<smtp::Admission> Policy::admit(const Client& client) {
  return std::make_unique<Admission>(pipeline_->begin(client), *relay_);
}

bool PrimaryBridge::is_up(const std::string& domain) const {
  return relay_->health(domain) == relay::Health::up;
}

// A suspect primary cannot be asked about recipients either: it may have lost its list of them.
bool PrimaryBridge::is_down(const std::string& domain) const {
  return !is_up(domain);
}

Task<access::Primaries::Answer> PrimaryBridge::call(std::string address, SteadyTime deadline) {
  const relay::ProbeResult result = co_await relay_->probe(std::move(address), deadline);
  Answer answer{.outcome = access::Callout::inconclusive, .detail = result.detail};
  if (result.outcome == relay::ProbeOutcome::accepted) answer.outcome = access::Callout::accepted;
  if (result.outcome == relay::ProbeOutcome::refused) answer.outcome = access::Callout::refused;
  co_return answer;
}

}  // namespace greymx::daemon

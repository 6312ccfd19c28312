// What plugs the parts together that may not know each other: each class here is an interface of one folder
// implemented by calls into another.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "access/access.hpp"
#include "access/recipient_memory.hpp"
#include "queue/spool.hpp"
#include "relay/relay.hpp"
#include "smtp/ports.hpp"

namespace greymx::daemon {

// smtp -> queue. Attached when the queue is open, which is after the listeners were bound and before they accept.
class Intake final : public smtp::Intake {
 public:
  void attach(queue::Spool& spool) { spool_ = &spool; }
  bool has_room(std::uint64_t declared_size) const override { return spool_->has_room(declared_size); }
  std::unique_ptr<smtp::Body> begin() override;

 private:
  queue::Spool* spool_ = nullptr;
};

// smtp -> access (and relay, for ETRN). One per network thread; attached likewise; the pipeline outlives the sessions.
class Policy final : public smtp::Policy {
 public:
  void attach(access::Pipeline& pipeline, relay::Relay& relay) {
    pipeline_ = &pipeline;
    relay_ = &relay;
  }
  std::unique_ptr<smtp::Admission> admit(const Client& client) override;

 private:
  access::Pipeline* pipeline_ = nullptr;
  relay::Relay* relay_ = nullptr;
};

// access <-> relay: what access asks of the primaries, and what deliveries teach about recipients. Both sides are
// attached while the daemon is built, before the first question.
class PrimaryBridge final : public access::Primaries, public relay::RecipientObserver {
 public:
  void attach(relay::Relay& relay) { relay_ = &relay; }
  void attach(access::RecipientMemory& memory) { memory_ = &memory; }

  bool is_up(const std::string& domain) const override;
  bool is_down(const std::string& domain) const override;
  bool is_primary_address(const IpAddress& ip) const override { return relay_->is_primary_address(ip); }
  std::string hosts(const std::string& domain) const override { return relay_->hosts(domain); }
  Task<Answer> call(std::string address, SteadyTime deadline) override;

  void accepted(const std::string& address) override { memory_->accepted(address); }
  void refused(const std::string& address) override { memory_->refused(address); }

 private:
  relay::Relay* relay_ = nullptr;
  access::RecipientMemory* memory_ = nullptr;
};

}  // namespace greymx::daemon

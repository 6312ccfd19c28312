// Postfix's SMTP access policy delegation protocol (SMTPD_POLICY_README): "name=value" lines and an empty one make a
// request, "action=…" and an empty line answer it. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "config/config.hpp"
#include "greylist/greylister.hpp"

namespace greymx::greylist {

// The attributes that a greylister looks at; those that did not come are absent. Values are cut at 512 bytes.
struct PolicyRequest {
  std::optional<std::string> request, protocol_state, client_address, client_name, sender, recipient, helo_name,
      queue_id, instance, etrn_domain, policy_test_time;
};

// Takes a stream apart. Hostile input costs at most one line and one request of memory.
class PolicyParser {
 public:
  enum class Status : std::uint8_t { more, complete, bad };

  // Consumes `bytes` up to the end of one request. bad: a line of more than 2048 bytes, or a request of more than 64
  // KiB: there is no going on.
  Status feed(std::string_view& bytes);
  PolicyRequest take();  // after `complete`

 private:
  void end_line();

  PolicyRequest request_;
  std::string line_;
  std::size_t size_ = 0;  // of this request
};

// What to ask the greylister. nullopt: nothing, the answer is DUNNO (a state without a recipient, a client or domain
// that is not greylisted); an error: DUNNO as well, and its text is worth a warning. `test_clock`: believe
// policy_test_time.
Result<std::optional<Request>> to_question(const PolicyRequest& request, const config::Config& config, bool test_clock);

// "DUNNO", "PREPEND X-Greylist: …", "DEFER_IF_PERMIT 4.2.0 Greylisted, …"
std::string policy_action(const PolicyRequest& request, const Answer& answer);

}  // namespace greymx::greylist

#include "greylist/policy_protocol.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>

#include "base/mailbox.hpp"
#include "base/text.hpp"

namespace greymx::greylist {

namespace {

constexpr std::size_t longest_line = 2048, largest_request = 64UL << 10, longest_value = 512;

constexpr std::array<std::pair<std::string_view, std::optional<std::string> PolicyRequest::*>, 11> attributes{{
    {"request", &PolicyRequest::request},
    {"protocol_state", &PolicyRequest::protocol_state},
    {"client_address", &PolicyRequest::client_address},
    {"client_name", &PolicyRequest::client_name},
    {"sender", &PolicyRequest::sender},
    {"recipient", &PolicyRequest::recipient},
    {"helo_name", &PolicyRequest::helo_name},
    {"queue_id", &PolicyRequest::queue_id},
    {"instance", &PolicyRequest::instance},
    {"etrn_domain", &PolicyRequest::etrn_domain},
    {"policy_test_time", &PolicyRequest::policy_test_time},
}};

}  // namespace

PolicyParser::Status PolicyParser::feed(std::string_view& bytes) {
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    const std::string_view part = bytes.substr(0, end);
    size_ += part.size() + 1;
    if (line_.size() + part.size() > longest_line || size_ > largest_request) return Status::bad;
    line_ += part;
    bytes.remove_prefix(std::min(part.size() + 1, bytes.size()));
    if (end == std::string_view::npos) break;
    if (line_.ends_with('\r')) line_.pop_back();
    if (line_.empty()) return Status::complete;
    end_line();
    line_.clear();
  }
  return Status::more;
}

// Lines without '=' and attributes we do not know are passed over: later versions of Postfix send more.
void PolicyParser::end_line() {
  const std::size_t equals = line_.find('=');
  if (equals == std::string::npos) return;
  const std::string_view name = std::string_view(line_).substr(0, equals);
  for (const auto& [known, member] : attributes) {
    if (name == known) request_.*member = line_.substr(equals + 1, longest_value);
  }
}

PolicyRequest PolicyParser::take() {
  size_ = 0;
  return std::exchange(request_, {});
}

Result<std::optional<Request>> to_question(const PolicyRequest& request, const config::Config& config,
                                           bool test_clock) {
  for (const auto& [name, value] :
       {std::pair("client_address", &request.client_address), std::pair("client_name", &request.client_name),
        std::pair("sender", &request.sender), std::pair("recipient", &request.recipient)}) {
    if (!*value) return fail(ErrorKind::invalid, fmt::format("attribute missing: {}", name));
  }
  // Clients other than Postfix may leave the state out; they ask at RCPT.
  const std::string state = request.protocol_state.value_or("RCPT");
  if ((state != "RCPT" && state != "DATA") || request.recipient->empty()) return std::nullopt;
  const auto client = IpAddress::parse(*request.client_address);
  if (!client) {
    return fail(ErrorKind::invalid, fmt::format("cannot parse client_address {}", printable(*request.client_address)));
  }
  const config::Domain* domain = config.find_domain(Mailbox::split(*request.recipient).domain);
  if (contains(config.access.trusted_networks, *client) || (domain != nullptr && !domain->greylist))
    return std::nullopt;
  Request question{.client = *client,
                   .client_name = *request.client_name,
                   .sender = *request.sender,
                   .recipient = *request.recipient,
                   .helo = request.helo_name.value_or(""),
                   .queue_id = request.queue_id.value_or(""),
                   .instance = request.instance.value_or(""),
                   .spf_domain = {},
                   .test_time = {}};
  if (test_clock && request.policy_test_time) {
    std::int64_t seconds = 0;
    const std::string& text = *request.policy_test_time;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    if (error != std::errc() || seconds < 0 || seconds > 1LL << 40) {
      return fail(ErrorKind::invalid, "cannot parse policy_test_time");
    }
    question.test_time = WallTime(std::chrono::seconds(seconds));
  }
  return question;
}

std::string policy_action(const PolicyRequest& request, const Answer& answer) {
  if (answer.action == Action::pass) return answer.header.empty() ? "DUNNO" : "PREPEND " + answer.header;
  // Without a code of its own Postfix (which always sends etrn_domain) would say 4.7.1, which Exchange does not retry.
  const bool coded = !answer.text.empty() && is_digit(answer.text[0]);
  return fmt::format("DEFER_IF_PERMIT {}{}", request.etrn_domain && !coded ? "4.2.0 " : "", answer.text);
}

}  // namespace greymx::greylist

#include "relay/outcome.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace greymx::relay {

namespace {

using smtp::Answer;
using smtp::Stage;
using Result = Outcome::Result;

struct StageText {
  Stage stage;
  const char* doing;   // after "lost connection with X while "
  const char* reply;   // after "in reply to "
  const char* no_dsn;  // status without the class, when the server gives none
};
constexpr std::array<StageText, 12> stages = {{
    {Stage::connect, "connecting", "connect", "4.1"},
    {Stage::greeting, "receiving the initial server greeting", "connect", "3.2"},
    {Stage::ehlo, "performing the EHLO handshake", "EHLO command", "0.0"},
    {Stage::starttls, "performing the STARTTLS command", "STARTTLS command", "7.4"},
    {Stage::handshake, "performing the TLS handshake", "STARTTLS command", "7.5"},
    {Stage::reset, "sending RSET", "RSET command", "0.0"},
    {Stage::xforward, "sending XFORWARD", "XFORWARD command", "0.0"},
    {Stage::mail, "sending MAIL FROM", "MAIL FROM command", "0.0"},
    {Stage::rcpt, "sending RCPT TO", "RCPT TO command", "0.0"},
    {Stage::data, "sending DATA command", "DATA command", "0.0"},
    {Stage::content, "sending message body", "DATA command", "0.0"},
    {Stage::dot, "sending end of data -- message may be sent more than once", "end of DATA command", "0.0"},
}};

const StageText& text_of(Stage stage) {
  return *std::find_if(stages.begin(), stages.end(), [stage](const StageText& text) { return text.stage == stage; });
}

Outcome judge_reply(const Answer& answer, const Host& host) {
  const StageText& text = text_of(answer.stage);
  const smtp::ServerReply& reply = answer.reply;
  Outcome outcome;
  outcome.said = reply.text();
  if (answer.stage == Stage::greeting) {
    outcome.reason = fmt::format("host {} refused to talk to me: {}", host.label(), outcome.said);
  } else {
    outcome.reason = fmt::format("host {} said: {} (in reply to {})", host.label(), outcome.said, text.reply);
  }
  // 503 says that we are out of step with the server, not what it thinks of the message.
  const bool about_message = answer.stage >= Stage::mail && reply.code != 503;
  if (answer.stage == Stage::dot && reply.positive()) {
    outcome.result = Result::delivered;
    outcome.reason = outcome.said;
  } else if (reply.permanent() && about_message && !too_many_recipients(answer)) {
    outcome.result = Result::failed;
  }
  outcome.next_host = reply.code == 421 || !about_message;
  const char* status_class = outcome.result == Result::delivered ? "2."
                             : outcome.result == Result::failed  ? "5."
                                                                 : "4.";
  outcome.dsn = status_class + (reply.enhanced.empty() ? std::string(text.no_dsn) : reply.enhanced.substr(2));
  return outcome;
}

}  // namespace

std::string Host::label() const {
  return fmt::format("{}[{}]", name, endpoint.address.to_string());
}

std::string Host::remote() const {
  return fmt::format("{}:{}", label(), endpoint.port);
}

std::string Host::lacks(std::string_view what) const {
  return fmt::format("{} is required, but was not offered by host {}", what, label());
}

Outcome unreachable(const Host& host, const std::string& error) {
  return {Result::deferred, "4.4.1", printable(fmt::format("connect to {}: {}", host.remote(), error)), {}, true};
}

Outcome judge(const Answer& answer, const Host& host) {
  const StageText& text = text_of(answer.stage);
  Outcome outcome;
  outcome.next_host = true;
  switch (answer.kind) {
    case Answer::Kind::reply:
      outcome = judge_reply(answer, host);
      break;
    case Answer::Kind::lost:
      outcome.dsn = "4.4.2";
      outcome.reason = fmt::format("lost connection with {} while {}", host.label(), text.doing);
      break;
    case Answer::Kind::timed_out:
      outcome.dsn = "4.4.2";
      outcome.reason = fmt::format("conversation with {} timed out while {}", host.label(), text.doing);
      break;
    case Answer::Kind::garbage:
      outcome.dsn = "4.5.0";
      outcome.reason = fmt::format("host {} broke the protocol while {}: {}", host.label(), text.doing, answer.detail);
      break;
    case Answer::Kind::tls:
      outcome.dsn = "4.7.5";
      outcome.reason = fmt::format("TLS with host {} failed: {}", host.label(), answer.detail);
      break;
    case Answer::Kind::loop:
      outcome.dsn = "4.4.6";
      outcome.reason = fmt::format("host {} calls itself by our name: mail would loop back to us", host.label());
      break;
  }
  // Whether it was taken is known only to the server; another host now would make a duplicate likely.
  if (answer.stage == Stage::dot && answer.kind != Answer::Kind::reply) {
    outcome.result = Result::uncertain;
    outcome.next_host = false;
  }
  outcome.reason = printable(outcome.reason);
  return outcome;
}

std::string quoted_in(const std::string& reason) {
  static constexpr std::string_view before = "] said: ";
  const std::size_t begin = reason.find(before), end = reason.rfind(" (in reply to ");
  if (begin == std::string::npos || end == std::string::npos || end < begin) return {};
  return reason.substr(begin + before.size(), end - begin - before.size());
}

std::string_view to_string(Result result) {
  if (result == Result::delivered) return "sent";
  return result == Result::failed ? "bounced" : "deferred";
}

bool too_many_recipients(const Answer& answer) {
  if (answer.stage != Stage::rcpt || answer.kind != Answer::Kind::reply) return false;
  const int code = answer.reply.code;
  const std::string& enhanced = answer.reply.enhanced;
  return (code == 452 || code == 552) && (enhanced.empty() || enhanced[2] == '5' || enhanced[2] == '0');
}

bool refused_early(const Answer& answer) {
  if (too_many_recipients(answer)) return false;
  const bool early = answer.stage == Stage::mail || answer.stage == Stage::rcpt || answer.stage == Stage::data;
  return early && answer.kind == Answer::Kind::reply && answer.reply.permanent() && answer.reply.code != 503;
}

bool refuses_recipient(const Answer& answer) {
  if (answer.stage != Stage::rcpt || answer.kind != Answer::Kind::reply || !answer.reply.permanent()) return false;
  const std::string& enhanced = answer.reply.enhanced;
  // 5.7.x is policy, 5.1.7 and 5.1.8 speak of the sender (RFC 3463 3.2).
  if (enhanced.starts_with("5.7.") || enhanced == "5.1.7" || enhanced == "5.1.8") return false;
  const int code = answer.reply.code;
  return enhanced.starts_with("5.1.") || code == 550 || code == 551 || code == 553;
}

}  // namespace greymx::relay

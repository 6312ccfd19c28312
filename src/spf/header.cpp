#include <fmt/format.h>

#include "base/mailbox.hpp"
#include "spf/spf.hpp"

namespace greymx::spf {
namespace {

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : printable(text)) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + '"';
}

std::string comment(const Query& query, const Outcome& outcome) {
  const std::string domain = outcome.domain;
  const std::string client = query.client.to_string();
  switch (outcome.result) {
    case Result::pass:
      return fmt::format("{} is authorised to use {}", client, domain);
    case Result::fail:
    case Result::softfail:
      return fmt::format("{} is not authorised to use {}", client, domain);
    case Result::neutral:
      return fmt::format("{} says nothing about {}", domain, client);
    case Result::none:
      return fmt::format("{} has no SPF record", domain);
    default:
      return fmt::format("error while checking {}: {}", domain, outcome.problem);
  }
}

// Text in a header comment: parentheses and backslashes would end or nest it (RFC 5322 3.2.2).
std::string comment_text(std::string_view text) {
  std::string result = printable(text);
  for (char& c : result) {
    if (c == '(' || c == ')' || c == '\\') c = '?';
  }
  return result;
}

}  // namespace

std::string received_spf_header(const Query& query, const Outcome& outcome) {
  std::string header =
      fmt::format("Received-SPF: {} ({}: {}) client-ip={}; envelope-from={}; helo={};", to_string(outcome.result),
                  comment_text(query.receiver), comment_text(comment(query, outcome)), query.client.to_string(),
                  quoted(query.sender), quoted(query.helo));
  if (!outcome.mechanism.empty()) header += " mechanism=" + quoted(outcome.mechanism) + ';';
  return header;
}

}  // namespace greymx::spf

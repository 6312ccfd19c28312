// access(5) files: an admin's, but exports and scripts write them. The first line is what is looked up, so that keys
// and subjects can meet; the rest is the file.
#include <cstdlib>
#include <string_view>

#include "access/access_file.hpp"

using namespace greymx;

namespace {

// What the pipeline relies on: a reply has a code and an enhanced code of its class, and nothing unprintable leaves.
void check(const std::optional<access::Rule>& rule) {
  if (!rule) return;
  const bool replies = rule->action == access::Action::reply || rule->action == access::Action::defer_if_permit;
  if (replies &&
      (rule->code < 400 || rule->code > 599 || rule->enhanced[0] != static_cast<char>('0' + rule->code / 100))) {
    std::abort();
  }
  if (printable(rule->text, rule->text.size()) != rule->text || rule->line == 0) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(input.find('\n'), input.size());
  const std::string subject(input.substr(0, end));
  std::vector<config::Diagnostic> errors;
  const auto file = access::AccessFile::parse(input.substr(std::min(end + 1, input.size())), "access", errors);
  for (const auto& error : errors) {
    if (error.line == 0 || error.text.empty()) std::abort();
  }
  check(file->find_mailbox(Mailbox::split(subject)));
  check(file->find_mailbox({}));
  check(file->find_name(subject));
  check(file->find_client(subject, IpAddress::parse(subject).value_or(IpAddress::v4(0xc0000201))));
  return 0;
}

// A whole server session against a hostile client. The first byte chooses the configuration, the second the size of
// reads, the rest is what the client sends before it closes. However it is split, the answers are the same,
// well-formed, and 250 is said exactly for what was committed.
#include <cstdlib>

#include "support/smtp_server.hpp"

using namespace greymx;
using namespace greymx::smtp;

namespace {

void require(bool what) {
  if (!what) std::abort();
}

Verdict judge(const Facts&, const Mailbox& recipient) {
  Verdict verdict;
  switch (recipient.local.empty() ? 'b' : recipient.local[0]) {
    case 'g':
      verdict.reply = Reply{450, "4.2.0", "<x>: Recipient address rejected: Greylisted"};
      break;
    case 'r':
      verdict.reply = Reply{550, "5.1.1", "<x>: Recipient address rejected: User unknown"};
      break;
    case 'w':
      verdict.warnings.push_back({554, "5.7.1", "would be refused"});
      verdict.headers.push_back("X-Note: x");
      break;
    case 'd':
      verdict.discard = true;
      break;
    default:
      break;
  }
  return verdict;
}

struct Outcome {
  std::string replies;
  std::size_t messages = 0;
  bool operator==(const Outcome&) const = default;
};

void check_replies(std::string_view text) {
  while (!text.empty()) {
    const std::size_t end = text.find("\r\n");
    require(end != std::string_view::npos && end <= 510 && end >= 4);
    const std::string_view line = text.substr(0, end);
    require(line[0] >= '2' && line[0] <= '5' && (line[3] == ' ' || line[3] == '-'));
    require(line.find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos);
    text.remove_prefix(end + 2);
  }
}

std::size_t count(std::string_view text, std::string_view what) {
  std::size_t found = 0;
  for (std::size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

Outcome run(std::uint8_t choice, std::size_t max_read, std::string bytes) {
  config::Config settings = test::server_config();
  settings.limits.message_size = 1000;
  settings.limits.recipients_per_message = 5;
  settings.smtp.reject_bare_lf = (choice & 1) != 0;
  if ((choice & 2) != 0) settings.tls.inbound = config::TlsLevel::encrypt;
  settings.access.proxy_networks = {*Network::parse("198.51.100.0/24")};
  const bool proxied = (choice & 4) != 0;
  test::ServerRig rig(settings, (choice & 12) != 0 ? "198.51.100.7:99" : "192.0.2.10:99", proxied);
  rig.policy.recipient = judge;
  rig.policy.etrn = [](const Facts&, const std::string& node) {
    return Reply{250, "", "OK, queuing for node " + node};
  };
  if ((choice & 16) != 0) rig.policy.sizes["example.com"] = 100;
  if ((choice & 32) != 0) rig.intake.commit_result = fail(ErrorKind::no_space, "full");
  if ((choice & 64) != 0) rig.intake.write_result = fail(ErrorKind::temporary, "broken");
  const bool discards = bytes.find("<d") != std::string::npos;
  rig.start();
  rig.server->set_max_read(max_read);
  rig.client->put(std::move(bytes));
  rig.client->finish();
  rig.pump();
  require(rig.ended());
  const Outcome outcome{rig.client->take(), rig.intake.messages.size()};
  check_replies(outcome.replies);
  require(rig.intake.open == 0 && rig.metrics.value("connections") == 0);
  // A recipient that has the message discarded ends in 250 without a commit.
  const std::size_t told = count(outcome.replies, "250 2.0.0 Ok: queued as ");
  require(discards ? told >= outcome.messages : told == outcome.messages);
  for (const test::FakeIntake::Message& message : rig.intake.messages) {
    require(!message.envelope.recipients.empty() && message.content.size() <= 3000);
    for (std::size_t at = message.content.find('\n'); at != std::string::npos;
         at = message.content.find('\n', at + 1)) {
      require(at > 0 && message.content[at - 1] == '\r');
    }
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  const Outcome whole = run(data[0], static_cast<std::size_t>(-1), bytes);
  require(run(data[0], 1 + data[1] % 64, bytes) == whole);
  return 0;
}

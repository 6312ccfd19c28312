// Command lines: what was parsed is bounded, printable where it goes on, and survives being written and parsed again.
#include <cstdlib>

#include "smtp/command.hpp"
#include "smtp/line_reader.hpp"

using namespace greymx;
using namespace greymx::smtp;

namespace {

void require(bool what) {
  if (!what) std::abort();
}

bool is_clean(std::string_view text) {
  return printable(text, std::string_view::npos) == text;
}

void check_refusal(const Reply& reply) {
  require(reply.permanent() && reply.text.size() < 512 && is_clean(reply.text));
}

void check_mailbox(const Mailbox& mailbox) {
  const std::string text = mailbox.to_string();
  require(text.size() <= 254 && is_clean(text));
  const std::string written = "<" + text + ">";
  std::string_view again = written;
  const auto parsed = parse_path(again);
  require(parsed && parsed->mailbox == mailbox && again.empty());
}

void check_line(std::string_view line) {
  const Command command = parse_command(line);
  is_foreign_protocol(line);
  is_etrn_node(command.arguments);
  parse_bdat(command.arguments);
  if (const auto mail = parse_mail(command.arguments)) {
    check_mailbox(mail->path.mailbox);
    require(mail->envid.size() <= 100 && is_clean(mail->envid));
    require(mail->smtputf8 || is_ascii(mail->path.mailbox.to_string()));
  } else {
    check_refusal(mail.error());
  }
  for (const bool smtputf8 : {false, true}) {
    if (const auto rcpt = parse_rcpt(command.arguments, smtputf8)) {
      check_mailbox(rcpt->path.mailbox);
      require(!rcpt->path.mailbox.empty());
      require(rcpt->original_recipient.size() <= 500 && is_clean(rcpt->original_recipient));
      require(!(rcpt->notify.never && (rcpt->notify.success || rcpt->notify.failure || rcpt->notify.delay)));
    } else {
      check_refusal(rcpt.error());
    }
  }
  if (const auto xclient = parse_xclient(command.arguments)) {
    require(is_clean(xclient->name.value_or("")) && is_clean(xclient->helo.value_or("")));
  } else {
    check_refusal(xclient.error());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  check_line(input);
  LineReader reader(false);
  for (auto event = reader.next(input); event.status != LineReader::Status::need_more; event = reader.next(input)) {
    if (event.status == LineReader::Status::line) check_line(event.line);
  }
  require(input.size() < LineReader::max_line);
  return 0;
}

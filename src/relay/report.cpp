#include "relay/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.hpp"
#include "smtp/command.hpp"

namespace greymx::relay {

namespace {

struct KindText {
  const char* subject;
  const char* action;
  const char* opening;
};

const KindText& text_of(ReportKind kind) {
  static constexpr std::array<KindText, 3> texts = {{
      {"Undelivered Mail Returned to Sender", "failed",
       "Your message could not be delivered to the recipients named below. It will not be\r\n"
       "tried again.\r\n"},
      {"Delayed Mail (still being retried)", "delayed",
       "Your message has not been delivered yet. There is nothing you have to do: it is kept\r\n"
       "and tried again.\r\n"},
      {"Successful Mail Delivery Report", "relayed",
       "Your message was handed to the next mail server, which takes it but does not report\r\n"
       "its delivery. This is the last report you get about it.\r\n"},
  }};
  return texts[static_cast<std::size_t>(kind)];
}

std::string from_xtext(const std::string& text) {
  return printable(smtp::decode_xtext(text).value_or(text));
}

// Lines of at most 998 octets (RFC 5322 2.1.1).
std::string folded(std::string text) {
  constexpr std::size_t longest = 900;
  for (std::size_t start = 0; text.size() - start > longest;) {
    const std::size_t space = text.rfind(' ', start + longest);
    if (space == std::string::npos || space <= start) break;
    text.replace(space, 1, "\r\n ");
    start = space + 2;
  }
  return text;
}

std::string address_type(std::string_view address) {
  return is_ascii(address) ? "rfc822" : "utf-8";
}

// The end of the header field that begins at `start`: before a line that no white space begins.
std::size_t end_of_field(std::string_view header, std::size_t start) {
  std::size_t end = start;
  do {
    end = std::min(header.find('\n', end), header.size() - 1) + 1;
  } while (end < header.size() && (header[end] == ' ' || header[end] == '\t'));
  return end;
}

// RFC 5322 2.2.3
std::string unfolded(std::string_view value) {
  std::string result(trim(value, " \t\r\n"));
  for (std::size_t at = 0; (at = result.find("\r\n", at)) != std::string::npos;) result.erase(at, 2);
  std::ranges::replace(result, '\t', ' ');
  return result;
}

std::string header_value(std::string_view header, std::string_view name) {
  for (std::size_t start = 0; start < header.size();) {
    const std::size_t end = end_of_field(header, start);
    const std::string_view field = header.substr(start, end - start);
    if (field.size() > name.size() && field[name.size()] == ':' &&
        equals_ignoring_case(field.substr(0, name.size()), name)) {
      return unfolded(field.substr(name.size() + 1));
    }
    start = end;
  }
  return {};
}

// What the report answers. No other characters in the header of a report that is not internationalised.
std::string reference_fields(std::string_view header, bool utf8) {
  const std::string id = header_value(header, "Message-ID");
  if (id.empty() || (!utf8 && !is_ascii(id))) return {};
  const std::string shown = printable(id, 900);
  return fmt::format("References: {}\r\nIn-Reply-To: {}\r\n", shown, shown);
}

std::string recipient_fields(const ReportSource& source, const ReportedRecipient& recipient) {
  const EnvelopeRecipient& to = source.envelope->recipients[recipient.index];
  std::string fields = "\r\n";
  if (!to.original_recipient.empty()) {
    const std::size_t semicolon = to.original_recipient.find(';');
    fields +=
        fmt::format("Original-Recipient: {};{}\r\n", printable(to.original_recipient.substr(0, semicolon)),
                    semicolon == std::string::npos ? "" : from_xtext(to.original_recipient.substr(semicolon + 1)));
  }
  fields += fmt::format("Final-Recipient: {};{}\r\n", address_type(to.address), printable(to.address));
  fields += fmt::format("Action: {}\r\nStatus: {}\r\n", text_of(source.kind).action, recipient.dsn);
  if (!recipient.remote.empty()) {
    fields += fmt::format("Remote-MTA: dns; {}\r\n", recipient.remote.substr(0, recipient.remote.find('[')));
  }
  fields += fmt::format("Diagnostic-Code: {}; {}\r\n", recipient.said.empty() ? "X-greymx" : "smtp",
                        recipient.said.empty() ? recipient.reason : recipient.said);
  if (source.kind == ReportKind::delayed) {
    fields += fmt::format("Will-Retry-Until: {}\r\n", rfc5322_date(source.retry_until));
  }
  return fields;
}

std::string message_fields(const ReportSource& source) {
  const Envelope& envelope = *source.envelope;
  std::string fields = fmt::format("Reporting-MTA: dns; {}\r\n", source.hostname);
  if (!envelope.envid.empty()) fields += fmt::format("Original-Envelope-Id: {}\r\n", from_xtext(envelope.envid));
  fields += fmt::format("X-greymx-Queue-ID: {}\r\n", source.id.to_string());
  fields +=
      fmt::format("X-greymx-Sender: {}; {}\r\n", address_type(envelope.reverse_path), printable(envelope.reverse_path));
  fields += fmt::format("Arrival-Date: {}\r\n", rfc5322_date(source.id.time()));
  for (const ReportedRecipient& recipient : source.recipients) fields += recipient_fields(source, recipient);
  return envelope.smtputf8 ? fields : to_ascii(fields);  // RFC 3464 2.1, RFC 6533 4
}

std::string text_for_people(const ReportSource& source) {
  std::string text =
      fmt::format("This is the mail system at {}.\r\n\r\n{}", source.hostname, text_of(source.kind).opening);
  if (source.kind == ReportKind::delayed) {
    text += fmt::format("It will be returned to you if it cannot be delivered until\r\n{}.\r\n",
                        rfc5322_date(source.retry_until));
  }
  for (const ReportedRecipient& recipient : source.recipients) {
    const std::string address = printable(source.envelope->recipients[recipient.index].address);
    text += fmt::format("\r\n{}\r\n", folded(fmt::format("<{}>: {}", address, recipient.reason)));
  }
  return text + "\r\nThe last part of this message is what you sent, or its header.\r\n";
}

std::string part(const std::string& boundary, std::string_view description, std::string_view type,
                 std::string_view body) {
  const char* encoding = is_ascii(body) ? "7bit" : "8bit";
  return fmt::format(
      "--{}\r\nContent-Description: {}\r\nContent-Type: {}\r\nContent-Transfer-Encoding: {}\r\n\r\n{}\r\n", boundary,
      description, type, encoding, body);
}

}  // namespace

std::string_view header_of(std::string_view content) {
  if (content.starts_with("\r\n")) return {};
  const std::size_t end = content.find("\r\n\r\n");
  return content.substr(0, end == std::string_view::npos ? end : end + 2);
}

Envelope report_envelope(std::string recipient, std::string_view content) {
  Envelope envelope;
  envelope.origin = Origin::report;
  envelope.smtputf8 = !is_ascii(recipient);
  envelope.body = is_ascii(content) ? BodyType::seven_bit : BodyType::eight_bit_mime;
  envelope.recipients.push_back({std::move(recipient), {}, DsnNotify{.never = true}});
  return envelope;
}

Report make_report(const ReportSource& source) {
  const Envelope& original = *source.envelope;
  const std::string_view header = header_of(source.content);
  // Only a failure returns all of the content, unless the sender asked for the header or it is long (RFC 3461 4.3).
  const bool full = source.kind == ReportKind::failed && original.ret != DsnReturn::headers &&
                    source.content.size() == source.size && source.size <= report_content_limit;
  const bool utf8 = original.smtputf8;
  const char* original_type =
      full ? (utf8 ? "message/global" : "message/rfc822") : (utf8 ? "message/global-headers" : "text/rfc822-headers");
  const char* status_type = utf8 ? "message/global-delivery-status" : "message/delivery-status";

  std::string boundary = fmt::format("{}.{}/greymx", source.id.to_string(), source.now.time_since_epoch().count());
  for (int i = 0; source.content.find(boundary) != std::string::npos; ++i) {
    boundary = fmt::format("{}.{}/greymx", source.id.to_string(), i);
  }
  const std::string body = fmt::format(
      "{}{}{}--{}--\r\n", part(boundary, "Notification", "text/plain; charset=utf-8", text_for_people(source)),
      part(boundary, "Delivery report", status_type, message_fields(source)),
      part(boundary, full ? "Undelivered Message" : "Message Headers", original_type,
           full ? std::string_view(source.content) : header),
      boundary);

  Report report;
  report.content = fmt::format(
      "Date: {}\r\nFrom: MAILER-DAEMON@{} (Mail Delivery System)\r\nTo: {}\r\nSubject: {}\r\n"
      "Message-ID: <{}.{}@{}>\r\n",
      rfc5322_date(source.now), source.hostname, printable(original.reverse_path), text_of(source.kind).subject,
      source.id.to_string(), source.now.time_since_epoch().count(), source.hostname);
  report.content += reference_fields(header, utf8);
  report.content += fmt::format(
      "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
      "Content-Type: multipart/report; report-type={}; boundary=\"{}\"\r\nContent-Transfer-Encoding: {}\r\n\r\n{}",
      utf8 ? "global-delivery-status" : "delivery-status", boundary, is_ascii(body) ? "7bit" : "8bit", body);
  report.envelope = report_envelope(original.reverse_path, report.content);
  report.envelope.smtputf8 = report.envelope.smtputf8 || utf8;
  return report;
}

}  // namespace greymx::relay

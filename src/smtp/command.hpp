// Command lines into values: verbs, paths and parameters. Pure; fuzzed.
//
// Spec: RFC 5321 4.1 (grammar), 4.5.3.1 (sizes), RFC 6531 (SMTPUTF8), RFC 1870 (SIZE), RFC 6152 (BODY), RFC 3461
// (RET, ENVID, NOTIFY, ORCPT), RFC 3030 (BDAT), Postfix's XCLIENT_README.
//
// More liberal than the grammar where refusing would lose real mail: dots anywhere in a local part, local parts of
// more than 64 octets (VERP senders) within a path's 256, "_" in domains, a final dot, spaces after the colon.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/mail.hpp"

namespace greymx::smtp {

enum class Verb : std::uint8_t {
  helo,
  ehlo,
  xclient,
  starttls,
  auth,
  mail,
  rcpt,
  data,
  bdat,
  rset,
  noop,
  vrfy,
  expn,
  help,
  etrn,
  quit,
  unknown,  // last
};
inline constexpr std::size_t verb_count = static_cast<std::size_t>(Verb::unknown) + 1;

std::string_view to_string(Verb verb);  // "MAIL"; "UNKNOWN"

struct Command {
  Verb verb = Verb::unknown;
  std::string_view arguments;  // without surrounding spaces; a part of the line
};
Command parse_command(std::string_view line);

// Not a mistake but another protocol: an HTTP request, or a header line ("Host: x") of one.
bool is_foreign_protocol(std::string_view line);

struct Path {
  Mailbox mailbox;
  bool source_route = false;  // "<@a,@b:user@example.com>": the route is dropped (RFC 5321 appendix C)
};

// "<path>" at the front of `text`, which then begins behind it. nullopt: no path by the rules above.
std::optional<Path> parse_path(std::string_view& text);

struct MailCommand {
  Path path;  // null reverse-path: empty mailbox
  std::uint64_t size = 0;
  BodyType body = BodyType::seven_bit;
  bool smtputf8 = false;
  DsnReturn ret = DsnReturn::unset;
  std::string envid;
};
std::expected<MailCommand, Reply> parse_mail(std::string_view arguments);

struct RcptCommand {
  Path path;
  DsnNotify notify;
  std::string original_recipient;
};
// `smtputf8`: MAIL declared it.
std::expected<RcptCommand, Reply> parse_rcpt(std::string_view arguments, bool smtputf8);

struct BdatCommand {
  std::uint64_t size = 0;
  bool last = false;
};
std::optional<BdatCommand> parse_bdat(std::string_view arguments);

// "example.com", "@example.com" or "#queue" (RFC 1985 5.2).
bool is_etrn_node(std::string_view argument);

// Only what we take over; absent: not given. An empty text stands for [UNAVAILABLE] and [TEMPUNAVAIL].
struct XclientCommand {
  std::optional<std::string> name;
  std::optional<IpAddress> address;
  std::optional<std::uint16_t> port;
  std::optional<std::string> helo;
  std::optional<std::string> protocol;
};
std::expected<XclientCommand, Reply> parse_xclient(std::string_view arguments);

// RFC 3461 4: printable ASCII without "+" and "=", or "+" and two upper-case hexadecimal digits. nullopt: malformed.
std::string xtext(std::string_view text);
std::optional<std::string> decode_xtext(std::string_view text);

}  // namespace greymx::smtp

// What we say to a server: commands with the extensions it offers, and content on its way out. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/mail.hpp"
#include "smtp/client_reply.hpp"

namespace greymx::smtp {

// What a server said it can do (RFC 5321 4.1.1.1).
struct Capabilities {
  std::string name;  // the domain it calls itself, lower-case
  bool pipelining = false;
  bool eight_bit_mime = false;
  bool smtputf8 = false;
  bool dsn = false;
  bool starttls = false;
  bool size = false;
  std::uint64_t size_limit = 0;       // 0 = none named (RFC 1870 4)
  std::vector<std::string> xforward;  // attribute names it takes, upper-case
};
Capabilities parse_capabilities(const ServerReply& ehlo);

// One line: control bytes become '?', whatever the parts were made of, so that no part can smuggle in a second command.
std::string command(std::string_view line);

// `utf8`: ask for SMTPUTF8 (RFC 6531). Parameters that the server does not offer are left out.
std::string mail_command(const Envelope& envelope, std::uint64_t size, bool utf8, const Capabilities& server);
// `utf8`: MAIL asked for it.
std::string rcpt_command(const EnvelopeRecipient& recipient, bool utf8, const Capabilities& server);
// Who the client was, in as few commands of at most 512 octets as it takes; none if the server takes no attribute.
std::vector<std::string> xforward_commands(const Envelope& envelope, const Capabilities& server);

// Content as it goes over the wire (RFC 5321 4.5.2): dots doubled, and neither CR nor LF outside CRLF whatever was
// given, so that nothing in it can be taken for its end. Any split of the input gives the same output.
class ContentEncoder {
 public:
  void add(std::string_view bytes, std::string& out);
  void finish(std::string& out);  // ends the last line if need be, then ".\r\n"

 private:
  void add_text(std::string_view text, std::string& out);  // without LF

  bool line_start_ = true;
  bool after_cr_ = false;
};

}  // namespace greymx::smtp

// The words that all parts share: replies, who the client is, envelopes. Plain values; anyone may copy, print, compare.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/id.hpp"
#include "base/ip.hpp"
#include "base/mailbox.hpp"

namespace greymx {

// One SMTP reply (RFC 5321 4.2) with its RFC 3463 code; the class digit of `enhanced` equals that of `code`.
struct Reply {
  int code = 0;
  std::string enhanced;  // "5.7.1"; empty where none belongs (banner, HELO, EHLO, 354)
  std::string text;      // without code; printable()

  bool permanent() const { return code >= 500; }
  bool temporary() const { return code >= 400 && code < 500; }
  std::string to_string() const;  // "554 5.7.1 text"
  bool operator==(const Reply&) const = default;
};

// Who is at the other end. Address and port are those that limits and trust go by (PROXY and XCLIENT change them).
struct Client {
  IpAddress address;
  std::uint16_t port = 0;
  std::string name = "unknown";  // forward-confirmed PTR name, lower-case, or "unknown"
  bool trusted = false;          // in access.trusted_networks

  std::string to_string() const;  // "name[address]"
  bool operator==(const Client&) const = default;
};

// Did the sender's domain authorise the client at arrival? Decides whether a bounce may be sent ("verified").
enum class Authorised : std::uint8_t { unknown, no, spf, client_name };

enum class BodyType : std::uint8_t { seven_bit, eight_bit_mime };
enum class DsnReturn : std::uint8_t { unset, full, headers };

// RFC 3461 4.1; none of the bits set means NOTIFY was not given.
struct DsnNotify {
  bool never = false;
  bool success = false;
  bool failure = false;
  bool delay = false;
  bool given() const { return never || success || failure || delay; }
  std::string to_string() const;  // as in RCPT: "NEVER", "SUCCESS,DELAY", ""
  bool operator==(const DsnNotify&) const = default;
};

// What the spool keeps of a message for its whole life, fixed at arrival.
struct EnvelopeRecipient {
  std::string address;             // forward-path as given, without <>
  std::string original_recipient;  // ORCPT, still in xtext: "rfc822;user@example.com"; empty = none
  DsnNotify notify;
  bool operator==(const EnvelopeRecipient&) const = default;
};

enum class Origin : std::uint8_t {
  smtp,    // from a client: relayed to configured domains only
  report,  // our own bounce, delay or success report, or an alert: may leave through smarthost or by MX
};

struct Envelope {
  Origin origin = Origin::smtp;
  std::string reverse_path;  // without <>; empty = null sender
  std::vector<EnvelopeRecipient> recipients;
  BodyType body = BodyType::seven_bit;
  bool smtputf8 = false;
  DsnReturn ret = DsnReturn::unset;
  std::string envid;  // ENVID in xtext
  Client client;
  std::string helo;
  std::string protocol;  // "SMTP", "ESMTP", "ESMTPS", "UTF8SMTP", "UTF8SMTPS"
  std::string tls;       // "TLSv1.3 with cipher X (256/256 bits)"; empty = plain
  Authorised authorised = Authorised::unknown;
  bool hold = false;       // an access file said HOLD: kept, not relayed, until an admin releases it
  std::string message_id;  // for log lines only
  bool operator==(const Envelope&) const = default;
};

// The state of an SMTP session that checks may look at; plain data, copied into coroutines.
struct Facts {
  Client client;
  std::string helo;      // as given; empty before HELO/EHLO
  std::string protocol;  // "SMTP" or "ESMTP"
  bool tls = false;
  bool early_talker = false;         // spoke before our greeting
  bool improper_pipelining = false;  // RFC 2920 3.1 violated
  Mailbox sender;                    // null sender: empty
  std::uint64_t declared_size = 0;
  bool smtputf8 = false;
  std::string instance;  // one value per transaction
  std::string queue_id;  // empty before the first accepted recipient
};

// What an access file wants in the log besides the reply, in Postfix's shape:
// "NOQUEUE: warn: RCPT from NAME[IP]: TEXT; from=<> to=<> proto=ESMTP helo=<>".
struct Remark {
  std::string label;  // "warn", "info", "hold", "discard", "prepend"
  std::string text;
  bool operator==(const Remark&) const = default;
};

// What a check says. `reply` set: refuse with it. Otherwise go on.
struct Verdict {
  std::optional<Reply> reply;
  std::string check;                 // which check decided, as in relay.conf and metrics: "unknown_sender_domain"
  std::vector<Reply> warnings;       // what checks in "warn" mode would have said: logged as reject_warning
  std::vector<Remark> remarks;       // access files' WARN, INFO, HOLD, DISCARD, PREPEND
  std::vector<std::string> notes;    // further log texts: "action=greylist, reason=new, …" (program "greylist")
  std::vector<std::string> headers;  // to prepend once per message, "X-Greylist: …" without line end
  bool discard = false;              // take the message, say 250, deliver nothing (access file DISCARD)
  bool hold = false;                 // access file HOLD
  bool counts_as_error = true;       // towards limits.errors (never for 4xx and greylisting)

  bool pass() const { return !reply.has_value(); }
};

}  // namespace greymx

// Replies on the wire: the one table of what the server says, and how a reply is written.
//
// Texts are Postfix's where it has a well-known one, because log tools match on them. Pure.
// Spec: RFC 5321 4.2 (codes, multi-line form), 4.5.3.1.5 (512 octets a line), RFC 2034 (enhanced codes on every line).
#pragma once

#include <string>
#include <string_view>

#include "base/mail.hpp"

namespace greymx::smtp {

// A text of the table; "%h" stands for our host name, "%s" for an argument.
struct ReplyText {
  int code;
  std::string_view enhanced;
  std::string_view text;
};

// `argument` comes from strangers as it is: it is made printable() and cut.
Reply make_reply(const ReplyText& text, std::string_view host = {}, std::string_view argument = {});

// Appends the reply with its line ends, over several lines if it is too long for one. In ASCII, unless the client asked
// for `utf8` (RFC 6531 3.7.4).
void append_reply(std::string& out, const Reply& reply, bool utf8 = false);

namespace replies {

// clang-format off
inline constexpr ReplyText
    helo{250, "", "%h"},
    ok{250, "2.0.0", "Ok"},
    mail_ok{250, "2.1.0", "Ok"},
    rcpt_ok{250, "2.1.5", "Ok"},
    queued{250, "2.0.0", "Ok: queued as %s"},
    chunk_ok{250, "2.0.0", "Ok: %s bytes"},
    send_data{354, "", "End data with <CR><LF>.<CR><LF>"},
    start_tls{220, "2.0.0", "Ready to start TLS"},
    help{214, "2.0.0", "See RFC 5321"},
    vrfy{252, "2.0.0", "Cannot VRFY user, but will accept message and attempt delivery"},
    bye{221, "2.0.0", "Bye"},
    not_smtp{221, "2.7.0", "Error: I can break rules, too. Goodbye."},

    busy{421, "4.3.2", "All server ports are busy"},
    too_many_connections{421, "4.7.0", "%h Error: too many connections from %s"},
    shutting_down{421, "4.3.2", "%h Service shutting down, closing transmission channel"},
    shed{421, "4.3.2", "%h Server is busy and this session is idle, closing transmission channel"},
    timed_out{421, "4.4.2", "%h Error: timeout exceeded"},
    too_slow{421, "4.4.2", "%h Error: data arrives too slowly"},
    too_many_errors{421, "4.7.0", "%h Error: too many errors"},

    unknown_command{500, "5.5.2", "Error: command not recognized"},
    command_too_long{500, "5.5.2", "%h Error: command too long"},
    bad_command_bytes{500, "5.5.2", "%h Error: %s received"},
    not_implemented{502, "5.5.1", "Error: command not implemented"},
    no_authentication{503, "5.5.1", "Error: authentication not enabled"},
    out_of_sync{554, "5.5.0", "Error: SMTP protocol synchronization"},

    helo_syntax{501, "", "Syntax: %s hostname"},
    takes_no_argument{501, "5.5.4", "Syntax: %s"},
    mail_syntax{501, "5.5.4", "Syntax: MAIL FROM:<address>"},
    rcpt_syntax{501, "5.5.4", "Syntax: RCPT TO:<address>"},
    vrfy_syntax{501, "5.5.4", "Syntax: VRFY address"},
    bdat_syntax{521, "5.5.4", "Syntax: BDAT count [LAST]"},
    etrn_syntax{501, "", "Error: invalid parameter syntax"},
    etrn_no_argument{500, "", "Syntax: ETRN domain"},
    bad_sender{501, "5.1.7", "Bad sender address syntax"},
    bad_recipient{501, "5.1.3", "Bad recipient address syntax"},
    bad_size{501, "5.5.4", "Bad message size syntax"},
    bad_parameter{501, "5.5.4", "Bad %s parameter syntax"},
    unsupported_option{555, "5.5.4", "Unsupported option: %s"},
    needs_smtputf8{553, "5.6.7", "Must declare SMTPUTF8 to send unicode address"},

    helo_first{503, "5.5.1", "Error: send HELO/EHLO first"},
    nested_mail{503, "5.5.1", "Error: nested MAIL command"},
    need_mail{503, "5.5.1", "Error: need MAIL command"},
    need_rcpt{503, "5.5.1", "Error: need RCPT command"},
    no_valid_recipients{554, "5.5.1", "Error: no valid recipients"},
    rcpt_after_bdat{503, "5.5.1", "Error: RCPT after BDAT"},
    data_after_bdat{503, "5.5.1", "Error: DATA after BDAT"},
    in_transaction{503, "5.5.1", "Error: MAIL transaction in progress"},
    etrn_helo_first{503, "", "Error: send HELO/EHLO first"},
    etrn_in_transaction{503, "", "Error: MAIL transaction in progress"},

    must_start_tls{530, "5.7.0", "Must issue a STARTTLS command first"},
    tls_active{554, "5.5.1", "Error: TLS already active"},
    tls_unavailable{454, "4.7.0", "TLS not available due to local problem"},

    xclient_denied{550, "5.7.0", "Error: insufficient authorization"},
    xclient_syntax{501, "5.5.4", "Syntax: XCLIENT attribute=value..."},
    xclient_bad_name{501, "5.5.4", "Bad XCLIENT attribute name: %s"},
    xclient_bad_value{501, "5.5.4", "Bad XCLIENT attribute value: %s"},

    relay_denied{554, "5.7.1", "<%s>: Relay access denied"},
    too_many_recipients{452, "4.5.3", "Error: too many recipients"},
    size_limit{552, "5.3.4", "Message size exceeds fixed limit"},
    too_big{552, "5.3.4", "Error: message file too big"},
    no_space{452, "4.3.1", "Insufficient system storage"},
    write_error{451, "4.3.0", "Error: queue file write error"},
    too_many_hops{554, "5.4.0", "Error: too many hops"},
    bare_lf{550, "5.5.2", "%h Error: bare <LF> received"},
    bare_cr{550, "5.5.2", "%h Error: bare <CR> received"},
    chunk_after_error{551, "5.0.0", "Discarded %s bytes after earlier error"};
// clang-format on

}  // namespace replies

}  // namespace greymx::smtp

// The single checks, each a small pure function over facts that are already known. The texts and codes are Postfix's,
// because admins' log tools match on them. Order, modes and what a finding leads to are the pipeline's business.
#pragma once

#include <optional>
#include <string>

#include "base/mail.hpp"
#include "config/config.hpp"
#include "dns/resolver.hpp"

namespace greymx::access {

// A reason to refuse; one that is only temporary trouble counts if nothing else refuses (Postfix's DEFER_IF_PERMIT).
struct Finding {
  Reply reply;
  bool if_permit = false;
};
using Findings = std::optional<Finding>;

// "<what>: Sender address rejected: why", with all that a stranger wrote made printable.
Reply rejected(int code, std::string enhanced, std::string_view what, std::string_view part, std::string_view why);

// The recipient as tables and rules see it: a quoted local part that needs no quotes loses them, so that
// <"user"@example.com> is not another one than <user@example.com>.
Mailbox unquoted(const Mailbox& mailbox);

// How files of ours write what tables look for. The first word of a line: white space inside double quotes belongs to
// it ("a b"@example.com).
std::size_t end_of_word(std::string_view line);

bool is_postmaster(const Mailbox& recipient);           // bare, or at any domain
bool is_postmaster_or_abuse(const Mailbox& recipient);  // RFC 2142 5: never greylisted or blocked

// The entry of relay.conf that takes mail for this recipient; bare Postmaster belongs to the first (RFC 5321 4.5.1).
const config::Domain* domain_of(const config::Config& config, const Mailbox& recipient);

// The promise not to be an open relay: configured domains only, and no local part that a later server might take for
// a route (source routes, user%host, host!user, "user@host"). Nothing overrides it.
std::optional<Reply> relay_control(const config::Config& config, const Mailbox& recipient);

Findings invalid_helo(const Facts& facts);
Findings unauth_pipelining(const Facts& facts, const Mailbox& recipient);
Findings unauth_pipelining_at_data(const Facts& facts);
Findings non_fqdn_sender(const Facts& facts);
Findings non_fqdn_recipient(const Mailbox& recipient);
Findings early_talker(const Facts& facts);

// Can a domain be written to (RFC 5321 5.1, RFC 7505)?
struct MailDomain {
  enum class State : std::uint8_t { exists, missing, null_mx, malformed, failed };
  State state = State::exists;
  std::string detail;  // for explain: what DNS said
};
// Is it a name that has to be asked for? Not for the null sender, address literals, and our own domains: their DNS may
// well have gone down together with the primary.
bool needs_lookup(const config::Config& config, const Mailbox& sender);
Task<MailDomain> look_up_mail_domain(dns::Resolver& resolver, std::string domain, SteadyTime deadline);
Findings unknown_sender_domain(const Facts& facts, const MailDomain& domain);

Reply unknown_recipient(const Mailbox& recipient);
Reply unverified_recipient(const Mailbox& recipient, std::string_view why);
Reply greylisted(const Mailbox& recipient, std::string_view text);

}  // namespace greymx::access

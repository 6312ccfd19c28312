#include "access/checks.hpp"

#include <fmt/format.h>

namespace greymx::access {

namespace {

constexpr std::string_view pipelining = "Improper use of SMTP command pipelining";

bool is_literal(std::string_view domain) {
  return domain.size() > 2 && domain.front() == '[' && domain.back() == ']';
}

// Postfix's valid_hostname(): a name of digits and dots only is no name.
bool is_name(std::string_view name) {
  return is_hostname(name) && name.find_first_not_of("0123456789.") != std::string_view::npos;
}

bool is_fqdn(std::string_view domain) {
  const std::string name = canonical_domain(domain).value_or("");
  return is_literal(domain) || (is_name(name) && name.find('.') != std::string::npos);
}

// RFC 5321 4.1.3: "[192.0.2.1]", "[IPv6:2001:db8::1]"
bool is_valid_literal(std::string_view literal) {
  if (!is_literal(literal)) return false;
  std::string_view address = literal.substr(1, literal.size() - 2);
  const bool v6 = address.size() > 5 && equals_ignoring_case(address.substr(0, 5), "IPv6:");
  if (v6) address.remove_prefix(5);
  return IpAddress::parse(address) && v6 == (address.find(':') != std::string_view::npos);
}

Findings need_fqdn(const Mailbox& mailbox, std::string_view part) {
  if (is_fqdn(mailbox.domain)) return {};
  return Finding{rejected(504, "5.5.2", mailbox.to_string(), part, "need fully-qualified address")};
}

}  // namespace

Reply rejected(int code, std::string enhanced, std::string_view what, std::string_view part, std::string_view why) {
  return {code, std::move(enhanced),
          "<" + printable(what, 320) + ">: " + std::string(part) + " rejected: " + printable(why)};
}

Mailbox unquoted(const Mailbox& mailbox) {
  const std::string& local = mailbox.local;
  if (local.size() < 2 || local.front() != '"' || local.back() != '"') return mailbox;
  std::string plain;
  for (std::size_t i = 1; i + 1 < local.size(); ++i) {
    if (local[i] == '\\' && i + 2 < local.size()) ++i;
    plain += local[i];
  }
  const bool needs_quotes = plain.empty() || plain.find_first_of(" \t\"\\()<>[]:;,") != std::string::npos;
  return needs_quotes ? mailbox : Mailbox{plain, mailbox.domain};
}

std::size_t end_of_word(std::string_view line) {
  constexpr std::string_view blank = " \t\r\f\v";
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\\' && quoted)
      ++i;
    else if (line[i] == '"')
      quoted = !quoted;
    else if (!quoted && blank.find(line[i]) != std::string_view::npos)
      return i;
  }
  return line.size();
}

bool is_postmaster(const Mailbox& recipient) {
  return equals_ignoring_case(unquoted(recipient).local, "postmaster");
}

bool is_postmaster_or_abuse(const Mailbox& recipient) {
  return is_postmaster(recipient) ||
         (!recipient.domain.empty() && equals_ignoring_case(unquoted(recipient).local, "abuse"));
}

const config::Domain* domain_of(const config::Config& config, const Mailbox& recipient) {
  if (!recipient.domain.empty()) return config.find_domain(recipient.domain);
  return is_postmaster(recipient) && !config.domains.empty() ? &config.domains.front() : nullptr;
}

std::optional<Reply> relay_control(const config::Config& config, const Mailbox& recipient) {
  const bool routed = recipient.local.find_first_of("@%!") != std::string::npos;
  if (!routed && domain_of(config, recipient) != nullptr) return {};
  return Reply{554, "5.7.1", "<" + printable(recipient.to_string(), 320) + ">: Relay access denied"};
}

Findings invalid_helo(const Facts& facts) {
  const std::string& helo = facts.helo;
  if (helo.empty()) return {};
  const auto refuse = [&](std::string_view why) { return Finding{rejected(501, "5.5.2", helo, "Helo command", why)}; };
  if (helo.front() == '[') return is_valid_literal(helo) ? Findings{} : refuse("invalid ip address");
  // Bare addresses are against RFC 5321 4.1.3 and common; refusing them would lose mail.
  return is_name(helo) || IpAddress::parse(helo) ? Findings{} : refuse("Invalid name");
}

Findings unauth_pipelining(const Facts& facts, const Mailbox& recipient) {
  if (!facts.improper_pipelining) return {};
  return Finding{rejected(503, "5.5.0", recipient.to_string(), "Recipient address", pipelining)};
}

Findings unauth_pipelining_at_data(const Facts& facts) {
  if (!facts.improper_pipelining) return {};
  return Finding{rejected(503, "5.5.0", "DATA", "Data command", pipelining)};
}

Findings non_fqdn_sender(const Facts& facts) {
  return facts.sender.empty() ? Findings{} : need_fqdn(facts.sender, "Sender address");
}

Findings non_fqdn_recipient(const Mailbox& recipient) {
  const bool bare_postmaster = recipient.domain.empty() && is_postmaster(recipient);
  return bare_postmaster ? Findings{} : need_fqdn(recipient, "Recipient address");
}

Findings early_talker(const Facts& facts) {
  return facts.early_talker ? Findings{Finding{Reply{550, "5.5.1", "Protocol error"}}} : Findings{};
}

bool needs_lookup(const config::Config& config, const Mailbox& sender) {
  return !sender.domain.empty() && !is_literal(sender.domain) && config.find_domain(sender.domain) == nullptr;
}

namespace {

std::string cached(const dns::Answer& answer) {
  return answer.age.count() > 0 ? fmt::format(" (cached {} s ago)", answer.age.count()) : "";
}

}  // namespace

Task<MailDomain> look_up_mail_domain(dns::Resolver& resolver, std::string domain, SteadyTime deadline) {
  using State = MailDomain::State;
  const dns::Answer mx = co_await resolver.lookup(domain, dns::Type::mx, deadline);
  if (mx.outcome == dns::Outcome::found) {
    if (mx.mx.size() == 1 && mx.mx.front().host.empty()) co_return MailDomain{State::null_mx, "null MX"};
    for (const dns::Mx& host : mx.mx) {
      if (is_hostname(host.host)) co_return MailDomain{State::exists, "MX " + host.host + cached(mx)};
    }
    co_return MailDomain{State::malformed, "no MX record with a valid name"};
  }
  // No MX, or nobody knows: an address record makes it an implicit MX (RFC 5321 5.1).
  const dns::Answer host = co_await dns::lookup_addresses(resolver, domain, deadline);
  if (host.outcome == dns::Outcome::found) {
    co_return MailDomain{State::exists, "no MX, address " + host.addresses.front().to_string() + cached(host)};
  }
  for (const dns::Answer* answer : {&mx, &host}) {
    if (answer->outcome == dns::Outcome::failed) co_return MailDomain{State::failed, printable(answer->error, 100)};
  }
  co_return MailDomain{State::missing, "no MX, no address" + cached(mx)};
}

Findings unknown_sender_domain(const Facts& facts, const MailDomain& domain) {
  using State = MailDomain::State;
  const auto refuse = [&](int code, const char* enhanced, const std::string& why) {
    return Finding{rejected(code, enhanced, facts.sender.to_string(), "Sender address", why)};
  };
  switch (domain.state) {
    case State::exists:
      return {};
    case State::null_mx:
      return refuse(550, "5.7.27", "Domain " + facts.sender.domain + " does not accept mail (nullMX)");
    case State::malformed:
      return refuse(450, "4.1.8", "Malformed DNS server reply");
    case State::missing:
      return refuse(450, "4.1.8", "Domain not found");
    case State::failed: {
      Finding trouble = refuse(450, "4.1.8", "Domain not found");
      trouble.if_permit = true;
      return trouble;
    }
  }
  return {};
}

Reply unknown_recipient(const Mailbox& recipient) {
  return rejected(550, "5.1.1", recipient.to_string(), "Recipient address", "User unknown in relay recipient table");
}

Reply unverified_recipient(const Mailbox& recipient, std::string_view why) {
  return rejected(450, "4.1.1", recipient.to_string(), "Recipient address",
                  "unverified address: " + printable(why, 200));
}

Reply greylisted(const Mailbox& recipient, std::string_view text) {
  return rejected(450, "4.2.0", recipient.to_string(), "Recipient address", text);
}

}  // namespace greymx::access

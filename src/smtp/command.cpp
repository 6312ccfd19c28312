#include "smtp/command.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "base/text.hpp"
#include "smtp/reply.hpp"

namespace greymx::smtp {

namespace {

constexpr std::size_t max_path = 256;
constexpr std::size_t max_envid = 100;
constexpr std::size_t max_orcpt = 500;
constexpr std::size_t max_size_digits = 20;

constexpr std::array<std::string_view, verb_count> verb_names = {
    "HELO", "EHLO", "XCLIENT", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA",   "BDAT",
    "RSET", "NOOP", "VRFY",    "EXPN",     "HELP", "ETRN", "QUIT", "UNKNOWN"};

// The next word of `text`, which then begins behind it; empty at the end.
std::string_view next_word(std::string_view& text) {
  text = trim(text);
  const std::string_view word = text.substr(0, text.find_first_of(" \t"));
  text.remove_prefix(word.size());
  return word;
}

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

bool is_utf8(std::string_view text) {  // without control characters
  return printable(text, std::string_view::npos) == text;
}

bool is_graphic(char c) {
  return c > 0x20 && c < 0x7f;
}

// --- paths -----------------------------------------------------------------------------------------------------------

bool is_non_ascii(char c) {
  return static_cast<unsigned char>(c) >= 0x80;
}

bool is_atom(char c) {  // RFC 5321 atext, dots, RFC 6531 UTF8-non-ascii
  return (is_graphic(c) && std::string_view("()<>[]:;,\\\"@").find(c) == std::string_view::npos) || is_non_ascii(c);
}

// A domain or address literal at the front of `text`, which then begins behind it; empty: none.
std::string_view take_domain(std::string_view& text) {
  std::size_t size = 0;
  if (text.starts_with('[')) {
    size = text.find(']') + 1;  // 0 without one
    std::string_view address = text.substr(1, size > 2 ? size - 2 : 0);
    const bool v6 = equals_ignoring_case(address.substr(0, 5), "IPv6:");
    if (v6) address.remove_prefix(5);
    if (!IpAddress::parse(address) || v6 != (address.find(':') != std::string_view::npos)) return {};
  } else {
    while (size < text.size() && is_atom(text[size])) ++size;
    const std::string_view name = text.substr(0, size);
    if (is_ascii(name) ? !is_hostname(name) : !canonical_domain(name)) return {};
  }
  const std::string_view domain = text.substr(0, size);
  text.remove_prefix(size);
  return domain;
}

std::string_view take_local_part(std::string_view& text) {
  std::size_t size = 0;
  if (text.starts_with('"')) {
    for (size = 1; size < text.size() && text[size] != '"'; ++size) {
      if (text[size] == '\\') ++size;
      if (size >= text.size() || !(is_graphic(text[size]) || text[size] == ' ' || is_non_ascii(text[size]))) return {};
    }
    if (++size > text.size()) return {};
  } else {
    while (size < text.size() && is_atom(text[size])) ++size;
  }
  const std::string_view local = text.substr(0, size);
  text.remove_prefix(size);
  return local;
}

// "@a,@b:" at the front. False: it begins like a route and is none.
bool skip_source_route(std::string_view& text) {
  while (text.starts_with('@')) {
    text.remove_prefix(1);
    if (take_domain(text).empty() || text.empty()) return false;
    const char after = text.front();
    text.remove_prefix(1);
    if (after == ':') return true;
    if (after != ',') return false;
  }
  return false;
}

// --- parameters ------------------------------------------------------------------------------------------------------

struct Parameter {
  std::string_view text;
  std::string_view key;
  std::optional<std::string_view> value;

  bool is(std::string_view name) const { return equals_ignoring_case(key, name); }
  // With a value that is not empty, at most `limit` bytes.
  bool has_value(std::size_t limit) const { return value && !value->empty() && value->size() <= limit; }
};

Parameter split_parameter(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos) return {text, text, std::nullopt};
  return {text, text.substr(0, equals), text.substr(equals + 1)};
}

Reply bad_parameter(std::string_view name) {
  return make_reply(replies::bad_parameter, {}, name);
}

// Each of these gives the refusal, or nothing if it took the parameter.
using Refusal = std::optional<Reply>;

Refusal take_size(const Parameter& parameter, MailCommand& command) {
  const bool valid = parameter.has_value(max_size_digits) && std::ranges::all_of(*parameter.value, is_digit);
  if (!valid) return make_reply(replies::bad_size);
  constexpr auto largest = std::numeric_limits<std::uint64_t>::max();  // twenty digits may say more: too large anyway
  command.size = parse_number<std::uint64_t>(*parameter.value).value_or(largest);
  return std::nullopt;
}

Refusal take_body(const Parameter& parameter, MailCommand& command) {
  const std::string_view value = parameter.value.value_or("");
  if (equals_ignoring_case(value, "8BITMIME")) {
    command.body = BodyType::eight_bit_mime;
  } else if (!equals_ignoring_case(value, "7BIT")) {
    return make_reply(replies::unsupported_option, {}, parameter.text);
  }
  return std::nullopt;
}

Refusal take_ret(const Parameter& parameter, MailCommand& command) {
  const std::string_view value = parameter.value.value_or("");
  if (equals_ignoring_case(value, "FULL")) {
    command.ret = DsnReturn::full;
  } else if (equals_ignoring_case(value, "HDRS")) {
    command.ret = DsnReturn::headers;
  } else {
    return bad_parameter("RET");
  }
  return std::nullopt;
}

Refusal take_envid(const Parameter& parameter, MailCommand& command) {
  if (!parameter.has_value(max_envid)) return bad_parameter("ENVID");
  const auto decoded = decode_xtext(*parameter.value);
  if (!decoded || !is_ascii(*decoded) || !is_utf8(*decoded)) return bad_parameter("ENVID");
  command.envid = *parameter.value;
  return std::nullopt;
}

Refusal take_smtputf8(const Parameter& parameter, MailCommand& command) {
  if (parameter.value) return bad_parameter("SMTPUTF8");
  command.smtputf8 = true;
  return std::nullopt;
}

Refusal take_notify(const Parameter& parameter, RcptCommand& command) {
  DsnNotify notify;
  std::string_view list = parameter.value.value_or("");
  for (bool more = true; more;) {
    const std::string_view word = list.substr(0, list.find(','));
    more = word.size() < list.size();
    list.remove_prefix(more ? word.size() + 1 : word.size());
    bool* const flag = equals_ignoring_case(word, "NEVER")     ? &notify.never
                       : equals_ignoring_case(word, "SUCCESS") ? &notify.success
                       : equals_ignoring_case(word, "FAILURE") ? &notify.failure
                       : equals_ignoring_case(word, "DELAY")   ? &notify.delay
                                                               : nullptr;
    if (flag == nullptr) return bad_parameter("NOTIFY");
    *flag = true;
  }
  if (notify.never && (notify.success || notify.failure || notify.delay)) return bad_parameter("NOTIFY");
  command.notify = notify;
  return std::nullopt;
}

// "addr-type;xtext"; with SMTPUTF8 also RFC 6533's "utf-8;" with the address as it is or in \x{…} form.
Refusal take_orcpt(const Parameter& parameter, RcptCommand& command, bool smtputf8) {
  const Reply bad = bad_parameter("ORCPT");
  if (!parameter.has_value(max_orcpt)) return bad;
  const std::string_view value = *parameter.value;
  const std::size_t semicolon = value.find(';');
  if (semicolon == std::string_view::npos || semicolon == 0 || semicolon + 1 == value.size()) return bad;
  const std::string_view type = value.substr(0, semicolon);
  if (!std::all_of(type.begin(), type.end(), [](char c) { return is_graphic(c) && is_atom(c); })) return bad;
  const bool unicode = smtputf8 && equals_ignoring_case(type, "utf-8") && is_utf8(value);
  if (!unicode && !decode_xtext(value.substr(semicolon + 1))) return bad;
  command.original_recipient = value;
  return std::nullopt;
}

// Runs `take` over all parameters; each may come once.
template <class Take>
Refusal take_parameters(std::string_view text, Take take) {
  std::vector<std::string_view> seen;
  for (std::string_view word = next_word(text); !word.empty(); word = next_word(text)) {
    const Parameter parameter = split_parameter(word);
    for (const std::string_view key : seen) {
      if (parameter.is(key)) return bad_parameter(key);
    }
    seen.push_back(parameter.key);
    if (Refusal refusal = take(parameter)) return refusal;
  }
  return std::nullopt;
}

// Skips "FROM:" or "TO:" and spaces; false if it is not there, or what follows is not in angle brackets.
bool skip_keyword(std::string_view& text, std::string_view keyword) {
  if (!equals_ignoring_case(text.substr(0, keyword.size()), keyword)) return false;
  text = trim(text.substr(keyword.size()));
  return text.starts_with('<');
}

bool is_unicode(const Mailbox& mailbox) {
  return !is_ascii(mailbox.local) || !is_ascii(mailbox.domain);
}

}  // namespace

std::string_view to_string(Verb verb) {
  return verb_names[static_cast<std::size_t>(verb)];
}

Command parse_command(std::string_view line) {
  const std::string_view word = next_word(line);
  const auto found = std::find_if(verb_names.begin(), verb_names.end() - 1,
                                  [&](std::string_view name) { return equals_ignoring_case(name, word); });
  return {static_cast<Verb>(found - verb_names.begin()), trim(line)};
}

bool is_foreign_protocol(std::string_view line) {
  const std::string_view word = next_word(line);
  constexpr std::array<std::string_view, 7> methods = {"GET", "POST", "CONNECT", "PUT", "HEAD", "OPTIONS", "DELETE"};
  if (std::find(methods.begin(), methods.end(), word) != methods.end()) return true;
  return word.size() > 1 && word.ends_with(':') && std::all_of(word.begin(), word.end(), is_graphic);
}

std::optional<Path> parse_path(std::string_view& text) {
  const std::string_view whole = text;
  if (!text.starts_with('<')) return std::nullopt;
  text.remove_prefix(1);
  Path path;
  if (text.starts_with('@')) {
    if (!skip_source_route(text)) return std::nullopt;
    path.source_route = true;
  }
  if (path.source_route || !text.starts_with('>')) {
    const std::string_view local = take_local_part(text);
    if (local.empty()) return std::nullopt;
    path.mailbox.local = local;
  }
  if (!path.mailbox.local.empty() && text.starts_with('@')) {
    text.remove_prefix(1);
    std::string_view domain = take_domain(text);
    if (domain.empty()) return std::nullopt;
    if (domain.ends_with('.')) domain.remove_suffix(1);
    path.mailbox.domain = domain;
  }
  if (!text.starts_with('>')) return std::nullopt;
  text.remove_prefix(1);
  if (!text.empty() && text.front() != ' ' && text.front() != '\t') return std::nullopt;
  if (whole.size() - text.size() > max_path || !is_utf8(path.mailbox.local)) return std::nullopt;
  return path;
}

std::expected<MailCommand, Reply> parse_mail(std::string_view arguments) {
  if (!skip_keyword(arguments, "FROM:")) return std::unexpected(make_reply(replies::mail_syntax));
  auto path = parse_path(arguments);
  if (!path) return std::unexpected(make_reply(replies::bad_sender));
  MailCommand command;
  command.path = std::move(*path);
  const auto take = [&](const Parameter& parameter) -> Refusal {
    if (parameter.is("SIZE")) return take_size(parameter, command);
    if (parameter.is("BODY")) return take_body(parameter, command);
    if (parameter.is("SMTPUTF8")) return take_smtputf8(parameter, command);
    if (parameter.is("RET")) return take_ret(parameter, command);
    if (parameter.is("ENVID")) return take_envid(parameter, command);
    return make_reply(replies::unsupported_option, {}, parameter.text);
  };
  if (Refusal refusal = take_parameters(arguments, take)) return std::unexpected(std::move(*refusal));
  if (!command.smtputf8 && is_unicode(command.path.mailbox)) {
    return std::unexpected(make_reply(replies::needs_smtputf8));
  }
  return command;
}

std::expected<RcptCommand, Reply> parse_rcpt(std::string_view arguments, bool smtputf8) {
  if (!skip_keyword(arguments, "TO:")) return std::unexpected(make_reply(replies::rcpt_syntax));
  auto path = parse_path(arguments);
  if (!path || path->mailbox.empty()) return std::unexpected(make_reply(replies::bad_recipient));
  RcptCommand command;
  command.path = std::move(*path);
  const auto take = [&](const Parameter& parameter) -> Refusal {
    if (parameter.is("NOTIFY")) return take_notify(parameter, command);
    if (parameter.is("ORCPT")) return take_orcpt(parameter, command, smtputf8);
    return make_reply(replies::unsupported_option, {}, parameter.text);
  };
  if (Refusal refusal = take_parameters(arguments, take)) return std::unexpected(std::move(*refusal));
  if (!smtputf8 && is_unicode(command.path.mailbox)) return std::unexpected(make_reply(replies::needs_smtputf8));
  return command;
}

std::optional<BdatCommand> parse_bdat(std::string_view arguments) {
  const auto size = parse_number<std::uint64_t>(next_word(arguments));
  const std::string_view last = next_word(arguments);
  if (!size || !trim(arguments).empty() || !(last.empty() || equals_ignoring_case(last, "LAST"))) return std::nullopt;
  return BdatCommand{*size, !last.empty()};
}

bool is_etrn_node(std::string_view argument) {
  const bool queue = argument.starts_with('#');
  if (queue || argument.starts_with('@')) argument.remove_prefix(1);
  if (queue) return !argument.empty() && std::all_of(argument.begin(), argument.end(), is_graphic);
  return is_hostname(argument);
}

std::expected<XclientCommand, Reply> parse_xclient(std::string_view arguments) {
  XclientCommand command;
  std::string_view word = next_word(arguments);
  if (word.empty()) return std::unexpected(make_reply(replies::xclient_syntax));
  for (; !word.empty(); word = next_word(arguments)) {
    const Parameter parameter = split_parameter(word);
    auto value = decode_xtext(parameter.value.value_or(""));
    if (!value || value->empty() || !is_utf8(*value)) {
      return std::unexpected(make_reply(replies::xclient_bad_value, {}, word));
    }
    if (equals_ignoring_case(*value, "[UNAVAILABLE]") || equals_ignoring_case(*value, "[TEMPUNAVAIL]")) value->clear();
    bool valid = true;
    if (parameter.is("NAME")) {
      valid = value->empty() || is_hostname(*value);
      command.name = to_lower(*value);
    } else if (parameter.is("ADDR")) {
      const bool v6 = equals_ignoring_case(std::string_view(*value).substr(0, 5), "IPV6:");
      command.address = IpAddress::parse(std::string_view(*value).substr(v6 ? 5 : 0));
      valid = command.address.has_value();
    } else if (parameter.is("PORT")) {
      command.port = value->empty() ? std::uint16_t{0} : parse_number<std::uint16_t>(*value);
      valid = command.port.has_value();
    } else if (parameter.is("HELO")) {
      command.helo = std::move(*value);
    } else if (parameter.is("PROTO")) {
      valid = *value == "SMTP" || *value == "ESMTP";
      command.protocol = std::move(*value);
    } else if (!(parameter.is("LOGIN") || parameter.is("REVERSE_NAME") || parameter.is("DESTADDR") ||
                 parameter.is("DESTPORT"))) {  // what proxies send and we have no use for
      return std::unexpected(make_reply(replies::xclient_bad_name, {}, parameter.key));
    }
    if (!valid) return std::unexpected(make_reply(replies::xclient_bad_value, {}, word));
  }
  return command;
}

std::string xtext(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 33 || byte > 126 || c == '+' || c == '=') {
      result += fmt::format("+{:02X}", byte);
    } else {
      result += c;
    }
  }
  return result;
}

std::optional<std::string> decode_xtext(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+') {
      unsigned value = 0;
      const std::string_view digits = text.substr(i + 1, 2);
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
      if (error != std::errc() || digits.size() != 2 || end != digits.data() + 2) return std::nullopt;
      result += static_cast<char>(value);
      i += 2;
    } else if (is_graphic(text[i]) && text[i] != '=') {
      result += text[i];
    } else {
      return std::nullopt;
    }
  }
  return result;
}

}  // namespace greymx::smtp

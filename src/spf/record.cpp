#include "spf/record.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "base/mailbox.hpp"
#include "base/text.hpp"
#include "spf/macro.hpp"

namespace greymx::spf {
namespace {

constexpr std::string_view version = "v=spf1";

enum class Argument : std::uint8_t { none, domain, domain_optional, domain_prefixes, network };

struct Syntax {
  std::string_view name;
  Kind kind;
  Argument argument;
};
constexpr std::array<Syntax, 8> syntaxes{{{"all", Kind::all, Argument::none},
                                          {"include", Kind::include, Argument::domain},
                                          {"a", Kind::a, Argument::domain_prefixes},
                                          {"mx", Kind::mx, Argument::domain_prefixes},
                                          {"ptr", Kind::ptr, Argument::domain_optional},
                                          {"ip4", Kind::ip4, Argument::network},
                                          {"ip6", Kind::ip6, Argument::network},
                                          {"exists", Kind::exists, Argument::domain}}};

// Cuts "/24", "//64" or "/24//64" off the end of `text`, where domain-specs may contain slashes too. False: a prefix
// length that is none.
bool take_prefixes(std::string_view& text, Mechanism& mechanism) {
  const auto take = [&text](std::string_view separator, unsigned most, unsigned& into) {
    const std::size_t slash = text.rfind('/');
    if (slash == std::string_view::npos || slash + 1 == text.size()) return true;
    const std::string_view digits = text.substr(slash + 1);
    const std::size_t begin = slash + 1 - separator.size();
    if (!std::ranges::all_of(digits, is_digit) || slash + 1 < separator.size() ||
        text.substr(begin, separator.size()) != separator) {
      return true;
    }
    const auto prefix = plain_number(digits, most);
    if (prefix) into = *prefix;
    text = text.substr(0, begin);
    return prefix.has_value();
  };
  return take("//", 128, mechanism.prefix6) && take("/", 32, mechanism.prefix4);
}

bool parse_network(std::string_view text, Mechanism& mechanism) {
  const bool v6 = mechanism.kind == Kind::ip6;
  const std::size_t slash = text.find('/');
  const auto address = IpAddress::parse(text.substr(0, slash));
  if (!address || v6 != (text.find(':') != std::string_view::npos)) return false;
  mechanism.address = *address;
  if (slash == std::string_view::npos) return true;
  const auto prefix = plain_number(text.substr(slash + 1), v6 ? 128 : 32);
  if (prefix) (v6 ? mechanism.prefix6 : mechanism.prefix4) = *prefix;
  return prefix.has_value();
}

// `rest` is what follows the mechanism's name: "", ":…" or "/…".
bool parse_argument(Argument argument, std::string_view rest, Mechanism& mechanism) {
  if (argument == Argument::none) return rest.empty();
  if (argument == Argument::network) return rest.starts_with(':') && parse_network(rest.substr(1), mechanism);
  if (argument == Argument::domain_prefixes && !take_prefixes(rest, mechanism)) return false;
  if (rest.empty()) return argument != Argument::domain;
  if (rest[0] != ':' || !is_domain_spec(rest.substr(1))) return false;
  mechanism.domain = rest.substr(1);
  return true;
}

bool parse_mechanism(std::string_view term, Record& record) {
  constexpr std::string_view qualifiers = "+-~?";
  constexpr std::array results{Result::pass, Result::fail, Result::softfail, Result::neutral};
  Mechanism mechanism;
  if (const std::size_t at = qualifiers.find(term[0]); at != std::string_view::npos) {
    mechanism.qualifier = results[at];
    term.remove_prefix(1);
  }
  mechanism.text = term;
  const std::string_view name = term.substr(0, term.find_first_of(":/"));
  const auto syntax =
      std::ranges::find_if(syntaxes, [&](const Syntax& one) { return equals_ignoring_case(one.name, name); });
  if (syntax == syntaxes.end()) return false;
  mechanism.kind = syntax->kind;
  if (!parse_argument(syntax->argument, term.substr(name.size()), mechanism)) return false;
  record.mechanisms.push_back(std::move(mechanism));
  return true;
}

// name "=" macro-string; redirect and exp take a domain-spec and may be given once (6).
bool parse_modifier(std::string_view name, std::string_view value, Record& record) {
  const auto allowed = [](char c) { return is_alnum(c) || c == '-' || c == '_' || c == '.'; };
  if (name.empty() || !is_alpha(name[0]) || !std::ranges::all_of(name, allowed)) return false;
  const bool redirect = equals_ignoring_case(name, "redirect");
  if (!redirect && !equals_ignoring_case(name, "exp")) return is_macro_string(value, true);
  std::string& slot = redirect ? record.redirect : record.explanation;
  if (!slot.empty() || !is_domain_spec(value)) return false;
  slot = value;
  return true;
}

}  // namespace

bool is_spf_record(std::string_view text) {
  return equals_ignoring_case(text.substr(0, version.size()), version) &&
         (text.size() == version.size() || text[version.size()] == ' ');
}

std::expected<Record, std::string> parse_record(std::string_view text) {
  Record record;
  text.remove_prefix(version.size());
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    if (text.empty()) return record;
    const std::string_view term = text.substr(0, text.find(' '));
    text.remove_prefix(term.size());
    const auto visible = [](char c) { return c > ' ' && c < 0x7f; };
    const std::size_t mark = term.find_first_of("=:/");
    const bool modifier = mark != std::string_view::npos && term[mark] == '=';
    const bool good = std::ranges::all_of(term, visible) &&
                      (modifier ? parse_modifier(term.substr(0, mark), term.substr(mark + 1), record)
                                : parse_mechanism(term, record));
    if (!good) return std::unexpected("syntax error in \"" + printable(term, 100) + '"');
  }
}

}  // namespace greymx::spf

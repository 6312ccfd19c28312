#include "base/mailbox.hpp"

#include <idn2.h>
#include <libpsl.h>

#include <algorithm>

#include "base/ip.hpp"
#include "base/text.hpp"

namespace greymx {

namespace {

bool is_in_label(char c) {
  return is_alnum(c) || c == '-' || c == '_';
}

// Length of the well-formed UTF-8 sequence at the start of `text` (RFC 3629: no overlong forms, no surrogates, nothing
// above U+10FFFF), or 0. C1 controls count as malformed: terminals act on them.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  const std::size_t length = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  const bool bad = (first == 0xc2 && second < 0xa0) || (first == 0xe0 && second < 0xa0) ||
                   (first == 0xed && second > 0x9f) || (first == 0xf0 && second < 0x90) ||
                   (first == 0xf4 && second > 0x8f);
  return bad ? 0 : length;
}

}  // namespace

Mailbox Mailbox::split(std::string_view address) {
  const std::size_t at = address.rfind('@');
  if (at == std::string_view::npos) return {std::string(address), {}};
  return {std::string(address.substr(0, at)), std::string(address.substr(at + 1))};
}

std::string Mailbox::to_string() const {
  return domain.empty() ? local : concat({local, "@", domain});
}

std::string Mailbox::key() const {
  if (domain.empty()) return to_lower(local);
  return to_lower(local) + "@" + domain_key(domain);
}

std::string_view without_brackets(std::string_view path) {
  const bool both = path.size() >= 2 && path.starts_with('<') && path.ends_with('>');
  return both ? path.substr(1, path.size() - 2) : path;
}

std::string concat(std::initializer_list<std::string_view> parts) {
  std::size_t size = 0;
  for (const std::string_view part : parts) size += part.size();
  std::string text;
  text.reserve(size);
  for (const std::string_view part : parts) text += part;
  return text;
}

std::string to_lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), lower);
  return result;
}

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) { return lower(x) == lower(y); });
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::optional<std::string> canonical_domain(std::string_view domain) {
  std::string name(domain);
  if (!is_ascii(name)) {
    // A longer U-label form cannot become a name of 255 bytes; the bound keeps Unicode work small.
    if (name.size() > 1024 || name.find('\0') != std::string::npos) return std::nullopt;
    char* ascii = nullptr;
    if (idn2_to_ascii_8z(name.c_str(), &ascii, IDN2_NONTRANSITIONAL) != IDN2_OK) return std::nullopt;
    name = ascii;
    idn2_free(ascii);
  }
  if (!is_hostname(name)) return std::nullopt;
  if (name.ends_with('.')) name.pop_back();
  std::ranges::transform(name, name.begin(), lower);
  return name;
}

std::string domain_key(std::string_view domain) {
  return canonical_domain(domain).value_or(to_lower(domain));
}

bool is_hostname(std::string_view name, std::size_t labels) {
  if (name.ends_with('.')) name.remove_suffix(1);
  if (name.empty() || name.size() > 255) return false;
  std::size_t count = 1;
  std::size_t length = 0;  // of the label
  char last = '-';         // also before a label: nothing that ends one may follow
  for (const char c : name) {
    if (c == '.' ? last == '-' : !is_in_label(c) || (length == 0 && c == '-') || length == 63) return false;
    count += c == '.' ? 1 : 0;
    length = c == '.' ? 0 : length + 1;
    last = length == 0 ? '-' : c;
  }
  return last != '-' && count >= labels;
}

bool is_in_domain(std::string_view name, std::string_view domain) {
  if (!name.ends_with(domain) || domain.empty()) return false;
  return name.size() == domain.size() || name[name.size() - domain.size() - 1] == '.';
}

std::string organisational_domain(std::string_view name) {
  const auto canonical = canonical_domain(name);
  if (!canonical || IpAddress::parse(*canonical)) return {};
  const char* registrable = psl_registrable_domain(psl_builtin(), canonical->c_str());
  return registrable == nullptr ? std::string() : registrable;
}

std::string printable(std::string_view text, std::size_t limit) {
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
  if (plain) return std::string(text.substr(0, limit));  // what nearly all is
  std::string result;
  for (std::size_t i = 0; i < text.size();) {
    const unsigned char first = static_cast<unsigned char>(text[i]);
    const std::size_t length = first < 0x80 ? 1 : utf8_length(text.substr(i));
    const bool shown = first < 0x80 ? first >= 0x20 && first != 0x7f : length > 0;
    const std::string_view character = shown ? text.substr(i, length) : "?";
    if (result.size() + character.size() > limit) break;
    result += character;
    i += std::max<std::size_t>(length, 1);
  }
  return result;
}

}  // namespace greymx

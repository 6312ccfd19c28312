// Mail addresses and domain names as RFC 5321 writes them. Pure.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

namespace greymx {

// A reverse-path or forward-path without its angle brackets. The null reverse-path is an empty Mailbox; bare
// "Postmaster" has an empty domain. The local part keeps its case and its quotes.
struct Mailbox {
  std::string local;
  std::string domain;  // as given: U-labels, A-labels or "[literal]"

  // Splits at the last '@'; does no syntax check.
  static Mailbox split(std::string_view address);
  bool empty() const { return local.empty() && domain.empty(); }
  std::string to_string() const;  // "local@domain", "local", or ""
  std::string key() const;        // lower-case (ASCII; domain as A-labels): what tables and caches are keyed by
  bool operator==(const Mailbox&) const = default;
};

std::string_view without_brackets(std::string_view path);           // "<a@b>", as logs show it: a@b
std::string concat(std::initializer_list<std::string_view> parts);  // with one allocation
std::string to_lower(std::string_view text);                        // ASCII only; bytes >= 0x80 untouched
bool equals_ignoring_case(std::string_view a, std::string_view b);
bool is_ascii(std::string_view text);

// Lower-case A-label form without a final dot (libidn2); nullopt if it is no domain name (length, labels).
std::optional<std::string> canonical_domain(std::string_view domain);
std::string domain_key(std::string_view domain);  // to compare by: that, or lower-case if it is none
// Letters, digits, '-' and '_' in labels of 1..63, 255 in all; one final dot allowed; at least `labels` labels.
bool is_hostname(std::string_view name, std::size_t labels = 1);
// name equals `domain` or ends in "." + domain. Both lower-case.
bool is_in_domain(std::string_view name, std::string_view domain);
// Organisational domain by the public suffix list (libpsl): "example.co.uk" for "a.b.example.co.uk"; empty if `name`
// is itself a public suffix or no name. Private registrations ("github.io") count as suffixes.
std::string organisational_domain(std::string_view name);

// Bytes from strangers made safe for logs, replies and headers: control bytes, and bytes >= 0x80 that are not UTF-8,
// become '?'; cut at `limit` bytes on a character border.
std::string printable(std::string_view text, std::size_t limit = 500);

}  // namespace greymx

// One access file in the text syntax of Postfix's access(5), regexp_table(5) and cidr_table(5), read as it is.
//
// A line is `pattern action [text]`; '#' begins a comment line, leading white space continues the line before. One
// file may mix all kinds of patterns, which Postfix keeps in maps of different types. Look-up order, first match wins:
//   1. exact keys: mail addresses user@domain, then the domain, its parents (with or without a leading dot), user@;
//      client names, then their parents, then the address (also in brackets), then its networks by octets (192.0.2,
//      2001:db8);
//   2. networks (192.0.2.0/24, !10.0.0.0/8) in file order;
//   3. regular expressions (/re/flags, !/re/) in file order: the client's name before its address.
// "<>" is the null sender. Of two equal keys the first counts. DUNNO ends the search in this file.
//
// Thread: parse() blocks on nothing but may take seconds; the result is immutable, any thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/mail.hpp"
#include "config/load.hpp"

namespace re2 {
class RE2;
}

namespace greymx::access {

enum class Action : std::uint8_t { ok, dunno, reply, defer_if_permit, warn, info, hold, discard, prepend };

struct Rule {
  Action action = Action::dunno;
  int code = 0;          // reply, defer_if_permit
  std::string enhanced;  // likewise
  std::string text;      // of the reply or log line; prepend: the header
  std::size_t line = 0;
};

class AccessFile {
 public:
  // Every mistake is a diagnostic with file:line and what would be right; `errors` stays as it was if there is none.
  static std::shared_ptr<const AccessFile> parse(std::string_view text, const std::string& path,
                                                 std::vector<config::Diagnostic>& errors);
  ~AccessFile();

  std::optional<Rule> find_client(const std::string& name, const IpAddress& address) const;
  std::optional<Rule> find_name(const std::string& name) const;  // HELO
  std::optional<Rule> find_mailbox(const Mailbox& mailbox) const;

 private:
  struct Line;
  struct Pattern {
    std::unique_ptr<re2::RE2> regexp;
    bool negated = false;
    std::string rewrite;  // the text with \1 for $1; empty if it has none
    Rule rule;
  };

  AccessFile();
  std::optional<std::string> add(const Line& line);  // what is wrong
  std::optional<std::string> add_pattern(const Line& line, Rule rule);
  std::optional<std::string> add_network(std::string_view pattern, bool negated, Rule rule);
  const Rule* find_key(const std::string& key) const;
  const Rule* find_domain(std::string_view domain) const;
  const Rule* find_network(const IpAddress& address) const;
  std::optional<Rule> find_pattern(const std::string& subject) const;

  std::unordered_map<std::string, Rule> keys_;
  // A network that is not negated is found by its own bits, so that a long file costs an attacker's client no time.
  std::map<Network, Rule> networks_;
  std::vector<unsigned> prefixes_[2];  // IPv6, IPv4: the lengths that occur
  std::vector<std::pair<Network, Rule>> not_networks_;
  std::vector<Pattern> patterns_;
};

// The action at the end of a line; an error text if it is none. `text` of a reply may begin with an enhanced code.
std::optional<std::string> parse_action(std::string_view words, Rule& rule);

}  // namespace greymx::access

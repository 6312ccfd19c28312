#include "access/access_file.hpp"

#include <fmt/format.h>
#include <re2/re2.h>

#include <algorithm>

#include "access/checks.hpp"
#include "base/text.hpp"

namespace greymx::access {

namespace {

constexpr std::string_view blank = " \t\r\f\v";
constexpr std::string_view null_sender = "<>";

// The end of "/re/flags": the second slash that no backslash precedes, and what follows it up to white space.
std::size_t end_of_regexp(std::string_view line) {
  for (std::size_t i = 1; i < line.size(); ++i) {
    if (line[i] == '\\')
      ++i;
    else if (line[i] == '/')
      return std::min(line.find_first_of(blank, i), line.size());
  }
  return std::string_view::npos;
}

// "$1", "${1}", "$(1)" become "\1", "$$" becomes "$", as RE2::Rewrite wants it; nullopt for anything else after '$'.
std::optional<std::string> rewrite_of(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\') result += '\\';
    if (text[i] != '$') {
      result += text[i];
      continue;
    }
    std::string_view rest = text.substr(i + 1);
    const std::size_t bracket = rest.starts_with('{') || rest.starts_with('(') ? 1 : 0;
    const char what = rest.size() > 2 * bracket ? rest[bracket] : ' ';
    if (what >= '0' && what <= '9')
      result += '\\';
    else if (what != '$' || bracket > 0)
      return std::nullopt;
    result += what;
    i += 1 + 2 * bracket;
  }
  return result;
}

std::string bracketed(const IpAddress& address) {
  return "[" + address.to_string() + "]";
}

// Patterns and what is looked up go through the same functions. Brackets stay: HELO [192.0.2.1] is not HELO 192.0.2.1.
std::string name_key(std::string_view name) {
  if (name.starts_with('[') && name.ends_with(']')) {
    if (const auto address = IpAddress::parse(name.substr(1, name.size() - 2))) return bracketed(*address);
  }
  return domain_key(name);
}

std::string user_key(std::string_view local) {
  return to_lower(local) + "@";
}

// ASCII that is no domain may still be octets, "<>" or a HELO name; what is not ASCII can only be a domain.
bool may_be_name(std::string_view text) {
  return is_ascii(text) || canonical_domain(text);
}

std::optional<std::string> normal_key(std::string_view pattern) {  // nullopt: it names a domain that cannot be
  if (const auto address = IpAddress::parse(pattern)) return address->to_string();
  if (pattern.find('@') != std::string_view::npos) {
    const Mailbox mailbox = unquoted(Mailbox::split(pattern));
    if (!may_be_name(mailbox.domain)) return std::nullopt;
    return mailbox.domain.empty() ? user_key(mailbox.local) : mailbox.key();
  }
  const std::size_t dot = pattern.starts_with('.') ? 1 : 0;  // ".example.com": the subdomains only
  const std::string_view name = pattern.substr(dot);
  if (!may_be_name(name)) return std::nullopt;
  return std::string(dot, '.') + name_key(name);
}

// "|^joe@|": regexp_table(5) takes other delimiters than '/', under which it would be a key that nothing equals.
bool has_other_delimiter(std::string_view pattern) {
  constexpr std::string_view delimiters = "|,;:%=~^+&?*$'";
  const std::size_t last = pattern.rfind(pattern.front());
  return delimiters.find(pattern.front()) != std::string_view::npos && last > 0 &&
         pattern.find_first_not_of("imsxADEGJKLMNOPQRSTUVX", last + 1) == std::string_view::npos;
}

const Rule* earlier(const Rule* a, const Rule* b) {
  return a == nullptr || (b != nullptr && b->line < a->line) ? b : a;
}

}  // namespace

// One logical line: `pattern` as written, without '!' before a regular expression or network.
struct AccessFile::Line {
  std::size_t number = 0;
  bool negated = false;
  std::string_view pattern;
  std::string_view action;

  static std::optional<Line> split(std::string_view text, std::size_t number) {  // nullopt: "/re" without an end
    const bool negated = text.size() > 1 && text.front() == '!';
    if (negated) text.remove_prefix(1);
    const std::size_t end = text.front() == '/' ? end_of_regexp(text) : end_of_word(text);
    if (end == std::string_view::npos) return std::nullopt;
    const std::size_t action = std::min(text.find_first_not_of(blank, end), text.size());
    return Line{number, negated, text.substr(0, end), text.substr(action)};
  }
};

AccessFile::AccessFile() = default;
AccessFile::~AccessFile() = default;

std::shared_ptr<const AccessFile> AccessFile::parse(std::string_view text, const std::string& path,
                                                    std::vector<config::Diagnostic>& errors) {
  std::shared_ptr<AccessFile> file(new AccessFile);
  std::string logical;
  std::size_t first = 0;  // line number of `logical`
  const auto finish = [&] {
    if (logical.empty()) return;
    const auto line = Line::split(logical, first);
    const auto problem = line ? file->add(*line) : "a regular expression needs a closing '/'";
    if (problem) errors.push_back({path, first, 1, *problem});
    logical.clear();
  };
  std::size_t number = 0;
  if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
  while (!text.empty()) {
    ++number;
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t begin = line.find_first_not_of(blank);
    if (begin == std::string_view::npos || line[begin] == '#') continue;
    line = line.substr(0, line.find_last_not_of(blank) + 1);
    if (begin == 0) {
      finish();
      first = number;
      logical = line;
    } else if (logical.empty()) {
      errors.push_back(
          {path, number, 1, "a line that begins with white space continues the one before; there is none"});
    } else {
      logical += " " + std::string(line.substr(begin));
    }
  }
  finish();
  return file;
}

std::optional<std::string> AccessFile::add(const Line& line) {
  if (line.pattern.empty()) return "a pattern is missing after '!'";
  if (line.pattern == "if" || line.pattern == "endif") {
    return "if and endif are not done here: write the condition into each pattern";
  }
  Rule rule;
  rule.line = line.number;
  if (auto problem = parse_action(line.action, rule)) return problem;
  if (line.pattern.front() == '/') return add_pattern(line, std::move(rule));
  if (has_other_delimiter(line.pattern)) {
    return fmt::format("'{}' looks like a regular expression: write it between slashes", printable(line.pattern, 60));
  }
  const bool slash =
      line.pattern.find('/') != std::string_view::npos && line.pattern.find('@') == std::string_view::npos;
  if (slash || line.negated) return add_network(line.pattern, line.negated, std::move(rule));
  auto key = normal_key(line.pattern);
  if (!key) {
    return fmt::format("'{}' is no domain: right is a name in UTF-8, such as bücher.example, or xn--bcher-kva.example",
                       printable(line.pattern, 60));
  }
  keys_.emplace(std::move(*key), std::move(rule));
  return {};
}

std::optional<std::string> AccessFile::add_network(std::string_view pattern, bool negated, Rule rule) {
  std::string text(pattern);
  std::erase_if(text, [](char c) { return c == '[' || c == ']'; });  // cidr_table(5) allows "[2001:db8::]/32"
  const auto network = Network::parse(text);
  if (!network) {
    return fmt::format(
        "'{}' is no network: right is an address and a length without host bits, such as 192.0.2.0/24 "
        "or 2001:db8::/32",
        printable(pattern, 60));
  }
  if (negated) {
    not_networks_.emplace_back(*network, std::move(rule));
    return {};
  }
  networks_.emplace(*network, std::move(rule));
  std::vector<unsigned>& lengths = prefixes_[network->address.is_v4() ? 1 : 0];
  if (std::find(lengths.begin(), lengths.end(), network->prefix) == lengths.end()) lengths.push_back(network->prefix);
  return {};
}

std::optional<std::string> AccessFile::add_pattern(const Line& line, Rule rule) {
  const std::size_t close = line.pattern.rfind('/');
  const std::string_view body = line.pattern.substr(1, close - 1);
  std::string flags = "is";  // as in Postfix: case is ignored and '.' is any character, unless the flag is given
  for (const char flag : line.pattern.substr(close + 1)) {
    if (std::string_view("ismAU").find(flag) == std::string_view::npos) {
      return fmt::format("unknown flag '{}' after the regular expression: right are i, s, m, A, U",
                         printable(std::string_view(&flag, 1)));
    }
    if (std::erase(flags, flag) == 0) flags += flag;
  }
  const bool anchored = std::erase(flags, 'A') > 0;
  const std::string source = (anchored ? "\\A(?" : "(?") + flags + ":" + std::string(body) + ")";
  Pattern pattern{std::make_unique<re2::RE2>(source, re2::RE2::Quiet), line.negated, {}, std::move(rule)};
  if (!pattern.regexp->ok()) {
    return fmt::format("the regular expression is not understood ({}); lookaround and backreferences do not exist here",
                       printable(pattern.regexp->error(), 100));
  }
  if (pattern.rule.text.find('$') != std::string::npos) {
    const auto rewrite = rewrite_of(pattern.rule.text);
    std::string error;
    if (!rewrite || !pattern.regexp->CheckRewriteString(*rewrite, &error)) {
      return "'$' in the text names no group of the regular expression ('$$' is a plain '$')";
    }
    pattern.rewrite = *rewrite;
    if (line.negated) return "an expression after '!' has no groups that $ in the text could name";
  }
  patterns_.push_back(std::move(pattern));
  return {};
}

const Rule* AccessFile::find_key(const std::string& key) const {
  const auto it = keys_.find(key);
  return it == keys_.end() ? nullptr : &it->second;
}

const Rule* AccessFile::find_domain(std::string_view domain) const {
  const std::string name = name_key(domain);
  if (const Rule* rule = find_key(name)) return rule;
  if (IpAddress::parse(name)) return nullptr;
  for (std::size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1)) {
    if (const Rule* rule = find_key(name.substr(dot))) return rule;
    if (const Rule* rule = find_key(name.substr(dot + 1))) return rule;
  }
  return nullptr;
}

const Rule* AccessFile::find_network(const IpAddress& address) const {
  const Rule* first = nullptr;
  for (const unsigned prefix : prefixes_[address.is_v4() ? 1 : 0]) {
    const auto it = networks_.find({address.masked(prefix), prefix});
    if (it != networks_.end()) first = earlier(first, &it->second);
  }
  for (const auto& [network, rule] : not_networks_) {
    const bool same_family = network.address.is_v4() == address.is_v4();  // as Postfix: a line is about its own
    if (same_family && !network.contains(address)) first = earlier(first, &rule);
  }
  return first;
}

std::optional<Rule> AccessFile::find_pattern(const std::string& subject) const {
  for (const Pattern& pattern : patterns_) {
    std::vector<re2::StringPiece> groups(pattern.rewrite.empty() ? 0 : 10);
    const bool hit = pattern.regexp->Match(subject, 0, subject.size(), re2::RE2::UNANCHORED, groups.data(),
                                           static_cast<int>(groups.size()));
    if (hit == pattern.negated) continue;
    Rule rule = pattern.rule;
    if (!pattern.rewrite.empty()) {
      std::string text;
      pattern.regexp->Rewrite(&text, pattern.rewrite, groups.data(), static_cast<int>(groups.size()));
      rule.text = printable(text);
    }
    return rule;
  }
  return {};
}

std::optional<Rule> AccessFile::find_client(const std::string& name, const IpAddress& address) const {
  if (const Rule* rule = find_domain(name)) return *rule;
  const std::string text = address.to_string();
  if (const Rule* rule = earlier(find_key(text), find_key(bracketed(address)))) return *rule;
  const char separator = address.is_v4() ? '.' : ':';
  for (std::size_t end = text.rfind(separator); end != std::string::npos && end > 0;
       end = text.rfind(separator, end - 1)) {
    if (const Rule* rule = find_key(text.substr(0, end))) return *rule;
  }
  if (const Rule* rule = find_network(address)) return *rule;
  if (auto rule = find_pattern(name)) return rule;
  return find_pattern(text);
}

std::optional<Rule> AccessFile::find_name(const std::string& name) const {
  if (const Rule* rule = find_domain(name)) return *rule;
  return find_pattern(name);
}

std::optional<Rule> AccessFile::find_mailbox(const Mailbox& mailbox) const {
  if (mailbox.empty()) {
    if (const Rule* rule = find_key(std::string(null_sender))) return *rule;
    return find_pattern(std::string(null_sender));
  }
  if (const Rule* rule = find_key(mailbox.key())) return *rule;
  if (const Rule* rule = find_domain(mailbox.domain)) return *rule;
  if (const Rule* rule = find_key(user_key(mailbox.local))) return *rule;
  return find_pattern(to_lower(mailbox.to_string()));  // Postfix folds addresses, so that even /x/i finds X
}

}  // namespace greymx::access

#include "greylist/whitelist.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/files.hpp"
#include "base/mailbox.hpp"
#include "base/text.hpp"

namespace greymx::greylist {

namespace {

constexpr std::string_view blanks = " \t\r\f\v";
constexpr std::size_t most_extensions = 8;  // '+' in a local part that are tried as its end

// A line without its comment. In "/a#b/ # why" only the second '#' starts one: a regular expression ends at the first
// '/' that has nothing but blanks or a comment after it.
std::string_view entry_of(std::string_view line) {
  line = trim(line, blanks);
  if (line.starts_with('/')) {
    for (std::size_t end = line.find('/', 1); end != std::string_view::npos; end = line.find('/', end + 1)) {
      const std::string_view rest = trim(line.substr(end + 1), blanks);
      if (rest.empty() || rest.starts_with('#')) return line.substr(0, end + 1);
    }
  }
  return trim(line.substr(0, line.find('#')), blanks);
}

// "192.0" -> "192.0.0.0/16": what is left out of an IPv4 address is any.
std::string completed(std::string_view octets, std::size_t dots) {
  std::string text(octets);
  for (std::size_t i = dots; i < 3; ++i) text += ".0";
  return text;
}

}  // namespace

Whitelist::Whitelist(Of of) : of_(of) {
  re2::RE2::Options options;
  options.set_case_sensitive(false);
  options.set_log_errors(false);
  options.set_encoding(re2::RE2::Options::EncodingLatin1);  // bytes: addresses need not be UTF-8
  options.set_max_mem(64 << 20);
  regexps_ = std::make_unique<re2::RE2::Set>(options, re2::RE2::UNANCHORED);
}

Result<> Whitelist::add(std::string_view text) {
  if (text.find_first_of(blanks) != std::string_view::npos) {
    return fail(ErrorKind::invalid, "one entry a line, without blanks inside");
  }
  if (text.size() > 1 && text.starts_with('/') && text.ends_with('/')) return add_regexp(text);
  const std::string entry = to_lower(text);
  if (of_ == Of::addresses) return add_address(entry);
  const auto network = network_of(entry);
  if (!network) return std::unexpected(network.error());
  if (*network) {
    networks_[{(*network)->address.is_v4(), (*network)->prefix}].insert((*network)->address);
    return {};
  }
  auto name = canonical_domain(entry);
  if (!name) {
    return fail(ErrorKind::invalid, fmt::format("\"{}\" is no address, network, host name or /regexp/", entry));
  }
  domains_.insert(std::move(*name));
  return {};
}

Result<> Whitelist::add_regexp(std::string_view expression) {
  std::string error;
  const std::string_view inner = expression.substr(1, expression.size() - 2);
  if (regexps_->Add(re2::StringPiece(inner.data(), inner.size()), &error) < 0) {
    return fail(ErrorKind::invalid, fmt::format("{} does not compile: {} (look-around and back-references are not "
                                                "supported)",
                                                expression, error));
  }
  has_regexps_ = true;
  return {};
}

Result<std::optional<Network>> Whitelist::network_of(std::string_view entry) {
  const bool v6 = std::count(entry.begin(), entry.end(), ':') >= 2;
  const std::size_t slash = entry.find('/');
  const std::string_view host = entry.substr(0, slash);
  const std::size_t dots = std::count(host.begin(), host.end(), '.');
  const bool numeric = host.find_first_not_of("0123456789.") == std::string_view::npos;
  if (!v6 && (!numeric || dots == 0)) return std::nullopt;
  const auto wrong = [&] {
    return fail(ErrorKind::invalid, fmt::format("\"{}\" is no address or network; \"192.0.2.0/24\", \"192.0.2\" and "
                                                "\"2001:db8::/32\" are",
                                                entry));
  };
  const auto address = IpAddress::parse(v6 ? std::string(host) : completed(host, dots));
  if (!address || (slash != std::string_view::npos && !v6 && dots != 3)) return wrong();
  unsigned prefix = v6 ? 128U : 8U * static_cast<unsigned>(dots + 1);
  if (slash != std::string_view::npos) {
    const std::string_view digits = entry.substr(slash + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), prefix);
    if (error != std::errc() || end != digits.data() + digits.size() || prefix > (v6 ? 128U : 32U)) return wrong();
  }
  if (v6 && address->is_v4()) {  // ::ffff:192.0.2.0/120
    if (prefix < 96) return wrong();
    prefix -= 96;
  }
  return Network{address->masked(prefix), prefix};
}

Result<> Whitelist::add_address(std::string_view entry) {
  const std::size_t at = entry.rfind('@');
  const bool local = at != std::string_view::npos && at > 0;
  const std::string_view domain = entry.substr(at == std::string_view::npos ? 0 : at + 1);
  if (!local && domain.empty()) return fail(ErrorKind::invalid, "\"@\" names nobody");
  std::string name = canonical_domain(domain).value_or(std::string(domain));
  local ? addresses_.insert(concat({entry.substr(0, at + 1), name})) : domains_.insert(std::move(name));
  return {};
}

void Whitelist::add_file(std::string_view content, const std::string& name, std::vector<std::string>& problems) {
  if (content.starts_with(byte_order_mark)) content.remove_prefix(byte_order_mark.size());
  for (std::size_t line = 1; !content.empty(); ++line) {
    const std::size_t end = std::min(content.find('\n'), content.size());
    const std::string_view entry = entry_of(content.substr(0, end));
    content.remove_prefix(std::min(end + 1, content.size()));
    if (entry.empty()) continue;
    const auto added = add(entry);
    if (!added) problems.push_back(fmt::format("{}:{}: {}", name, line, printable(added.error().text)));
  }
}

Result<> Whitelist::compile() {
  searchable_ = has_regexps_ && regexps_->Compile();
  if (searchable_ || !has_regexps_) return {};
  return fail(ErrorKind::invalid, "its regular expressions are too large together");
}

bool Whitelist::in_domains(std::string_view name) const {
  while (!name.empty()) {
    if (domains_.contains(name)) return true;
    const std::size_t dot = name.find('.');
    if (dot == std::string_view::npos) return false;
    name.remove_prefix(dot + 1);
  }
  return false;
}

bool Whitelist::matches_regexp(std::string_view text) const {
  // If the automaton outgrows its memory, Match says no: then the client waits like any other.
  return searchable_ && regexps_->Match(re2::StringPiece(text.data(), text.size()), nullptr);
}

bool Whitelist::has_client(const IpAddress& client, std::string_view name) const {
  for (const auto& [kind, networks] : networks_) {
    if (kind.first == client.is_v4() && networks.contains(client.masked(kind.second))) return true;
  }
  const std::string lower = to_lower(name);
  return in_domains(lower) || matches_regexp(lower);
}

bool Whitelist::has_address(std::string_view address) const {
  const std::string lower = to_lower(address);
  const std::size_t at = std::min(lower.rfind('@'), lower.size());
  const std::string_view local = std::string_view(lower).substr(0, at);
  const std::string given = at < lower.size() ? lower.substr(at + 1) : "";
  const std::string domain = canonical_domain(given).value_or(given);
  std::size_t end = local.size();
  for (std::size_t tries = 0; end != std::string_view::npos && tries <= most_extensions && !addresses_.empty();
       ++tries) {
    const std::string user = std::string(local.substr(0, end)) + "@";
    if (addresses_.contains(user) || addresses_.contains(user + domain)) return true;
    end = local.find('+', tries == 0 ? 0 : end + 1);
    if (end == local.size() - 1) break;  // an extension is never empty
  }
  return in_domains(domain) || matches_regexp(lower);
}

Result<Whitelist> load_whitelist(Whitelist::Of of, const std::vector<std::string>& files, bool may_be_absent,
                                 std::vector<std::string>& problems) {
  Whitelist list(of);
  const auto add = [&](const std::string& file, bool optional) -> Result<> {
    const auto content = read_file(file);
    if (content) {
      list.add_file(*content, file, problems);
    } else if (!optional || content.error().kind != ErrorKind::not_found) {
      return std::unexpected(content.error());
    }
    return {};
  };
  for (const std::string& file : files) {
    auto added = add(file, may_be_absent || file.ends_with(".local"));
    if (added && !file.ends_with(".local")) added = add(file + ".local", true);
    if (!added) return std::unexpected(added.error());
  }
  if (const auto compiled = list.compile(); !compiled) {
    const std::string text = fmt::format("{}: {}", fmt::join(files, ", "), compiled.error().text);
    return fail(ErrorKind::invalid, text);
  }
  return list;
}

}  // namespace greymx::greylist

#include "greylist/triplet.hpp"

#include <fmt/format.h>
#include <libpsl.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>

#include "base/mailbox.hpp"
#include "base/text.hpp"

namespace greymx::greylist {

namespace {

bool is_lower(char c) {
  return c >= 'a' && c <= 'z';
}
bool is_word(char c) {
  return is_alnum(c) || c == '_';
}

std::string sha1_hex(std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  EVP_Digest(text.data(), text.size(), digest.data(), &size, EVP_sha1(), nullptr);
  std::string hex;
  for (unsigned i = 0; i < size; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

bool looks_like_batv_tag(std::string_view part) {
  return part.size() >= 10 &&
         std::all_of(part.begin(), part.begin() + 10, [](char c) { return is_digit(c) || is_lower(c); });
}

// prvs=TAG=user, sometimes seen as prvs=user=TAG; where both or neither look like a tag, the standard's order holds.
std::string_view without_batv(std::string_view local) {
  if (!local.starts_with("prvs=")) return local;
  const std::string_view whole = local;
  while (local.ends_with('=')) local.remove_suffix(1);
  const std::size_t middle = local.find('=', 5);
  if (middle == std::string_view::npos || local.find('=', middle + 1) != std::string_view::npos) return whole;
  const std::string_view second = local.substr(5, middle - 5), third = local.substr(middle + 1);
  return looks_like_batv_tag(third) && !looks_like_batv_tag(second) ? second : third;
}

std::string network_text(const IpAddress& client, const KeyRules& rules) {
  if (rules.by_host) return fmt::format("{}/{}", client.uncompressed(), client.bits());
  return client.masked(client.is_v4() ? rules.ipv4_prefix : rules.ipv6_prefix).uncompressed();
}

std::vector<std::string_view> runs(std::string_view text, bool (*belongs)(char)) {
  std::vector<std::string_view> found;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    while (end < text.size() && belongs(text[end])) ++end;
    if (end > i) found.push_back(text.substr(i, end - i));
    i = end + 1;
  }
  return found;
}

bool is_hex(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'f');
}

std::string_view without_zeros(std::string_view digits) {
  while (digits.size() > 1 && digits[0] == '0') digits.remove_prefix(1);
  return digits;
}

// Is the name made from the address? Three of an IPv4 address's octets as numbers of their own (two are common in
// the names of real pools), the whole of it in decimal, hexadecimal or padded digits; four groups of an IPv6 one.
bool names_address(std::string_view host, const IpAddress& client) {
  const auto count = [](std::vector<std::string_view> words, std::vector<std::string> parts) {
    std::size_t hits = 0;
    for (const std::string_view word : words) {
      const auto part = std::find(parts.begin(), parts.end(), without_zeros(word));
      if (part == parts.end()) continue;
      parts.erase(part);
      ++hits;
    }
    return hits;
  };
  if (!client.is_v4()) {
    std::vector<std::string> groups;
    for (const std::string_view group : runs(client.uncompressed(), is_hex)) {
      if (group != "0") groups.emplace_back(group);
    }
    std::string joined;
    for (const auto& group : groups) joined += fmt::format("{:0>4}", group);
    return count(runs(host, is_hex), groups) >= 4 ||
           (joined.size() >= 16 && host.find(joined.substr(joined.size() - 16)) != std::string_view::npos);
  }
  const std::uint32_t ip = client.v4_value();
  const std::array<std::uint32_t, 4> octet{ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255};
  std::vector<std::string> octets;
  for (const std::uint32_t o : octet) octets.push_back(std::to_string(o));
  for (const std::string& whole : {fmt::format("{:08x}", ip), std::to_string(ip),
                                   fmt::format("{:03}{:03}{:03}{:03}", octet[0], octet[1], octet[2], octet[3])}) {
    if (host.find(whole) != std::string_view::npos) return true;
  }
  return count(runs(host, is_digit), octets) >= 3;
}

constexpr std::array dial_up_words{"adsl", "broadband", "cable", "catv",  "client",      "clients", "cpe",
                                   "cust", "customer",  "dhcp",  "dial",  "dialin",      "dialup",  "dsl",
                                   "dyn",  "dynamic",   "fiber", "fibre", "ftth",        "home",    "mobile",
                                   "nat",  "ppp",       "pppoe", "res",   "residential", "sdsl",    "unassigned",
                                   "vdsl", "wireless",  "xdsl"};

}  // namespace

Kind kind_of(std::string_view key) {
  using enum Kind;
  for (const auto& [prefix, kind] :
       std::initializer_list<std::pair<std::string_view, Kind>>{{"awl/sha1/", hashed_client},
                                                                {"awl/", client},
                                                                {"sha1/", hashed},
                                                                {"spf/", spf},
                                                                {"ptr/", ptr},
                                                                {"pass/", pass},
                                                                {"expect/", expect}}) {
    if (key.starts_with(prefix)) return kind;
  }
  return plain;
}

bool is_triplet(Kind kind) {
  return kind <= Kind::hashed;
}

bool is_pool(Kind kind) {
  return kind == Kind::spf || kind == Kind::ptr;
}

std::string normalise_sender(std::string_view sender) {
  const std::size_t at = sender.find('@');
  if (at == std::string_view::npos) return std::string(sender);
  std::string_view local = without_batv(sender.substr(0, at));
  local = local.substr(0, local.find('+'));
  std::string result;
  for (std::size_t i = 0; i < local.size();) {
    std::size_t end = i;
    while (end < local.size() && is_word(local[end])) ++end;
    if (end == i) {
      result += local[i++];
      continue;
    }
    const std::string_view word = local.substr(i, end - i);
    if (std::all_of(word.begin(), word.end(), is_digit)) {
      result += '#';
    } else {
      result += word;
    }
    i = end;
  }
  return result.append(sender.substr(at));
}

std::string plain_key(const Mail& mail, const KeyRules& rules) {
  return to_lower(
      fmt::format("{}/{}/{}", network_text(mail.client, rules), normalise_sender(mail.sender), mail.recipient));
}

std::vector<std::string> triplet_keys(const Mail& mail, const KeyRules& rules) {
  std::vector<std::string> keys{bounded_key(plain_key(mail, rules))};
  if (!rules.pools) return keys;
  // A null sender names nobody: the host's own name stands in, or all bounces to a recipient would be one.
  const std::string sender = mail.sender.empty() ? std::string(mail.helo) : normalise_sender(mail.sender);
  const auto add = [&](std::string_view kind, std::string_view identity) {
    if (!identity.empty()) {
      keys.push_back(bounded_key(to_lower(fmt::format("{}/{}/{}/{}", kind, identity, sender, mail.recipient))));
    }
  };
  add("spf", mail.spf_domain);
  add("ptr", pool_domain(mail.client_name, mail.client));
  return keys;
}

std::string bounded_key(std::string key) {
  if (key.size() <= max_key) return key;
  const std::string hash = sha1_hex(key);
  key.resize(max_key - hash.size() - 1);
  return key + '#' + hash;
}

std::string client_key(const IpAddress& client) {
  std::string text = client.uncompressed();
  std::transform(text.begin(), text.end(), text.begin(), [](char c) { return is_lower(c) ? char(c - 'a' + 'A') : c; });
  return "awl/" + text;
}

std::string privacy_key(std::string_view key) {
  if (kind_of(key) == Kind::client) return "awl/sha1/" + sha1_hex(key.substr(4));
  return "sha1/" + sha1_hex(key);
}

std::string pool_domain(std::string_view client_name, const IpAddress& client) {
  const std::string name = to_lower(client_name);
  if (name.empty() || name == "unknown") return {};
  const std::string domain = organisational_domain(name);
  if (domain.empty()) return {};
  const std::string suffix = domain.substr(std::min(domain.find('.') + 1, domain.size()));
  if (psl_is_public_suffix2(psl_builtin(), suffix.c_str(), PSL_TYPE_PRIVATE | PSL_TYPE_NO_STAR_RULE) != 0) return {};
  const std::string_view host = std::string_view(name).substr(0, name.size() - domain.size());
  for (const std::string_view word : runs(host, is_lower)) {
    if (std::find(dial_up_words.begin(), dial_up_words.end(), word) != dial_up_words.end()) return {};
  }
  return names_address(host, client) ? std::string() : domain;
}

Network counted_network(const IpAddress& client) {
  const unsigned prefix = client.is_v4() ? 24 : 64;
  return {client.masked(prefix), prefix};
}

KeyParts split_key(std::string_view key) {
  const Kind kind = kind_of(key);
  if (!is_triplet(kind)) return {key.substr(key.find('/') + 1), {}, {}};
  if (kind == Kind::hashed) return {key.substr(5), {}, {}};
  if (kind != Kind::plain) key.remove_prefix(4);
  std::size_t slash = key.find('/');
  // By host the address carries its length: "192.0.2.77/32/…".
  const std::size_t next = slash == std::string_view::npos ? slash : key.find('/', slash + 1);
  if (kind == Kind::plain && next != std::string_view::npos && next > slash + 1 && next - slash <= 4 &&
      std::all_of(key.begin() + slash + 1, key.begin() + next, is_digit)) {
    slash = next;
  }
  if (slash == std::string_view::npos) return {key, {}, {}};
  const std::string_view client = key.substr(0, slash), rest = key.substr(slash + 1);
  if (rest.starts_with('/')) return {client, {}, rest.substr(1)};
  // Local parts may hold '/', domains do not: a sender with a domain ends at the first '/' after its '@'.
  const bool two_domains = rest.find('@') != rest.rfind('@');
  const std::size_t end = rest.find('/', two_domains ? rest.find('@', rest[0] == '"' ? rest.find('"', 1) : 0) : 0);
  if (end != std::string_view::npos) return {client, rest.substr(0, end), rest.substr(end + 1)};
  return {client, rest, {}};
}

}  // namespace greymx::greylist

// Who is not greylisted: lists in postgrey's file syntax. Immutable once built, so that any thread may look things up
// while a reload builds the next one.
//
// One entry a line, '#' starts a comment (but not inside /…/). Clients: an IPv4 or IPv6 address or network, the
// leading octets of one ("192.0.2", "192.0"), a domain (the confirmed client name equals it or ends in "." + it), or
// /regexp/ searched in the name. Recipients: "user@domain" and "user@" (both also with "+extension"), "domain" or
// "@domain" (with subdomains), or /regexp/ searched in the address. Case does not matter. Regular expressions are
// RE2's: linear time, no look-around and no back-references.
#pragma once

#include <re2/set.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/ip.hpp"
#include "base/result.hpp"

namespace greymx::greylist {

class Whitelist {
 public:
  enum class Of : std::uint8_t { clients, addresses };

  explicit Whitelist(Of of);
  Whitelist(Whitelist&&) = default;
  Whitelist& operator=(Whitelist&&) = default;

  // One entry, without comment; invalid says what is wrong and what would be right. Before compile() only.
  Result<> add(std::string_view entry);
  void add_file(std::string_view content, const std::string& name, std::vector<std::string>& problems);
  Result<> compile();  // makes regular expressions searchable; without it they match nothing

  // What a lower-case entry for clients means if it is an address, a network or leading octets; host bits do not
  // matter.
  static Result<std::optional<Network>> network_of(std::string_view entry);

  bool has_client(const IpAddress& client, std::string_view name) const;
  bool has_address(std::string_view address) const;  // also bare "postmaster", for an entry "postmaster@"

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  using Names = std::unordered_set<std::string, Hash, std::equal_to<>>;

  Result<> add_regexp(std::string_view expression);
  Result<> add_address(std::string_view entry);
  bool in_domains(std::string_view name) const;
  bool matches_regexp(std::string_view text) const;

  Of of_;
  std::map<std::pair<bool, unsigned>, std::unordered_set<IpAddress>> networks_;  // by family and length
  Names domains_;
  Names addresses_;  // "user@domain", "user@"
  std::unique_ptr<re2::RE2::Set> regexps_;
  bool has_regexps_ = false, searchable_ = false;
};

// Reads all files and, beside each, FILE.local where it exists. Lines that make no sense are reported in `problems`
// ("FILE:LINE: …") and left out; a file that cannot be read is an error, unless `may_be_absent` and it is not there,
// and so are regular expressions that take too much memory. Blocking.
Result<Whitelist> load_whitelist(Whitelist::Of of, const std::vector<std::string>& files, bool may_be_absent,
                                 std::vector<std::string>& problems);

}  // namespace greymx::greylist

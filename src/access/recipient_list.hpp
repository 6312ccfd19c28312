// The valid recipients of one domain as its primary exports them: one address or local part a line.
//
// A line is an address (user@example.com), a local part (user, at every domain the entry of relay.conf covers) or
// @example.com (everybody there); what follows after white space is ignored, so that the source file of a Postfix
// relay_recipient_maps is fine; '#' begins a comment line; addresses of other domains are skipped, so that one file
// may serve many, and counted, since a domain may be misspelt. Case is ignored.
//
// A million entries take about 20 MB: the entries in one string, sorted by 32-bit offsets. Immutable; any thread.
// read() blocks for a second or so.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mailbox.hpp"
#include "base/result.hpp"
#include "config/config.hpp"

namespace greymx::access {

class RecipientList {
 public:
  struct Skipped {
    std::size_t first_line = 0, lines = 0;
  };
  using Others = std::map<std::string, Skipped>;  // by domain; "" is none
  static Result<std::shared_ptr<const RecipientList>> read(const std::string& path, const config::Domain& domain,
                                                           Others* others = nullptr);
  bool contains(const Mailbox& recipient) const;
  std::size_t size() const { return starts_.size(); }

 private:
  const char* at(std::uint32_t start) const { return text_.data() + start; }
  bool has(const std::string& entry) const;
  // False: it is an address of another domain, `name`.
  bool add(std::string_view line, const config::Domain& domain, std::string& name);

  // Entries, each ended by '\0'. An address is kept as its local part unless the entry of relay.conf has a wildcard.
  std::string text_;
  std::vector<std::uint32_t> starts_;  // in the order of what they point at, without doubles
};

}  // namespace greymx::access

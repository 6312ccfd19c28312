// The names under which the history of a mail is kept. Pure.
//
// The plain key (client network, sender, recipient) is byte for byte postgrey 1.37's, so that an imported database
// goes on to match. Pool keys put an identity in the place of the network, so that a retry from any address of a
// sender's pool counts: the domain that SPF authorised for the client, and the organisational domain of the client's
// forward-confirmed name. They change the key, never the verdict: a retry is still required.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.hpp"

namespace greymx::greylist {

inline constexpr std::size_t max_key = 256;  // a longer key is cut and ends in its SHA-1

struct KeyRules {
  unsigned ipv4_prefix = 24;
  unsigned ipv6_prefix = 64;
  bool by_host = false;  // the whole client address instead of its network
  bool pools = true;
};

struct Mail {
  IpAddress client;
  std::string_view client_name;  // forward-confirmed, or "unknown"
  std::string_view sender;       // empty = null sender
  std::string_view recipient;
  std::string_view helo;
  std::string_view spf_domain;  // empty = not authorised, or not known
};

// What kind of record a key names: it stands before the first '/', a plain key begins with an address.
enum class Kind : std::uint8_t { plain, spf, ptr, hashed, client, hashed_client, pass, expect };
Kind kind_of(std::string_view key);
bool is_triplet(Kind kind);  // plain, spf, ptr, hashed
bool is_pool(Kind kind);     // spf, ptr: what a plain key says, said again

// BATV undone, "+extension" cut, numbers that stand alone in the local part as '#'. Case is kept.
std::string normalise_sender(std::string_view sender);

// "192.0.2.0/sender@example.org/recipient@example.com", unbounded.
std::string plain_key(const Mail& mail, const KeyRules& rules);
// All keys that are valid for this mail, the plain one first; each at most max_key bytes.
std::vector<std::string> triplet_keys(const Mail& mail, const KeyRules& rules);
std::string bounded_key(std::string key);

// "awl/192.0.2.77", "awl/2001:DB8:1:2:3:4:5:6": the whole address in postgrey's spelling.
std::string client_key(const IpAddress& client);
// What postgrey --privacy made of a key: "sha1/<hex>" of an unbounded plain key, "awl/sha1/<hex>" of a client key.
std::string privacy_key(std::string_view key);

// The organisational domain of a confirmed name, or empty if the name says nothing about who runs the host: none, a
// name made from the address, a dial-up name, or one below a suffix under which anybody may register.
std::string pool_domain(std::string_view client_name, const IpAddress& client);

// The client's network as the caps count it: /24 or /64 whatever the configured prefix.
Network counted_network(const IpAddress& client);

// A triplet's key taken apart: "192.0.2.0" (by host "192.0.2.77/32", a pool key its domain), "a@b.c", "d@e.f". Of other
// keys what stands after the kind is the client.
struct KeyParts {
  std::string_view client, sender, recipient;
};
KeyParts split_key(std::string_view key);

}  // namespace greymx::greylist

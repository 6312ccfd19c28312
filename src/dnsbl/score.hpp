// What a list's answer means, and what all together come to. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "dnsbl/dnsbl.hpp"

namespace greymx::dnsbl {

// One configured list, made ready. Its zone is what is asked, and may hold a secret.
struct List : config::DnsblList {
  std::string shown;     // the zone as told to anybody
  std::string key;       // the secret label, or empty
  bool by_name = false;  // a domain list
};

// Address lists first.
std::vector<List> make_lists(const config::Dnsbl& settings);

struct Judgement {
  Outcome outcome = Outcome::clean;
  std::string error;
  bool outside = false;  // an answer outside 127.0.0.0/8: somebody rewrites DNS, or the zone was taken over
};
Judgement judge(const List& list, const dns::Answer& answer);
// Does the answer list anything at all, whatever `replies` says?
bool is_listing(const dns::Answer& answer);

// TXT records as one reason, without secrets, at most 500 bytes, printable.
std::string reason_text(const List& list, const std::vector<std::string>& texts);
Score tally(std::vector<ListResult> results, int threshold);

}  // namespace greymx::dnsbl

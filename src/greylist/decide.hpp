// The greylist's whole judgement: what is known of a mail × the time × the rules -> verdict and what is known then.
// Pure: no clock, no I/O, no logging. A store reads what a Question names, calls decide(), writes what it changed, all
// in one atomic step.
//
// Differences from postgrey's arithmetic: a passed record says so (its delay is not re-judged by later settings),
// max_age is looked at here, delay 0 passes at once, and a clock that stepped back never adds to a wait already served.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.hpp"

namespace greymx::greylist {

using Stamp = std::int64_t;  // Unix seconds

// One triplet under one key; in a client's record `passes` counts towards automatic whitelisting; in `pass` and
// `expect` entries `last` is when they end (0 = never) and `note` the comment.
struct Record {
  bool passed = false;
  bool imported = false;
  std::uint16_t networks = 1;  // times the client's network changed before it passed, plus one
  std::uint32_t tries = 0;     // until it passed
  std::uint32_t passes = 0;
  Stamp first = 0;
  Stamp last = 0;
  Stamp passed_at = 0;
  std::uint32_t retry_after = 0;  // seconds from the first to the second try
  IpAddress client{};             // the last one that tried
  std::string note{};             // at most max_note bytes

  bool operator==(const Record&) const = default;
};

inline constexpr std::size_t max_note = 256;

struct Rules {
  Stamp delay = 300;
  Stamp retry_window = 2 * 86400;
  Stamp max_age = 35 * 86400;
  std::uint32_t auto_whitelist = 5;  // 0 = off

  bool expired(const Record& record, Stamp now) const { return now - record.last > max_age; }
};

struct Question {
  std::vector<std::string> keys;  // triplet_keys(): at least one
  std::string client_key;
  // The keys as postgrey --privacy hashed them; empty unless the store holds such records.
  std::string hashed_key, hashed_client_key;
  IpAddress client;
  Stamp now = 0;
  Rules rules;
  bool dry_run = false;         // nothing is written
  bool only_if_passes = false;  // nothing is written if the mail has to wait: it will be asked again with more keys

  bool writes(bool pass) const { return !dry_run && (pass || !only_if_passes); }
};

struct Slot {
  std::optional<Record> record;
  bool write = false;
};
struct Found {
  std::vector<Slot> triplets;  // one for each of the question's keys
  Slot client;
};

enum class Reason : std::uint8_t { fresh, early_retry, known, client };

struct Outcome {
  Reason reason = Reason::fresh;
  Stamp waited = 0;
  Stamp missing = 0;             // > 0: defer
  bool first_pass = false;       // this triplet was deferred until now (or has never been seen, with delay 0)
  bool whitelisted_now = false;  // the client has just earned its automatic whitelisting
  bool clock_corrected = false;  // a first contact in the future was found
  bool second_try = false;       // the first retry: `waited` goes into the histogram

  bool pass() const { return missing <= 0; }
};

Outcome decide(const Question& question, Found& found);

// Two accounts of the same thing, from an import, a salvage or another node, become one.
Record merge(const Record& a, const Record& b, const Rules& rules);

// The stored form: at most 64 bytes and the note, little-endian, with a version and a CRC-32C over key and record, so
// that a record salvaged from a damaged page is either right or refused.
std::string encode(std::string_view key, const Record& record);
std::optional<Record> decode(std::string_view key, std::string_view bytes);

}  // namespace greymx::greylist

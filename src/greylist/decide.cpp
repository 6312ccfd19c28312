#include "greylist/decide.hpp"

#include <isa-l/crc.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "greylist/triplet.hpp"

namespace greymx::greylist {

namespace {

constexpr Stamp awl_interval = 3600;         // counts at most one pass in this time
constexpr Stamp refresh_interval = 60;       // `last` of a passed record is rewritten no more often
constexpr Stamp clock_tolerance = 60;        // smaller steps back are other nodes' skew
constexpr std::uint16_t most_networks = 32;  // a pool key tried from more without a pass is no pool
constexpr std::uint8_t version = 1;

// The record as it counts now, or nothing if its time is over.
std::optional<Record> valid(std::optional<Record> record, const Question& question, Outcome& outcome) {
  if (!record) return record;
  const Stamp now = question.now;
  if (record->passed) {
    if (question.rules.expired(*record, now)) return std::nullopt;
    return record;
  }
  if (record->last > now + clock_tolerance) {  // the clock stepped back: what was waited until then still counts
    record->first = now - std::max<Stamp>(0, record->last - record->first);
    outcome.clock_corrected = true;
  }
  if (record->first > now) {
    record->first = now;
    outcome.clock_corrected = true;
  }
  if (now - record->first > question.rules.retry_window) return std::nullopt;
  return record;
}

bool whitelisted(const Question& question, Slot& client) {
  const std::uint32_t needed = question.rules.auto_whitelist;
  if (client.record && question.rules.expired(*client.record, question.now)) client.record.reset();
  return needed > 0 && client.record && client.record->passes >= needed;
}

// At most one pass an hour, so that one burst of mail earns nothing.
void count_client(const Question& question, Slot& client) {
  const Stamp now = question.now;
  if (client.record && now < client.record->last + awl_interval && client.record->last <= now) return;
  if (!client.record) client.record = Record{.passed = true, .first = now};
  ++client.record->passes;
  client.record->last = now;
  client.record->client = question.client;
  client.write = true;
}

void note_try(const Question& question, Slot& slot, Stamp first, const Outcome& outcome) {
  const Stamp now = question.now;
  if (!slot.record) slot.record = Record{.client = question.client};
  Record& record = *slot.record;
  if (record.networks < UINT16_MAX && !counted_network(record.client).contains(question.client)) ++record.networks;
  record.client = question.client;
  record.first = first;
  record.last = now;
  if (++record.tries == 2) record.retry_after = static_cast<std::uint32_t>(std::min<Stamp>(now - first, UINT32_MAX));
  if (outcome.pass()) {
    record.passed = true;
    record.passed_at = now;
    record.passes = 1;
  }
  slot.write = true;
}

bool refresh_passed(const Question& question, std::vector<Slot>& slots) {
  bool any = false;
  for (Slot& slot : slots) {
    if (!slot.record || !slot.record->passed) continue;
    any = true;
    Record& record = *slot.record;
    // A use in the future stays, or a clock that is wrong for a while and set right would end the record.
    const bool credible = record.last <= question.now + question.rules.max_age;
    if (question.now - record.last < refresh_interval && credible) continue;
    record.last = question.now;
    record.client = question.client;
    ++record.passes;
    slot.write = true;
  }
  return any;
}

}  // namespace

Outcome decide(const Question& question, Found& found) {
  Outcome outcome;
  if (whitelisted(question, found.client)) {
    count_client(question, found.client);
    outcome.reason = Reason::client;
    return outcome;
  }
  std::vector<Slot*> usable;
  for (std::size_t i = 0; i < found.triplets.size(); ++i) {
    Slot& slot = found.triplets[i];
    slot.record = valid(std::move(slot.record), question, outcome);
    if (i == 0 || !slot.record || slot.record->passed || slot.record->networks <= most_networks) {
      usable.push_back(&slot);
    }
  }
  if (refresh_passed(question, found.triplets)) {
    outcome.reason = Reason::known;
    return outcome;
  }
  Stamp first = question.now;
  std::uint32_t tries = 0;
  for (const Slot* slot : usable) {
    if (!slot->record) continue;
    first = std::min(first, slot->record->first);
    tries = std::max(tries, slot->record->tries);
  }
  outcome.waited = question.now - first;
  outcome.missing = question.rules.delay - outcome.waited;
  outcome.second_try = tries == 1;
  outcome.first_pass = outcome.pass();
  outcome.reason = outcome.pass() ? Reason::known : outcome.waited == 0 ? Reason::fresh : Reason::early_retry;
  for (Slot* slot : usable) note_try(question, *slot, first, outcome);
  if (outcome.pass() && question.rules.auto_whitelist > 0) {
    const std::uint32_t before = found.client.record ? found.client.record->passes : 0;
    count_client(question, found.client);
    const std::uint32_t after = found.client.record->passes;
    outcome.whitelisted_now = after != before && after == question.rules.auto_whitelist;
  }
  return outcome;
}

Record merge(const Record& a, const Record& b, const Rules& rules) {
  const Record& older = a.last <= b.last ? a : b;
  const Record& newer = a.last <= b.last ? b : a;
  Record merged = newer;
  merged.passed = a.passed || b.passed;
  // A first contact whose window was over when the other began is a different wait.
  if (merged.passed || newer.first - older.first <= rules.retry_window) merged.first = std::min(a.first, b.first);
  merged.passed_at = a.passed && b.passed ? std::min(a.passed_at, b.passed_at) : std::max(a.passed_at, b.passed_at);
  merged.tries = std::max(a.tries, b.tries);
  merged.passes = std::max(a.passes, b.passes);
  merged.networks = std::max(a.networks, b.networks);
  if (merged.retry_after == 0) merged.retry_after = older.retry_after;
  return merged;
}

namespace {

template <class T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
template <class T>
T take(std::string_view& in) {
  T value;
  std::memcpy(&value, in.data(), sizeof value);
  in.remove_prefix(sizeof value);
  return value;
}

std::uint32_t checksum(std::string_view key, std::string_view body) {
  const auto crc = [](std::string_view text, std::uint32_t seed) {
    auto* bytes = reinterpret_cast<unsigned char*>(const_cast<char*>(text.data()));  // isa-l's old C signature
    return crc32_iscsi(bytes, static_cast<int>(text.size()), seed);
  };
  return crc(body, crc(key, 0xffffffffU));
}

constexpr std::size_t fixed_size = 1 + 1 + 2 + 4 + 4 + 3 * 8 + 4 + 16 + 4;
static_assert(fixed_size <= 64);
enum Flag : std::uint8_t { flag_passed = 1, flag_imported = 2, flag_ipv6 = 4 };

}  // namespace

std::string encode(std::string_view key, const Record& record) {
  std::string out;
  out.reserve(fixed_size + record.note.size());
  append(out, version);
  append(out, static_cast<std::uint8_t>((record.passed ? flag_passed : 0) | (record.imported ? flag_imported : 0) |
                                        (record.client.is_v4() ? 0 : flag_ipv6)));
  append(out, record.networks);
  append(out, record.tries);
  append(out, record.passes);
  append(out, record.first);
  append(out, record.last);
  append(out, record.passed_at);
  append(out, record.retry_after);
  append(out, record.client.bytes());
  out.append(record.note, 0, max_note);
  append(out, checksum(key, out));
  return out;
}

std::optional<Record> decode(std::string_view key, std::string_view bytes) {
  if (bytes.size() < fixed_size || bytes.size() > fixed_size + max_note || bytes[0] != version) return std::nullopt;
  std::string_view sum = bytes.substr(bytes.size() - 4), body = bytes.substr(0, bytes.size() - 4);
  if (take<std::uint32_t>(sum) != checksum(key, body)) return std::nullopt;
  body.remove_prefix(1);
  Record record;
  const auto flags = take<std::uint8_t>(body);
  record.passed = (flags & flag_passed) != 0;
  record.imported = (flags & flag_imported) != 0;
  record.networks = take<std::uint16_t>(body);
  record.tries = take<std::uint32_t>(body);
  record.passes = take<std::uint32_t>(body);
  record.first = take<Stamp>(body);
  record.last = take<Stamp>(body);
  record.passed_at = take<Stamp>(body);
  record.retry_after = take<std::uint32_t>(body);
  const auto address = take<std::array<std::uint8_t, 16>>(body);
  record.client = (flags & flag_ipv6) != 0 ? IpAddress::v6(address)
                                           : IpAddress::v4(static_cast<std::uint32_t>(address[0]) << 24 |
                                                           static_cast<std::uint32_t>(address[1]) << 16 |
                                                           static_cast<std::uint32_t>(address[2]) << 8 | address[3]);
  record.note = body;
  return record;
}

}  // namespace greymx::greylist

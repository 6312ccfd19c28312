#include "dns/packet.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/mailbox.hpp"
#include "base/text.hpp"

namespace greymx::dns {
namespace {

constexpr std::size_t max_name = 253;  // 255 octets on the wire (RFC 1035 2.3.4)
constexpr std::size_t max_label = 63;
constexpr std::uint16_t class_in = 1;

bool is_printable(std::uint8_t byte) {
  return byte >= ' ' && byte < 0x7f;
}

char name_byte(std::uint8_t byte) {
  if (!is_printable(byte) || byte == '.') return '?';
  return lower(static_cast<char>(byte));
}

// A cursor that never leaves the packet: after the first attempt to, `good` is false and everything reads as zero.
class Reader {
 public:
  explicit Reader(std::span<const std::uint8_t> packet) : packet_(packet) {}

  bool good() const { return good_; }
  std::size_t position() const { return position_; }
  Reader at(std::size_t position) const {
    Reader other{packet_};
    other.take(position);
    return other;
  }
  std::span<const std::uint8_t> take(std::size_t count) {
    if (!good_ || packet_.size() - position_ < count) {
      good_ = false;
      return {};
    }
    const auto bytes = packet_.subspan(position_, count);
    position_ += count;
    return bytes;
  }
  std::uint32_t number(std::size_t bytes) {
    std::uint32_t value = 0;
    for (const std::uint8_t byte : take(bytes)) value = value << 8 | byte;
    return value;
  }
  std::uint16_t number16() { return static_cast<std::uint16_t>(number(2)); }
  std::string name();

 private:
  std::span<const std::uint8_t> packet_;
  std::size_t position_ = 0;
  bool good_ = true;
};

// Compression pointers must lead backwards (RFC 1035 4.1.4: "a prior occurrence"), which also ends every loop.
std::string Reader::name() {
  std::array<char, max_name> text;
  std::size_t size = 0;
  std::size_t start = position_;  // of the run of labels being read
  std::optional<std::size_t> resume;
  while (good_) {
    const std::size_t length = number(1);
    if (length == 0) break;
    if (length >= 0xc0) {
      const std::size_t target = (length & 0x3f) << 8 | number(1);
      if (!resume) resume = position_;
      if (target >= start) good_ = false;
      start = position_ = target;
      continue;
    }
    const auto label = take(length);
    const std::size_t dot = size > 0 ? 1 : 0;
    if (length > max_label || size + dot + length > max_name) good_ = false;
    if (!good_) break;
    if (dot > 0) text[size++] = '.';
    for (const std::uint8_t byte : label) text[size++] = name_byte(byte);
  }
  if (resume) position_ = *resume;
  return good_ ? std::string(text.data(), size) : std::string();
}

struct Record {
  std::string owner;
  std::uint16_t type = 0;
  std::uint32_t ttl = 0;
  std::size_t data = 0;  // offset
  std::size_t length = 0;
};

bool is(const Record& record, Type type) {
  return record.type == static_cast<std::uint16_t>(type);
}

std::vector<Record> read_section(Reader& reader, std::size_t count) {
  std::vector<Record> records;
  for (std::size_t i = 0; i < count && reader.good(); ++i) {
    Record record;
    record.owner = reader.name();
    record.type = reader.number16();
    const bool internet = reader.number16() == class_in;
    record.ttl = reader.number(4);
    if (record.ttl > 0x7fffffff) record.ttl = 0;  // RFC 2181 8
    record.length = reader.number16();
    record.data = reader.position();
    reader.take(record.length);
    if (internet && reader.good() && records.size() < max_records) records.push_back(std::move(record));
  }
  return records;
}

std::string joined_text(std::span<const std::uint8_t> data, bool& good) {
  std::string text;
  Reader strings{data};
  while (strings.good() && strings.position() < data.size()) {
    const auto part = strings.take(strings.number(1));
    text.append(part.begin(), part.end());
  }
  good = strings.good();
  return text;
}

// False if the record's data is not what its type says.
bool add(Answer& answer, const Record& record, Type type, const Reader& packet) {
  Reader reader = packet.at(record.data);
  switch (type) {
    case Type::a: {
      if (record.length != 4) return false;
      answer.addresses.push_back(IpAddress::v4(reader.number(4)));
      return true;
    }
    case Type::aaaa: {
      if (record.length != 16) return false;
      std::array<std::uint8_t, 16> bytes{};
      std::ranges::copy(reader.take(16), bytes.begin());
      answer.addresses.push_back(IpAddress::v6(bytes));
      return true;
    }
    case Type::mx: {
      Mx mx;
      mx.preference = reader.number16();
      mx.host = reader.name();
      const auto place = std::ranges::upper_bound(answer.mx, mx.preference, {}, &Mx::preference);
      answer.mx.insert(place, std::move(mx));
      if (answer.mx.size() > max_mx) answer.mx.pop_back();
      break;
    }
    case Type::txt: {
      bool good = true;
      std::string text = joined_text(reader.take(record.length), good);
      if (text.size() <= max_text) answer.texts.push_back(std::move(text));
      return good;
    }
    case Type::tlsa: {
      std::string hex;
      for (const std::uint8_t byte : reader.take(record.length)) hex += fmt::format("{:02x}", byte);
      if (hex.size() <= max_text) answer.texts.push_back(std::move(hex));
      return true;
    }
    case Type::ptr:
    case Type::cname:
      answer.names.push_back(reader.name());
      break;
    case Type::soa:
      return true;
  }
  return reader.good() && reader.position() == record.data + record.length;
}

// RFC 2308 5: the SOA's own TTL or its MINIMUM field, whichever is smaller; without SOA nothing is to be cached.
std::uint32_t negative_ttl(const std::vector<Record>& authority, std::string_view name, const Reader& packet) {
  for (const Record& record : authority) {
    if (!is(record, Type::soa) || (!record.owner.empty() && !is_in_domain(name, record.owner))) continue;
    Reader reader = packet.at(record.data);
    reader.name();
    reader.name();
    reader.take(16);
    const std::uint32_t minimum = reader.number(4);
    return reader.good() ? std::min(record.ttl, minimum) : 0;
  }
  return 0;
}

std::string rcode_name(unsigned rcode) {
  static constexpr std::array names{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"};
  return rcode < names.size() ? names[rcode] : fmt::format("rcode {}", rcode);
}

}  // namespace

std::optional<std::string> question_name(std::string_view name) {
  if (name.ends_with('.')) name.remove_suffix(1);
  if (!is_ascii(name)) return canonical_domain(name);
  if (name.empty() || name.size() > max_name) return std::nullopt;
  std::size_t label = 0;
  for (const char c : name) {
    if (c == '.' && label == 0) return std::nullopt;
    if (!is_printable(static_cast<std::uint8_t>(c)) || c == '\\') return std::nullopt;
    label = c == '.' ? 0 : label + 1;
    if (label > max_label) return std::nullopt;
  }
  if (label == 0) return std::nullopt;
  return to_lower(name);
}

Answer failed_answer(std::string error) {
  Answer answer;
  answer.error = std::move(error);
  return answer;
}

Answer parse_answer(std::span<const std::uint8_t> packet, std::string_view name, Type type) {
  Reader reader{packet};
  reader.take(2);
  const unsigned flags = reader.number16();
  const std::size_t questions = reader.number16();
  const std::size_t answer_count = reader.number16();
  const std::size_t authority_count = reader.number16();
  reader.take(2);
  constexpr unsigned response = 0x8000, opcode_mask = 0x7800, truncated = 0x0200;
  if (!reader.good() || (flags & (response | opcode_mask)) != response) return failed_answer("malformed answer");
  const unsigned rcode = flags & 0xf;
  constexpr unsigned nxdomain = 3;
  if (rcode != 0 && rcode != nxdomain) return failed_answer(rcode_name(rcode));
  if (flags & truncated) return failed_answer("truncated answer");

  const std::string asked = reader.name();
  const std::uint16_t asked_type = reader.number16();
  const std::uint16_t asked_class = reader.number16();
  if (questions != 1 || asked != name || asked_type != static_cast<std::uint16_t>(type) || asked_class != class_in) {
    return failed_answer("answer to another question");
  }
  const std::vector<Record> records = read_section(reader, answer_count);
  const std::vector<Record> authority = read_section(reader, authority_count);
  if (!reader.good()) return failed_answer("malformed answer");

  Answer answer;
  std::uint32_t ttl = 0x7fffffff;
  std::string owner{name};
  for (unsigned depth = 0; type != Type::cname; ++depth) {  // the order of records is not to be relied on
    const auto alias = std::ranges::find_if(
        records, [&](const Record& record) { return is(record, Type::cname) && record.owner == owner; });
    if (alias == records.end()) break;
    if (depth == max_cnames) return failed_answer("CNAME chain too long");
    Answer target;
    if (!add(target, *alias, Type::cname, reader)) return failed_answer("malformed answer");
    owner = std::move(target.names.front());
    ttl = std::min(ttl, alias->ttl);
  }
  bool found = false;
  for (const Record& record : records) {
    if (!is(record, type) || record.owner != owner) continue;
    if (!add(answer, record, type, reader)) return failed_answer("malformed answer");
    ttl = std::min(ttl, record.ttl);
    found = true;
  }
  if (!found) ttl = std::min(ttl, negative_ttl(authority, owner, reader));
  if (rcode == nxdomain) {
    answer = Answer{};  // RFC 2308 2.1: about the end of the chain; records beside it mean nothing
    answer.outcome = Outcome::no_domain;
  } else {
    answer.outcome = found ? Outcome::found : Outcome::no_record;
  }
  answer.ttl = std::chrono::seconds{ttl};
  return answer;
}

}  // namespace greymx::dns

#include "queue/record.hpp"

#include <isa-l/crc.h>

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstring>
#include <limits>

namespace greymx::queue {

namespace {

// Encoder and Decoder have the same members, so that each structure is listed once, in fields(). Numbers are
// little-endian, texts and lists have a 32-bit length before them.
class Encoder {
 public:
  explicit Encoder(std::string& out) : out_(out) {}

  template <std::integral T>
  void number(T value) {
    if constexpr (std::endian::native == std::endian::big) value = std::byteswap(value);
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    out_.append(bytes, sizeof value);
  }
  void flag(bool value) { number<std::uint8_t>(value); }
  void time(WallTime value) { number<std::int64_t>(value.time_since_epoch().count()); }
  template <class Enum>
  void choice(Enum value, Enum) {
    number(static_cast<std::uint8_t>(value));
  }
  void text(std::string_view value) {
    number(static_cast<std::uint32_t>(value.size()));
    out_.append(value);
  }
  void address(const IpAddress& value) { text(value.to_string()); }
  template <class List, class Each>
  void list(const List& list, Each each) {
    number(static_cast<std::uint32_t>(list.size()));
    for (const auto& element : list) each(*this, element);
  }

 private:
  std::string& out_;
};

class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : rest_(bytes) {}
  bool complete() const { return good_ && rest_.empty(); }
  bool good() const { return good_; }

  template <std::integral T>
  void number(T& value) {
    const std::string_view bytes = take(sizeof value);
    if (bytes.empty()) return;
    std::memcpy(&value, bytes.data(), sizeof value);
    if constexpr (std::endian::native == std::endian::big) value = std::byteswap(value);
  }
  void flag(bool& value) {
    std::uint8_t byte = 0;
    number(byte);
    good_ &= byte <= 1;
    value = byte == 1;
  }
  void time(WallTime& value) {
    std::int64_t microseconds = 0;
    number(microseconds);
    value = WallTime(std::chrono::microseconds(microseconds));
  }
  template <class Enum>
  void choice(Enum& value, Enum last) {
    std::uint8_t byte = 0;
    number(byte);
    good_ &= byte <= static_cast<std::uint8_t>(last);
    if (good_) value = static_cast<Enum>(byte);
  }
  void text(std::string& value) {
    std::uint32_t length = 0;
    number(length);
    value = take(length);
  }
  void address(IpAddress& value) {
    std::string written;
    text(written);
    const auto parsed = IpAddress::parse(written);
    good_ &= parsed.has_value();
    if (parsed) value = *parsed;
  }
  template <class List, class Each>
  void list(List& list, Each each) {
    std::uint32_t count = 0;
    number(count);
    list.clear();
    while (good_ && count-- > 0) each(*this, list.emplace_back());
  }

 private:
  std::string_view take(std::size_t length) {
    good_ &= length <= rest_.size();
    if (!good_) return {};
    const std::string_view taken = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return taken;
  }

  std::string_view rest_;
  bool good_ = true;
};

template <class Archive>
void fields(Archive& a, auto& header)
  requires std::same_as<std::remove_cvref_t<decltype(header)>, SegmentHeader>
{
  a.number(header.number);
  a.number(header.salt);
  a.time(header.created);
}

template <class Archive>
void fields(Archive& a, auto& state)
  requires std::same_as<std::remove_cvref_t<decltype(state)>, MessageState>
{
  a.flag(state.held);
  a.text(state.hold_reason);
  a.list(state.recipients, [](auto& each, auto& recipient) {
    each.choice(recipient.status, RecipientStatus::done);
    each.flag(recipient.delay_reported);
    each.number(recipient.attempts);
    each.time(recipient.next_attempt);
    each.time(recipient.held_since);
    each.text(recipient.reason);
    each.text(recipient.dsn);
    each.text(recipient.remote);
  });
}

template <class Archive>
void fields(Archive& a, auto& envelope)
  requires std::same_as<std::remove_cvref_t<decltype(envelope)>, Envelope>
{
  a.choice(envelope.origin, Origin::report);
  a.choice(envelope.body, BodyType::eight_bit_mime);
  a.choice(envelope.ret, DsnReturn::headers);
  a.choice(envelope.authorised, Authorised::client_name);
  a.flag(envelope.smtputf8);
  a.flag(envelope.hold);
  a.flag(envelope.client.trusted);
  a.number(envelope.client.port);
  a.address(envelope.client.address);
  a.text(envelope.client.name);
  a.text(envelope.helo);
  a.text(envelope.protocol);
  a.text(envelope.tls);
  a.text(envelope.message_id);
  a.text(envelope.envid);
  a.text(envelope.reverse_path);
  a.list(envelope.recipients, [](auto& each, auto& recipient) {
    each.flag(recipient.notify.never);
    each.flag(recipient.notify.success);
    each.flag(recipient.notify.failure);
    each.flag(recipient.notify.delay);
    each.text(recipient.address);
    each.text(recipient.original_recipient);
  });
}

template <class Archive>
void fields(Archive& a, auto& message)
  requires std::same_as<std::remove_cvref_t<decltype(message)>, StoredMessage>
{
  a.flag(message.own_file);
  a.number(message.size);
  a.number(message.crc);
  fields(a, message.envelope);
  fields(a, message.state);
}

template <class Archive>
void fields(Archive& a, auto& header)
  requires std::same_as<std::remove_cvref_t<decltype(header)>, RecordHeader>
{
  a.choice(header.type, static_cast<RecordType>(std::numeric_limits<std::uint8_t>::max()));
  a.number(header.previous);
  a.number(header.id.value);
  a.number(header.head_length);
  a.number(header.head_crc);
  a.number(header.body_length);
  a.number(header.body_crc);
}

// `domain(archive, recipient)` reads or writes the domain's number.
template <class Archive>
void fields(Archive& a, auto& entry, auto domain)
  requires std::same_as<std::remove_cvref_t<decltype(entry)>, Entry>
{
  a.choice(entry.type, RecordType::end);
  a.number(entry.id.value);
  a.number(entry.offset);
  a.number(entry.head_length);
  a.number(entry.previous);
  if (entry.type == RecordType::end) return;
  const bool message = entry.type == RecordType::message;
  if (message) {
    a.number(entry.size);
    a.flag(entry.own_file);
  }
  a.flag(entry.held);
  a.list(entry.recipients, [&](auto& each, auto& recipient) {
    each.choice(recipient.status, RecipientStatus::done);
    each.time(recipient.next_attempt);
    if (message) domain(each, recipient);
  });
}

template <class T>
std::string encoded(const T& value) {
  std::string out;
  out.reserve(512);  // most are shorter
  Encoder encoder(out);
  fields(encoder, value);
  return out;
}

template <class T>
Result<T> decoded(std::string_view bytes, const char* what) {
  T value;
  Decoder decoder(bytes);
  fields(decoder, value);
  if (!decoder.complete()) return fail(ErrorKind::invalid, std::string(what) + " does not parse");
  return value;
}

void put_u32(std::string& out, std::uint32_t value) {
  Encoder(out).number(value);
}

std::uint32_t get_u32(std::string_view bytes) {
  std::uint32_t value = 0;
  Decoder(bytes.substr(0, sizeof value)).number(value);
  return value;
}

// What a record's header is summed up with beside its own bytes: where and in which generation it stands.
std::uint32_t position_crc(const SegmentHeader& segment, std::uint64_t offset) {
  std::string position;
  Encoder encoder(position);
  encoder.number(segment.salt);
  encoder.number(segment.number);
  encoder.number(offset);
  return crc32c(position);
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes, std::uint32_t previous) {
  std::uint32_t crc = ~previous;
  while (!bytes.empty()) {  // the library takes an int and, though it only reads, a pointer to non-const
    const std::size_t n = std::min<std::size_t>(bytes.size(), 1U << 30);
    auto* start = reinterpret_cast<unsigned char*>(const_cast<char*>(bytes.data()));
    crc = crc32_iscsi(start, static_cast<int>(n), crc);
    bytes.remove_prefix(n);
  }
  return ~crc;
}

std::string encode(const SegmentHeader& header) {
  std::string out(segment_magic);
  put_u32(out, format_version);
  out += encoded(header);
  out.resize(segment_header_length - sizeof(std::uint32_t));
  put_u32(out, crc32c(out));
  return out;
}

Result<SegmentHeader> decode_segment_header(std::string_view bytes) {
  constexpr std::size_t covered = segment_header_length - sizeof(std::uint32_t);
  const bool intact = bytes.size() >= segment_header_length && bytes.starts_with(segment_magic) &&
                      get_u32(bytes.substr(covered)) == crc32c(bytes.substr(0, covered));
  if (!intact) return fail(ErrorKind::invalid, "the segment's header is damaged");
  const std::uint32_t version = get_u32(bytes.substr(segment_magic.size()));
  if (version != format_version) {
    return fail(ErrorKind::permanent, "the spool has format " + std::to_string(version) +
                                          ", this greymx knows format " + std::to_string(format_version) +
                                          ": use the version that wrote it, or let that drain the queue first");
  }
  SegmentHeader header;
  Decoder decoder(bytes.substr(segment_magic.size() + sizeof version));
  fields(decoder, header);
  return header;
}

void encode(const RecordHeader& header, const SegmentHeader& segment, std::uint64_t offset, char* into) {
  std::string covered;
  put_u32(covered, segment.number);
  covered += encoded(header);
  covered.resize(record_header_length - sizeof(std::uint32_t));
  std::string out;
  put_u32(out, crc32c(covered, position_crc(segment, offset)));
  std::memcpy(into, out.data(), out.size());
  std::memcpy(into + out.size(), covered.data(), covered.size());
}

std::optional<RecordHeader> decode_record_header(std::string_view bytes, const SegmentHeader& segment,
                                                 std::uint64_t offset) {
  constexpr std::size_t crc_length = sizeof(std::uint32_t);
  if (bytes.size() < record_header_length) return std::nullopt;
  const std::string_view covered = bytes.substr(crc_length, record_header_length - crc_length);
  if (get_u32(covered) != segment.number) return std::nullopt;
  if (get_u32(bytes) != crc32c(covered, position_crc(segment, offset))) return std::nullopt;
  RecordHeader header;
  Decoder decoder(covered.substr(sizeof segment.number));
  fields(decoder, header);
  return header;
}

std::string encode(const StoredMessage& message) {
  return encoded(message);
}
std::string encode(const MessageState& state) {
  return encoded(state);
}

Result<StoredMessage> decode_message(std::string_view head) {
  auto message = decoded<StoredMessage>(head, "a message's head");
  if (message && message->state.recipients.size() != message->envelope.recipients.size()) {
    return fail(ErrorKind::invalid, "a message's state and envelope differ in recipients");
  }
  return message;
}

Result<MessageState> decode_state(std::string_view head) {
  return decoded<MessageState>(head, "a message's state");
}

Entry make_entry(QueueId id, const MessageState& state) {
  Entry entry;
  entry.type = RecordType::change;
  entry.id = id;
  entry.held = state.held;
  entry.recipients.reserve(state.recipients.size());
  for (const RecipientState& recipient : state.recipients) {
    entry.recipients.push_back({recipient.status, recipient.next_attempt, {}});
  }
  return entry;
}

Entry make_entry(QueueId id, const StoredMessage& message) {
  Entry entry = make_entry(id, message.state);
  entry.type = RecordType::message;
  entry.size = message.size;
  entry.own_file = message.own_file;
  for (std::size_t i = 0; i < entry.recipients.size(); ++i) {
    entry.recipients[i].domain = schedule_domain(message.envelope.recipients[i].address);
  }
  return entry;
}

Result<std::optional<Entry>> make_entry(const RecordHeader& header, std::uint64_t offset, std::string_view head) {
  Entry entry;
  entry.id = header.id;
  if (header.type == RecordType::message) {
    const auto message = decode_message(head);
    if (!message) return std::unexpected(message.error());
    entry = make_entry(header.id, *message);
  } else if (header.type == RecordType::change) {
    const auto state = decode_state(head);
    if (!state) return std::unexpected(state.error());
    entry = make_entry(header.id, *state);
  } else if (header.type != RecordType::end) {
    return std::nullopt;
  }
  entry.offset = static_cast<std::uint32_t>(offset);
  entry.head_length = header.head_length;
  entry.previous = header.previous;
  return entry;
}

void SummaryBuilder::add(const Entry& entry) {
  Encoder encoder(entries_);
  fields(encoder, entry, [this](Encoder& each, const Entry::Recipient& recipient) {
    auto known = numbers_.find(recipient.domain);
    if (known == numbers_.end()) {
      known = numbers_.emplace(recipient.domain, static_cast<std::uint32_t>(numbers_.size())).first;
      Encoder(domains_).text(recipient.domain);
    }
    each.number(known->second);
  });
  ++count_;
}

std::string SummaryBuilder::take() {
  std::string out;
  put_u32(out, static_cast<std::uint32_t>(numbers_.size()));
  out += domains_;
  put_u32(out, count_);
  out += entries_;
  *this = {};
  return out;
}

Result<> read_summary(std::string_view body, const std::function<void(const Entry&)>& each) {
  Decoder decoder(body);
  std::vector<std::string> domains;
  decoder.list(domains, [](Decoder& a, std::string& domain) { a.text(domain); });
  std::uint32_t count = 0;
  decoder.number(count);
  bool known = true;
  while (decoder.good() && known && count-- > 0) {
    Entry entry;
    fields(decoder, entry, [&](Decoder& a, Entry::Recipient& recipient) {
      std::uint32_t number = 0;
      a.number(number);
      known &= number < domains.size();
      if (known) recipient.domain = domains[number];
    });
    known &= entry.type >= RecordType::message;
    if (decoder.good() && known) each(entry);
  }
  if (!known || !decoder.complete()) return fail(ErrorKind::invalid, "the segment's summary does not parse");
  return {};
}

}  // namespace greymx::queue

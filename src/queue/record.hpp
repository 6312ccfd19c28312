// Bytes of the spool and what they mean: greymx-spool(5). Pure. What is read is hostile until its checksum holds, and
// bounded even then: a count never makes memory larger than a small multiple of the bytes that carry it.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "queue/format.hpp"
#include "queue/message.hpp"

namespace greymx::queue {

// CRC-32C (RFC 3720 B.4), continued from what `previous` covers.
std::uint32_t crc32c(std::string_view bytes, std::uint32_t previous = 0);

struct SegmentHeader {
  std::uint32_t number = 0;  // of the file's name; never used again, so it tells generations of recycled files apart
  std::uint64_t salt = 0;    // random: mail that imitates records cannot know their checksums
  WallTime created{};
};
std::string encode(const SegmentHeader& header);
Result<SegmentHeader> decode_segment_header(std::string_view bytes);  // invalid: damaged; permanent: another version

struct RecordHeader {
  RecordType type = RecordType::padding;
  std::uint32_t previous = 0;  // the segment in which the message's record stood when this was written; 0 = none
  QueueId id;
  std::uint32_t head_length = 0;
  std::uint32_t head_crc = 0;
  std::uint32_t body_length = 0;
  std::uint32_t body_crc = 0;

  std::uint64_t length() const { return record_length(head_length, body_length); }
};
void encode(const RecordHeader& header, const SegmentHeader& segment, std::uint64_t offset, char* into);
// Absent if the bytes are not a header that was written at this offset in this generation of the segment.
std::optional<RecordHeader> decode_record_header(std::string_view bytes, const SegmentHeader& segment,
                                                 std::uint64_t offset);

// The head of a message record. Its body is the content, unless that is in a file of its own.
struct StoredMessage {
  bool own_file = false;
  std::uint64_t size = 0;
  std::uint32_t crc = 0;
  Envelope envelope;
  MessageState state;
  bool operator==(const StoredMessage&) const = default;
};
std::string encode(const StoredMessage& message);
std::string encode(const MessageState& state);  // the head of a change record
Result<StoredMessage> decode_message(std::string_view head);
Result<MessageState> decode_state(std::string_view head);

// What memory and summaries keep of one record.
struct Entry {
  struct Recipient {
    RecipientStatus status = RecipientStatus::pending;
    WallTime next_attempt{};
    std::string domain;  // messages only
    bool operator==(const Recipient&) const = default;
  };
  RecordType type = RecordType::end;
  QueueId id;
  std::uint32_t offset = 0;
  std::uint32_t head_length = 0;
  std::uint32_t previous = 0;
  std::uint64_t size = 0;  // messages only, as own_file
  bool own_file = false;
  bool held = false;                  // messages and changes only, as recipients
  std::vector<Recipient> recipients;  // of the envelope, in its order
  bool operator==(const Entry&) const = default;
};
Entry make_entry(QueueId id, const StoredMessage& message);
Entry make_entry(QueueId id, const MessageState& state);
// Of any record that was read; absent for types that memory keeps nothing of.
Result<std::optional<Entry>> make_entry(const RecordHeader& header, std::uint64_t offset, std::string_view head);

// Grows with each record of the open segment; becomes the body of the summary record when that is sealed.
class SummaryBuilder {
 public:
  void add(const Entry& entry);
  std::size_t size() const { return domains_.size() + entries_.size() + 8; }
  std::string take();  // leaves it empty

 private:
  std::map<std::string, std::uint32_t, std::less<>> numbers_;
  std::string domains_;
  std::string entries_;
  std::uint32_t count_ = 0;
};
Result<> read_summary(std::string_view body, const std::function<void(const Entry&)>& each);

}  // namespace greymx::queue

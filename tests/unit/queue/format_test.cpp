// Bytes: every corner in which a reader may find itself.
#include "fixture.hpp"

using namespace greymx;
using namespace greymx::test;

namespace {

StoredMessage full_message() {
  StoredMessage message;
  message.size = 12345;
  message.crc = 0xDEADBEEF;
  Envelope& envelope = message.envelope;
  envelope = envelope_to({"user@example.com", "Other@Example.NET"});
  envelope.origin = Origin::report;
  envelope.body = BodyType::eight_bit_mime;
  envelope.smtputf8 = true;
  envelope.ret = DsnReturn::headers;
  envelope.envid = "QQ314159";
  envelope.client.address = *IpAddress::parse("2001:db8::25");
  envelope.client.port = 54321;
  envelope.client.trusted = true;
  envelope.tls = "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)";
  envelope.authorised = Authorised::spf;
  envelope.hold = true;
  envelope.message_id = "<1@example.org>";
  envelope.recipients[0].original_recipient = "rfc822;user@example.com";
  envelope.recipients[0].notify = {.success = true, .delay = true};
  envelope.recipients[1].notify = {.never = true};
  message.state.held = true;
  message.state.hold_reason = "by hand";
  message.state.recipients.resize(2);
  RecipientState& recipient = message.state.recipients[0];
  recipient = deferred(WallTime(1795449663s), "connect to mx1.example.com[192.0.2.1]:25: Connection refused");
  recipient.dsn = "4.4.1";
  recipient.remote = "mx1.example.com[192.0.2.1]:25";
  recipient.delay_reported = true;
  message.state.recipients[1].status = RecipientStatus::held;
  message.state.recipients[1].held_since = WallTime(1795449000s);
  return message;
}

// A segment made by hand, batch by batch.
class SegmentFile {
 public:
  explicit SegmentFile(std::uint32_t number = 1, std::uint64_t salt = 42) : header_{number, salt, {}} {
    bytes_ = encode(header_);
    bytes_.resize(block);
    bytes_ += bytes_;
  }
  SegmentFile& batch(const std::vector<std::pair<RecordType, std::string>>& records) {
    const std::size_t begin = bytes_.size();
    bytes_.resize(begin + record_header_length);
    for (const auto& [type, head] : records) {
      RecordHeader record{type, 0, QueueId{++id_}, static_cast<std::uint32_t>(head.size()), crc32c(head), 0, 0};
      offsets.push_back(bytes_.size());
      put(record);
      bytes_ += head;
      bytes_.resize(round_up(bytes_.size(), record_alignment));
    }
    RecordHeader record;
    record.type = RecordType::batch;
    record.body_length = static_cast<std::uint32_t>(bytes_.size() - begin - record_header_length);
    encode(record, header_, begin, bytes_.data() + begin);
    bytes_.resize(round_up(bytes_.size(), block));
    return *this;
  }
  SegmentFile& padded(std::size_t size) {
    bytes_.resize(size);
    return *this;
  }
  std::string bytes() const { return bytes_; }
  std::vector<std::size_t> offsets;  // of the records

 private:
  void put(const RecordHeader& record) {
    char bytes[record_header_length];
    encode(record, header_, bytes_.size(), bytes);
    bytes_.append(bytes, sizeof bytes);
  }
  SegmentHeader header_;
  std::uint64_t id_ = 0;
  std::string bytes_;
};

struct Walked {
  std::vector<std::uint64_t> ids;
  Segment::Walk walk;
};

Result<Walked> walk(const std::string& bytes) {
  MemoryFiles files;
  files.put("/spool/00000001.log", bytes);
  const auto segment = Segment::open(files, "/spool", 1);
  if (!segment) return std::unexpected(segment.error());
  Walked walked;
  const auto done = (*segment)->walk([&](const RecordHeader& header, std::uint64_t, std::string_view,
                                         std::string_view) { walked.ids.push_back(header.id.value); });
  if (!done) return std::unexpected(done.error());
  walked.walk = *done;
  return walked;
}

using Ids = std::vector<std::uint64_t>;
const std::pair<RecordType, std::string> an_end{RecordType::end, ""};

}  // namespace

TEST_CASE("the checksum is CRC-32C, and goes on from where it was") {
  CHECK(crc32c("123456789") == 0xE3069283);
  CHECK(crc32c("") == 0);
  CHECK(crc32c("6789", crc32c("12345")) == 0xE3069283);
  const std::string text(1000, 'x');
  for (std::size_t i = 0; i < 20; ++i) CHECK(crc32c(text.substr(i), crc32c(text.substr(0, i))) == crc32c(text));
}

TEST_CASE("a message comes back as it was written, and no part of it does") {
  const StoredMessage message = full_message();
  const std::string head = encode(message);
  const auto decoded = decode_message(head);
  REQUIRE(decoded.has_value());
  CHECK(*decoded == message);
  const auto state = decode_state(encode(message.state));
  REQUIRE(state.has_value());
  CHECK(*state == message.state);
  for (std::size_t length = 0; length < head.size(); ++length) CHECK_FALSE(decode_message(head.substr(0, length)));
  CHECK_FALSE(decode_message(head + '\0'));
}

TEST_CASE("a state and an envelope of different length are refused") {
  StoredMessage message = full_message();
  message.state.recipients.pop_back();
  CHECK_FALSE(decode_message(encode(message)));
}

TEST_CASE("a count that the bytes cannot hold costs no memory") {
  std::string state = encode(MessageState());
  state.replace(state.size() - 4, 4, "\xff\xff\xff\xff");
  CHECK_FALSE(decode_state(state));
}

TEST_CASE("a record's header is good only where and in which segment it was written") {
  const SegmentHeader segment{7, 99, {}};
  const RecordHeader header{RecordType::message, 3, QueueId{5}, 100, 1, 2000, 2};
  char bytes[record_header_length];
  encode(header, segment, 8232, bytes);
  const std::string_view written(bytes, sizeof bytes);
  const auto decoded = decode_record_header(written, segment, 8232);
  REQUIRE(decoded.has_value());
  CHECK(decoded->id == header.id);
  CHECK(decoded->previous == 3);
  CHECK(decoded->length() == 2144);
  CHECK_FALSE(decode_record_header(written, segment, 8240));
  CHECK_FALSE(decode_record_header(written, {7, 98, {}}, 8232));
  CHECK_FALSE(decode_record_header(written, {8, 99, {}}, 8232));
  for (std::size_t i = 0; i < sizeof bytes * 8; ++i) {
    std::string flipped(written);
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << i % 8));
    CHECK_FALSE(decode_record_header(flipped, segment, 8232));
  }
}

TEST_CASE("another version is named, with the remedy") {
  std::string header = encode(SegmentHeader{1, 2, {}});
  header[8] = 2;
  const std::uint32_t crc = crc32c(std::string_view(header).substr(0, 60));
  for (int i = 0; i < 4; ++i) header[60 + i] = static_cast<char>(crc >> 8 * i);
  const auto decoded = decode_segment_header(header);
  REQUIRE_FALSE(decoded.has_value());
  CHECK(decoded.error().kind == ErrorKind::permanent);
  CHECK(decoded.error().text.find("format 2") != std::string::npos);
  CHECK(decoded.error().text.find("use the version that wrote it") != std::string::npos);
}

TEST_CASE("a summary says what was put into it") {
  SummaryBuilder builder;
  Entry message = make_entry(QueueId{17}, full_message());
  message.offset = 8232;
  message.head_length = 500;
  Entry change = make_entry(QueueId{17}, full_message().state);
  Entry end;
  end.id = QueueId{16};
  end.previous = 3;
  const std::vector<Entry> entries{message, end, change};
  for (const Entry& entry : entries) builder.add(entry);
  const std::size_t announced = builder.size();
  const std::string body = builder.take();
  CHECK(body.size() == announced);
  std::vector<Entry> read;
  const auto done = read_summary(body, [&](const Entry& entry) { read.push_back(entry); });
  REQUIRE(done.has_value());
  CHECK(read.size() == entries.size());
  CHECK(read[0] == message);
  CHECK(read[0].recipients[1].domain == "example.net");
  CHECK(read[1].previous == 3);
  CHECK(read[2].recipients.size() == 2);
  for (std::size_t n = 0; n < body.size(); ++n) CHECK_FALSE(read_summary(body.substr(0, n), [](const Entry&) {}));
}

TEST_CASE("records of all batches are seen in their order") {
  const auto walked = walk(SegmentFile().batch({an_end, an_end}).batch({an_end}).padded(65536).bytes());
  REQUIRE(walked.has_value());
  CHECK(walked->ids == Ids{1, 2, 3});
  CHECK(walked->walk.end == log_begin + 2 * block);
  CHECK(walked->walk.damage.empty());
}

TEST_CASE("torn_header_at_tail_is_end") {
  for (std::size_t kept = 0; kept < record_header_length; ++kept) {
    std::string bytes = SegmentFile().batch({an_end}).batch({an_end}).bytes();
    const std::size_t second = log_begin + block;
    std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(second + kept), bytes.end(), '\xff');
    const auto walked = walk(bytes);
    REQUIRE(walked.has_value());
    CHECK(walked->ids == Ids{1});
    CHECK(walked->walk.end == second);
    CHECK(walked->walk.damage.empty());
  }
}

TEST_CASE("torn_record_at_tail_is_end, what is whole in the last batch lives") {
  const std::string head = encode(full_message());
  const SegmentFile file = SegmentFile().batch({an_end, {RecordType::message, head}});
  const std::string whole = file.bytes();
  for (std::size_t length = file.offsets[1]; length < file.offsets[1] + record_header_length + head.size(); ++length) {
    for (const bool short_file : {true, false}) {
      std::string bytes = whole.substr(0, length);
      if (!short_file) bytes.resize(whole.size(), '\xff');
      const auto walked = walk(bytes);
      REQUIRE(walked.has_value());
      CHECK(walked->ids == Ids{1});
      CHECK(walked->walk.shortened == short_file);  // then it is damage
      CHECK(walked->walk.damage.empty() == !short_file);
    }
  }
}

TEST_CASE("a file that ends in a batch, a block or its header has lost its end, and may have where a batch ends") {
  const std::string bytes = SegmentFile().batch({an_end}).batch({an_end}).padded(65536).bytes();
  const std::size_t end = log_begin + 2 * block;
  for (const std::size_t size :
       {segment_header_length, log_begin - 1, log_begin + 20, end - block + 10, end - 1, end + 1}) {
    INFO(size);
    const auto walked = walk(bytes.substr(0, size));
    REQUIRE(walked.has_value());
    CHECK(walked->walk.shortened);
    CHECK_FALSE(walked->walk.cut);
  }
  for (const std::size_t size : {log_begin, end - block, end, end + block, bytes.size()}) {
    INFO(size);
    const auto walked = walk(bytes.substr(0, size));
    REQUIRE(walked.has_value());
    CHECK_FALSE(walked->walk.shortened);
    CHECK(walked->walk.cut == (size <= end));
    CHECK(walked->walk.damage.empty());
  }
  std::string damaged = bytes.substr(0, end);  // as recovery leaves it, which cuts what is damaged
  damaged[log_begin + 2 * record_header_length - 1] ^= 1;
  const auto walked = walk(damaged);
  REQUIRE(walked.has_value());
  CHECK_FALSE(walked->walk.damage.empty());
  CHECK_FALSE(walked->walk.cut);
}

TEST_CASE("stale_generation_is_end") {
  SegmentFile stale(1, 41);  // the same number: only the salt differs
  stale.batch({an_end}).batch({an_end}).batch({an_end});
  SegmentFile fresh(1, 42);
  const std::string head = fresh.batch({an_end}).bytes();
  const auto walked = walk(head + stale.bytes().substr(head.size()));
  REQUIRE(walked.has_value());
  CHECK(walked->ids == Ids{1});
  CHECK(walked->walk.end == head.size());
  CHECK(walked->walk.damage.empty());
}

TEST_CASE("bad_crc_mid_segment_is_reported") {
  SegmentFile file;
  file.batch({an_end, {RecordType::change, encode(full_message().state)}, an_end}).batch({an_end});
  std::string bytes = file.bytes();
  bytes[file.offsets[1] + record_header_length + 3] ^= 1;
  const auto walked = walk(bytes);
  REQUIRE(walked.has_value());
  CHECK(walked->ids == Ids{1, 3, 4});
  CHECK(walked->walk.damage == std::vector<Damage>{{file.offsets[1], file.offsets[2] - file.offsets[1]}});
}

TEST_CASE("after a bad record header its length is not trusted: the next batch is looked for") {
  SegmentFile file;
  file.batch({an_end, an_end, an_end}).batch({an_end});
  std::string bytes = file.bytes();
  bytes[file.offsets[1] + 8] ^= 1;
  const auto walked = walk(bytes);
  REQUIRE(walked.has_value());
  CHECK(walked->ids == Ids{1, 4});
  CHECK(walked->walk.damage == std::vector<Damage>{{file.offsets[1], 2 * record_header_length}});
}

TEST_CASE("after a bad batch header the next block with a good one is looked for") {
  std::string bytes = SegmentFile().batch({an_end}).batch({an_end}).batch({an_end}).bytes();
  bytes[log_begin + block] ^= 1;
  const auto walked = walk(bytes);
  REQUIRE(walked.has_value());
  CHECK(walked->ids == Ids{1, 3});
  CHECK(walked->walk.damage == std::vector<Damage>{{log_begin + block, block}});
}

TEST_CASE("one of two copies of the segment's header is enough") {
  std::string bytes = SegmentFile().batch({an_end}).bytes();
  bytes[20] ^= 1;
  CHECK(walk(bytes).has_value());
  bytes[block + 20] ^= 1;
  const auto walked = walk(bytes);
  REQUIRE_FALSE(walked.has_value());
  CHECK(walked.error().kind == ErrorKind::invalid);
}

TEST_CASE("a segment under another's name is refused") {
  CHECK_FALSE(walk(SegmentFile(2).batch({an_end}).bytes()).has_value());
}

TEST_CASE("unknown records are passed over from type 128 on, and refuse the segment below") {
  const auto passed = walk(SegmentFile().batch({{RecordType{128}, "later"}, an_end}).bytes());
  REQUIRE(passed.has_value());
  CHECK(passed->ids == Ids{2});
  CHECK(passed->walk.damage.empty());
  const auto refused = walk(SegmentFile().batch({{RecordType{7}, "later"}, an_end}).bytes());
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().kind == ErrorKind::permanent);
}

TEST_CASE("mail that imitates a batch is never taken for one, not even after damage") {
  // A message's body that begins on a block's border and is a batch of the same segment's number, but not its salt.
  const std::string forged = SegmentFile(1, 43).batch({an_end}).bytes().substr(log_begin);
  SegmentFile file;
  file.batch({{RecordType::message, std::string(block - 2 * record_header_length, 'x') + forged}}).batch({an_end});
  std::string bytes = file.bytes();
  REQUIRE(bytes.substr(log_begin + block, forged.size()) == forged);
  bytes[log_begin] ^= 1;  // the batch's own header
  const auto walked = walk(bytes);
  REQUIRE(walked.has_value());
  CHECK(walked->ids == Ids{2});
}

TEST_CASE("names of segments") {
  CHECK(segment_name(12, log_suffix) == "00000012.log");
  CHECK(parse_segment_name("00000012.log", log_suffix) == 12);
  CHECK(parse_segment_name("123456789.log", log_suffix) == 123456789);
  for (const char* name : {"12.log", "0000001x.log", "00000012.free", "00000012.log~", "", ".log", "99999999999.log"}) {
    CHECK_FALSE(parse_segment_name(name, log_suffix));
  }
}

TEST_CASE("a recipient is scheduled under its domain's canonical name") {
  CHECK(schedule_domain("user@Example.COM") == "example.com");
  CHECK(schedule_domain("\"a@b\"@example.com") == "example.com");
  CHECK(schedule_domain("Postmaster").empty());
  CHECK(schedule_domain("user@b\xc3\xbc"
                        "cher.example") == "xn--bcher-kva.example");
}

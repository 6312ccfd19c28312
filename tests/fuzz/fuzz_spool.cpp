// The spool's readers, on bytes that nobody wrote, and behind the checksums: heads, summaries and whole segments.
#include <cstdlib>

#include "queue/reader.hpp"
#include "queue/segment.hpp"
#include "support/memory_files.hpp"

using namespace greymx;
using namespace greymx::queue;

namespace {

void require(bool good) {
  if (!good) std::abort();
}

// A segment with good checksums whose records have the types, lengths and heads that the input says.
std::string segment_of(std::string_view input) {
  const SegmentHeader header{1, 42, {}};
  std::string bytes = encode(header);
  bytes.resize(block);
  bytes += bytes;
  const std::size_t begin = bytes.size();
  bytes.resize(begin + record_header_length);
  while (input.size() >= 5) {
    const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(input[i]); };
    RecordHeader record;
    record.type = static_cast<RecordType>(byte(0) & 0x87);
    record.id.value = byte(1);
    record.previous = byte(2);
    const std::string_view head = input.substr(5, byte(3) + 256U * byte(4));
    record.head_length = static_cast<std::uint32_t>(head.size());
    record.head_crc = crc32c(head);
    input.remove_prefix(5 + head.size());
    const std::size_t at = bytes.size();
    bytes.resize(at + record_header_length);
    encode(record, header, at, bytes.data() + at);
    bytes += head;
    bytes.resize(round_up(bytes.size(), record_alignment));
  }
  RecordHeader batch;
  batch.type = RecordType::batch;
  batch.body_length = static_cast<std::uint32_t>(bytes.size() - begin - record_header_length);
  encode(batch, header, begin, bytes.data() + begin);
  bytes.resize(round_up(bytes.size(), block));
  return bytes;
}

void read_all(const std::string& segment) {
  test::MemoryFiles files;
  files.put("/spool/00000001.log", segment);
  files.put("/spool/large/000000000005", "content");
  static_cast<void>(verify_spool("/spool", files));
  static_cast<void>(dump_spool("/spool", files, [](const std::string&) { return true; }));
  const auto reader = SpoolReader::open("/spool", files);
  if (!reader) return;
  for (const QueueId id : (*reader)->ids()) {
    static_cast<void>((*reader)->peek(id));
    static_cast<void>((*reader)->content(id));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0:
      if (const auto message = decode_message(input)) require(decode_message(encode(*message)) == *message);
      break;
    case 1:
      if (const auto state = decode_state(input)) require(encode(*state) == input);
      break;
    case 2: {
      SummaryBuilder again;
      std::vector<Entry> entries;
      if (!read_summary(input, [&](const Entry& entry) { entries.push_back(entry); })) break;
      for (const Entry& entry : entries) again.add(entry);
      std::size_t i = 0;
      require(read_summary(again.take(), [&](const Entry& entry) { require(entry == entries[i++]); }).has_value());
      break;
    }
    case 3:
      read_all(std::string(input));
      break;
    default:
      read_all(segment_of(input));
  }
  return 0;
}

#include "queue/open_segment.hpp"

#include <algorithm>

namespace greymx::queue {

namespace {

std::uint64_t summary_growth(const Entry& entry) {
  std::uint64_t bytes = 64;
  for (const Entry::Recipient& recipient : entry.recipients) bytes += 24 + recipient.domain.size();
  return bytes;
}

RecordHeader header_of(const Append& append) {
  return {append.entry.type,   append.entry.previous, append.entry.id, static_cast<std::uint32_t>(append.head.size()),
          crc32c(append.head), append.body_length,    append.body_crc};
}

}  // namespace

OpenSegment::OpenSegment(std::shared_ptr<Segment> segment, std::shared_ptr<File> file, std::uint64_t end,
                         SummaryBuilder summary)
    : segment_(std::move(segment)), file_(std::move(file)), end_(end), summary_(std::move(summary)) {}

bool OpenSegment::fits(std::span<const Append> records) const {
  std::uint64_t batch = record_header_length;
  std::uint64_t summary = summary_.size() + 2 * record_header_length;
  for (const Append& append : records) {
    batch += length_of(append);
    summary += summary_growth(append.entry);
  }
  return end_ + round_up(batch, block) + round_up(summary, block) + block <= segment_->size();
}

Result<> OpenSegment::write(std::span<Append> records) {
  if (auto written = lay_down(records); !written) return written;
  if (auto synced = file_->sync(); !synced) return synced;
  end_ += buffer_.size();
  for (const Append& append : records) summary_.add(append.entry);
  return {};
}

Result<> OpenSegment::cut() {
  return segment_->cut(end_);
}

// Puts the records behind a batch's header and writes them with one call, padded to the next block.
Result<> OpenSegment::lay_down(std::span<Append> records) {
  std::uint64_t length = 0;
  for (const Append& append : records) length += length_of(append);
  buffer_.resize(round_up(record_header_length + length, block));
  RecordHeader batch;
  batch.type = RecordType::batch;
  batch.body_length = static_cast<std::uint32_t>(length);
  encode(batch, segment_->header(), end_, buffer_.data());
  std::uint64_t position = record_header_length;
  for (Append& append : records) {
    append.entry.offset = static_cast<std::uint32_t>(end_ + position);
    char* into = buffer_.data() + position;
    encode(header_of(append), segment_->header(), append.entry.offset, into);
    into = std::ranges::copy(append.head, into + record_header_length).out;
    for (const std::vector<char>& piece : append.body) into = std::ranges::copy(piece, into).out;
    position += length_of(append);
    std::fill(into, buffer_.data() + position, '\0');
  }
  std::fill(buffer_.begin() + static_cast<std::ptrdiff_t>(position), buffer_.end(), '\0');
  return file_->write(end_, buffer_);
}

Result<> OpenSegment::seal(bool last) {
  if (end_ == log_begin) return {};
  const std::string summary = summary_.take();
  Append record;
  record.entry.type = RecordType::summary;
  record.body.emplace_back(summary.begin(), summary.end());
  record.body_length = static_cast<std::uint32_t>(summary.size());
  record.body_crc = crc32c(summary);
  if (last) {
    const std::uint64_t length = round_up(record_header_length + length_of(record), block);
    if (auto cut = segment_->cut(end_ + length + block); !cut) return cut;
  }
  if (auto written = lay_down(std::span(&record, 1)); !written) return written;
  if (auto synced = file_->sync(); !synced) return synced;  // a seal promises a summary
  std::string last_block(block, '\0');
  const std::uint64_t at = segment_->size() - block;
  RecordHeader seal;
  seal.type = RecordType::seal;
  seal.id.value = record.entry.offset;
  seal.body_length = record.body_length;
  encode(seal, segment_->header(), at, last_block.data());
  if (auto written = file_->write(at, last_block); !written) return written;
  return file_->sync();
}

}  // namespace greymx::queue

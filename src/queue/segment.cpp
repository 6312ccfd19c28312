#include "queue/segment.hpp"

#include <fmt/format.h>

#include <charconv>

namespace greymx::queue {

namespace {

constexpr std::size_t max_free = 4;             // .free files kept
constexpr std::size_t zero_piece = 256 * 1024;  // written at once when a new segment is filled with zeros

void note(std::vector<Damage>& damage, std::uint64_t offset, std::uint64_t bytes) {
  if (!damage.empty() && damage.back().offset + damage.back().bytes == offset) {
    damage.back().bytes += bytes;
  } else {
    damage.push_back({offset, bytes});
  }
}

bool intact(const RecordHeader& header, std::string_view head, std::string_view body) {
  return crc32c(head) == header.head_crc && crc32c(body) == header.body_crc;
}

}  // namespace

std::string segment_name(std::uint32_t number, std::string_view suffix) {
  return fmt::format("{:08}{}", number, suffix);
}

std::optional<std::uint32_t> parse_segment_name(std::string_view name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return std::nullopt;
  name.remove_suffix(suffix.size());
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size() || name.size() < 8) return std::nullopt;
  return number;
}

std::string large_path(const std::string& directory, QueueId id) {
  return directory + large_directory + "/" + id.to_string();
}

Result<std::shared_ptr<Segment>> Segment::open(Files& files, std::string directory, std::uint32_t number) {
  const std::string path = directory + "/" + segment_name(number, log_suffix);
  auto opened = files.open(path, OpenMode::read);
  if (!opened) return std::unexpected(opened.error());
  std::shared_ptr<File> file = std::move(*opened);
  const auto size = file->size();
  if (!size) return std::unexpected(size.error());
  Result<SegmentHeader> header = fail(ErrorKind::invalid, {});
  Result<> unread;  // no damage: the other copy may tell
  for (const std::uint64_t copy : {std::uint64_t{0}, block}) {
    char bytes[segment_header_length];
    const auto read = file->read(copy, bytes);
    if (!read) unread = std::unexpected(read.error());
    if (read) header = decode_segment_header({bytes, *read});
    if (header || header.error().kind == ErrorKind::permanent) break;
  }
  if (!header && header.error().kind == ErrorKind::invalid && !unread) {
    return fail(unread.error().kind, unread.error().text + "; if that stays so, move the file away and start again");
  }
  if (header && header->number != number) header = fail(ErrorKind::invalid, "the header has another segment's number");
  if (!header) return fail(header.error().kind, path + ": " + header.error().text);
  return std::make_shared<Segment>(files, std::move(directory), *header, std::move(file), *size);
}

Segment::Segment(Files& files, std::string directory, SegmentHeader header, std::shared_ptr<File> file,
                 std::uint64_t size)
    : files_(files), directory_(std::move(directory)), header_(header), size_(size), file_(std::move(file)) {}

Result<std::shared_ptr<File>> Segment::file() {
  const std::scoped_lock lock(mutex_);
  used_ = true;
  if (file_) return file_;
  auto opened = files_.open(directory_ + "/" + name(), OpenMode::read);
  if (!opened) return std::unexpected(opened.error());
  file_ = std::move(*opened);
  return file_;
}

void Segment::rest() {
  const std::scoped_lock lock(mutex_);
  if (!used_) file_.reset();
  used_ = false;
}

// What the disk does not give is zeros, which no checksum takes for a record.
Result<std::string> Segment::bytes_at(std::uint64_t offset, std::uint64_t length, bool& unread) {
  const auto file = this->file();
  if (!file) return std::unexpected(file.error());
  std::string bytes(length, '\0');
  if (const auto read = (*file)->read(offset, bytes)) {
    bytes.resize(*read);
    return bytes;
  }
  std::uint64_t end = 0;
  for (std::uint64_t at = 0; at < length;) {
    const std::span piece = std::span(bytes).subspan(at, std::min(block - (offset + at) % block, length - at));
    const auto read = (*file)->read(offset + at, piece);
    if (!read) std::ranges::fill(piece, '\0');
    unread |= !read.has_value();
    const std::size_t got = read.value_or(piece.size());
    if (got > 0) end = at + got;
    at += piece.size();
  }
  bytes.resize(end);
  return bytes;
}

Result<std::optional<RecordHeader>> Segment::header_at(std::uint64_t offset, bool& unread) {
  const auto bytes = bytes_at(offset, record_header_length, unread);
  if (!bytes) return std::unexpected(bytes.error());
  return decode_record_header(*bytes, header_, offset);
}

Result<Record> Segment::read(QueueId id, std::uint64_t offset, std::uint32_t head_length, std::uint32_t body_length) {
  const auto file = this->file();
  if (!file) return std::unexpected(file.error());
  const std::uint64_t size = size_;
  const std::uint64_t length = record_header_length + std::uint64_t{head_length} + body_length;
  Record record;
  if (offset <= size && length <= size - offset) record.bytes.resize(length);  // a damaged summary promises anything
  const auto read = (*file)->read(offset, record.bytes);
  if (!read) return std::unexpected(read.error());
  const auto header = decode_record_header(std::string_view(record.bytes).substr(0, *read), header_, offset);
  const bool fits = header && *read == record.bytes.size() && header->id == id && header->head_length == head_length &&
                    (body_length == 0 || header->body_length == body_length);
  if (fits) {
    record.header = *header;
    const bool whole = body_length > 0 || header->body_length == 0;
    if (crc32c(record.head()) == header->head_crc && (!whole || crc32c(record.body()) == header->body_crc)) {
      return record;
    }
  }
  return fail(ErrorKind::invalid, fmt::format("{}: the record at {} is damaged", name(), offset));
}

Result<Segment::Seal> Segment::seal() {
  Seal seal;
  if (size_ < log_begin + block) return seal;
  const auto header = header_at(size_ - block, seal.unread);
  if (!header) return std::unexpected(header.error());
  if (!*header || (*header)->type != RecordType::seal) return seal;
  const std::uint64_t offset = (*header)->id.value;
  seal.log_end = round_up(offset + record_length(0, (*header)->body_length), block);
  auto record = read({}, offset, 0, (*header)->body_length);
  seal.unread |= !record && record.error().kind != ErrorKind::invalid;
  if (record && record->header.type == RecordType::summary) seal.summary = record->body();
  return seal;
}

Result<Segment::Walk> Segment::walk(const Visit& visit, std::uint64_t log_end) {
  const std::uint64_t limit = log_end > 0 ? log_end : size_.load();
  Walk walk;
  std::vector<Damage> unsure;  // damage if a batch follows, else the torn tail
  const auto confirm = [&] {
    for (const Damage& damage : unsure) note(walk.damage, damage.offset, damage.bytes);
    unsure.clear();
  };
  for (std::uint64_t at = log_begin; at < limit;) {
    const auto batch = header_at(at, walk.unread);
    if (!batch) return std::unexpected(batch.error());
    if (!*batch || (*batch)->type != RecordType::batch) {
      note(unsure, at, std::min(block, limit - at));
      at += block;
      continue;
    }
    confirm();
    walk.last = at;
    const auto walked = walk_batch(at + record_header_length, (*batch)->body_length, visit, unsure, walk.unread);
    if (!walked) return std::unexpected(walked.error());
    at = walk.end = round_up(at + (*batch)->length(), block);
  }
  walk.torn = !unsure.empty() && unsure.front().offset < walk.end;
  walk.shortened = log_end == 0 && (limit < walk.end || limit % block != 0);
  walk.cut = log_end == 0 && limit == walk.end && !walk.torn && walk.damage.empty();
  if (log_end > 0 || walk.shortened) confirm();
  return walk;
}

Result<> Segment::walk_batch(std::uint64_t offset, std::uint64_t length, const Visit& visit,
                             std::vector<Damage>& damage, bool& unread) {
  const std::uint64_t size = size_;
  const auto bytes = bytes_at(offset, std::min(length, size - std::min(offset, size)), unread);
  if (!bytes) return std::unexpected(bytes.error());
  std::uint64_t at = 0;
  while (at < length) {
    const std::string_view rest = std::string_view(*bytes).substr(std::min(at, bytes->size()));
    const auto header = decode_record_header(rest, header_, offset + at);
    if (!header || header->length() > rest.size()) break;  // without a header nobody knows where the next one is
    if (header->type > RecordType::seal && static_cast<std::uint8_t>(header->type) < ignorable_types) {
      return fail(ErrorKind::permanent,
                  fmt::format("{}: the record at {} is of a kind that only a newer greymx knows", name(), offset + at));
    }
    const std::string_view head = rest.substr(record_header_length, header->head_length);
    const std::string_view body = rest.substr(record_header_length + header->head_length, header->body_length);
    if (!intact(*header, head, body)) {
      note(damage, offset + at, header->length());
    } else if (header->type <= RecordType::seal) {
      visit(*header, offset + at, head, body);
    }
    at += header->length();
  }
  if (at < length) note(damage, offset + at, length - at);
  return {};
}

Result<> Segment::cut(std::uint64_t size) {
  const auto file = files_.open(directory_ + "/" + name(), OpenMode::write);
  if (!file) return std::unexpected(file.error());
  if (auto cut = (*file)->truncate(size); !cut) return cut;
  size_ = size;
  return (*file)->sync();
}

Result<> Segment::blank(std::uint64_t end) {
  const auto file = files_.open(directory_ + "/" + name(), OpenMode::write);
  if (!file) return std::unexpected(file.error());
  if (auto written = (*file)->write(end, std::string(block, '\0')); !written) return written;
  return (*file)->sync();
}

std::string lost_end(const Segment& segment) {
  return fmt::format("{}: the file ends too early, at {}; what stood behind that is lost", segment.name(),
                     segment.size());
}

std::string may_have_lost_end(const Segment& segment) {
  return fmt::format(
      "{}: the file ends at {} without a seal, as after a failed write; if none was logged, what stood "
      "behind that is lost",
      segment.name(), segment.size());
}

SegmentStore::SegmentStore(Files& files, std::string directory, std::uint64_t segment_size)
    : files_(files), directory_(std::move(directory)), segment_size_(segment_size) {}

Result<> SegmentStore::adopt(std::uint32_t last_number, const std::vector<std::uint32_t>& free) {
  const std::scoped_lock lock(mutex_);
  last_number_ = last_number;
  for (const std::uint32_t number : free) {
    const auto file = files_.open(path(number, free_suffix), OpenMode::read);
    if (!file) return std::unexpected(file.error());
    const auto size = (*file)->size();
    if (size && *size == segment_size_) {
      free_.push_back(number);
    } else if (auto removed = files_.remove(path(number, free_suffix)); !removed) {
      return removed;
    }
  }
  return {};
}

std::string SegmentStore::path(std::uint32_t number, const char* suffix) const {
  return directory_ + "/" + segment_name(number, suffix);
}

std::uint32_t SegmentStore::take_number() {
  const std::scoped_lock lock(mutex_);
  return ++last_number_;
}

std::size_t SegmentStore::spare() const {
  const std::scoped_lock lock(mutex_);
  return free_.size() + (standby_ ? 1 : 0);
}

std::uint64_t SegmentStore::spare_bytes() const {
  return spare() * segment_size_;
}

Result<std::shared_ptr<Segment>> SegmentStore::next(WallTime now, bool for_new_mail) {
  const std::scoped_lock making(making_);
  while (for_new_mail && spare() < 2) {
    if (auto made = make_free(false); !made) return std::unexpected(made.error());
  }
  {
    const std::scoped_lock lock(mutex_);
    if (standby_) return std::exchange(standby_, nullptr);
  }
  return make(now);
}

Result<> SegmentStore::reserve() {
  if (spare() > 0) return {};
  const std::scoped_lock making(making_);  // the one that is being made ready counts
  return spare() > 0 ? Result<>() : make_free(false);
}

Result<> SegmentStore::refill(WallTime now) {
  while (spare() < 2) {
    if (auto made = make_free(true); !made) return made;
  }
  const std::scoped_lock making(making_);
  std::unique_lock lock(mutex_);
  if (standby_) return {};
  lock.unlock();
  auto made = make(now);
  if (!made) return std::unexpected(made.error());
  lock.lock();
  standby_ = std::move(*made);
  return {};
}

// Zeros are written, not only reserved, where there is time for it: else each append also changes the file system's
// books, and a sync takes twice as long.
Result<> SegmentStore::make_free(bool zeroed) {
  const std::uint32_t number = take_number();
  auto file = files_.open(path(number, free_suffix), OpenMode::create);
  if (!file) return std::unexpected(file.error());
  Result<> made = (*file)->allocate(segment_size_);
  const std::vector<char> zeros(zeroed ? zero_piece : 0);
  for (std::uint64_t at = 0; made && zeroed && at < segment_size_; at += zero_piece) {
    const std::span<const char> piece(zeros);
    made = (*file)->write(at, piece.first(std::min<std::uint64_t>(zero_piece, segment_size_ - at)));
  }
  if (made) made = (*file)->sync();
  if (made) made = files_.sync_directory(directory_);
  if (!made) {
    static_cast<void>(files_.remove(path(number, free_suffix)));  // a left-over is found at the next start
    return made;
  }
  const std::scoped_lock lock(mutex_);
  free_.push_back(number);
  return {};
}

Result<std::shared_ptr<Segment>> SegmentStore::make(WallTime now) {
  std::unique_lock lock(mutex_);
  if (free_.empty()) {
    lock.unlock();
    if (auto made = make_free(false); !made) return std::unexpected(made.error());
    lock.lock();
  }
  const std::uint32_t free = free_.front();
  free_.pop_front();
  const SegmentHeader header{++last_number_, std::uint64_t{random_()} << 32 | random_(), now};
  lock.unlock();
  auto made = name(free, header);
  if (made) return made;
  // As far as it has got, it may have its new name.
  const auto back = files_.rename(path(header.number, log_suffix), path(free, free_suffix));
  if (!files_.list(directory_)) {  // nothing can be opened now: that file is not to blame
    lock.lock();
    if (back || back.error().kind == ErrorKind::not_found) free_.push_front(free);
    return made;
  }
  // The disk may be bad just there: another one is made.
  const auto gone = files_.remove(path(free, free_suffix));
  if (gone || gone.error().kind == ErrorKind::not_found) return made;
  lock.lock();
  free_.push_back(free);
  return made;
}

Result<std::shared_ptr<Segment>> SegmentStore::name(std::uint32_t free, const SegmentHeader& header) {
  auto opened = files_.open(path(free, free_suffix), OpenMode::write);
  if (!opened) return std::unexpected(opened.error());
  std::shared_ptr<File> file = std::move(*opened);
  std::string bytes = encode(header);
  bytes.resize(block);
  bytes += bytes;
  if (auto written = file->write(0, bytes); !written) return std::unexpected(written.error());
  if (auto synced = file->sync(); !synced) return std::unexpected(synced.error());
  if (auto named = files_.rename(path(free, free_suffix), path(header.number, log_suffix)); !named) {
    return std::unexpected(named.error());
  }
  if (auto synced = files_.sync_directory(directory_); !synced) return std::unexpected(synced.error());
  return std::make_shared<Segment>(files_, directory_, header, std::move(file), segment_size_);
}

Result<> SegmentStore::retire(const Segment& segment, bool shared) {
  std::unique_lock lock(mutex_);
  const bool reuse = !shared && free_.size() < max_free && segment.size() == segment_size_;
  lock.unlock();
  const std::string from = path(segment.number(), log_suffix);
  Result<> gone = reuse ? files_.rename(from, path(segment.number(), free_suffix)) : files_.remove(from);
  if (!gone && gone.error().kind != ErrorKind::not_found) return gone;  // not found: done by a call that failed later
  if (auto synced = files_.sync_directory(directory_); !synced) return synced;
  lock.lock();
  const bool there = gone || files_.open(path(segment.number(), free_suffix), OpenMode::read);
  if (reuse && there) free_.push_back(segment.number());
  return {};
}

}  // namespace greymx::queue

#include "queue/compact.hpp"

namespace greymx::queue {

namespace {

constexpr std::uint64_t piece = 1 << 20;  // handed to the writer before we wait
constexpr unsigned retry_after = 60;      // looks that find nothing to do, a second each

bool stands_at(const Location& place, std::uint32_t segment, std::uint64_t offset) {
  return place.segment == segment && place.offset == offset;
}

}  // namespace

Compactor::Compactor(const SpoolSettings& settings, Books& books, Writer& writer, Quarantine& quarantine, Log& log)
    : settings_(settings), books_(books), writer_(writer), quarantine_(quarantine), log_(log) {}

bool Compactor::run(bool scarce, const std::function<bool(std::uint64_t)>& pace) {
  const std::shared_ptr<Segment> segment = choose(scarce);
  return segment && empty(*segment, pace);
}

std::shared_ptr<Segment> Compactor::choose(bool scarce) {
  const std::scoped_lock lock(books_.mutex);
  const auto number = books_.segments.wasteful(settings_.segment_size, scarce);
  if (!number && ++idle_ % retry_after == 0) books_.segments.retry_failed();
  return number ? books_.segments.find(*number)->segment : nullptr;
}

bool Compactor::empty(Segment& segment, const std::function<bool(std::uint64_t)>& pace) {
  const std::uint64_t failures = writer_.failures();
  bool going = true;
  bool copied = false;
  std::uint64_t handed = 0;
  const auto visit = [&](const RecordHeader& header, std::uint64_t offset, std::string_view head,
                         std::string_view body) {
    if (!going) return;
    auto append = needed(segment.number(), header, offset, head, body);
    if (!append) return;
    copied |= append->only_if.has_value();
    writer_.append(std::move(*append));
    handed += header.length();
    if (handed < piece) return;
    going = pace(handed);
    handed = 0;
  };
  const auto seal = segment.seal();
  const auto walk = segment.walk(visit, seal ? seal->log_end : 0);
  going = going && pace(handed) && writer_.failures() == failures;
  if (going) finish(segment, walk, copied, seal && seal->unread);
  return going;
}

std::optional<Append> Compactor::needed(std::uint32_t segment, const RecordHeader& header, std::uint64_t offset,
                                        std::string_view head, std::string_view body) {
  if (header.type == RecordType::end) {
    const std::scoped_lock lock(books_.mutex);
    // Here, or gone: nothing older stands anywhere, or that segment and this one would still have copies of it.
    if (books_.segments.overridden(segment, header.previous).empty()) return std::nullopt;
    Entry entry;
    entry.id = header.id;
    return make_append(std::move(entry), header.previous);
  }
  const auto snapshot = writer_.snapshot(header.id);
  if (!snapshot) return std::nullopt;
  const Places& places = snapshot->places;
  if (header.type == RecordType::message && stands_at(places.message, segment, offset)) {
    return copy(header.id, *snapshot, head, body);
  }
  // A message of this segment is copied with its state.
  const bool state = header.type == RecordType::change && stands_at(places.state, segment, offset);
  if (!state || places.message.segment == segment) return std::nullopt;
  const auto entry = make_entry(header, offset, head);
  if (!entry || !*entry) return std::nullopt;
  Append append = make_append(**entry, places.message.segment, std::string(head));
  append.only_if = places;
  return append;
}

std::optional<Append> Compactor::copy(QueueId id, const Snapshot& snapshot, std::string_view head,
                                      std::string_view body) {
  auto message = decode_message(head);
  auto state = writer_.state(id, snapshot);
  if (!message || !state) return std::nullopt;
  message->state = std::move(*state);
  Append append = make_append(make_entry(id, *message), snapshot.places.message.segment, encode(*message));
  append.body.emplace_back(body.begin(), body.end());
  append.body_length = static_cast<std::uint32_t>(body.size());
  append.body_crc = crc32c(body);
  append.only_if = snapshot.places;
  return append;
}

void Compactor::finish(Segment& segment, const Result<Segment::Walk>& walk, bool copied, bool unread) {
  if (!walk) log_.warning("spool", segment.name() + " cannot be compacted: " + walk.error().text);
  const bool untouched = walk && !quarantine_.secure(segment, unread || walk->unread, walk->damage);
  const std::scoped_lock lock(books_.mutex);
  if (untouched) books_.segments.leave(segment.number());
  SegmentTable::Use& use = *books_.segments.find(segment.number());
  // Damage may have hidden an end; in the last batch of one that is not sealed it looks torn.
  use.emptied = walk && use.live == 0 && walk->damage.empty() && !walk->torn;
  // What changed its place while we looked is taken next time; what is damaged ends when it is read.
  use.failed = !walk && walk.error().kind == ErrorKind::temporary;
  use.stuck = !use.emptied && !use.failed && (!walk || !copied);
}

}  // namespace greymx::queue

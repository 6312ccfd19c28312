#include "queue/recovery.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "queue/open_segment.hpp"

namespace greymx::queue {

namespace {

class Recovery {
 public:
  Recovery(Files& files, const std::string& directory, Books& books, Quarantine& quarantine, WallTime now)
      : files_(files), directory_(directory), books_(books), quarantine_(quarantine), now_(now) {}

  Result<Recovered> run() {
    const auto names = files_.list(directory_);
    if (!names) return std::unexpected(names.error());
    std::vector<std::uint32_t> logs;
    for (const std::string& name : *names) {
      const auto log = parse_segment_name(name, log_suffix);
      const auto free = parse_segment_name(name, free_suffix);
      if (log) logs.push_back(*log);
      if (free) recovered_.free.push_back(*free);
      recovered_.last_number = std::max({recovered_.last_number, log.value_or(0), free.value_or(0)});
    }
    std::ranges::sort(logs);
    for (const std::uint32_t number : logs) {
      if (auto read = read_segment(number); !read) return std::unexpected(read.error());
    }
    if (auto checked = check_own_files(); !checked) return std::unexpected(checked.error());
    return std::move(recovered_);
  }

 private:
  Result<> read_segment(std::uint32_t number) {
    const auto opened = Segment::open(files_, directory_, number);
    if (!opened && opened.error().kind == ErrorKind::invalid) {
      damaged_ = true;
      move_away("/" + segment_name(number, log_suffix), opened.error().text);
      return {};
    }
    if (!opened) return std::unexpected(opened.error());
    Segment& segment = **opened;
    books_.segments.add(*opened, false);
    const auto seal = segment.seal();
    if (!seal) return std::unexpected(seal.error());
    const bool summed_up =
        seal->summary && read_summary(*seal->summary, [&](const Entry& entry) { enter(number, entry); }).has_value();
    if (!summed_up) {
      if (auto read = read_records(*opened, *seal); !read) return read;
    }
    segment.rest();
    segment.rest();  // twice: not used since the first time, so that its descriptor is closed
    return {};
  }

  Result<> read_records(const std::shared_ptr<Segment>& segment, const Segment::Seal& seal) {
    std::vector<Damage> senseless;  // intact, but what it says does not parse
    SummaryBuilder summary;
    const auto walk = segment->walk(
        [&](const RecordHeader& header, std::uint64_t offset, std::string_view head, std::string_view) {
          const auto entry = make_entry(header, offset, head);
          if (!entry) senseless.push_back({offset, header.length()});
          if (!entry || !*entry) return;
          enter(segment->number(), **entry);
          summary.add(**entry);
        },
        seal.log_end);
    if (!walk) return std::unexpected(walk.error());
    senseless.insert(senseless.end(), walk->damage.begin(), walk->damage.end());
    if (walk->shortened) quarantine_.report(lost_end(*segment));
    if (walk->cut) quarantine_.warn(may_have_lost_end(*segment));
    const bool untouched = !quarantine_.secure(*segment, seal.unread || walk->unread, senseless);
    if (untouched) books_.segments.leave(segment->number());
    untouched_ |= untouched;
    damaged_ |= !senseless.empty() || walk->shortened;
    // The last batch, if it is torn, can never be told from damage.
    const bool whole = senseless.empty() && !walk->torn;
    books_.segments.find(segment->number())->evacuate = !whole;
    // An empty segment keeps its length, to be used again.
    if (seal.log_end > 0 || walk->end == log_begin) return {};
    auto opened = files_.open(directory_ + "/" + segment->name(), OpenMode::write);
    if (!opened) return std::unexpected(opened.error());
    const std::shared_ptr<File> file = std::move(*opened);
    if (auto written = write_again(*file, *walk); !written || untouched) return written;
    // It is sealed, so that what the disk loses from now on is damage and no torn tail.
    if (whole && OpenSegment(segment, file, walk->end, std::move(summary)).seal(true)) return {};
    return walk->end < segment->size() ? segment->cut(walk->end) : Result<>();
  }

  // If the sync of the last batch failed before the crash, memory may have it and the disk not; what it has copies of
  // would be given up.
  static Result<> write_again(File& file, const Segment::Walk& walk) {
    std::string bytes(block, '\0');
    for (std::uint64_t at = walk.last; at < walk.end; at += block) {
      const auto read = file.read(at, bytes);
      if (!read) continue;
      if (auto written = file.write(at, std::span(bytes).first(*read)); !written) return written;
    }
    return file.sync();
  }

  // In the order of the log: what comes later holds.
  void enter(std::uint32_t number, const Entry& entry) {
    recovered_.newest = std::max(recovered_.newest, entry.id);
    Places* known = books_.index.places(entry.id);
    const bool message = entry.type == RecordType::message;
    if (known == nullptr && !message) {
      if (entry.type == RecordType::end) books_.segments.add_end(number, entry.previous);
      return;
    }
    if (known != nullptr) books_.segments.release(*known);
    const std::uint32_t body = entry.own_file || !message ? 0 : static_cast<std::uint32_t>(entry.size);
    const Location here{number, entry.offset, entry.head_length, body};
    if (message) {
      const Places places{here, here, entry.own_file};
      if (known != nullptr) books_.segments.add_copy(number, known->message.segment);
      books_.segments.add_copy(number, entry.previous);
      books_.segments.need(places);
      books_.index.add(entry, places, now_);
    } else if (entry.type == RecordType::change) {
      known->state = here;
      books_.segments.need(*known);
      books_.index.set_state(entry.id, entry, now_);
    } else {
      books_.segments.add_end(number, known->message.segment);
      books_.segments.add_end(number, entry.previous);
      // One that it does not name, as a failed batch may have left it, cannot be told when the end is moved on.
      if (known->message.segment != entry.previous) books_.segments.add_copy(number, known->message.segment);
      books_.index.remove(entry.id);
    }
  }

  // What cannot be moved, as when the disk is full, stays: the next start finds it again.
  void move_away(const std::string& file, const std::string& why) {
    const auto moved = quarantine_.keep(file, why);
    if (!moved) quarantine_.report(file.substr(1) + ": " + why + "; it stays there: " + moved.error().text);
  }

  // A file that no message names was never acknowledged or has ended; unless damage has hidden the record.
  Result<> check_own_files() {
    const auto names = files_.list(directory_ + large_directory);
    if (!names) return std::unexpected(names.error());
    std::set<QueueId> present;
    for (const std::string& name : *names) {
      const auto id = QueueId::parse(name);
      if (!id) continue;
      recovered_.newest = std::max(recovered_.newest, *id);
      const Places* places = books_.index.places(*id);
      if (places != nullptr && places->own_file) {
        present.insert(*id);
        continue;
      }
      const std::string file = std::string(large_directory) + "/" + name;
      if (untouched_) continue;  // what names it may only be read by the next start
      if (damaged_) {
        move_away(file, "no intact record names it");
      } else if (auto gone = files_.remove(directory_ + file); !gone) {
        return gone;
      }
    }
    for (const QueueId id : books_.index.with_own_file()) {
      if (present.contains(id)) continue;
      recovered_.lost.push_back(id);
      quarantine_.report("message " + id.to_string() + " is lost: its content in " + large_path(directory_, id) +
                         " is gone");
    }
    return {};
  }

  Files& files_;
  const std::string& directory_;
  Books& books_;
  Quarantine& quarantine_;
  const WallTime now_;
  Recovered recovered_;
  bool damaged_ = false;
  bool untouched_ = false;
};

}  // namespace

Quarantine::Quarantine(Files& files, std::string directory, Log& log, Alerts& alerts)
    : files_(files), directory_(std::move(directory)), log_(log), alerts_(alerts) {}

Result<> Quarantine::keep(Segment& segment, const Damage& damage) {
  const auto from = segment.file();
  if (!from) return std::unexpected(from.error());
  std::string bytes(damage.bytes, '\0');
  const auto read = (*from)->read(damage.offset, bytes);
  if (!read) return std::unexpected(read.error());
  if (auto made = make_directory(); !made) return made;
  const std::string copy = fmt::format("{}/{:08}-{}", corrupt_directory, segment.number(), damage.offset);
  if (auto gone = files_.remove(directory_ + copy); !gone && gone.error().kind != ErrorKind::not_found) return gone;
  auto to = files_.open(directory_ + copy, OpenMode::create);
  if (!to) return std::unexpected(to.error());
  if (auto written = (*to)->write(0, std::span(bytes).first(*read)); !written) return written;
  if (auto synced = (*to)->sync(); !synced) return synced;
  if (auto synced = files_.sync_directory(directory_ + corrupt_directory); !synced) return synced;
  const auto is_news = [&] {
    const std::scoped_lock lock(mutex_);
    return told_.emplace(segment.number(), damage.offset).second;
  };
  if (is_news()) {
    report(fmt::format("{}: {} bytes at {} are damaged; they are kept in {}{}", segment.name(), damage.bytes,
                       damage.offset, directory_, copy));
  }
  return {};
}

Result<> Quarantine::keep(const std::string& file, const std::string& why) {
  if (auto made = make_directory(); !made) return made;
  const std::string to = corrupt_directory + file.substr(file.rfind('/'));
  const auto moved = files_.rename(directory_ + file, directory_ + to);
  if (!moved && moved.error().kind != ErrorKind::not_found) return moved;
  for (const std::string& changed : {std::string(corrupt_directory), file.substr(0, file.rfind('/'))}) {
    if (auto synced = files_.sync_directory(directory_ + changed); !synced) return synced;
  }
  report(fmt::format("{}: {}; it was moved to {}{}", file.substr(1), why, directory_, to));
  return {};
}

bool Quarantine::secure(Segment& segment, bool unread, const std::vector<Damage>& damage) {
  const bool kept = !unread && std::ranges::all_of(damage, [&](const Damage& one) {
    return keep(segment, one).has_value();  // the disk may be full
  });
  if (!kept) {
    report(segment.name() + ": parts of it cannot be read; it stays as it is, and the next start reads it again");
  }
  return kept;
}

void Quarantine::report(const std::string& text) {
  log_.error("spool", text);
  alerts_.raise("the spool is damaged", text);
}

Result<> Quarantine::make_directory() {
  return files_.make_directory(directory_ + corrupt_directory);
}

Result<Recovered> recover(Files& files, const std::string& directory, Books& books, Quarantine& quarantine,
                          WallTime now) {
  return Recovery(files, directory, books, quarantine, now).run();
}

}  // namespace greymx::queue

#include "queue/reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "queue/content.hpp"
#include "queue/index.hpp"

namespace greymx::queue {

namespace {

constexpr const char* unreadable = ": parts of it cannot be read";
constexpr int attempts = 10;  // to see the spool unchanged by compaction; then what was seen last must do

Result<std::vector<std::uint32_t>> list_segments(const std::string& path, Files& files) {
  const auto names = files.list(path);
  if (!names) return std::unexpected(names.error());
  std::vector<std::uint32_t> numbers;
  for (const std::string& name : *names) {
    if (const auto number = parse_segment_name(name, log_suffix)) numbers.push_back(*number);
  }
  std::ranges::sort(numbers);
  return numbers;
}

// What a walk reported and a second one finds again, in a segment that still stands: the first may have looked while
// the daemon wrote, or reused the file.
std::vector<Damage> confirmed(const Segment::Walk& walk, Segment& segment, const std::string& path, Files& files,
                              std::uint64_t log_end) {
  if (walk.damage.empty()) return {};
  const auto again = segment.walk([](const auto&...) {}, log_end);
  const bool stands = files.open(path + "/" + segment.name(), OpenMode::read).has_value();
  return stands && again && again->damage == walk.damage ? again->damage : std::vector<Damage>{};
}

class Reader final : public SpoolReader {
 public:
  Reader(std::string path, Files& files) : path_(std::move(path)), files_(files) {}

  // A message that moves while we read has its old record until the new one is synced, and a segment that went is
  // missing at the second look. So: read until everything that was there at the beginning is there at the end.
  Result<> refresh() {
    for (int i = 0; i < attempts; ++i) {
      const auto before = list_segments(path_, files_);
      if (!before) return std::unexpected(before.error());
      std::erase_if(parts_, [&](const auto& part) { return !std::ranges::binary_search(*before, part.first); });
      for (const std::uint32_t number : *before) {
        const auto known = parts_.find(number);
        if (known != parts_.end() && known->second.sealed) continue;
        if (auto read = read_part(number); !read) return read;
      }
      const auto after = list_segments(path_, files_);
      if (!after) return std::unexpected(after.error());
      if (std::ranges::includes(*after, *before)) break;
    }
    known_.clear();
    for (const auto& [number, part] : parts_) {
      for (const Step& step : part.steps) enter(step);
    }
    return {};
  }

  std::vector<QueueId> ids() const override {
    std::vector<QueueId> all;
    all.reserve(known_.size());
    for (const auto& [id, places] : known_) all.push_back(id);
    std::ranges::sort(all);
    return all;
  }

  Result<Message> peek(QueueId id) override {
    auto found = read(id, false);
    if (!found) return std::unexpected(found.error());
    return Message{id, found->stored.size, std::move(found->stored.envelope), std::move(found->stored.state)};
  }

  Result<std::unique_ptr<Content>> content(QueueId id) override {
    auto found = read(id, true);
    if (!found) return std::unexpected(found.error());
    return std::move(found->content);
  }

  const std::vector<std::string>& problems() const override { return problems_; }

  std::vector<QueueId> with_own_file() const {
    std::vector<QueueId> found;
    for (const auto& [id, places] : known_) {
      if (places.own_file) found.push_back(id);
    }
    return found;
  }
  std::size_t segments() const { return parts_.size(); }

 private:
  struct Step {
    RecordType type;
    bool own_file;
    QueueId id;
    Location where;
  };
  struct Part {
    std::shared_ptr<Segment> segment;
    bool sealed = false;
    std::vector<Step> steps;
  };
  struct Found {
    StoredMessage stored;
    std::unique_ptr<Content> content;
  };

  Result<> read_part(std::uint32_t number) {
    parts_.erase(number);
    const auto segment = Segment::open(files_, path_, number);
    if (!segment && segment.error().kind == ErrorKind::not_found) return {};
    if (!segment && segment.error().kind == ErrorKind::invalid) {
      problem(segment.error().text);
      return {};
    }
    if (!segment) return std::unexpected(segment.error());
    Part part{*segment, false, {}};
    const auto step = [&](const Entry& entry) {
      const bool own_body = entry.type == RecordType::message && !entry.own_file;
      const std::uint32_t body = own_body ? static_cast<std::uint32_t>(entry.size) : 0;
      part.steps.push_back({entry.type, entry.own_file, entry.id, {number, entry.offset, entry.head_length, body}});
    };
    const auto seal = (*segment)->seal();
    if (!seal) return std::unexpected(seal.error());
    bool unread = seal->unread;
    part.sealed = seal->summary && read_summary(*seal->summary, step).has_value();
    if (!part.sealed) {
      part.steps.clear();
      const auto walk = (*segment)->walk(
          [&](const RecordHeader& header, std::uint64_t offset, std::string_view head, std::string_view) {
            const auto entry = make_entry(header, offset, head);
            if (entry && *entry) step(**entry);
            if (!entry)
              problem(fmt::format("{}: the record at {}: {}", (*segment)->name(), offset, entry.error().text));
          },
          seal->log_end);
      if (!walk) return std::unexpected(walk.error());
      unread |= walk->unread;
      for (const Damage& damage : confirmed(*walk, **segment, path_, files_, seal->log_end)) {
        problem(fmt::format("{}: {} bytes at {} are damaged", (*segment)->name(), damage.bytes, damage.offset));
      }
    }
    if (unread) problem((*segment)->name() + unreadable);
    (*segment)->rest();
    (*segment)->rest();  // twice: not used since the first time, so that its descriptor is closed
    parts_.emplace(number, std::move(part));
    return {};
  }

  void problem(std::string text) {
    if (std::ranges::find(problems_, text) == problems_.end()) problems_.push_back(std::move(text));
  }

  void enter(const Step& step) {
    if (step.type == RecordType::message) {
      known_[step.id] = {step.where, step.where, step.own_file};
    } else if (const auto known = known_.find(step.id); known != known_.end()) {
      if (step.type == RecordType::change) known->second.state = step.where;
      if (step.type == RecordType::end) known_.erase(known);
    }
  }

  Result<Found> read(QueueId id, bool with_content) {
    Result<Found> found = read_once(id, with_content);
    for (int i = 0; !found && found.error().kind != ErrorKind::temporary && i < 3; ++i) {
      if (auto refreshed = refresh(); !refreshed) return std::unexpected(refreshed.error());
      found = read_once(id, with_content);
    }
    return found;
  }

  Result<Found> read_once(QueueId id, bool with_content) {
    const auto known = known_.find(id);
    if (known == known_.end()) return fail(ErrorKind::not_found, id.to_string() + " is not in the queue");
    const Places& places = known->second;
    const auto record = read_record(id, places.message, with_content ? places.message.body_length : 0);
    if (!record) return std::unexpected(record.error());
    auto stored = decode_message(record->head());
    if (!stored) return std::unexpected(stored.error());
    Found found{std::move(*stored), nullptr};
    if (places.state != places.message) {
      const auto change = read_record(id, places.state, 0);
      if (!change) return std::unexpected(change.error());
      auto state = decode_state(change->head());
      if (!state) return std::unexpected(state.error());
      found.stored.state = std::move(*state);
    }
    if (!with_content) return found;
    if (!places.own_file) {
      found.content = make_content(std::string(record->body()));
      return found;
    }
    auto opened = open_own_file(files_, path_, id, found.stored);
    if (!opened) return std::unexpected(opened.error());
    found.content = std::move(*opened);
    return found;
  }

  Result<Record> read_record(QueueId id, const Location& place, std::uint32_t body_length) {
    const auto part = parts_.find(place.segment);
    if (part == parts_.end()) return fail(ErrorKind::not_found, segment_name(place.segment, log_suffix) + " is gone");
    return part->second.segment->read(id, place.offset, place.head_length, body_length);
  }

  std::string path_;
  Files& files_;
  std::map<std::uint32_t, Part> parts_;
  std::unordered_map<QueueId, Places> known_;
  std::vector<std::string> problems_;
};

Result<> read_to_end(Content& content) {
  std::vector<char> piece(1 << 20);
  for (std::uint64_t at = 0; at < content.size();) {
    const auto read = content.read(at, piece);
    if (!read) return std::unexpected(read.error());
    if (*read == 0) return fail(ErrorKind::invalid, "it ends early");
    at += *read;
  }
  return {};
}

// Every record of one segment, and whether its summary says the same.
Result<> verify_segment(const std::string& path, Files& files, std::uint32_t number, SpoolReport& report) {
  const auto opened = Segment::open(files, path, number);
  if (!opened && opened.error().kind == ErrorKind::permanent) return std::unexpected(opened.error());
  if (!opened) return {};  // the reader has told, or it is gone
  Segment& segment = **opened;
  const auto seal = segment.seal();
  if (!seal) return std::unexpected(seal.error());
  const std::uint64_t log_end = seal->log_end;
  std::vector<Entry> records;
  std::vector<Entry> summed_up;
  const auto walk = segment.walk(
      [&](const RecordHeader& header, std::uint64_t offset, std::string_view head, std::string_view) {
        if (auto entry = make_entry(header, offset, head); entry && *entry) records.push_back(std::move(**entry));
      },
      log_end);
  if (!walk) return std::unexpected(walk.error());
  if (seal->unread || walk->unread) report.failures.push_back(segment.name() + unreadable);
  const auto damages = confirmed(*walk, segment, path, files, log_end);
  for (const Damage& damage : damages) {
    report.failures.push_back(
        fmt::format("{}: {} bytes at {} are damaged", segment.name(), damage.bytes, damage.offset));
  }
  if (walk->shortened) report.failures.push_back(lost_end(segment));
  if (walk->cut) report.warnings.push_back(may_have_lost_end(segment));
  if (!seal->summary || !walk->damage.empty()) return {};
  const auto read = read_summary(*seal->summary, [&](const Entry& entry) { summed_up.push_back(entry); });
  if (!read || summed_up != records)
    report.failures.push_back(segment.name() + ": its summary differs from its records");
  return {};
}

using Json = nlohmann::ordered_json;

Json to_json(const MessageState& state) {
  Json recipients = Json::array();
  for (const RecipientState& recipient : state.recipients) {
    recipients.push_back({{"status", static_cast<int>(recipient.status)},
                          {"next_attempt", recipient.next_attempt.time_since_epoch().count()},
                          {"attempts", recipient.attempts},
                          {"delay_reported", recipient.delay_reported},
                          {"held_since", recipient.held_since.time_since_epoch().count()},
                          {"reason", recipient.reason},
                          {"dsn", recipient.dsn},
                          {"remote", recipient.remote}});
  }
  return {{"held", state.held}, {"hold_reason", state.hold_reason}, {"recipients", recipients}};
}

Json to_json(const Envelope& envelope) {
  Json recipients = Json::array();
  for (const EnvelopeRecipient& recipient : envelope.recipients) {
    recipients.push_back({{"address", recipient.address},
                          {"original_recipient", recipient.original_recipient},
                          {"notify_never", recipient.notify.never},
                          {"notify_success", recipient.notify.success},
                          {"notify_failure", recipient.notify.failure},
                          {"notify_delay", recipient.notify.delay}});
  }
  return {{"origin", static_cast<int>(envelope.origin)},
          {"body", static_cast<int>(envelope.body)},
          {"ret", static_cast<int>(envelope.ret)},
          {"authorised", static_cast<int>(envelope.authorised)},
          {"smtputf8", envelope.smtputf8},
          {"hold", envelope.hold},
          {"client_trusted", envelope.client.trusted},
          {"client_port", envelope.client.port},
          {"client_address", envelope.client.address.to_string()},
          {"client_name", envelope.client.name},
          {"helo", envelope.helo},
          {"protocol", envelope.protocol},
          {"tls", envelope.tls},
          {"message_id", envelope.message_id},
          {"envid", envelope.envid},
          {"reverse_path", envelope.reverse_path},
          {"recipients", recipients}};
}

Json to_json(std::uint32_t segment, const RecordHeader& header, std::uint64_t offset, std::string_view head) {
  Json line{{"segment", segment},
            {"offset", offset},
            {"type", "end"},
            {"id", header.id.to_string()},
            {"previous", header.previous}};
  if (header.type == RecordType::message) {
    line["type"] = "message";
    const auto message = decode_message(head);
    if (!message) return line;
    line["own_file"] = message->own_file;
    line["size"] = message->size;
    line["crc32c"] = message->crc;
    line["envelope"] = to_json(message->envelope);
    line["state"] = to_json(message->state);
  } else if (header.type == RecordType::change) {
    line["type"] = "change";
    if (const auto state = decode_state(head)) line["state"] = to_json(*state);
  }
  return line;
}

}  // namespace

Result<std::unique_ptr<SpoolReader>> SpoolReader::open(const std::string& path, Files& files) {
  auto reader = std::make_unique<Reader>(path, files);
  if (auto read = reader->refresh(); !read) return std::unexpected(read.error());
  return reader;
}

Result<SpoolReport> verify_spool(const std::string& path, Files& files) {
  SpoolReport report;
  Reader reader(path, files);
  if (auto read = reader.refresh(); !read) return std::unexpected(read.error());
  const auto numbers = list_segments(path, files);
  if (!numbers) return std::unexpected(numbers.error());
  for (const std::uint32_t number : *numbers) {
    if (auto verified = verify_segment(path, files, number, report); !verified)
      return std::unexpected(verified.error());
  }
  report.segments = reader.segments();
  report.messages = reader.ids().size();
  for (const std::string& problem : reader.problems()) {
    if (std::ranges::find(report.failures, problem) == report.failures.end()) report.failures.push_back(problem);
  }
  const std::vector<QueueId> large = reader.with_own_file();
  for (const QueueId id : large) {
    const auto content = reader.content(id);
    if (!content && content.error().kind == ErrorKind::not_found) continue;  // it has ended meanwhile
    const Result<> read = content ? read_to_end(**content) : std::unexpected(content.error());
    if (!read) report.failures.push_back("message " + id.to_string() + ": " + read.error().text);
  }
  for (const std::string& name : files.list(path + large_directory).value_or(std::vector<std::string>())) {
    const auto id = QueueId::parse(name);
    if (!id || std::ranges::find(large, *id) != large.end()) continue;
    report.warnings.push_back(path + large_directory + "/" + name +
                              " belongs to no message: it is on its way in or out, or the next start removes it");
  }
  const auto corrupt = files.list(path + corrupt_directory).value_or(std::vector<std::string>());
  if (!corrupt.empty()) {
    report.warnings.push_back(fmt::format("{}{} has {} damaged pieces found earlier: look at them, then remove them",
                                          path, corrupt_directory, corrupt.size()));
  }
  return report;
}

Result<> dump_spool(const std::string& path, Files& files, const std::function<bool(const std::string& line)>& out) {
  const auto numbers = list_segments(path, files);
  if (!numbers) return std::unexpected(numbers.error());
  Result<> all;
  bool going = true;
  const auto print = [&](const Json& line) {
    going = going && out(line.dump(-1, ' ', false, Json::error_handler_t::replace));
  };
  for (const std::uint32_t number : *numbers) {
    if (!going) break;
    const auto segment = Segment::open(files, path, number);
    if (!segment && segment.error().kind == ErrorKind::not_found) continue;
    if (!segment) return std::unexpected(segment.error());
    const auto seal = (*segment)->seal();
    if (!seal) return std::unexpected(seal.error());
    print({{"segment", number},
           {"type", "segment"},
           {"created", (*segment)->header().created.time_since_epoch().count()},
           {"sealed", seal->log_end > 0}});
    const auto walk = (*segment)->walk(
        [&](const RecordHeader& header, std::uint64_t offset, std::string_view head, std::string_view) {
          const bool shown =
              header.type == RecordType::message || header.type == RecordType::change || header.type == RecordType::end;
          if (shown) print(to_json(number, header, offset, head));
        });
    if (!walk) return std::unexpected(walk.error());
    if (walk->unread) all = fail(ErrorKind::temporary, (*segment)->name() + unreadable);
  }
  return all;
}

}  // namespace greymx::queue

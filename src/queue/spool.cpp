#include <fmt/format.h>
#include <malloc.h>

#include <future>

#include "queue/content.hpp"
#include "queue/spool_impl.hpp"

namespace greymx::queue {

namespace {

constexpr std::uint64_t scarce_room = 4;             // segments more than min_free_space
constexpr std::uint64_t compaction_rate = 16 << 20;  // bytes a second
constexpr auto idle = std::chrono::seconds(1);       // between looks at what there is to tidy
constexpr std::size_t unsaved_limit = 1000;          // changes that may wait for a broken disk
constexpr std::size_t flush_step = 10000;            // messages made due under one lock
constexpr std::uint64_t great_backlog = 100'000;     // messages whose memory is worth giving back

}  // namespace

Result<std::unique_ptr<Spool>> Spool::open(SpoolSettings settings, Files& files, const Clock& clock, Log& log,
                                           Metrics& metrics, Alerts& alerts) {
  return SpoolImpl::open(std::move(settings), files, clock, log, metrics, alerts, true);
}

Result<std::unique_ptr<SpoolImpl>> SpoolImpl::open(SpoolSettings settings, Files& files, const Clock& clock, Log& log,
                                                   Metrics& metrics, Alerts& alerts, bool threads) {
  auto spool = std::make_unique<SpoolImpl>(std::move(settings), files, clock, log, metrics, alerts, threads);
  if (auto recovered = spool->recover_all(); !recovered) return std::unexpected(recovered.error());
  if (threads) spool->start();
  return spool;
}

SpoolImpl::SpoolImpl(SpoolSettings settings, Files& files, const Clock& clock, Log& log, Metrics& metrics,
                     Alerts& alerts, bool threads)
    : settings_(std::move(settings)),
      files_(files),
      clock_(clock),
      log_(log),
      metrics_(metrics),
      threads_(threads),
      store_(files, settings_.path, settings_.segment_size),
      quarantine_(files, settings_.path, log, alerts),
      writer_(settings_, books_, store_, clock, log, metrics, alerts),
      compactor_(settings_, books_, writer_, quarantine_, log),
      space_warning_(space_, settings_.path, log, alerts) {
  limit(settings_.min_free_space, settings_.buffer_memory);
  writer_.on_arrival = [this](const Entry& entry) {
    for (const Entry::Recipient& recipient : entry.recipients) tell(recipient.domain);
  };
  writer_.on_rotate = [this] { nudge(); };
}

SpoolImpl::~SpoolImpl() {
  stop();
}

Result<> SpoolImpl::recover_all() {
  const auto begin = std::chrono::steady_clock::now();
  for (const std::string& directory : {settings_.path, settings_.path + large_directory}) {
    if (auto made = files_.make_directory(directory); !made) {
      return fail(made.error().kind, made.error().text + ": create it for the user that greymxd runs as");
    }
  }
  auto lock = files_.lock(settings_.path + "/lock");
  if (!lock && lock.error().kind == ErrorKind::not_found) {
    return fail(ErrorKind::temporary, settings_.path + " is in use: stop the other greymxd first");
  }
  if (!lock) return fail(lock.error().kind, lock.error().text + ": it must belong to the user that greymxd runs as");
  lock_ = std::move(*lock);
  const auto recovered = recover(files_, settings_.path, books_, quarantine_, clock_.now());
  if (!recovered) return std::unexpected(recovered.error());
  ids_.seen(recovered->newest);
  if (auto adopted = store_.adopt(recovered->last_number, recovered->free); !adopted) return adopted;
  for (const QueueId id : recovered->lost) writer_.end(id);
  look_at_space();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  Totals found;
  books_.index.add_to(found);
  log_.info("spool", fmt::format("{} messages in the queue, read in {:.1f} s", found.messages, took.count()));
  return {};
}

void SpoolImpl::start() {
  writing_thread_ = std::thread([this] { writer_.run(); });
  background_thread_ = std::thread([this] { background(); });
}

void SpoolImpl::background() {
  std::unique_lock lock(background_mutex_);
  while (!stopping_) {
    lock.unlock();
    const bool more = maintain();
    lock.lock();
    if (!more) wake_background_.wait_for(lock, idle, [this] { return stopping_ || nudged_; });
    nudged_ = false;
  }
}

void SpoolImpl::nudge() {
  const std::scoped_lock lock(background_mutex_);
  nudged_ = true;
  wake_background_.notify_all();
}

void SpoolImpl::stop() {
  {
    const std::scoped_lock lock(background_mutex_);
    if (std::exchange(stopping_, true)) return;
    wake_background_.notify_all();
  }
  if (background_thread_.joinable()) background_thread_.join();
  writer_.stop();
  if (writing_thread_.joinable()) {
    writing_thread_.join();
  } else {
    while (writer_.commit()) {
    }
  }
  if (const std::size_t lost = writer_.unsaved(); lost > 0) {
    log_.error("spool",
               fmt::format("changes lost that could not be written: {}; mail delivered or deleted comes back", lost));
  }
  writer_.seal(true);
  pool_.join();
}

bool SpoolImpl::maintain() {
  look_at_space();
  // Of a full disk, or a quota, mail learns in time; the writer tells of other trouble when it needs a segment.
  const auto refilled = store_.refill(clock_.now());
  const bool full = !refilled && refilled.error().kind == ErrorKind::no_space;
  const bool scarce = full || !space_.room(scarce_room * settings_.segment_size);
  remove_ended_files();
  cut_failed();
  while (retire_one()) {
  }
  const bool more = compactor_.run(scarce, [this](std::uint64_t bytes) { return pause(bytes); });
  std::vector<std::shared_ptr<Segment>> segments;
  {
    const std::scoped_lock lock(books_.mutex);
    for (const auto& [number, use] : books_.segments) segments.push_back(use.segment);
  }
  for (const auto& segment : segments) segment->rest();
  give_back_memory();
  return more;
}

// What a great backlog took malloc keeps for the next one, which may be years away.
void SpoolImpl::give_back_memory() {
  const std::uint64_t now = totals().messages;
  most_messages_ = std::max(most_messages_, now);
  if (most_messages_ < great_backlog || now > most_messages_ / 10) return;
  most_messages_ = now;
  ::malloc_trim(0);
}

bool SpoolImpl::pause(std::uint64_t bytes) {
  flush();
  if (!writer_.problem().empty()) return false;
  if (!threads_) return true;
  const std::chrono::milliseconds due(bytes * 1000 / compaction_rate);
  std::unique_lock lock(background_mutex_);
  return !wake_background_.wait_for(lock, due, [this] { return stopping_; });
}

// Returns when all that was handed to the writer so far is durable, or has failed.
void SpoolImpl::flush() {
  if (!threads_) {
    while (writer_.commit()) {
    }
    return;
  }
  std::promise<void> done;
  Append barrier;
  barrier.entry.type = RecordType::padding;
  barrier.waiter.emplace(asio::any_io_executor(), [&done](const Result<>&) { done.set_value(); });
  writer_.append(std::move(barrier));
  done.get_future().wait();
}

void SpoolImpl::look_at_space() {
  const auto free = files_.free_bytes(settings_.path);
  if (!free) return;
  space_.free = static_cast<std::int64_t>(*free);
  metrics_.set("spool_free_bytes", static_cast<double>(*free));
  space_warning_.look();
}

void SpoolImpl::remove_ended_files() {
  for (const QueueId id : writer_.take_ended_files()) {
    const auto gone = files_.remove(large_path(settings_.path, id));
    if (!gone) log_.warning("spool", gone.error().text);  // the next start removes it
  }
}

// What a failed batch left in a segment is cut off when the disk allows it. Zeros go over it first: they are new to the
// kernel, which may think that an earlier cut has long been done.
void SpoolImpl::cut_failed() {
  std::vector<std::pair<std::shared_ptr<Segment>, std::uint64_t>> failed;
  {
    const std::scoped_lock lock(books_.mutex);
    for (const auto& [number, end] : books_.segments.distrusted()) {
      failed.emplace_back(books_.segments.find(number)->segment, end);
    }
  }
  for (const auto& [segment, end] : failed) {
    if (!segment->blank(end) || !segment->cut(end)) continue;
    const std::scoped_lock lock(books_.mutex);
    books_.segments.trust(segment->number());
  }
}

bool SpoolImpl::retire_one() {
  std::shared_ptr<Segment> segment;
  bool shared = false;
  {
    const std::scoped_lock lock(books_.mutex);
    const auto number = books_.segments.unneeded();
    if (!number) return false;
    segment = books_.segments.find(*number)->segment;
    shared = segment.use_count() > 2;  // more than the table and we: somebody reads it still
  }
  if (!store_.retire(*segment, shared)) return false;
  const std::scoped_lock lock(books_.mutex);
  books_.segments.erase(segment->number());
  return true;
}

void SpoolImpl::limit(std::uint64_t min_free_space, std::uint64_t buffer_memory) {
  space_.reserve = min_free_space;
  space_.memory = buffer_memory;
}

bool SpoolImpl::has_room(std::uint64_t size) const {
  return space_.room(size) && writer_.problem().empty();
}

std::unique_ptr<Incoming> SpoolImpl::begin() {
  return make_incoming(intake_, ids_.next(clock_.now()));
}

void SpoolImpl::on_work(std::function<void(std::string domain)> callback) {
  const std::scoped_lock lock(books_.mutex);
  on_work_ = std::move(callback);
}

void SpoolImpl::tell(const std::string& domain) {
  std::unique_lock lock(books_.mutex);
  const auto callback = on_work_;
  lock.unlock();
  callback(domain);
}

std::vector<DomainSummary> SpoolImpl::domains() const {
  const std::scoped_lock lock(books_.mutex);
  return books_.index.domains();
}

// While results of deliveries cannot be written, more deliveries would only be made twice.
std::optional<QueueId> SpoolImpl::take(const std::string& domain, WallTime now, Pick pick) {
  if (writer_.unsaved() > unsaved_limit && !writer_.problem().empty()) return std::nullopt;
  const std::scoped_lock lock(books_.mutex);
  return books_.index.take(domain, now, pick);
}

bool SpoolImpl::claim(QueueId id, const std::string& domain) {
  const std::scoped_lock lock(books_.mutex);
  return books_.index.claim(id, domain, clock_.now());
}

void SpoolImpl::release(QueueId id, const std::string& domain) {
  {
    const std::scoped_lock lock(books_.mutex);
    books_.index.release(id, domain, clock_.now());
  }
  tell(domain);
}

Task<Result<Loaded>> SpoolImpl::load(QueueId id, std::uint64_t whole_up_to) {
  auto work = [this, id, whole_up_to] { return read(id, true, whole_up_to); };
  Result<Loaded> loaded = co_await offload(pool_, std::move(work));
  co_return loaded;
}

void SpoolImpl::update(QueueId id, std::vector<std::pair<std::size_t, RecipientState>> changes) {
  writer_.edit(id, Edit{std::move(changes), {}, {}, {}});
}

bool SpoolImpl::contains(QueueId id) const {
  const std::scoped_lock lock(books_.mutex);
  return books_.index.contains(id);
}

bool SpoolImpl::active(QueueId id) const {
  const std::scoped_lock lock(books_.mutex);
  return books_.index.active(id);
}

bool SpoolImpl::held(QueueId id) const {
  const std::scoped_lock lock(books_.mutex);
  return books_.index.held(id);
}

Result<> SpoolImpl::edit_existing(QueueId id, Edit edit, bool wakes) {
  if (!writer_.edit(id, std::move(edit))) return fail(ErrorKind::not_found, id.to_string() + " is not in the queue");
  if (!wakes) return {};
  std::unique_lock lock(books_.mutex);
  const std::vector<std::string> domains = books_.index.domains(id);
  lock.unlock();
  for (const std::string& domain : domains) tell(domain);
  return {};
}

Result<> SpoolImpl::hold(QueueId id, std::string reason) {
  return edit_existing(id, Edit{{}, std::move(reason), {}, {}}, false);
}

Result<> SpoolImpl::release_hold(QueueId id) {
  return edit_existing(id, Edit{{}, {}, clock_.now(), {}}, true);
}

Result<> SpoolImpl::make_due(QueueId id, WallTime when) {
  return edit_existing(id, Edit{{}, {}, {}, when}, true);
}

Result<> SpoolImpl::remove(QueueId id) {
  if (!writer_.end(id)) return fail(ErrorKind::not_found, id.to_string() + " is not in the queue");
  return {};
}

void SpoolImpl::make_domain_due(const std::string& domain, WallTime beyond) {
  const WallTime now = clock_.now();
  for (std::size_t made = flush_step; made == flush_step;) {
    const std::scoped_lock lock(books_.mutex);
    made = books_.index.make_due(domain, now, beyond, flush_step);
  }
  tell(domain);
}

Totals SpoolImpl::totals() const {
  Totals totals;
  totals.free_bytes = static_cast<std::uint64_t>(std::max<std::int64_t>(0, space_.free));
  totals.problem = writer_.problem();
  if (!totals.problem.empty()) totals.unsaved = writer_.unsaved();
  if (totals.problem.empty() && !space_.room(0)) totals.problem = "less than limits.min_free_space is free";
  totals.accepting = totals.problem.empty();
  const std::scoped_lock lock(books_.mutex);
  books_.index.add_to(totals);
  totals.disk_bytes += books_.segments.bytes() + store_.spare_bytes();
  return totals;
}

std::vector<QueueId> SpoolImpl::ids(QueueId after, std::size_t limit) const {
  const std::scoped_lock lock(books_.mutex);
  return books_.index.ids(after, limit);
}

QueueId SpoolImpl::newest() const {
  const std::scoped_lock lock(books_.mutex);
  return books_.index.newest();
}

Result<Message> SpoolImpl::peek(QueueId id) {
  auto loaded = read(id, false, 0);
  if (!loaded) return std::unexpected(loaded.error());
  return std::move(loaded->message);
}

// While we wait for the disk the message may move and its segment go: it is looked for once more.
Result<Loaded> SpoolImpl::read(QueueId id, bool with_content, std::uint64_t whole_up_to) {
  Result<Loaded> loaded = fail(ErrorKind::not_found, id.to_string() + " is not in the queue");
  auto snapshot = writer_.snapshot(id);
  for (int i = 0; i < 2 && snapshot && !loaded && loaded.error().kind == ErrorKind::not_found; ++i) {
    loaded = read_at(id, *snapshot, with_content, whole_up_to);
    if (!loaded) snapshot = writer_.snapshot(id);
  }
  const bool queued = snapshot && !loaded && loaded.error().kind == ErrorKind::not_found;
  if (queued) loaded.error().kind = ErrorKind::temporary;
  return loaded;
}

Result<Loaded> SpoolImpl::read_at(QueueId id, const Snapshot& snapshot, bool with_content, std::uint64_t whole_up_to) {
  const Location& place = snapshot.places.message;
  auto record = snapshot.message->read(id, place.offset, place.head_length, with_content ? place.body_length : 0);
  if (!record) return std::unexpected(damaged(id, snapshot, record.error()));
  auto stored = decode_message(record->head());
  if (!stored) return std::unexpected(damaged(id, snapshot, stored.error()));
  auto state = writer_.state(id, snapshot);
  if (!state) return std::unexpected(state.error());
  Loaded loaded;
  loaded.message = {id, stored->size, std::move(stored->envelope), std::move(*state)};
  if (!with_content) return loaded;
  if (stored->own_file) {
    if (auto opened = read_own_file(*stored, whole_up_to, loaded); !opened) {
      return std::unexpected(damaged(id, snapshot, opened.error()));
    }
    if (loaded.rest) {
      auto on_error = [this, id, snapshot](Error error) { return damaged(id, snapshot, std::move(error)); };
      loaded.rest = watch(std::move(loaded.rest), std::move(on_error));
    }
  } else if (stored->size <= whole_up_to) {
    loaded.content = record->body();
  } else {
    loaded.rest = make_content(std::string(record->body()));
  }
  return loaded;
}

Result<> SpoolImpl::read_own_file(const StoredMessage& stored, std::uint64_t whole_up_to, Loaded& loaded) {
  auto content = open_own_file(files_, settings_.path, loaded.message.id, stored);
  if (!content) return std::unexpected(content.error());
  if (stored.size > whole_up_to) {
    loaded.rest = std::move(*content);
    return {};
  }
  loaded.content.resize(stored.size);
  const auto read = (*content)->read(0, loaded.content);
  if (!read) return std::unexpected(read.error());
  return {};
}

// A message whose bytes have changed on the disk cannot be delivered: what is left of it is kept for a person, and it
// leaves the queue. An I/O error may pass; the message stays.
Error SpoolImpl::damaged(QueueId id, const Snapshot& snapshot, Error error) {
  if (error.kind != ErrorKind::invalid) return error;
  const auto now = writer_.snapshot(id);
  if (!now) return {ErrorKind::not_found, id.to_string() + " has left the queue"};
  if (now->places.message != snapshot.places.message)
    return {ErrorKind::temporary, error.text};  // what was moved was whole
  const Location& place = snapshot.places.message;
  Result<> kept = quarantine_.keep(*snapshot.message, {place.offset, place.length()});
  if (kept && snapshot.places.own_file) {
    kept = quarantine_.keep(std::string(large_directory) + "/" + id.to_string(), error.text);
  }
  if (!kept) return kept.error();
  quarantine_.report("message " + id.to_string() + " is damaged and leaves the queue: " + error.text);
  writer_.end(id);
  return {ErrorKind::permanent, error.text};
}

}  // namespace greymx::queue

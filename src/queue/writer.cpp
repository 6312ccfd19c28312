#include "queue/writer.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace greymx::queue {

namespace {

constexpr std::uint64_t batch_bytes = 4 << 20;    // about this much is written at once
constexpr std::uint64_t state_bytes_guess = 800;  // of one recipient's state, generously
// A sync shared is a sync saved: as many as came together last time are waited for, which for a lone client is none.
constexpr auto gather_time = std::chrono::milliseconds(1);
constexpr auto retry_after = std::chrono::seconds(1);  // when no segment can be opened, or not even a new one written

bool new_mail(const Append& append) {
  return append.entry.type == RecordType::message && !append.only_if;
}

Result<MessageState> read_state(QueueId id, const Snapshot& snapshot) {
  const Location& place = snapshot.places.state;
  const auto record = snapshot.state->read(id, place.offset, place.head_length, 0);
  if (!record) return std::unexpected(record.error());
  if (record->header.type == RecordType::change) return decode_state(record->head());
  auto message = decode_message(record->head());
  if (!message) return std::unexpected(message.error());
  return std::move(message->state);
}

void take_waiters(std::vector<Append>& records, std::vector<Waiter>& into) {
  for (Append& append : records) {
    if (append.waiter) into.push_back(std::move(*append.waiter));
    append.waiter.reset();
  }
}

}  // namespace

Writer::Writer(const SpoolSettings& settings, Books& books, SegmentStore& store, const Clock& clock, Log& log,
               Metrics& metrics, Alerts& alerts)
    : settings_(settings),
      books_(books),
      store_(store),
      clock_(clock),
      log_(log),
      metrics_(metrics),
      alerts_(alerts),
      batch_limit_(std::min(batch_bytes, settings.segment_size / 8)) {}

void Writer::run() {
  std::unique_lock lock(books_.mutex);
  for (;;) {
    const bool urgent = !queue_.empty();
    const bool lazy = !edits_.empty() || !ends_.empty();
    if (stopping_ && ((!urgent && !lazy) || !problem_.empty())) return;
    std::optional<SteadyTime> when;
    if (lazy) when = lazy_since_ + settings_.lazy_sync;
    if (urgent || stopping_) when = SteadyTime{};
    if (!problem_.empty()) when = retry_at_;
    if (!when) {
      work_.wait(lock);
    } else if (*when > std::chrono::steady_clock::now()) {
      work_.wait_until(lock, *when);
    } else {
      const auto enough = [&] { return stopping_ || queue_.size() >= last_batch_; };
      if (urgent && problem_.empty()) work_.wait_for(lock, gather_time, enough);
      lock.unlock();
      commit();
      lock.lock();
    }
  }
}

void Writer::stop() {
  const std::scoped_lock lock(books_.mutex);
  stopping_ = true;
  work_.notify_all();
}

void Writer::append(Append append) {
  std::unique_lock lock(books_.mutex);
  Result<> refused;
  if (stopping_) refused = fail(ErrorKind::stopping, "the spool is stopping");
  if (!problem_.empty()) refused = fail(ErrorKind::temporary, problem_);
  if (length_of(append) > settings_.segment_size / 4) refused = fail(ErrorKind::permanent, "too large for a segment");
  if (refused) {
    queue_.push_back(std::move(append));
    if (queue_.size() == 1 || queue_.size() == last_batch_) work_.notify_one();
    return;
  }
  ++failures_;
  lock.unlock();
  std::vector<Waiter> waiters;
  if (append.waiter) waiters.push_back(std::move(*append.waiter));
  wake(std::move(waiters), refused);
}

bool Writer::edit(QueueId id, Edit edit) {
  const std::scoped_lock lock(books_.mutex);
  if (!books_.index.contains(id)) return false;
  start_lazy();
  books_.index.edit(id, edit, clock_.now());
  if (books_.index.finished(id)) {
    end_now(id);
  } else {
    edits_[id].push_back(std::move(edit));
  }
  return true;
}

bool Writer::end(QueueId id) {
  const std::scoped_lock lock(books_.mutex);
  if (!books_.index.contains(id)) return false;
  start_lazy();
  end_now(id);
  return true;
}

void Writer::start_lazy() {
  if (!edits_.empty() || !ends_.empty()) return;
  lazy_since_ = std::chrono::steady_clock::now();
  work_.notify_one();
}

void Writer::end_now(QueueId id) {
  ends_[id] = *books_.index.places(id);
  books_.index.remove(id);
  edits_.erase(id);
}

std::optional<Snapshot> Writer::snapshot(QueueId id) const {
  const std::scoped_lock lock(books_.mutex);
  const Places* places = books_.index.places(id);
  if (places == nullptr) return std::nullopt;
  return take_snapshot(id, *places);
}

Result<MessageState> Writer::state(QueueId id, const Snapshot& snapshot) {
  auto state = read_state(id, snapshot);
  if (!state) return state.error().kind == ErrorKind::invalid ? known_state(id, snapshot) : state;
  for (const Edit& edit : snapshot.edits) apply(edit, *state);
  return state;
}

// And it is written anew.
Result<MessageState> Writer::known_state(QueueId id, const Snapshot& snapshot) {
  log_.warning("spool", id.to_string() + ": the reason for its delay cannot be read and is lost");
  const std::scoped_lock lock(books_.mutex);
  if (!books_.index.contains(id)) return fail(ErrorKind::not_found, id.to_string() + " has left the queue");
  if (!edits_.contains(id) && !writing_.contains(id)) {
    start_lazy();
    edits_[id].push_back({});
  }
  MessageState state = books_.index.state(id);
  for (RecipientState& recipient : state.recipients) {  // held from now on, rather than since 1970
    if (recipient.status == RecipientStatus::held) recipient.held_since = clock_.now();
  }
  for (const Edit& edit : snapshot.edits) apply(edit, state);
  return state;
}

Snapshot Writer::take_snapshot(QueueId id, const Places& places) const {
  Snapshot snapshot{places,
                    books_.segments.find(places.message.segment)->segment,
                    books_.segments.find(places.state.segment)->segment,
                    {}};
  for (const auto* edits : {&writing_, &edits_}) {
    const auto found = edits->find(id);
    if (found != edits->end()) snapshot.edits.insert(snapshot.edits.end(), found->second.begin(), found->second.end());
  }
  return snapshot;
}

std::string Writer::problem() const {
  const std::scoped_lock lock(books_.mutex);
  return problem_;
}

std::uint64_t Writer::failures() const {
  const std::scoped_lock lock(books_.mutex);
  return failures_;
}

std::size_t Writer::unsaved() const {
  const std::scoped_lock lock(books_.mutex);
  return edits_.size() + writing_.size() + ends_.size() + ending_.size();
}

std::vector<QueueId> Writer::take_ended_files() {
  const std::scoped_lock lock(books_.mutex);
  return std::exchange(ended_files_, {});
}

Places* Writer::places(QueueId id) {
  if (Places* living = books_.index.places(id)) return living;
  for (auto* ended : {&ends_, &ending_}) {
    const auto found = ended->find(id);
    if (found != ended->end()) return &found->second;
  }
  return nullptr;
}

bool Writer::commit() {
  Batch batch = collect();
  add_changes(batch);
  Result<> done;
  if (!batch.records.empty() || !problem().empty()) done = ensure_room(batch);
  if (done && !batch.records.empty()) done = write(batch);
  const bool any = !batch.records.empty() || !batch.barriers.empty();
  if (done) {
    settle(batch);
  } else {
    abandon(batch, done.error());
  }
  return done && any;
}

Writer::Batch Writer::collect() {
  const std::scoped_lock lock(books_.mutex);
  Batch batch;
  std::uint64_t bytes = 0;
  for (; !queue_.empty() && bytes < batch_limit_; queue_.pop_front()) {
    Append& next = queue_.front();
    if (next.entry.type == RecordType::padding) {  // flush()
      batch.barriers.push_back(std::move(*next.waiter));
      continue;
    }
    const QueueId id = next.entry.id;
    const Places* now = books_.index.places(id);
    if (next.only_if && (now == nullptr || *now != *next.only_if || edits_.contains(id))) continue;
    bytes += length_of(next);
    batch.records.push_back(std::move(next));
  }
  const std::uint64_t most = std::max(batch_limit_, bytes + batch_limit_ / 4);  // however much mail there is
  while (!ends_.empty() && bytes < most) {
    const auto& [id, places] = *ends_.begin();
    Entry entry;
    entry.id = id;
    batch.records.push_back(make_append(std::move(entry), places.message.segment));
    bytes += record_header_length;
    ending_.insert(ends_.extract(ends_.begin()));
  }
  while (!edits_.empty() && bytes < most) {
    bytes += state_bytes_guess * books_.index.recipients(edits_.begin()->first);
    writing_.insert(edits_.extract(edits_.begin()));
  }
  return batch;
}

void Writer::add_changes(Batch& batch) {
  std::vector<std::pair<QueueId, Snapshot>> changed;
  {
    const std::scoped_lock lock(books_.mutex);
    for (const auto& [id, edits] : writing_) {
      if (const Places* places = books_.index.places(id)) changed.emplace_back(id, take_snapshot(id, *places));
    }
  }
  bool patient = problem().empty();  // else the batch most likely fails, and all of it is read again
  for (const auto& [id, snapshot] : changed) {
    if (patient && !snapshot.state->file()) {  // for want of descriptors, perhaps
      std::this_thread::sleep_for(retry_after);
      patient = false;
    }
    auto state = this->state(id, snapshot);
    if (!state) state = known_state(id, snapshot);  // it cannot wait for a bad sector to mend
    if (!state) continue;
    batch.records.push_back(make_append(make_entry(id, *state), snapshot.places.message.segment, encode(*state)));
  }
}

// When there is no room for new mail, changes and ends still get the open segment and the reserve: without them nothing
// would ever be given back.
Result<> Writer::ensure_room(Batch& batch) {
  const bool mail = std::ranges::any_of(batch.records, new_mail);
  Result<> room = mail ? store_.reserve() : Result<>();
  if (room && open_ && open_->fits(batch.records)) return {};
  if (mail) {
    if (room) room = rotate(true);
    if (room) return room;
    refuse_mail(batch, room);
    const bool nothing_left = batch.records.empty() && problem().empty();
    if (nothing_left || (open_ && open_->fits(batch.records))) return {};
  }
  return rotate(false);
}

void Writer::refuse_mail(Batch& batch, const Result<>& why) {
  const auto mail = std::ranges::partition(batch.records, [](const Append& append) { return !new_mail(append); });
  std::vector<Append> refused(std::make_move_iterator(mail.begin()), std::make_move_iterator(mail.end()));
  batch.records.erase(mail.begin(), mail.end());
  std::vector<Waiter> waiters;
  take_waiters(refused, waiters);
  wake(std::move(waiters), why);
}

Result<> Writer::rotate(bool for_new_mail) {
  auto next = store_.next(clock_.now(), for_new_mail);
  if (!next) return std::unexpected(next.error());
  const auto file = (*next)->file();
  if (!file) return std::unexpected(file.error());
  seal(false);
  open_.emplace(*next, *file);
  {
    const std::scoped_lock lock(books_.mutex);
    books_.segments.add(*next, true);
  }
  on_rotate();
  return {};
}

Result<> Writer::write(Batch& batch) {
  const auto begin = std::chrono::steady_clock::now();
  if (auto written = open_->write(batch.records); !written) return written;
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  metrics_.observe("spool_sync_seconds", took.count());
  return {};
}

void Writer::seal(bool last) {
  if (!open_) return;
  const std::shared_ptr<Segment> segment = open_->segment();
  if (auto sealed = open_->seal(last); !sealed) {
    log_.warning("spool", segment->name() + " could not be sealed: " + sealed.error().text);
  }
  open_.reset();
  const std::scoped_lock lock(books_.mutex);
  books_.segments.find(segment->number())->open = false;
}

void Writer::settle(Batch& batch) {
  const WallTime now = clock_.now();
  const auto messages = static_cast<std::size_t>(std::ranges::count_if(batch.records, new_mail));
  for (const Append& append : batch.records) {  // before anybody can deliver it
    if (!append.arrival.empty()) log_.info("qmgr", append.entry.id, append.arrival);
  }
  std::unique_lock lock(books_.mutex);
  for (const Append& append : batch.records) settle_record(append, now);
  writing_.clear();
  ending_.clear();
  problem_.clear();
  if (!batch.records.empty()) last_batch_ = messages;
  lock.unlock();
  if (!batch.records.empty()) metrics_.observe("spool_batch_messages", static_cast<double>(messages));
  for (const Append& append : batch.records) {
    if (new_mail(append)) on_arrival(append.entry);
  }
  std::vector<Waiter> waiters;
  take_waiters(batch.records, waiters);
  wake(std::move(waiters), {});
  wake(std::move(batch.barriers), {});
}

void Writer::settle_record(const Append& append, WallTime now) {
  const Entry& entry = append.entry;
  const std::uint32_t segment = open_->segment()->number();
  const Location here{segment, entry.offset, entry.head_length, append.body_length};
  if (new_mail(append)) {
    const Places places{here, here, entry.own_file};
    books_.index.add(entry, places, now);
    books_.segments.need(places);
  } else if (entry.type == RecordType::end) {
    books_.segments.add_end(segment, entry.previous);
    const auto ended = ending_.find(entry.id);
    if (ended == ending_.end()) return;  // compaction moved an end
    books_.segments.release(ended->second);
    if (ended->second.own_file) ended_files_.push_back(entry.id);
    ending_.erase(ended);
  } else if (Places* now_at = places(entry.id)) {
    const Places before = *now_at;
    now_at->state = here;
    if (entry.type == RecordType::message) now_at->message = here;
    books_.segments.need(*now_at);
    books_.segments.release(before);
    if (entry.type == RecordType::message) books_.segments.add_copy(segment, entry.previous);
  }
}

void Writer::abandon(Batch& batch, const Error& error) {
  const auto segment = open_ ? open_->segment() : nullptr;
  const std::uint64_t end = open_ ? open_->end() : 0;
  const bool cut = open_ && open_->cut().has_value();
  open_.reset();
  const std::string text = "the spool cannot be written: " + error.text;
  std::unique_lock lock(books_.mutex);
  if (segment) books_.segments.find(segment->number())->open = false;
  if (segment && !cut) books_.segments.distrust(segment->number(), end);
  for (auto& [id, edits] : writing_) {
    if (!books_.index.contains(id)) continue;
    std::vector<Edit>& kept = edits_[id];
    kept.insert(kept.begin(), std::make_move_iterator(edits.begin()), std::make_move_iterator(edits.end()));
  }
  writing_.clear();
  ends_.merge(ending_);
  ++failures_;
  const bool news = problem_.empty();
  problem_ = text;
  retry_at_ = std::chrono::steady_clock::now() + (news && segment ? std::chrono::seconds(0) : retry_after);
  lock.unlock();
  if (news) {
    log_.error("spool", text);
    alerts_.raise(
        "the spool cannot be written",
        error.text + ". New mail is refused until it can be; nothing that was accepted is lost. Look at the disk.");
  }
  std::vector<Waiter> waiters = std::move(batch.barriers);
  take_waiters(batch.records, waiters);
  wake(std::move(waiters), fail(error.kind == ErrorKind::no_space ? error.kind : ErrorKind::temporary, text));
}

}  // namespace greymx::queue

#include "queue/index.hpp"

#include <algorithm>

namespace greymx::queue {

namespace {

constexpr std::uint64_t tolerated_waste = 8;  // segments
constexpr int due_step = 1000;                // messages moved to what is ready with one that is taken

// The same for whole states and for what the index keeps of them.
template <class List>
void apply_to_all(const Edit& edit, List& recipients) {
  for (auto& recipient : recipients) {
    if (edit.release && recipient.status == RecipientStatus::held) {
      recipient.status = RecipientStatus::pending;
      recipient.next_attempt = *edit.release;
    }
    if (edit.due && recipient.status == RecipientStatus::pending) recipient.next_attempt = *edit.due;
  }
}

}  // namespace

void apply(const Edit& edit, MessageState& state) {
  for (const auto& [i, recipient] : edit.recipients) {
    if (i < state.recipients.size()) state.recipients[i] = recipient;
  }
  for (RecipientState& recipient : state.recipients) {
    if (!edit.release || recipient.status != RecipientStatus::held) continue;
    recipient.reason.clear();  // why it was held: the next attempt has a reason of its own
    recipient.dsn.clear();
    recipient.remote.clear();
  }
  apply_to_all(edit, state.recipients);
  if (edit.release) state.held = false;
  if (edit.release) state.hold_reason.clear();
  if (edit.hold) state.held = true;
  if (edit.hold) state.hold_reason = *edit.hold;
}

void Index::add(const Entry& entry, const Places& places, WallTime now) {
  remove(entry.id);
  Item& item = items_[entry.id];
  item.places = places;
  item.size = entry.size;
  item.held = entry.held;
  bytes_ += item.size;
  if (places.own_file) own_file_bytes_ += item.size;
  boost::container::small_vector<Domain*, 4> domains;
  for (const Entry::Recipient& recipient : entry.recipients) {
    const auto named = domains_.try_emplace(recipient.domain).first;
    Domain& domain = named->second;
    domain.name = &named->first;
    const auto known = std::ranges::find(domains, &domain);
    item.recipients.push_back(
        {recipient.next_attempt, static_cast<std::uint32_t>(known - domains.begin()), recipient.status});
    if (known == domains.end()) domains.push_back(&domain);
  }
  item.slots.resize(domains.size());
  for (std::size_t i = 0; i < domains.size(); ++i) {
    item.slots[i].id = entry.id;
    item.slots[i].domain = domains[i];
    ++domains[i]->slots;
  }
  schedule(item, now);
}

void Index::set_state(QueueId id, const Entry& change, WallTime now) {
  const auto found = items_.find(id);
  if (found == items_.end() || change.recipients.size() != found->second.recipients.size()) return;
  Item& item = found->second;
  item.held = change.held;
  for (std::size_t i = 0; i < item.recipients.size(); ++i) {
    item.recipients[i].status = change.recipients[i].status;
    item.recipients[i].next_attempt = change.recipients[i].next_attempt;
  }
  schedule(item, now);
}

void Index::edit(QueueId id, const Edit& edit, WallTime now) {
  const auto found = items_.find(id);
  if (found == items_.end()) return;
  Item& item = found->second;
  for (const auto& [i, recipient] : edit.recipients) {
    if (i >= item.recipients.size()) continue;
    item.recipients[i].status = recipient.status;
    item.recipients[i].next_attempt = recipient.next_attempt;
  }
  apply_to_all(edit, item.recipients);
  if (edit.release) item.held = false;
  if (edit.hold) item.held = true;
  schedule(item, now);
}

void Index::remove(QueueId id) {
  const auto found = items_.find(id);
  if (found == items_.end()) return;
  Item& item = found->second;
  for (Slot& slot : item.slots) {
    move(slot, Lot::none, {}, item.size);
    if (--slot.domain->slots == 0) domains_.erase(domains_.find(*slot.domain->name));
  }
  count_held(item, false, false);
  bytes_ -= item.size;
  if (item.places.own_file) own_file_bytes_ -= item.size;
  items_.erase(found);
}

Places* Index::places(QueueId id) {
  const auto found = items_.find(id);
  return found == items_.end() ? nullptr : &found->second.places;
}

std::uint64_t Index::size(QueueId id) const {
  const auto found = items_.find(id);
  return found == items_.end() ? 0 : found->second.size;
}

std::size_t Index::recipients(QueueId id) const {
  const auto found = items_.find(id);
  return found == items_.end() ? 0 : found->second.recipients.size();
}

MessageState Index::state(QueueId id) const {
  MessageState state;
  const auto found = items_.find(id);
  if (found == items_.end()) return state;
  state.held = found->second.held;
  for (const Recipient& recipient : found->second.recipients) {
    RecipientState& known = state.recipients.emplace_back();
    known.status = recipient.status;
    known.next_attempt = recipient.next_attempt;
  }
  return state;
}

bool Index::held(QueueId id) const {
  const auto found = items_.find(id);
  return found != items_.end() && found->second.held;
}

bool Index::finished(QueueId id) const {
  const auto found = items_.find(id);
  return found != items_.end() && std::ranges::all_of(found->second.recipients, [](const Recipient& recipient) {
           return recipient.status == RecipientStatus::done;
         });
}

// Brings every slot of a message to the lot where its recipients' states belong, in time linear in both.
void Index::schedule(Item& item, WallTime now) {
  struct Open {
    bool any = false, pending = false;
    WallTime due = WallTime::max();
  };
  boost::container::small_vector<Open, 4> open(item.slots.size());
  bool pending = false;
  for (const Recipient& recipient : item.recipients) {
    if (recipient.status == RecipientStatus::done) continue;
    Open& in = open[recipient.slot];
    in.any = true;
    if (recipient.status != RecipientStatus::pending) continue;
    in.pending = pending = true;
    in.due = std::min(in.due, recipient.next_attempt);
  }
  for (std::size_t i = 0; i < item.slots.size(); ++i) {
    Slot& slot = item.slots[i];
    Lot lot = open[i].due <= now ? Lot::ready : Lot::waiting;
    if (item.held || !open[i].pending) lot = Lot::held;
    if (slot.active) lot = Lot::active;
    if (!open[i].any) lot = Lot::none;
    move(slot, lot, open[i].due, item.size);
  }
  count_held(item, item.held || !pending, !item.held && !pending);
}

void Index::move(Slot& slot, Lot lot, WallTime due, std::uint64_t size) {
  Domain& domain = *slot.domain;
  if (slot.lot != Lot::none) {
    Ages& from = domain.in(slot.lot);
    from.erase(from.iterator_to(slot));
    if (slot.lot == Lot::waiting) domain.by_due.erase(domain.by_due.iterator_to(slot));
    if (slot.lot == Lot::held) --domain.held;
    --domain.messages;
    domain.bytes -= size;
  }
  slot.lot = lot;
  slot.due = due;
  if (lot == Lot::none) return;
  domain.in(lot).insert(slot);
  if (lot == Lot::waiting) domain.by_due.insert(slot);
  if (lot == Lot::held) ++domain.held;
  ++domain.messages;
  domain.bytes += size;
}

void Index::count_held(Item& item, bool held, bool refused) {
  if (std::exchange(item.counted_held, held) != held) held_ += held ? 1 : -1;
  if (std::exchange(item.counted_refused, refused) != refused) refused_bytes_ += refused ? item.size : -item.size;
}

Index::Slot* Index::find_slot(QueueId id, const std::string& domain) {
  const auto found = items_.find(id);
  if (found == items_.end()) return nullptr;
  for (Slot& slot : found->second.slots) {
    if (*slot.domain->name == domain) return &slot;
  }
  return nullptr;
}

std::optional<QueueId> Index::take(const std::string& domain, WallTime now, Pick pick) {
  const auto found = domains_.find(domain);
  if (found == domains_.end()) return std::nullopt;
  Domain& in = found->second;
  for (int i = 0; i < due_step && !in.by_due.empty() && in.by_due.begin()->due <= now; ++i) {
    Slot& slot = *in.by_due.begin();
    move(slot, Lot::ready, slot.due, size(slot.id));
  }
  const Ages& ready = in.in(Lot::ready);
  if (ready.empty()) return std::nullopt;
  const QueueId best = pick == Pick::oldest ? ready.begin()->id : ready.rbegin()->id;
  claim(best, domain, now);
  return best;
}

bool Index::claim(QueueId id, const std::string& domain, WallTime now) {
  Slot* slot = find_slot(id, domain);
  if (slot == nullptr || slot->active || slot->lot == Lot::none) return false;
  slot->active = true;
  schedule(items_.find(id)->second, now);
  return true;
}

void Index::release(QueueId id, const std::string& domain, WallTime now) {
  Slot* slot = find_slot(id, domain);
  if (slot == nullptr) return;
  slot->active = false;
  schedule(items_.find(id)->second, now);
}

bool Index::active(QueueId id) const {
  const auto found = items_.find(id);
  return found != items_.end() && std::ranges::any_of(found->second.slots, &Slot::active);
}

std::vector<std::string> Index::domains(QueueId id) const {
  std::vector<std::string> names;
  const auto found = items_.find(id);
  if (found == items_.end()) return names;
  for (const Slot& slot : found->second.slots) {
    if (slot.lot != Lot::none) names.push_back(*slot.domain->name);
  }
  return names;
}

std::size_t Index::make_due(const std::string& domain, WallTime now, WallTime beyond, std::size_t limit) {
  const auto found = domains_.find(domain);
  if (found == domains_.end()) return 0;
  Domain& in = found->second;
  std::size_t made = 0;
  for (; made < limit && !in.by_due.empty() && in.by_due.rbegin()->due > beyond; ++made) {
    const QueueId id = in.by_due.rbegin()->id;
    Item& item = items_.find(id)->second;
    for (Recipient& recipient : item.recipients) {
      if (item.slots[recipient.slot].domain == &in) recipient.next_attempt = std::min(recipient.next_attempt, now);
    }
    schedule(item, now);
  }
  return made;
}

std::vector<DomainSummary> Index::domains() const {
  std::vector<DomainSummary> all;
  for (const auto& [name, in] : domains_) {
    if (in.messages == 0) continue;
    DomainSummary summary{name, in.messages, in.bytes, in.held, WallTime::max(), WallTime::max()};
    for (const Ages& lot : in.lots) {
      if (!lot.empty()) summary.oldest = std::min(summary.oldest, lot.begin()->id.time());
    }
    const Ages& ready = in.in(Lot::ready);
    if (!in.by_due.empty()) summary.next_due = in.by_due.begin()->due;
    if (!ready.empty()) summary.next_due = std::min(summary.next_due, ready.begin()->due);
    all.push_back(std::move(summary));
  }
  return all;
}

void Index::add_to(Totals& totals) const {
  totals.messages += items_.size();
  totals.bytes += bytes_;
  totals.held += held_;
  totals.refused_bytes += refused_bytes_;
  totals.disk_bytes += own_file_bytes_;
}

std::vector<QueueId> Index::ids(QueueId after, std::size_t limit) const {
  std::vector<QueueId> found;
  for (auto it = items_.upper_bound(after); it != items_.end() && found.size() < limit; ++it)
    found.push_back(it->first);
  return found;
}

std::vector<QueueId> Index::with_own_file() const {
  std::vector<QueueId> found;
  for (const auto& [id, item] : items_) {
    if (item.places.own_file) found.push_back(id);
  }
  return found;
}

void SegmentTable::add(std::shared_ptr<Segment> segment, bool open) {
  Use& use = uses_[segment->number()];
  use.segment = std::move(segment);
  use.open = open;
}

SegmentTable::Use* SegmentTable::find(std::uint32_t number) {
  const auto found = uses_.find(number);
  return found == uses_.end() ? nullptr : &found->second;
}

void SegmentTable::need(const Places& places) {
  count(places.message, 1);
  if (places.state != places.message) count(places.state, 1);
}

void SegmentTable::release(const Places& places) {
  count(places.message, -1);
  if (places.state != places.message) count(places.state, -1);
}

void SegmentTable::count(const Location& place, int by) {
  Use& use = uses_.at(place.segment);
  use.live += by;
  use.live_bytes += by > 0 ? place.length() : -place.length();
  if (use.live == 0) use.stuck = false;  // its ends may be moved, at least
}

void SegmentTable::add_end(std::uint32_t number, std::uint32_t of) {
  Use& use = uses_.at(number);
  for (const std::uint32_t older : overridden(number, of)) {
    ++use.ends[older];
    use.end_bytes += record_length(0, 0);
  }
}

void SegmentTable::add_copy(std::uint32_t number, std::uint32_t of) {
  for (const std::uint32_t older : overridden(number, of)) uses_.at(number).copies.insert(older);
}

std::vector<std::uint32_t> SegmentTable::overridden(std::uint32_t number, std::uint32_t of) const {
  std::vector<std::uint32_t> found;
  if (of == 0) return found;  // a new message
  if (number != of && uses_.contains(of)) found.push_back(of);
  for (auto at = untouched_.upper_bound(of); at != untouched_.end() && *at < number; ++at) found.push_back(*at);
  return found;
}

void SegmentTable::distrust(std::uint32_t number, std::uint64_t end) {
  distrusted_[number] = end;
  uses_.at(number).evacuate = true;
}

void SegmentTable::trust(std::uint32_t number) {
  distrusted_.erase(number);
  uses_.at(number).stuck = false;  // what was torn in it has gone
}

void SegmentTable::erase(std::uint32_t number) {
  uses_.erase(number);
  distrusted_.erase(number);
  for (auto& [other, use] : uses_) {
    use.copies.erase(number);
    const auto ends = use.ends.find(number);
    if (ends == use.ends.end()) continue;
    use.end_bytes -= ends->second * record_length(0, 0);
    use.ends.erase(ends);
  }
}

std::optional<std::uint32_t> SegmentTable::unneeded() const {
  for (const auto& [number, use] : uses_) {
    if (stays(number)) break;
    const bool done = !use.open && use.live == 0 && use.copies.empty() && (use.ends.empty() || use.emptied);
    if (done && !untouched_.contains(number)) return number;
  }
  return std::nullopt;
}

std::optional<std::uint32_t> SegmentTable::wasteful(std::uint64_t segment_size, bool scarce) const {
  std::optional<std::uint32_t> emptiest, most_gain;
  std::uint64_t least = 0, gain = 0, needed = 0, closed = 0;
  for (const auto& [number, use] : uses_) {
    if (use.open || use.emptied || use.stuck || use.failed || untouched_.contains(number)) continue;
    if (use.evacuate) return number;
    if (!use.copies.empty() || stays(number)) continue;
    ++closed;
    const std::uint64_t here = use.needed_bytes(), size = use.segment->size();
    needed += here;
    if (!emptiest || here < least) {
      emptiest = number;
      least = here;
    }
    if (2 * here < size && size - here > gain) {
      most_gain = number;
      gain = size - here;
    }
  }
  if (scarce && most_gain) return most_gain;
  const bool waste = closed * segment_size > 2 * needed + tolerated_waste * segment_size;
  return waste ? emptiest : std::nullopt;
}

void SegmentTable::retry_failed() {
  for (auto& [number, use] : uses_) use.failed = false;
}

std::uint64_t SegmentTable::bytes() const {
  std::uint64_t total = 0;
  for (const auto& [number, use] : uses_) total += use.segment->size();
  return total;
}

}  // namespace greymx::queue

// What memory knows of the queue: for each message where its records stand, who is still to get it and when; for each
// domain which messages are ready, waiting, held or in delivery; for each segment what still needs it. Pure: no I/O,
// no clock, no lock (Books has that). About 300 bytes a message of one recipient.
#pragma once

#include <boost/container/small_vector.hpp>
#include <boost/intrusive/set.hpp>
#include <map>
#include <mutex>
#include <set>

#include "queue/segment.hpp"
#include "queue/spool.hpp"

namespace greymx::queue {

// Where a record stands, and the bytes it takes there.
struct Location {
  std::uint32_t segment = 0;
  std::uint32_t offset = 0;
  std::uint32_t head_length = 0;
  std::uint32_t body_length = 0;
  std::uint64_t length() const { return record_length(head_length, body_length); }
  bool operator==(const Location&) const = default;
};

// Of one message: its record, and the one with its latest state (often the same).
struct Places {
  Location message;
  Location state;
  bool own_file = false;
  bool operator==(const Places&) const = default;
};

// A change to a message's state: applied to the whole of it when it is written, to the index at once.
struct Edit {
  std::vector<std::pair<std::size_t, RecipientState>> recipients;
  std::optional<std::string> hold;  // the whole message, with this reason
  std::optional<WallTime> release;  // nothing is held any more, what was is due then
  std::optional<WallTime> due;      // next attempt of all that is pending
};
void apply(const Edit& edit, MessageState& state);

class Index {
 public:
  // A message that is new, or (in recovery) a copy that takes the place of an older record.
  void add(const Entry& entry, const Places& places, WallTime now);
  void set_state(QueueId id, const Entry& change, WallTime now);  // recovery
  void edit(QueueId id, const Edit& edit, WallTime now);
  void remove(QueueId id);

  bool contains(QueueId id) const { return items_.contains(id); }
  Places* places(QueueId id);
  std::uint64_t size(QueueId id) const;
  std::size_t recipients(QueueId id) const;
  MessageState state(QueueId id) const;                // as far as memory knows it
  bool held(QueueId id) const;                         // as a whole
  bool finished(QueueId id) const;                     // nobody is to get it any more
  std::vector<std::string> domains(QueueId id) const;  // in which something is open

  std::optional<QueueId> take(const std::string& domain, WallTime now, Pick pick);
  bool claim(QueueId id, const std::string& domain, WallTime now);
  void release(QueueId id, const std::string& domain, WallTime now);
  bool active(QueueId id) const;
  // Makes at most `limit` messages due that would wait beyond `beyond`; returns how many.
  std::size_t make_due(const std::string& domain, WallTime now, WallTime beyond, std::size_t limit);

  std::vector<DomainSummary> domains() const;
  void add_to(Totals& totals) const;
  std::vector<QueueId> ids(QueueId after, std::size_t limit) const;
  QueueId newest() const { return items_.empty() ? QueueId{} : items_.rbegin()->first; }
  std::vector<QueueId> with_own_file() const;

 private:
  using Hook = boost::intrusive::set_member_hook<boost::intrusive::optimize_size<true>>;
  enum class Lot : std::uint8_t { ready, waiting, held, active, none };
  struct Domain;
  struct Slot {  // one message in one domain
    Hook age_hook, due_hook;
    QueueId id;
    WallTime due{};
    Domain* domain = nullptr;
    Lot lot = Lot::none;
    bool active = false;
  };
  struct ByAge {
    using type = QueueId;
    QueueId operator()(const Slot& slot) const { return slot.id; }
  };
  struct ByDue {
    using type = std::pair<WallTime, QueueId>;
    type operator()(const Slot& slot) const { return {slot.due, slot.id}; }
  };
  template <class Key, Hook Slot::* hook>
  using SlotSet =
      boost::intrusive::set<Slot, boost::intrusive::member_hook<Slot, Hook, hook>, boost::intrusive::key_of_value<Key>,
                            boost::intrusive::constant_time_size<false>>;
  using Ages = SlotSet<ByAge, &Slot::age_hook>;
  struct Domain {
    const std::string* name = nullptr;
    std::array<Ages, 4> lots;                // by Lot
    SlotSet<ByDue, &Slot::due_hook> by_due;  // what waits
    std::uint64_t slots = 0;                 // in lot none, too
    std::uint64_t messages = 0, bytes = 0, held = 0;
    Ages& in(Lot lot) { return lots[static_cast<std::size_t>(lot)]; }
    const Ages& in(Lot lot) const { return lots[static_cast<std::size_t>(lot)]; }
  };
  struct Recipient {
    WallTime next_attempt{};
    std::uint32_t slot = 0;
    RecipientStatus status = RecipientStatus::pending;
  };
  struct Item {
    Places places;
    std::uint64_t size = 0;
    bool held = false;
    bool counted_held = false;
    bool counted_refused = false;
    boost::container::small_vector<Recipient, 1> recipients;
    boost::container::small_vector<Slot, 1> slots;  // never resized once linked
  };
  Slot* find_slot(QueueId id, const std::string& domain);
  void schedule(Item& item, WallTime now);
  void move(Slot& slot, Lot lot, WallTime due, std::uint64_t size);
  void count_held(Item& item, bool held, bool refused);

  std::map<QueueId, Item> items_;
  std::map<std::string, Domain, std::less<>> domains_;
  std::uint64_t bytes_ = 0, held_ = 0, refused_bytes_ = 0, own_file_bytes_ = 0;
};

// What of each segment is still needed. A segment may go when it is closed, holds no live message and no latest state
// of one, and nothing that it overrides still stands elsewhere and would come back. An end overrides the message's
// record; it may be moved on. A copy overrides the record that it was copied from; its segment stays until that has
// gone, so that an end of the message never has to know of more than the record that was the latest.
class SegmentTable {
 public:
  struct Use {
    std::shared_ptr<Segment> segment;
    std::uint64_t live_bytes = 0;
    std::uint64_t live = 0;
    std::map<std::uint32_t, std::uint64_t> ends;  // segments with records that ends here override: so many ends
    std::set<std::uint32_t> copies;               // …and those with records that copies here override
    std::uint64_t end_bytes = 0;                  // what these ends take, at most
    bool open = false;
    bool evacuate = false;  // parts of it are damaged: move the rest as soon as possible
    bool emptied = false;   // all that was needed of it stands elsewhere too, ends included
    bool stuck = false;     // could not be emptied
    bool failed = false;    // …for a reason that may pass
    std::uint64_t needed_bytes() const { return live_bytes + end_bytes; }
  };

  void add(std::shared_ptr<Segment> segment, bool open);
  Use* find(std::uint32_t number);
  void need(const Places& places);
  void release(const Places& places);
  // `number` has got an end of a message in `of`, or a copy of one.
  void add_end(std::uint32_t number, std::uint32_t of);
  void add_copy(std::uint32_t number, std::uint32_t of);
  // It may hold copies from a batch that failed, from `end` on: later segments stay until it has gone or was cut there.
  void distrust(std::uint32_t number, std::uint64_t end);
  void trust(std::uint32_t number);
  const std::map<std::uint32_t, std::uint64_t>& distrusted() const { return distrusted_; }
  // Parts of it cannot be read or kept elsewhere now: it stands as it is until the next start.
  void leave(std::uint32_t number) { untouched_.insert(number); }
  // The segments in which something may stand that an end or a copy in `number` overrides, of a message that was in
  // `of`: an untouched one may hide a copy.
  std::vector<std::uint32_t> overridden(std::uint32_t number, std::uint32_t of) const;
  void erase(std::uint32_t number);

  std::optional<std::uint32_t> unneeded() const;
  // The closed segment with the least in it, if together they are more than twice what is needed of them, and some.
  // When room is `scarce`, any of which less than half is needed: what is copied is denser, so that comes to an end.
  std::optional<std::uint32_t> wasteful(std::uint64_t segment_size, bool scarce = false) const;
  void retry_failed();
  std::uint64_t bytes() const;
  auto begin() const { return uses_.begin(); }
  auto end() const { return uses_.end(); }

 private:
  void count(const Location& place, int by);
  bool stays(std::uint32_t number) const { return !distrusted_.empty() && number > distrusted_.begin()->first; }

  std::map<std::uint32_t, Use> uses_;
  std::map<std::uint32_t, std::uint64_t> distrusted_;  // and their ends
  std::set<std::uint32_t> untouched_;
};

// What writer, readers and background work share.
struct Books {
  mutable std::mutex mutex;  // never held during I/O
  Index index;
  SegmentTable segments;
};

}  // namespace greymx::queue

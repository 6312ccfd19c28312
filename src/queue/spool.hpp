// The durable queue: messages go in through begin()/commit(), come out through take()/load()/update().
//
// commit() completes only when the record that makes the message ours has been forced to disk: from then on it
// survives kill -9 and power loss, and 250 may be said. Before that, dropping the Incoming leaves nothing behind.
//
//   state of a message   on disk                                     after a crash
//   incoming             nothing, or a large-body file no record      gone (orphan file removed); no 250 was said
//                        names
//   queued               message record, synced                      comes back, due at its next attempt
//   changed              + change record, synced within 100 ms       comes back; at worst an older state (sent twice)
//   finished             + end record, synced within 100 ms          gone; at worst delivered once more
//
// Threads: everything may be called from any thread. One writer thread appends and syncs; blocking reads run on a
// small pool; coroutines resume on their own executor. Fails: no_space, temporary (I/O), stopping.
// Spec: greymx-spool(5); RFC 5321 4.2.5, 6.1.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/alerts.hpp"
#include "base/async.hpp"
#include "base/clock.hpp"
#include "base/files.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "queue/message.hpp"

namespace greymx::queue {

struct SpoolSettings {
  std::string path;
  std::uint64_t min_free_space = 256ULL << 20;  // below: no new mail
  std::uint64_t buffer_memory = 64ULL << 20;    // all incoming bodies in memory together
  std::uint64_t large_message = 256ULL << 10;   // beyond this a body moves to a file of its own as it arrives
  std::uint64_t segment_size = 64ULL << 20;
  std::chrono::milliseconds lazy_sync{100};  // of changes and ends
};

class Incoming {  // one message on its way in; not thread-safe
 public:
  virtual ~Incoming() = default;
  virtual QueueId id() const = 0;
  virtual Task<Result<>> write(std::vector<char> bytes) = 0;
  virtual Task<Result<>> commit(Envelope envelope) = 0;
};

// Content of a queued message, read in pieces. Stays readable while it exists, even if the message ends or moves. Dies
// before the spool, which it tells when it turns out to be damaged: the message leaves the queue then.
class Content {
 public:
  virtual ~Content() = default;
  virtual std::uint64_t size() const = 0;
  virtual Result<std::size_t> read(std::uint64_t offset, std::span<char> into) = 0;  // blocks: offload it
};

struct Loaded {
  Message message;
  std::string content;            // whole, if it is at most `whole_up_to` (load's parameter)
  std::unique_ptr<Content> rest;  // else this
};

struct DomainSummary {
  std::string domain;
  std::uint64_t messages = 0;  // with a pending or held recipient in it
  std::uint64_t bytes = 0;
  std::uint64_t held = 0;
  WallTime oldest{};    // arrival
  WallTime next_due{};  // earliest next attempt among those not held and not active; max() if none
};

struct Totals {
  std::uint64_t messages = 0, bytes = 0, held = 0;
  std::uint64_t refused_bytes = 0;  // of messages held since their bounces were refused, not by an admin
  std::uint64_t disk_bytes = 0;     // segments and large files
  std::uint64_t free_bytes = 0;
  bool accepting = true;      // false: space is short or the disk failed
  std::string problem;        // why not
  std::uint64_t unsaved = 0;  // changes that wait for a disk that cannot be written: a restart loses them
};

enum class Pick : std::uint8_t { oldest, newest };

class Spool {
 public:
  // Takes the lock, recovers, starts the threads. May take seconds. Errors name the remedy (locked, wrong version,
  // no such directory, not writable).
  static Result<std::unique_ptr<Spool>> open(SpoolSettings settings, Files& files, const Clock& clock, Log& log,
                                             Metrics& metrics, Alerts& alerts);
  virtual ~Spool() = default;
  virtual void stop() = 0;  // commits what was handed over, syncs, ends the threads

  virtual void limit(std::uint64_t min_free_space, std::uint64_t buffer_memory) = 0;  // from now on
  virtual bool has_room(std::uint64_t size) const = 0;
  virtual std::unique_ptr<Incoming> begin() = 0;

  // --- delivery side -------------------------------------------------------------------------------------------
  // Called (any thread, must not block) when there may be new work in a domain.
  virtual void on_work(std::function<void(std::string domain)> callback) = 0;
  virtual std::vector<DomainSummary> domains() const = 0;
  // The oldest (or newest) message with a pending recipient in `domain` that is due and not held; it is then active
  // for that domain until release().
  virtual std::optional<QueueId> take(const std::string& domain, WallTime now, Pick pick) = 0;
  // Makes this message active for `domain` as take() does, whatever its schedule or hold; false if it has nothing open
  // there or is already active for it. For what must not race with a delivery: expiry, the admin's bounce.
  virtual bool claim(QueueId id, const std::string& domain) = 0;
  virtual void release(QueueId id, const std::string& domain) = 0;
  virtual Task<Result<Loaded>> load(QueueId id, std::uint64_t whole_up_to) = 0;
  // Changes some recipients (index into envelope.recipients); lazily synced. When all are done the message ends.
  // An unknown id (deleted meanwhile) is not an error.
  virtual void update(QueueId id, std::vector<std::pair<std::size_t, RecipientState>> changes) = 0;

  // --- the admin's side ------------------------------------------------------------------------------------------
  virtual bool contains(QueueId id) const = 0;
  virtual bool active(QueueId id) const = 0;
  virtual bool held(QueueId id) const = 0;                    // the whole message
  virtual Result<> hold(QueueId id, std::string reason) = 0;  // not_found
  virtual Result<> release_hold(QueueId id) = 0;              // held recipients become pending again, due now
  virtual Result<> remove(QueueId id) = 0;                    // ends it, whatever its state
  virtual Result<> make_due(QueueId id, WallTime when) = 0;   // next attempt of all pending recipients
  // All that is pending in `domain` and would wait beyond `beyond` is due now, until it is deferred again. In memory
  // only, then on_work(domain).
  virtual void make_domain_due(const std::string& domain, WallTime beyond) = 0;
  virtual Totals totals() const = 0;
  // IDs in order after `after`, at most `limit`; cheap.
  virtual std::vector<QueueId> ids(QueueId after, std::size_t limit) const = 0;
  virtual QueueId newest() const = 0;  // of those; none: zero
  // Envelope, state and size of one message, from disk; blocks.
  virtual Result<Message> peek(QueueId id) = 0;
};

// Reads a spool without the daemon and without its lock; never writes. For greymx mailq, cat, spool verify|dump.
class SpoolReader {
 public:
  static Result<std::unique_ptr<SpoolReader>> open(const std::string& path, Files& files);
  virtual ~SpoolReader() = default;
  virtual std::vector<QueueId> ids() const = 0;
  virtual Result<Message> peek(QueueId id) = 0;
  virtual Result<std::unique_ptr<Content>> content(QueueId id) = 0;
  // Problems found while reading ("00000012.log: 312 bytes at 81920 are damaged"); torn tails are not problems.
  virtual const std::vector<std::string>& problems() const = 0;
};

}  // namespace greymx::queue

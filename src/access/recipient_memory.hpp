// Which addresses the primaries take: what callouts and deliveries have taught, on disk, so that it outlives restarts
// and is there when the primary is not.
//
// Rules: an accepted address is good for 31 days, and for as long as its primary is down; a refused one is bad for 2
// hours. Only a true recipient refusal makes it bad (who asks or delivers tells); a primary that refuses us, our sender
// or everything for a while teaches nothing. A primary that takes a random local part takes everybody: for a day nobody
// is asked about, and while it is down its addresses are good; once it refuses somebody, that is in doubt. Many who ask
// for one address wait for one callout; a client and all together have a budget: a dictionary attack stops here.
//
// What another primary said, before relay.conf named other hosts, decides nothing while this one can be asked: neither
// whom it refused, nor that it took everybody. Whom it took is asked for again, too, but is known while there is no
// answer. Records without their primary, of earlier versions, count as this one's.
//
// Thread: any. Memory answers first; Berkeley DB works on a thread of its own, which a network thread waits for only
// 200 ms. A store that fails or is slow makes all that is not in memory unclear, which costs callouts, and while the
// primary is down a delay where it would have been a refusal; a failure is said once a minute.
#pragma once

#include <memory>
#include <string>

#include "access/access.hpp"
#include "access/recipient_store.hpp"

namespace greymx::access {

enum class Known : std::uint8_t { unknown, good, bad, unclear };  // unclear: it cannot be told now

Known judge(const Remembered& what, WallTime now, bool primary_down, bool same_primary);

class RecipientMemory {
 public:
  // In `directory` (made if missing). A damaged store is moved aside with an alert. The references outlive it.
  static Result<std::unique_ptr<RecipientMemory>> open(const std::string& directory, Primaries& primaries,
                                                       const Clock& clock, Log& log, Metrics& metrics, Alerts& alerts);
  ~RecipientMemory();
  void start();  // from now on old records are forgotten: when the primaries know which of them are down

  Task<Known> recall(Mailbox recipient);
  // Asks the primary. Ends by `deadline` with what is known then; the question itself may go on in `gate` (of the
  // caller's executor) for a while and is remembered.
  Task<Primaries::Answer> ask(Gate& gate, Mailbox recipient, IpAddress client, SteadyTime deadline);

  // What deliveries teach; does not block.
  void accepted(const std::string& address);
  void refused(const std::string& address);

  void stop();  // writes what waits and closes the store; blocks

 private:
  struct Impl;
  explicit RecipientMemory(std::shared_ptr<Impl> impl);
  Task<Primaries::Answer> ask_primary(Gate& gate, Mailbox recipient, IpAddress client, SteadyTime deadline);
  std::shared_ptr<Impl> impl_;
  bool stopped_ = false;
};

}  // namespace greymx::access

// The end of recipients that failed, and the reports about them: to whom, and never to nobody or a stranger.
//
// A report is durable before the recipient is done: after a crash in between it is sent twice, never not at all.
//
// Thread: the relay's.
#pragma once

#include "relay/parts.hpp"
#include "relay/report.hpp"
#include "relay/retry.hpp"

namespace greymx::relay {

using Changes = std::vector<std::pair<std::size_t, queue::RecipientState>>;

// Queues a message of our own. Any thread.
Task<Result<QueueId>> submit(queue::Spool& spool, Report report);

enum class Why : std::uint8_t {
  refused,
  expired,
  admin,  // wants them gone: nobody is held
};

class Endings {
 public:
  explicit Endings(Parts& parts) : parts_(parts) {}

  // Recipients that failed for good are done, or held where no report may go out. False: the report could not be
  // queued, and they stay pending.
  Task<bool> end(const queue::Loaded& loaded, std::vector<ReportedRecipient> failed, Why why);
  // A delayed or relayed report; whether it was queued.
  Task<bool> tell(const queue::Loaded& loaded, ReportKind kind, std::vector<ReportedRecipient> about,
                  WallTime retry_until);
  // Applies changes and says so in the log when the message is gone with them.
  void update(QueueId id, Changes changes);

 private:
  Task<std::optional<QueueId>> report(const queue::Loaded& loaded, ReportKind kind,
                                      std::vector<ReportedRecipient> about, WallTime retry_until);
  queue::RecipientState state_after(const queue::Message& message, const ReportedRecipient& one, Ending ending,
                                    Why why) const;

  Parts& parts_;
};

}  // namespace greymx::relay

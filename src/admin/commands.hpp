// The commands themselves, apart from sockets and argument parsing. Reading ones run in the daemon on its spool and,
// when it is down, in the tool on the files; everything else runs in the daemon only.
#pragma once

#include "admin/protocol.hpp"
#include "admin/services.hpp"
#include "admin/views.hpp"

namespace greymx::admin {

// Where reply lines go: a socket or standard output. It waits while the reader is slow.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual Task<bool> send(std::string lines) = 0;  // false: nobody reads any more, stop
};

// What the tool sends after its request (greylist import).
class Source {
 public:
  virtual ~Source() = default;
  virtual Task<Result<std::string>> more() = 0;  // complete lines; empty: the end, and all came
};

// A queue to read, running or not. `peek`, `content` and `domains` may block on disk.
struct QueueSource {
  std::function<std::vector<QueueId>(QueueId after, std::size_t limit)> ids;
  std::function<QueueId()> newest;
  std::function<std::uint64_t()> count;
  std::function<Result<queue::Message>(QueueId)> peek;
  std::function<bool(QueueId)> active;
  std::function<Task<Result<std::unique_ptr<queue::Content>>>(QueueId)> content;
  std::function<std::vector<queue::DomainSummary>()> domains;
  std::optional<Primaries> primaries;  // none without a daemon
  config::ConfigPtr config;
};
QueueSource source_of(queue::Spool& spool, std::vector<relay::PrimaryStatus> primaries, config::ConfigPtr config);
QueueSource source_of(queue::SpoolReader& reader, config::ConfigPtr config);  // the reader outlives it

// "mailq", "shape", "domains", "cat", "export".
bool is_reading(const std::string& command);
Task<Ending> read_queue(Request request, QueueSource source, WallTime now, asio::thread_pool& pool, Sink& sink);

// Any command, in the daemon; `who` for the log ("uid 0").
Task<Ending> run_command(Request request, Services& services, Source& source, Sink& sink, std::string who);

}  // namespace greymx::admin

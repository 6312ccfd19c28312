// One connection, TCP or TLS over it: the only place with read and write timers. Both the server and the client
// session run over it; tests run them over a pipe.
//
// Thread: the executor it was made on. At most one operation at a time; wake() and close() may come in between.
// After timed_out or any error the connection is only good for close(), and after one of a write for reading what came
// before it. Deadlines are points of the steady clock.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/async.hpp"
#include "base/ip.hpp"
#include "base/result.hpp"

typedef struct ssl_ctx_st SSL_CTX;
typedef struct ssl_st SSL;

namespace greymx::smtp {

enum class ReadStatus : std::uint8_t { data, closed, timed_out, failed };

struct ReadEvent {
  ReadStatus status = ReadStatus::failed;
  std::size_t bytes = 0;
  std::string error;  // failed: for the log
};

struct TlsInfo {
  std::string protocol;  // "TLSv1.3"
  std::string cipher;
  int bits = 0;
  std::string to_string() const;  // "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)"
};

class Stream {
 public:
  virtual ~Stream() = default;
  virtual Endpoint peer() const = 0;
  // At least one byte, or an outcome. Cancellation (Gate::cancel) ends it as failed.
  virtual Task<ReadEvent> read_some(std::span<char> into, SteadyTime deadline) = 0;
  // All of it or an error (kind timed_out for the deadline).
  virtual Task<Result<>> write(std::span<const char> bytes, SteadyTime deadline) = 0;
  // What can be had without waiting, and without a coroutine: 0 if there is nothing yet, absent for the end or trouble,
  // which read_some() will tell.
  virtual std::optional<std::size_t> read_now(std::span<char> into) = 0;
  // What can be sent so: 0 for any reason that there is, which write() will tell. `last`: close() comes next, and the
  // bytes may share its packet.
  virtual std::size_t write_now(std::span<const char>, [[maybe_unused]] bool last = false) { return 0; }
  // True if bytes have already arrived that nobody has read (early talkers). Does not wait.
  virtual bool has_pending() = 0;
  // Waits until there is something to read, without needing a buffer: idle sessions hold no memory. Under TLS it may
  // turn out to be a part of a record, of which read_now() has 0 bytes; then this waits for more of it.
  virtual Task<ReadStatus> wait_readable(SteadyTime deadline) = 0;
  // A wait_readable() that is pending, or else the next one, ends at once as timed_out; nothing is lost by that. A
  // handshake ends so too, and so does a write that waits for the peer to read; and with it the connection.
  virtual void wake() = 0;
  // The handshake; the caller has made sure that no byte was buffered before it (CVE-2011-0411). `setup` may set SNI,
  // verification, a session to resume. On error the connection is finished.
  virtual Task<Result<TlsInfo>> start_tls_server(SSL_CTX* context, SteadyTime deadline) = 0;
  virtual Task<Result<TlsInfo>> start_tls_client(SSL_CTX* context, std::function<void(SSL*)> setup,
                                                 SteadyTime deadline) = 0;
  virtual SSL* ssl() = 0;  // null while plain
  // At once; safe to repeat; a pending operation ends as failed. What the peer sent meanwhile is thrown away first,
  // so that TCP does not reset the connection and destroy our last reply on its way.
  virtual void close() = 0;
};

std::unique_ptr<Stream> make_stream(asio::ip::tcp::socket socket, Endpoint peer);
Task<Result<std::unique_ptr<Stream>>> connect(Endpoint to, SteadyTime deadline);

}  // namespace greymx::smtp

// A connection in memory: what is written at one end is read at the other. Deadlines are those of a clock that the
// test moves; after moving it, call clock_changed() on the ends that may wait. TLS is make-believe: the handshake
// always succeeds and nothing is encrypted.
#pragma once

#include <memory>
#include <utility>

#include "base/clock.hpp"
#include "smtp/stream.hpp"

namespace greymx::test {

class PipeStream final : public smtp::Stream {
 public:
  // Both ends, on one executor. `clock` must outlive them.
  static std::pair<std::unique_ptr<PipeStream>, std::unique_ptr<PipeStream>> make(asio::any_io_executor executor,
                                                                                  const Clock& clock,
                                                                                  Endpoint first = {},
                                                                                  Endpoint second = {});
  ~PipeStream() override;

  void set_max_read(std::size_t bytes) { max_read_ = bytes; }  // no read returns more
  void fail_at(std::uint64_t n) {
    fail_at_ = n;
  }  // the n-th read, write, wait or handshake from now on fails (1 = next)
  void clock_changed();
  bool tls() const { return tls_; }
  bool peer_waits() const;  // the other end is in a read or wait
  std::string take();       // what has arrived, without waiting
  bool peer_closed() const;
  void put(std::string bytes);  // write() without waiting
  void finish();                // no more will be written; reading goes on

  Endpoint peer() const override { return peer_; }
  Task<smtp::ReadEvent> read_some(std::span<char> into, SteadyTime deadline) override;
  Task<Result<>> write(std::span<const char> bytes, SteadyTime deadline) override;
  std::optional<std::size_t> read_now(std::span<char> into) override;
  bool has_pending() override;
  Task<smtp::ReadStatus> wait_readable(SteadyTime deadline) override;
  void wake() override;
  Task<Result<smtp::TlsInfo>> start_tls_server(SSL_CTX* context, SteadyTime deadline) override;
  Task<Result<smtp::TlsInfo>> start_tls_client(SSL_CTX* context, std::function<void(SSL*)> setup,
                                               SteadyTime deadline) override;
  SSL* ssl() override { return nullptr; }
  void close() override;

 private:
  std::size_t move_to(std::span<char> into);
  struct Direction;
  PipeStream(const Clock& clock, Endpoint peer);
  bool fails_now() { return fail_at_ > 0 && --fail_at_ == 0; }
  Task<Result<smtp::TlsInfo>> handshake();

  const Clock& clock_;
  Endpoint peer_;
  std::shared_ptr<Direction> in_;
  std::shared_ptr<Direction> out_;
  std::size_t max_read_ = static_cast<std::size_t>(-1);
  std::uint64_t fail_at_ = 0;  // 0 = never
  bool closed_ = false;
  bool tls_ = false;
  bool woken_ = false;
};

}  // namespace greymx::test

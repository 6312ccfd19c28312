#include "support/pipe_stream.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>

namespace greymx::test {

using smtp::ReadEvent;
using smtp::ReadStatus;

struct PipeStream::Direction {
  explicit Direction(asio::any_io_executor executor) : changed(std::move(executor), SteadyTime::max()) {}

  std::string bytes;
  bool ended = false;          // nothing more will be written
  bool ignored = false;        // nobody will read
  bool awaited = false;        // the reader waits
  asio::steady_timer changed;  // never expires; cancelled to wake the reader
};

PipeStream::PipeStream(const Clock& clock, Endpoint peer) : clock_(clock), peer_(peer) {}

PipeStream::~PipeStream() {
  close();
}

std::pair<std::unique_ptr<PipeStream>, std::unique_ptr<PipeStream>> PipeStream::make(asio::any_io_executor executor,
                                                                                     const Clock& clock, Endpoint first,
                                                                                     Endpoint second) {
  std::unique_ptr<PipeStream> a(new PipeStream(clock, second));
  std::unique_ptr<PipeStream> b(new PipeStream(clock, first));
  a->in_ = b->out_ = std::make_shared<Direction>(executor);
  a->out_ = b->in_ = std::make_shared<Direction>(executor);
  return {std::move(a), std::move(b)};
}

void PipeStream::clock_changed() {
  in_->changed.cancel();
}

bool PipeStream::peer_waits() const {
  return out_->awaited;
}

std::string PipeStream::take() {
  return std::exchange(in_->bytes, {});
}

bool PipeStream::peer_closed() const {
  return in_->ended;
}

void PipeStream::put(std::string bytes) {
  out_->bytes += bytes;
  out_->changed.cancel();
}

void PipeStream::finish() {
  out_->ended = true;
  out_->changed.cancel();
}

Task<ReadEvent> PipeStream::read_some(std::span<char> into, SteadyTime deadline) {
  if (fails_now()) close();
  const std::shared_ptr<Direction> in = in_;
  for (;;) {
    if (closed_) co_return ReadEvent{ReadStatus::failed, 0, "connection closed"};
    if (!in->bytes.empty()) co_return ReadEvent{ReadStatus::data, move_to(into), {}};
    if (in->ended) co_return ReadEvent{ReadStatus::closed, 0, {}};
    if (clock_.steady() >= deadline) co_return ReadEvent{ReadStatus::timed_out, 0, {}};
    in->awaited = true;
    co_await in->changed.async_wait(asio::as_tuple(asio::use_awaitable));
    in->awaited = false;
  }
}

std::optional<std::size_t> PipeStream::read_now(std::span<char> into) {
  if (fails_now()) close();
  if (closed_ || (in_->bytes.empty() && in_->ended)) return std::nullopt;
  return move_to(into);
}

std::size_t PipeStream::move_to(std::span<char> into) {
  const std::size_t bytes = std::min({into.size(), in_->bytes.size(), max_read_});
  std::copy_n(in_->bytes.begin(), bytes, into.begin());
  in_->bytes.erase(0, bytes);
  return bytes;
}

Task<Result<>> PipeStream::write(std::span<const char> bytes, SteadyTime) {
  if (fails_now()) close();
  if (closed_ || out_->ignored) co_return fail(ErrorKind::temporary, "connection closed");
  put(std::string(bytes.data(), bytes.size()));
  co_return Result<>();
}

bool PipeStream::has_pending() {
  return !in_->bytes.empty();
}

Task<ReadStatus> PipeStream::wait_readable(SteadyTime deadline) {
  if (fails_now()) close();
  const std::shared_ptr<Direction> in = in_;
  for (;;) {
    if (closed_) co_return ReadStatus::failed;
    if (!in->bytes.empty() || in->ended) co_return ReadStatus::data;
    if (std::exchange(woken_, false) || clock_.steady() >= deadline) co_return ReadStatus::timed_out;
    in->awaited = true;
    co_await in->changed.async_wait(asio::as_tuple(asio::use_awaitable));
    in->awaited = false;
  }
}

void PipeStream::wake() {
  woken_ = true;
  in_->changed.cancel();
}

Task<Result<smtp::TlsInfo>> PipeStream::handshake() {
  if (fails_now()) close();
  if (closed_) co_return fail(ErrorKind::temporary, "connection closed");
  tls_ = true;
  co_return smtp::TlsInfo{"TLSv1.3", "TLS_AES_256_GCM_SHA384", 256};
}

Task<Result<smtp::TlsInfo>> PipeStream::start_tls_server(SSL_CTX*, SteadyTime) {
  return handshake();
}
Task<Result<smtp::TlsInfo>> PipeStream::start_tls_client(SSL_CTX*, std::function<void(SSL*)>, SteadyTime) {
  return handshake();
}

void PipeStream::close() {
  if (closed_) return;
  closed_ = true;
  finish();
  in_->ignored = true;
  in_->changed.cancel();
}

}  // namespace greymx::test

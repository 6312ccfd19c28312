// TCP and TLS without Asio's ssl::stream, whose buffers cost 68 KiB a connection: all reading and writing is done
// with non-blocking calls (OpenSSL's on the socket itself), and Asio only waits for the socket to be ready.
#include "smtp/stream.hpp"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <cerrno>
#include <cstring>

#include "base/sockets.hpp"

namespace greymx::smtp {

namespace {

using asio::ip::tcp;
using Wait = tcp::socket::wait_type;
constexpr auto as_value = asio::as_tuple(asio::use_awaitable);

// The socket and its one timer. The timer is lazy: an operation only notes its deadline, and the timer, when it
// fires, looks whether the deadline has moved; most operations never touch it.
struct Socket : std::enable_shared_from_this<Socket> {
  explicit Socket(tcp::socket from) : socket(std::move(from)), timer(socket.get_executor()) {}

  void begin(SteadyTime until) {
    deadline = until;
    waiting = true;
    expired = false;
    if (until == SteadyTime::max() || (armed && timer.expiry() <= until)) return;
    arm();
  }

  void arm() {
    armed = true;
    timer.expires_at(deadline);
    timer.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      if (!error) self->fire();
    });
  }

  void fire() {
    armed = false;
    if (!waiting) return;
    if (deadline > std::chrono::steady_clock::now()) return arm();
    expired = true;
    cancel();
  }

  void cancel() {
    boost::system::error_code ignored;
    socket.cancel(ignored);
  }

  // Every operation that waits ends here.
  ReadStatus end(const boost::system::error_code& error) {
    waiting = false;
    if (!error) return ReadStatus::data;
    return expired ? ReadStatus::timed_out : ReadStatus::failed;
  }

  tcp::socket socket;
  asio::steady_timer timer;
  SteadyTime deadline{};
  bool armed = false;
  bool waiting = false;
  bool expired = false;
};

// What one non-blocking call came to.
struct Attempt {
  enum class Outcome : std::uint8_t { done, closed, wait_read, wait_write, failed } outcome;
  std::size_t bytes = 0;
  std::string error;
};
using Outcome = Attempt::Outcome;

Attempt system_attempt(ssize_t result) {
  if (result > 0) return {Outcome::done, static_cast<std::size_t>(result), {}};
  if (result == 0) return {Outcome::closed, 0, {}};
  return {Outcome::failed, 0, std::strerror(errno)};
}

// `result` of SSL_read, SSL_write, SSL_accept or SSL_connect.
Attempt tls_attempt(SSL* ssl, int result, std::size_t bytes) {
  if (result > 0) return {Outcome::done, bytes, {}};
  const int system_error = errno;
  switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_WANT_READ:
      return {Outcome::wait_read, 0, {}};
    case SSL_ERROR_WANT_WRITE:
      return {Outcome::wait_write, 0, {}};
    case SSL_ERROR_ZERO_RETURN:
      return {Outcome::closed, 0, {}};
    case SSL_ERROR_SYSCALL:
      if (system_error == 0) return {Outcome::closed, 0, {}};
      return {Outcome::failed, 0, std::strerror(system_error)};
    default: {
      const unsigned long error = ERR_peek_last_error();
      // A peer that cuts the connection without close_notify; SMTP's own framing tells what that means.
      if (ERR_GET_REASON(error) == SSL_R_UNEXPECTED_EOF_WHILE_READING) return {Outcome::closed, 0, {}};
      const char* reason = ERR_reason_error_string(error);
      return {Outcome::failed, 0, reason == nullptr ? "TLS error" : reason};
    }
  }
}

void prepare_errors() {
  ERR_clear_error();
  errno = 0;
}

class SocketStream final : public Stream {
 public:
  SocketStream(tcp::socket socket, Endpoint peer) : io_(std::make_shared<Socket>(std::move(socket))), peer_(peer) {
    boost::system::error_code ignored;
    io_->socket.native_non_blocking(true, ignored);
  }
  ~SocketStream() override { close(); }

  Endpoint peer() const override { return peer_; }

  Task<ReadEvent> read_some(std::span<char> into, SteadyTime deadline) override {
    if (unyielding_ == most_unyielding) {
      unyielding_ = 0;
      co_await asio::post(io_->socket.get_executor(), asio::use_awaitable);
    }
    ++unyielding_;
    for (;;) {
      Attempt attempt = try_read(into);
      switch (attempt.outcome) {
        case Outcome::done:
          co_return ReadEvent{ReadStatus::data, attempt.bytes, {}};
        case Outcome::closed:
          co_return ReadEvent{ReadStatus::closed, 0, {}};
        case Outcome::failed:
          co_return ReadEvent{ReadStatus::failed, 0, std::move(attempt.error)};
        default:
          break;
      }
      const ReadStatus status = co_await ready(attempt.outcome, deadline);
      if (status != ReadStatus::data) co_return ReadEvent{status, 0, "connection closed"};
    }
  }

  Task<Result<>> write(std::span<const char> bytes, SteadyTime deadline) override {
    while (!bytes.empty()) {
      Attempt attempt = try_write(bytes);
      bytes = bytes.subspan(attempt.bytes);
      if (attempt.outcome == Outcome::done) continue;
      if (attempt.outcome == Outcome::closed) co_return fail(ErrorKind::temporary, "connection closed");
      if (attempt.outcome == Outcome::failed) co_return fail(ErrorKind::temporary, std::move(attempt.error));
      const bool woken_before = std::exchange(woken_, false);  // that is for the next wait for input
      const ReadStatus status = co_await ready_or_woken(attempt.outcome, deadline);
      woken_ = woken_ || woken_before;
      if (status == ReadStatus::timed_out) co_return fail(ErrorKind::timed_out, "write timed out");
      if (status != ReadStatus::data) co_return fail(ErrorKind::temporary, "connection closed");
    }
    co_return Result<>();
  }

  std::optional<std::size_t> read_now(std::span<char> into) override {
    if (unyielding_ == most_unyielding) return 0;
    ++unyielding_;
    const Attempt attempt = try_read(into);
    const bool sound = attempt.outcome == Outcome::done || attempt.outcome == Outcome::wait_read;
    return sound ? std::optional(attempt.bytes) : std::nullopt;
  }

  std::size_t write_now(std::span<const char> bytes, bool last) override {
    return bytes.empty() ? 0 : try_write(bytes, last ? MSG_MORE : 0).bytes;
  }

  bool has_pending() override {
    if (ssl_ && SSL_has_pending(ssl_.get()) == 1) return true;
    char byte = 0;
    return ::recv(handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
  }

  Task<ReadStatus> wait_readable(SteadyTime deadline) override {
    if (ssl_ && !starved_ && SSL_has_pending(ssl_.get()) == 1) {
      unyielding_ = 0;
      co_await asio::post(io_->socket.get_executor(), asio::use_awaitable);
      co_return ReadStatus::data;
    }
    const ReadStatus status = co_await ready_or_woken(Outcome::wait_read, deadline);
    co_return status;
  }

  void wake() override {
    woken_ = true;
    if (idle_) io_->cancel();
  }

  Task<Result<TlsInfo>> start_tls_server(SSL_CTX* context, SteadyTime deadline) override {
    const auto no_setup = std::function<void(SSL*)>();
    return handshake(context, SSL_accept, no_setup, deadline);
  }
  Task<Result<TlsInfo>> start_tls_client(SSL_CTX* context, std::function<void(SSL*)> setup,
                                         SteadyTime deadline) override {
    return handshake(context, SSL_connect, std::move(setup), deadline);
  }

  SSL* ssl() override { return ssl_.get(); }

  void close() override {
    if (!io_->socket.is_open()) return;
    if (ssl_) {
      prepare_errors();
      if (SSL_is_init_finished(ssl_.get()) == 1) SSL_shutdown(ssl_.get());  // close_notify, if there is room for it
    }
    ::shutdown(handle(), SHUT_WR);
    std::array<char, 4096> rubbish;
    for (int i = 0; i < 16 && ::recv(handle(), rubbish.data(), rubbish.size(), MSG_DONTWAIT) > 0; ++i) {
    }
    boost::system::error_code ignored;
    io_->socket.close(ignored);
    io_->timer.cancel();
  }

 private:
  // A peer that always has more to say must not keep its neighbours on this thread waiting.
  static constexpr unsigned most_unyielding = 16;  // reads
  static constexpr unsigned most_parts = 100;  // TLS records and handshake messages for one step; honest flights fit
  struct FreeSsl {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };

  int handle() { return io_->socket.native_handle(); }

  // OpenSSL does not return while the peer sends records that carry no data (key updates, tickets, hello requests), so
  // it is stopped from here.
  static void on_tls_part(int sent, int, int type, const void*, std::size_t, SSL* ssl, void* self) {
    if (sent != 0 || (type != SSL3_RT_HEADER && type != SSL3_RT_HANDSHAKE)) return;
    if (++static_cast<SocketStream*>(self)->parts_ <= most_parts) return;
    SSL_set_shutdown(ssl, SSL_RECEIVED_SHUTDOWN);    // ends reading data at once
    BIO_set_fd(SSL_get_rbio(ssl), -1, BIO_NOCLOSE);  // and a handshake with what has been read already
  }

  void prepare_reading() {
    prepare_errors();
    parts_ = 0;
  }
  Attempt reading_attempt(int result, std::size_t bytes) {
    if (parts_ > most_parts) return {Outcome::failed, 0, "too many TLS records without data"};
    return tls_attempt(ssl_.get(), result, bytes);
  }

  Attempt try_read(std::span<char> into) {
    if (ssl_) {
      prepare_reading();
      std::size_t bytes = 0;
      const int result = SSL_read_ex(ssl_.get(), into.data(), into.size(), &bytes);
      Attempt attempt = reading_attempt(result, bytes);
      starved_ = attempt.outcome == Outcome::wait_read;
      return attempt;
    }
    const ssize_t result = ::recv(handle(), into.data(), into.size(), MSG_DONTWAIT);
    if (result < 0 && (errno == EAGAIN || errno == EINTR)) return {Outcome::wait_read, 0, {}};
    return system_attempt(result);
  }

  Attempt try_write(std::span<const char> bytes, int flags = 0) {
    if (ssl_) {
      prepare_errors();
      std::size_t written = 0;
      const int result = SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &written);
      return tls_attempt(ssl_.get(), result, written);
    }
    const ssize_t result = ::send(handle(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL | flags);
    if (result < 0 && (errno == EAGAIN || errno == EINTR)) return {Outcome::wait_write, 0, {}};
    return system_attempt(result);
  }

  Task<ReadStatus> ready(Outcome direction, SteadyTime deadline) {
    unyielding_ = 0;
    const std::shared_ptr<Socket> io = io_;
    io->begin(deadline);
    const Wait wait = direction == Outcome::wait_write ? Wait::wait_write : Wait::wait_read;
    const auto [error] = co_await io->socket.async_wait(wait, as_value);
    co_return io->end(error);
  }

  Task<ReadStatus> ready_or_woken(Outcome direction, SteadyTime deadline) {
    if (std::exchange(woken_, false)) co_return ReadStatus::timed_out;
    idle_ = true;
    const ReadStatus status = co_await ready(direction, deadline);
    idle_ = false;
    if (status != ReadStatus::failed || !woken_) co_return status;
    woken_ = false;
    co_return ReadStatus::timed_out;
  }

  Task<Result<TlsInfo>> handshake(SSL_CTX* context, int (*step)(SSL*), std::function<void(SSL*)> setup,
                                  SteadyTime deadline) {
    ssl_.reset(SSL_new(context));
    if (!ssl_ || SSL_set_fd(ssl_.get(), handle()) != 1) co_return fail(ErrorKind::temporary, "no memory for TLS");
    SSL_set_msg_callback(ssl_.get(), on_tls_part);
    SSL_set_msg_callback_arg(ssl_.get(), this);
    if (setup) setup(ssl_.get());
    for (;;) {
      prepare_reading();
      const int result = step(ssl_.get());
      Attempt attempt = reading_attempt(result, 0);
      if (attempt.outcome == Outcome::done) break;
      if (attempt.outcome == Outcome::closed) co_return fail(ErrorKind::temporary, "connection closed");
      if (attempt.outcome == Outcome::failed) co_return fail(ErrorKind::temporary, std::move(attempt.error));
      const ReadStatus status = co_await ready_or_woken(attempt.outcome, deadline);
      if (status == ReadStatus::timed_out) co_return fail(ErrorKind::timed_out, "TLS handshake timed out");
      if (status != ReadStatus::data) co_return fail(ErrorKind::temporary, "connection closed");
    }
    const SSL_CIPHER* cipher = SSL_get_current_cipher(ssl_.get());
    co_return TlsInfo{SSL_get_version(ssl_.get()), SSL_CIPHER_get_name(cipher), SSL_CIPHER_get_bits(cipher, nullptr)};
  }

  std::shared_ptr<Socket> io_;
  Endpoint peer_;
  std::unique_ptr<SSL, FreeSsl> ssl_;
  unsigned unyielding_ = 0;  // reads since the last wait
  unsigned parts_ = 0;       // of TLS that the last call of OpenSSL has read
  bool starved_ = false;     // of what TLS has, nothing can be read before the socket has more
  bool idle_ = false;        // in a wait that wake() ends
  bool woken_ = false;
};

}  // namespace

std::string TlsInfo::to_string() const {
  return fmt::format("{} with cipher {} ({}/{} bits)", protocol, cipher, bits, bits);
}

std::unique_ptr<Stream> make_stream(tcp::socket socket, Endpoint peer) {
  return std::make_unique<SocketStream>(std::move(socket), peer);
}

namespace {

// No descriptors or no memory left: that says nothing of the other side.
bool is_ours(const boost::system::error_code& error) {
  constexpr std::array ours{EMFILE, ENFILE, ENOBUFS, ENOMEM};
  return std::find(ours.begin(), ours.end(), error.value()) != ours.end();
}

}  // namespace

Task<Result<std::unique_ptr<Stream>>> connect(Endpoint to, SteadyTime deadline) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  const tcp::endpoint endpoint = to_asio(to);
  const auto io = std::make_shared<Socket>(tcp::socket(executor));
  boost::system::error_code problem;
  io->socket.open(endpoint.protocol(), problem);
  if (!problem) io->socket.set_option(tcp::no_delay(true), problem);
  if (problem) co_return fail(is_ours(problem) ? ErrorKind::no_space : ErrorKind::temporary, problem.message());
  io->begin(deadline);
  const auto [error] = co_await io->socket.async_connect(endpoint, as_value);
  const ReadStatus status = io->end(error);
  io->timer.cancel();
  if (status == ReadStatus::timed_out) co_return fail(ErrorKind::timed_out, "Connection timed out");
  if (status != ReadStatus::data) co_return fail(ErrorKind::temporary, error.message());
  co_return make_stream(std::move(io->socket), to);
}

}  // namespace greymx::smtp

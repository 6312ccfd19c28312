#include "smtp/stream.hpp"

#include <openssl/ssl.h>

#include <boost/asio/detached.hpp>

#include "base/sockets.hpp"
#include "support/catch.hpp"
#include "support/certificate.hpp"
#include "support/fake_clock.hpp"
#include "support/pipe_stream.hpp"
#include "support/run.hpp"

using namespace greymx;
using namespace greymx::smtp;
using asio::ip::tcp;
using namespace std::chrono_literals;

namespace {

SteadyTime after(std::chrono::milliseconds delay) {
  return std::chrono::steady_clock::now() + delay;
}

// Two ends of a loopback connection, and a gate for what runs beside the test.
struct Pair {
  Pair() : acceptor(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0)), gate(io.get_executor()) {
    tcp::socket a(io);
    a.connect(acceptor.local_endpoint());
    client_end = from_asio(a.local_endpoint());
    client_socket = a.native_handle();
    tcp::socket b = acceptor.accept();
    client = make_stream(std::move(a), from_asio(acceptor.local_endpoint()));
    server = make_stream(std::move(b), client_end);
  }
  template <class T>
  T run(Task<T> task) {
    return test::run(io, std::move(task));
  }
  std::string read(Stream& stream, std::size_t limit = 100) {
    std::string buffer(limit, 0);
    const ReadEvent event = run(stream.read_some(buffer, after(10s)));
    REQUIRE(event.status == ReadStatus::data);
    return buffer.substr(0, event.bytes);
  }

  asio::io_context io{1};
  tcp::acceptor acceptor;
  Gate gate;
  int client_socket = -1;  // the client's
  Endpoint client_end;
  std::unique_ptr<Stream> client;
  std::unique_ptr<Stream> server;
};

Task<> write_all(Stream& stream, std::string bytes, Result<>* result) {
  *result = co_await stream.write(bytes, after(20s));
}

Task<> shake_hands(Stream& stream, SSL_CTX* context, Result<TlsInfo>* result) {
  *result = co_await stream.start_tls_client(context, {}, after(20s));
}

Task<> later(std::function<void()> act) {
  co_await sleep_for(5ms);
  act();
}

using test::Context;

// After the handshake.
struct TlsPair : Pair {
  TlsPair() {
    Result<TlsInfo> client_result;
    gate.spawn("client", shake_hands(*client, client_side.get(), &client_result));
    REQUIRE(run(server->start_tls_server(server_side.get(), after(20s))));
    run(gate.close());
  }

  const Context server_side = test::server_context("mx2.example.net");
  const Context client_side{SSL_CTX_new(TLS_client_method()), SSL_CTX_free};
};

}  // namespace

TEST_CASE("bytes written at one end are read at the other") {
  Pair pair;
  const Result<> written = pair.run(pair.client->write(std::string_view("EHLO x\r\n"), after(10s)));
  REQUIRE(written);
  CHECK(pair.read(*pair.server) == "EHLO x\r\n");
  CHECK(pair.server->peer() == pair.client_end);
}

TEST_CASE("a read that gets nothing ends at its deadline") {
  Pair pair;
  std::string buffer(10, 0);
  const ReadEvent event = pair.run(pair.server->read_some(buffer, after(20ms)));
  CHECK(event.status == ReadStatus::timed_out);
}

TEST_CASE("a later deadline replaces an earlier one that has not fired") {
  Pair pair;
  const ReadStatus first = pair.run(pair.server->wait_readable(after(20ms)));
  CHECK(first == ReadStatus::timed_out);
  pair.run(pair.client->write(std::string_view("a"), after(10s)));
  CHECK(pair.read(*pair.server) == "a");  // leaves a timer of 10 s armed
  const SteadyTime begin = std::chrono::steady_clock::now();
  const ReadStatus second = pair.run(pair.server->wait_readable(after(30ms)));
  CHECK(second == ReadStatus::timed_out);
  CHECK(std::chrono::steady_clock::now() - begin >= 30ms);
  CHECK(std::chrono::steady_clock::now() - begin < 9s);
}

TEST_CASE("the end of the peer's stream is closed, not an error") {
  Pair pair;
  pair.client->close();
  std::string buffer(10, 0);
  const ReadEvent event = pair.run(pair.server->read_some(buffer, after(10s)));
  CHECK(event.status == ReadStatus::closed);
}

TEST_CASE("a write that the peer never reads ends at its deadline") {
  Pair pair;
  const std::string much(64 << 20, 'x');
  const Result<> result = pair.run(pair.server->write(much, after(50ms)));
  REQUIRE_FALSE(result);
  CHECK(result.error().kind == ErrorKind::timed_out);
}

TEST_CASE("wake ends a write that the peer never reads, but not one that it was called before") {
  Pair pair;
  const std::string much(64 << 20, 'x');
  pair.server->wake();
  const Result<> before = pair.run(pair.server->write(much, after(50ms)));
  REQUIRE_FALSE(before);
  const ReadStatus next = pair.run(pair.server->wait_readable(after(20s)));
  CHECK(next == ReadStatus::timed_out);  // it is still awake
  pair.gate.spawn("waker", later([&] { pair.server->wake(); }));
  const auto begin = std::chrono::steady_clock::now();
  const Result<> woken = pair.run(pair.server->write(much, after(20s)));
  REQUIRE_FALSE(woken);
  CHECK(std::chrono::steady_clock::now() - begin < 10s);
}

TEST_CASE("more than the socket's buffers hold arrives whole") {
  Pair pair;
  std::string much;
  for (int i = 0; much.size() < 8 << 20; ++i) much += std::to_string(i);
  Result<> written;
  pair.gate.spawn("writer", write_all(*pair.client, much, &written));
  std::string got;
  while (got.size() < much.size()) got += pair.read(*pair.server, 100000);
  CHECK(got == much);
  pair.run(pair.gate.close());
  CHECK(written);
}

TEST_CASE("waiting for input needs no buffer and takes nothing") {
  Pair pair;
  CHECK_FALSE(pair.server->has_pending());
  pair.run(pair.client->write(std::string_view("x"), after(10s)));
  const ReadStatus status = pair.run(pair.server->wait_readable(after(10s)));
  CHECK(status == ReadStatus::data);
  CHECK(pair.server->has_pending());
  CHECK(pair.read(*pair.server) == "x");
}

TEST_CASE("wake ends a pending wait, or the next one, but never a read") {
  Pair pair;
  pair.gate.spawn("waker", later([&] { pair.server->wake(); }));
  const ReadStatus pending = pair.run(pair.server->wait_readable(after(20s)));
  CHECK(pending == ReadStatus::timed_out);
  pair.server->wake();
  const ReadStatus next = pair.run(pair.server->wait_readable(after(20s)));
  CHECK(next == ReadStatus::timed_out);
  const ReadStatus once = pair.run(pair.server->wait_readable(after(10ms)));
  CHECK(once == ReadStatus::timed_out);
  pair.gate.spawn("waker", later([&] { pair.server->wake(); }));
  pair.gate.spawn("closer", later([&] { pair.client->close(); }));
  std::string buffer(10, 0);
  const ReadEvent event = pair.run(pair.server->read_some(buffer, after(20s)));
  CHECK(event.status == ReadStatus::closed);
}

TEST_CASE("what can be had without waiting: bytes, nothing yet, or word of the end") {
  Pair pair;
  std::string buffer(10, 0);
  CHECK(pair.server->read_now(buffer) == 0);
  pair.run(pair.client->write(std::string_view("x"), after(10s)));
  pair.run(pair.server->wait_readable(after(10s)));
  CHECK(pair.server->read_now(buffer) == 1);
  pair.client->close();
  pair.run(pair.server->wait_readable(after(10s)));
  CHECK_FALSE(pair.server->read_now(buffer));
}

TEST_CASE("part of a TLS record is waited for, and wake ends that") {
  TlsPair pair;
  REQUIRE(::send(pair.client_socket, "\x17\x03\x03", 3, 0) == 3);
  const ReadStatus first = pair.run(pair.server->wait_readable(after(10s)));
  CHECK(first == ReadStatus::data);
  std::string buffer(10, 0);
  CHECK(pair.server->read_now(buffer) == 0);
  const ReadStatus rest = pair.run(pair.server->wait_readable(after(20ms)));
  CHECK(rest == ReadStatus::timed_out);
  REQUIRE(::send(pair.client_socket, "\x00", 1, 0) == 1);
  const ReadStatus more = pair.run(pair.server->wait_readable(after(10s)));
  CHECK(more == ReadStatus::data);
  CHECK(pair.server->read_now(buffer) == 0);
  pair.server->wake();
  const ReadStatus woken = pair.run(pair.server->wait_readable(after(20s)));
  CHECK(woken == ReadStatus::timed_out);
}

TEST_CASE("wake ends a handshake that is pending, or the next one") {
  const Context server = test::server_context("mx2.example.net");
  const SteadyTime begin = std::chrono::steady_clock::now();
  Pair pair;
  pair.gate.spawn("waker", later([&] { pair.server->wake(); }));
  const auto pending = pair.run(pair.server->start_tls_server(server.get(), after(20s)));
  CHECK_FALSE(pending);
  Pair other;
  other.server->wake();
  const auto next = other.run(other.server->start_tls_server(server.get(), after(20s)));
  CHECK_FALSE(next);
  CHECK(std::chrono::steady_clock::now() - begin < 10s);
}

TEST_CASE("close ends a pending read as failed") {
  Pair pair;
  pair.gate.spawn("closer", later([&] { pair.server->close(); }));
  std::string buffer(10, 0);
  const ReadEvent event = pair.run(pair.server->read_some(buffer, after(20s)));
  CHECK(event.status == ReadStatus::failed);
  pair.server->close();
}

TEST_CASE("closing with unread input does not destroy the last reply") {
  Pair pair;
  pair.run(pair.client->write(std::string(1000, 'x'), after(10s)));
  pair.run(pair.server->wait_readable(after(10s)));
  pair.run(pair.server->write(std::string_view("221 Bye\r\n"), after(10s)));
  pair.server->close();
  CHECK(pair.read(*pair.client) == "221 Bye\r\n");
}

TEST_CASE("the last reply shares its packet with the end of the connection") {
  Pair pair;
  REQUIRE(pair.server->write_now(std::string_view("221 2.0.0 Bye\r\n"), true) == 15);
  CHECK_FALSE(pair.client->has_pending());
  pair.server->close();
  CHECK(pair.read(*pair.client) == "221 2.0.0 Bye\r\n");
  std::array<char, 10> buffer;
  CHECK(pair.run(pair.client->read_some(buffer, after(10s))).status == ReadStatus::closed);
}

TEST_CASE("connecting to a port where nobody listens is an error") {
  asio::io_context io{1};
  tcp::acceptor acceptor(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  const Endpoint endpoint{*IpAddress::parse("127.0.0.1"), acceptor.local_endpoint().port()};
  const auto reached = test::run(io, connect(endpoint, after(10s)));
  CHECK(reached);
  acceptor.close();
  const auto refused = test::run(io, connect(endpoint, after(10s)));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().text == "Connection refused");
}

TEST_CASE("TLS carries data both ways over the same stream") {
  Pair pair;
  const Context server = test::server_context("mx2.example.net");
  const Context client(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  Result<TlsInfo> client_result;
  CHECK(pair.server->ssl() == nullptr);
  pair.gate.spawn("client", shake_hands(*pair.client, client.get(), &client_result));
  const auto info = pair.run(pair.server->start_tls_server(server.get(), after(20s)));
  REQUIRE(info);
  CHECK(info->to_string() == "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)");
  CHECK(pair.server->ssl() != nullptr);
  pair.run(pair.gate.close());
  REQUIRE(client_result);
  const std::string much(300000, 'y');
  Result<> written;
  Gate gate(pair.io.get_executor());
  gate.spawn("writer", write_all(*pair.client, much, &written));
  std::string got;
  while (got.size() < much.size()) {
    const ReadStatus status = pair.run(pair.server->wait_readable(after(10s)));
    REQUIRE(status == ReadStatus::data);
    got += pair.read(*pair.server, 1000);
  }
  CHECK(got == much);
  pair.run(gate.close());
  pair.run(pair.server->write(std::string_view("250 ok\r\n"), after(10s)));
  CHECK(pair.read(*pair.client) == "250 ok\r\n");
  pair.client->close();
  std::string buffer(10, 0);
  const ReadEvent event = pair.run(pair.server->read_some(buffer, after(10s)));
  CHECK(event.status == ReadStatus::closed);
}

TEST_CASE("a peer that only renews its TLS keys is dropped, not one that does so now and then") {
  TlsPair pair;
  const auto renew_keys = [&](int times) {
    for (int i = 0; i < times; ++i) {
      REQUIRE(SSL_key_update(pair.client->ssl(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
      REQUIRE(SSL_do_handshake(pair.client->ssl()) == 1);
    }
  };
  for (int i = 0; i < 10; ++i) {
    renew_keys(20);
    pair.run(pair.client->write(std::string_view("NOOP\r\n"), after(10s)));
    CHECK(pair.read(*pair.server) == "NOOP\r\n");
  }
  renew_keys(1000);
  std::string buffer(10, 0);
  const ReadEvent event = pair.run(pair.server->read_some(buffer, after(100ms)));
  CHECK(event.status == ReadStatus::failed);
  CHECK(event.error == "too many TLS records without data");
  CHECK_FALSE(pair.server->read_now(buffer));
}

TEST_CASE("a server that never gets beyond hello requests is left") {
  Pair pair;
  const Context client(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  const std::string_view hello_request("\x16\x03\x03\x00\x04\x00\x00\x00\x00", 9);
  std::string many;
  for (int i = 0; i < 5000; ++i) many += hello_request;
  pair.run(pair.server->write(many, after(10s)));
  const auto info = pair.run(pair.client->start_tls_client(client.get(), {}, after(100ms)));
  REQUIRE_FALSE(info);
  CHECK(info.error().text == "too many TLS records without data");
}

TEST_CASE("garbage instead of a handshake is an error with a reason") {
  Pair pair;
  const Context server = test::server_context("mx2.example.net");
  pair.run(pair.client->write(std::string_view("MAIL FROM:<a@example.org>\r\n"), after(10s)));
  const auto info = pair.run(pair.server->start_tls_server(server.get(), after(20s)));
  REQUIRE_FALSE(info);
  CHECK_FALSE(info.error().text.empty());
}

TEST_CASE("a handshake that never comes ends at its deadline") {
  Pair pair;
  const Context server = test::server_context("mx2.example.net");
  const auto info = pair.run(pair.server->start_tls_server(server.get(), after(20ms)));
  REQUIRE_FALSE(info);
  CHECK(info.error().kind == ErrorKind::timed_out);
}

TEST_CASE("the pipe of the tests keeps the stream's contract") {
  asio::io_context io{1};
  test::FakeClock clock;
  auto [a, b] = test::PipeStream::make(io.get_executor(), clock);
  std::string buffer(10, 0);
  const ReadEvent expired = test::run(io, a->read_some(buffer, clock.steady()));
  CHECK(expired.status == ReadStatus::timed_out);
  b->put("hello");
  a->set_max_read(2);
  const ReadEvent some = test::run(io, a->read_some(buffer, clock.steady() + 1s));
  CHECK(some.bytes == 2);
  CHECK(a->take() == "llo");
  Gate gate(io.get_executor());
  gate.spawn("time", later([&] {
               clock.advance(2s);
               a->clock_changed();
             }));
  const ReadStatus waited = test::run(io, a->wait_readable(clock.steady() + 1s));
  CHECK(waited == ReadStatus::timed_out);
  b->close();
  const ReadEvent closed = test::run(io, a->read_some(buffer, clock.steady() + 1s));
  CHECK(closed.status == ReadStatus::closed);
  const Result<> written = test::run(io, a->write(std::string_view("x"), clock.steady() + 1s));
  CHECK_FALSE(written);
}

#include "admin/control.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>

#include "admin/commands.hpp"

namespace greymx::admin {

using Socket = asio::local::stream_protocol::socket;
constexpr auto quietly = asio::as_tuple(asio::use_awaitable);

namespace {

constexpr std::size_t max_connections = 32;
constexpr auto request_time = std::chrono::seconds(30);
constexpr auto stall_time = std::chrono::hours(1);

// Reads up to a line's end at least; false: it did not come, or is too long. `pending` may hold more than the line.
Task<bool> read_line(Socket& socket, std::string& pending) {
  auto buffer = asio::dynamic_buffer(pending, max_request);
  const auto [error, bytes] = co_await asio::async_read_until(socket, buffer, '\n', quietly);
  co_return !error;
}

Task<bool> write_all(Socket& socket, std::string lines) {
  const auto [error, bytes] = co_await asio::async_write(socket, asio::buffer(lines), quietly);
  co_return !error;
}

class SocketSink final : public Sink {
 public:
  explicit SocketSink(Socket& socket) : socket_(socket) {}
  Task<bool> send(std::string lines) override {
    const SteadyTime deadline = std::chrono::steady_clock::now() + stall_time;
    const auto sent = co_await with_deadline(write_all(socket_, std::move(lines)), deadline);
    co_return sent.value_or(false);
  }

 private:
  Socket& socket_;
};

class SocketSource final : public Source {
 public:
  SocketSource(Socket& socket, std::string pending) : socket_(socket), pending_(std::move(pending)) {}
  // A tool that reads a large database first says nothing for a while.
  Task<Result<std::string>> more() override {
    if (pending_.find('\n') == pending_.npos) {
      const SteadyTime deadline = std::chrono::steady_clock::now() + stall_time;
      const auto got = co_await with_deadline(read_line(socket_, pending_), deadline);
      if (!got) co_return fail(ErrorKind::temporary, "nothing more came for an hour");
    }
    std::string lines = pending_.substr(0, pending_.rfind('\n') + 1);
    pending_.erase(0, lines.size());
    if (lines.empty() && !pending_.empty()) co_return fail(ErrorKind::invalid, "a line is cut short or too long");
    co_return lines;
  }

 private:
  Socket& socket_;
  std::string pending_;
};

std::string peer_of(Socket& socket) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (getsockopt(socket.native_handle(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return "unknown user";
  return fmt::format("uid {}", credentials.uid);
}

}  // namespace

struct ControlServer::Impl {
  Impl(std::string at, asio::local::stream_protocol::acceptor listening)
      : path(std::move(at)),
        acceptor(std::move(listening)),
        gate(acceptor.get_executor(), [this](const std::string& name, const std::string& what) {
          services->log.error("master", name + ": " + what);
        }) {}

  Task<> accept_all() {
    for (;;) {
      Socket socket(acceptor.get_executor());
      const auto [error] = co_await acceptor.async_accept(socket, quietly);
      if (error == asio::error::operation_aborted) co_return;
      if (error) {  // out of descriptors, say
        co_await sleep_for(std::chrono::milliseconds(200));
        continue;
      }
      if (gate.size() <= max_connections) gate.spawn("admin", session(std::move(socket)));
    }
  }

  Task<> session(Socket socket) {
    SocketSink sink(socket);
    std::string pending;
    const SteadyTime deadline = std::chrono::steady_clock::now() + request_time;
    const auto got = co_await with_deadline(read_line(socket, pending), deadline);
    Ending ending{2, "the request did not come or is too large"};
    if (got.value_or(false)) {
      const std::size_t end = pending.find('\n') + 1;
      Result<Request> request = parse_request(std::string_view(pending).substr(0, end));
      SocketSource source(socket, pending.substr(end));
      if (request) {
        ending = co_await run_command(std::move(*request), *services, source, sink, peer_of(socket));
      } else {
        ending.error = request.error().text;
      }
    }
    co_await sink.send(reply::end(ending));
  }

  std::string path;
  Services* services = nullptr;
  asio::local::stream_protocol::acceptor acceptor;
  Gate gate;
};

ControlServer::ControlServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ControlServer::~ControlServer() {
  unlink(impl_->path.c_str());
}

Result<std::unique_ptr<ControlServer>> ControlServer::open(asio::any_io_executor executor, const std::string& path,
                                                           std::optional<Account> owner) {
  auto acceptor = bind_unix(executor, path, "listen.control", 0660, owner);
  if (!acceptor) return std::unexpected(acceptor.error());
  return std::unique_ptr<ControlServer>(new ControlServer(std::make_unique<Impl>(path, std::move(*acceptor))));
}

void ControlServer::start(Services& services) {
  impl_->services = &services;
  boost::system::error_code error;
  impl_->acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return services.log.error("master", "listen.control: " + error.message());
  impl_->gate.spawn("control", impl_->accept_all());
}

Task<> ControlServer::stop() {
  impl_->acceptor.close();
  impl_->gate.cancel();
  co_await impl_->gate.close();
}

}  // namespace greymx::admin

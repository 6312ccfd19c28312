#include "greylist/policy_service.hpp"

#include <fmt/format.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>
#include <list>

#include "base/bounded.hpp"
#include "base/mailbox.hpp"
#include "base/sockets.hpp"
#include "greylist/policy_protocol.hpp"

namespace greymx::greylist {

namespace {

using namespace std::chrono_literals;
using Socket = asio::generic::stream_protocol::socket;
using asio::ip::tcp;
using Unix = asio::local::stream_protocol;
using Steady = std::chrono::steady_clock;

constexpr auto token = asio::as_tuple(asio::use_awaitable);
constexpr std::string_view program = "policy";
constexpr auto patience = 2s;  // at the end, with peers that do not read their answers

struct Connection {
  explicit Connection(Socket s) : socket(std::move(s)) {}
  void close() {
    boost::system::error_code ignored;
    socket.close(ignored);
  }
  Socket socket;
  std::array<char, 4096> buffer{};
  Steady::time_point active = Steady::now();
};
using ConnectionPtr = std::shared_ptr<Connection>;

}  // namespace

struct PolicyService::Impl {
  Impl(asio::any_io_executor e, config::ConfigPtr c, Log& l, PolicySettings s)
      : executor(e),
        config(std::move(c)),
        log(l),
        settings(std::move(s)),
        gate(e, [&l](std::string name, std::string what) { l.error(program, fmt::format("{}: {}", name, what)); }) {}

  Result<> listen(const config::PolicyListener& listener);
  template <class Acceptor>
  Task<> accept(Acceptor& acceptor);
  bool admits(const tcp::socket& socket);
  bool admits(const Unix::socket&) { return true; }
  void begin(Socket socket);
  Task<> serve(ConnectionPtr connection);
  Task<bool> take(ConnectionPtr connection, PolicyParser& parser, std::string_view bytes);
  Task<std::string> answer(PolicyRequest request);  // empty: disconnect
  Task<> close_idle();
  void warn(const std::string& text);

  asio::any_io_executor executor;
  config::ConfigPtr config;
  Greylister* greylister = nullptr;
  Log& log;
  const PolicySettings settings;
  std::list<tcp::acceptor> tcp_acceptors;
  std::list<Unix::acceptor> unix_acceptors;
  std::list<ConnectionPtr> connections;
  TokenBucket warnings{10, 1s, Steady::now()};
  Event stopping{executor};
  Gate gate;
};

Result<> PolicyService::Impl::listen(const config::PolicyListener& listener) {
  constexpr const char* key = "listen.policy";
  if (!listener.unix_path.empty()) {
    auto acceptor = listen_unix(executor, listener.unix_path, key, 0666);
    if (!acceptor) return std::unexpected(acceptor.error());
    unix_acceptors.push_back(std::move(*acceptor));
    return {};
  }
  auto acceptor = listen_tcp(executor, listener.endpoint, key, log);
  if (!acceptor) return std::unexpected(acceptor.error());
  if (*acceptor) tcp_acceptors.push_back(std::move(**acceptor));
  return {};
}

// Strangers and confused peers may repeat themselves; the log need not.
void PolicyService::Impl::warn(const std::string& text) {
  if (warnings.take(Steady::now())) log.warning(program, text);
}

bool PolicyService::Impl::admits(const tcp::socket& socket) {
  boost::system::error_code error;
  const auto peer = socket.remote_endpoint(error);
  if (error) return false;
  const IpAddress address = from_asio(peer).address;
  if (contains(config->access.trusted_networks, address)) return true;
  warn(fmt::format("refused {}: not in access.trusted_networks", address.to_string()));
  return false;
}

template <class Acceptor>
Task<> PolicyService::Impl::accept(Acceptor& acceptor) {
  while (acceptor.is_open()) {
    auto [error, socket] = co_await acceptor.async_accept(token);
    if (error == asio::error::operation_aborted) co_return;
    if (error) {  // out of descriptors, most likely
      warn("accept: " + error.message());
      co_await sleep_for(100ms);
    } else if (admits(socket)) {
      begin(Socket(std::move(socket)));
    }
  }
}

void PolicyService::Impl::begin(Socket socket) {
  if (connections.size() >= settings.connections) {
    const auto idle_longest = std::min_element(connections.begin(), connections.end(),
                                               [](const auto& a, const auto& b) { return a->active < b->active; });
    (*idle_longest)->close();
  }
  const auto connection = std::make_shared<Connection>(std::move(socket));
  connections.push_back(connection);
  gate.spawn("policy connection", serve(connection));
}

Task<> PolicyService::Impl::serve(ConnectionPtr connection) {
  PolicyParser parser;
  for (bool open = true; open;) {
    const auto [error, size] = co_await connection->socket.async_read_some(asio::buffer(connection->buffer), token);
    connection->active = Steady::now();
    open = !error;
    if (open) open = co_await take(connection, parser, std::string_view(connection->buffer.data(), size));
  }
  connections.remove(connection);
}

// Answers the requests that end in `bytes`, which are the connection's; false: disconnect.
Task<bool> PolicyService::Impl::take(ConnectionPtr connection, PolicyParser& parser, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto status = parser.feed(bytes);
    if (status == PolicyParser::Status::more) co_return true;
    if (status == PolicyParser::Status::bad) {
      warn("a request is too long, disconnecting");
      co_return false;
    }
    const std::string reply = co_await answer(parser.take());
    if (reply.empty()) co_return false;
    const auto [error, size] = co_await asio::async_write(connection->socket, asio::buffer(reply), token);
    if (error) co_return false;
  }
  co_return true;
}

Task<std::string> PolicyService::Impl::answer(PolicyRequest request) {
  if (request.request.value_or("") != "smtpd_access_policy") {
    warn(fmt::format("unrecognized request type: '{}', disconnecting", printable(request.request.value_or(""), 100)));
    co_return "";
  }
  auto question = to_question(request, *config, settings.test_clock);
  if (!question) warn(question.error().text);
  std::string action = "DUNNO";
  if (question && *question && !settings.is_primary((*question)->client)) {
    Request asked = std::move(**question);
    const std::string queue_id = asked.queue_id;
    const Answer answer = co_await greylister->check(std::move(asked), settings.spf_domain);
    if (!answer.log_line.empty()) log.write(Level::info, "greylist", printable(queue_id, 64), answer.log_line);
    action = policy_action(request, answer);
  }
  co_return fmt::format("action={}\n\n", action);
}

Task<> PolicyService::Impl::close_idle() {
  while (!gate.closing()) {
    static_cast<void>(co_await stopping.wait(Steady::now() + std::min<Steady::duration>(settings.idle, 5s)));
    for (const auto& connection : connections) {
      if (Steady::now() - connection->active > settings.idle) connection->close();
    }
  }
}

PolicyService::PolicyService(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PolicyService::~PolicyService() = default;

Result<std::unique_ptr<PolicyService>> PolicyService::open(asio::any_io_executor executor, config::ConfigPtr config,
                                                           Log& log, PolicySettings settings) {
  auto impl = std::make_unique<Impl>(std::move(executor), config, log, std::move(settings));
  for (const config::PolicyListener& listener : config->listen.policy) {
    if (auto listening = impl->listen(listener); !listening) return std::unexpected(listening.error());
  }
  return std::unique_ptr<PolicyService>(new PolicyService(std::move(impl)));
}

void PolicyService::start(Greylister& greylister) {
  impl_->greylister = &greylister;
  asio::post(impl_->executor, [impl = impl_.get()] {
    for (auto& acceptor : impl->tcp_acceptors) impl->gate.spawn("policy listener", impl->accept(acceptor));
    for (auto& acceptor : impl->unix_acceptors) impl->gate.spawn("policy listener", impl->accept(acceptor));
    impl->gate.spawn("idle policy connections", impl->close_idle());
  });
}

void PolicyService::reload(config::ConfigPtr config) {
  asio::post(impl_->executor, [impl = impl_.get(), config = std::move(config)] { impl->config = config; });
}

Task<> PolicyService::stop() {
  boost::system::error_code ignored;
  for (auto& acceptor : impl_->tcp_acceptors) acceptor.close(ignored);
  for (auto& acceptor : impl_->unix_acceptors) acceptor.close(ignored);
  for (const auto& connection : impl_->connections) connection->socket.shutdown(Socket::shutdown_receive, ignored);
  impl_->stopping.notify_all();
  asio::steady_timer timer(impl_->executor, patience);
  timer.async_wait([impl = impl_.get()](const boost::system::error_code& error) {
    if (error) return;
    for (const auto& connection : impl->connections) connection->close();
  });
  co_await impl_->gate.close();
  timer.cancel();
}

std::vector<Endpoint> PolicyService::endpoints() const {
  std::vector<Endpoint> endpoints;
  for (const auto& acceptor : impl_->tcp_acceptors) {
    endpoints.push_back(from_asio(acceptor.local_endpoint()));
  }
  return endpoints;
}

}  // namespace greymx::greylist

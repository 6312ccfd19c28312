#include "admin/http.hpp"

#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <list>

#include "admin/page.hpp"
#include "admin/status.hpp"
#include "base/sockets.hpp"
#include "base/text.hpp"

namespace greymx::admin {

namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
constexpr auto quietly = asio::as_tuple(asio::use_awaitable);

namespace {

constexpr std::size_t max_connections = 64;
constexpr std::uint32_t max_header = 8 << 10;
constexpr auto time_limit = std::chrono::seconds(15);  // for a request to come, for an answer to go

using Request = http::request<http::empty_body>;
using Response = http::response<http::string_body>;

}  // namespace

struct HttpServer::Impl {
  explicit Impl(asio::any_io_executor ex)
      : executor(ex), gate(ex, [this](const std::string& name, const std::string& what) {
          services->log.error("master", name + ": " + what);
        }) {}

  Task<> accept_all(tcp::acceptor& acceptor) {
    for (;;) {
      tcp::socket socket(executor);
      const auto [error] = co_await acceptor.async_accept(socket, quietly);
      if (error == asio::error::operation_aborted) co_return;
      if (error) {  // out of descriptors, say
        co_await sleep_for(std::chrono::milliseconds(200));
      } else if (gate.size() < max_connections || drop_slowest()) {
        gate.spawn("http", serve(std::move(socket)));
      }
    }
  }

  // Makes room for one more: who has waited longest with its request goes. False: nobody waits.
  bool drop_slowest() {
    const auto slowest = std::ranges::find(waiting, false, &Waiting::dropped);
    if (slowest == waiting.end()) return false;
    slowest->dropped = true;
    slowest->stream.close();
    return true;
  }

  Task<> serve(tcp::socket socket) {
    beast::tcp_stream stream(std::move(socket));
    beast::flat_buffer buffer(max_header * 2);
    for (bool open = true; open;) {
      http::request_parser<http::empty_body> parser;
      parser.header_limit(max_header);
      stream.expires_after(time_limit);
      const auto place = waiting.insert(waiting.end(), Waiting{stream});
      const auto [error, read] = co_await http::async_read(stream, buffer, parser, quietly);
      waiting.erase(place);
      const bool nonsense = error.category() == beast::error_code(http::error::bad_method).category();
      if (error == http::error::end_of_stream || (error && !nonsense)) break;
      const Request request = parser.release();
      auto make = [&] { return error ? plain(http::status::bad_request, "bad request") : answer(request); };
      Response response = co_await offload(services->pool, make);
      open = !error && request.keep_alive();
      response.keep_alive(open);
      response.prepare_payload();
      http::response_serializer<http::string_body> serializer(response);
      stream.expires_after(time_limit);
      beast::error_code failed;
      if (request.method() == http::verb::head) {
        std::tie(failed, std::ignore) = co_await http::async_write_header(stream, serializer, quietly);
      } else {
        std::tie(failed, std::ignore) = co_await http::async_write(stream, serializer, quietly);
      }
      open = open && !failed;
    }
    stream.close();
  }

  static Response with_body(http::status status, const char* type, std::string body) {
    Response response(status, 11);
    response.set(http::field::content_type, type);
    response.set(http::field::cache_control, "no-store");
    response.set("X-Content-Type-Options", "nosniff");
    response.set("Referrer-Policy", "no-referrer");
    response.body() = std::move(body);
    return response;
  }

  static Response plain(http::status status, const std::string& text) {
    return with_body(status, "text/plain; charset=utf-8", text + "\n");
  }

  Response answer(const Request& request) {
    if (request.method() != http::verb::get && request.method() != http::verb::head) {
      Response response = plain(http::status::method_not_allowed, "only GET and HEAD");
      response.set(http::field::allow, "GET, HEAD");
      return response;
    }
    std::string_view target(request.target().data(), request.target().size());
    target = target.substr(0, target.find('?'));
    if (target == "/healthz") {  // outside it says no more than a load balancer needs
      const bool well = !services->terminating() && services->spool.totals().accepting;
      return well ? plain(http::status::ok, "ok") : plain(http::status::service_unavailable, "unavailable");
    }
    if (target == "/metrics") {
      const std::lock_guard lock(sampling);
      sampler->refresh_gauges();
      return with_body(http::status::ok, "text/plain; version=0.0.4; charset=utf-8", services->metrics.text());
    }
    if (target == "/status.json") {
      return with_body(http::status::ok, "application/json", dump(to_json(gather(*services))) + "\n");
    }
    if (target != "/") return plain(http::status::not_found, "not found");
    const std::string nonce = random_hex(32);
    Response response = with_body(http::status::ok, "text/html; charset=utf-8", status_page(gather(*services), nonce));
    response.set("Content-Security-Policy",
                 fmt::format("default-src 'none'; style-src 'nonce-{0}'; script-src 'nonce-{0}'; connect-src 'self'; "
                             "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                             nonce));
    return response;
  }

  Task<> keep_history() {
    auto sample = [this] {
      const std::lock_guard lock(sampling);
      sampler->sample();
    };
    for (;;) {
      co_await offload(services->pool, sample);
      co_await sleep_for(std::chrono::seconds(10));
    }
  }

  struct Waiting {  // for a request
    beast::tcp_stream& stream;
    bool dropped = false;
  };
  std::list<Waiting> waiting;  // the one that has waited longest first
  asio::any_io_executor executor;
  const Services* services = nullptr;
  std::mutex sampling;
  std::optional<Sampler> sampler;  // under `sampling`
  std::vector<tcp::acceptor> acceptors;
  Gate gate;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;

Result<std::unique_ptr<HttpServer>> HttpServer::open(asio::any_io_executor executor,
                                                     const std::vector<Endpoint>& endpoints, Log& log) {
  auto impl = std::make_unique<Impl>(executor);
  for (const Endpoint& wanted : endpoints) {
    auto acceptor = listen_tcp(executor, wanted, "listen.http", log);
    if (!acceptor) return std::unexpected(acceptor.error());
    if (*acceptor) impl->acceptors.push_back(std::move(**acceptor));
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

void HttpServer::start(const Services& services) {
  impl_->services = &services;
  impl_->sampler.emplace(services);
  impl_->gate.spawn("history", impl_->keep_history());
  for (tcp::acceptor& acceptor : impl_->acceptors) impl_->gate.spawn("http listener", impl_->accept_all(acceptor));
}

Task<> HttpServer::stop() {
  for (tcp::acceptor& acceptor : impl_->acceptors) acceptor.close();
  impl_->gate.cancel();
  co_await impl_->gate.close();
}

std::vector<Endpoint> HttpServer::endpoints() const {
  std::vector<Endpoint> all;
  for (const tcp::acceptor& acceptor : impl_->acceptors) all.push_back(from_asio(acceptor.local_endpoint()));
  return all;
}

}  // namespace greymx::admin

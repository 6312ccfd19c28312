#include "dns_server.hpp"

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include "support/run.hpp"

namespace greymx::test {
namespace {

constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

Question parse_question(const Bytes& query, bool tcp) {
  Question question;
  question.tcp = tcp;
  question.id = static_cast<unsigned>(query.at(0) << 8 | query.at(1));
  std::size_t at = 12;
  while (const std::size_t length = query.at(at++)) {
    if (!question.name.empty()) question.name += '.';
    for (std::size_t i = 0; i < length; ++i) question.name += static_cast<char>(query.at(at++));
  }
  question.type = static_cast<dns::Type>(query.at(at) << 8 | query.at(at + 1));
  return question;
}

}  // namespace

DnsServer::DnsServer(asio::io_context& io, Handler handler)
    : io_(io), handler_(std::move(handler)), udp_(io), tcp_(io), gate_(io.get_executor()) {
  const auto loopback = asio::ip::address_v4::loopback();
  for (boost::system::error_code taken = asio::error::address_in_use; taken;) {  // one port that is free for both
    udp_ = asio::ip::udp::socket{io, {loopback, 0}};
    tcp_ = asio::ip::tcp::acceptor{io};
    tcp_.open(asio::ip::tcp::v4());
    tcp_.bind({loopback, udp_.local_endpoint().port()}, taken);
  }
  udp_.set_option(asio::ip::udp::socket::receive_buffer_size{1 << 20});  // a burst of questions must not get lost
  tcp_.listen();
  gate_.spawn("udp", serve_udp());
  gate_.spawn("tcp", serve_tcp());
}

DnsServer::~DnsServer() {
  gate_.cancel();
  run(io_, gate_.close());
}

Endpoint DnsServer::endpoint() const {
  return {*IpAddress::parse("127.0.0.1"), udp_.local_endpoint().port()};
}

std::optional<Bytes> DnsServer::reply(const Bytes& query, bool tcp) {
  asked_.push_back(parse_question(query, tcp));
  return handler_(asked_.back());
}

Task<> DnsServer::serve_udp() {
  for (Bytes buffer(4096);; buffer.resize(4096)) {
    asio::ip::udp::endpoint from;
    const std::size_t size = co_await udp_.async_receive_from(asio::buffer(buffer), from, asio::use_awaitable);
    buffer.resize(size);
    const auto answer = reply(buffer, false);
    if (answer) co_await udp_.async_send_to(asio::buffer(*answer), from, asio::use_awaitable);
  }
}

Task<> DnsServer::serve_tcp() {
  while (true) {
    asio::ip::tcp::socket socket = co_await tcp_.async_accept(asio::use_awaitable);
    gate_.spawn("connection", serve_connection(std::move(socket)));
  }
}

Task<> DnsServer::serve_connection(asio::ip::tcp::socket socket) {
  while (true) {
    std::array<std::uint8_t, 2> size{};
    const auto [error, got] = co_await asio::async_read(socket, asio::buffer(size), as_result);
    if (error) co_return;
    Bytes query(static_cast<std::size_t>(size[0] << 8 | size[1]));
    co_await asio::async_read(socket, asio::buffer(query), asio::use_awaitable);
    const auto answer = reply(query, true);
    if (!answer) continue;
    const Bytes framed = u16(static_cast<unsigned>(answer->size())) + *answer;
    co_await asio::async_write(socket, asio::buffer(framed), asio::use_awaitable);
  }
}

}  // namespace greymx::test

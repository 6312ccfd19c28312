// A DNS server on loopback, UDP and TCP on one port, that says what the test wants.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/async.hpp"
#include "base/ip.hpp"
#include "packet_builder.hpp"

namespace greymx::test {

struct Question {
  unsigned id = 0;
  std::string name;
  dns::Type type = dns::Type::a;
  bool tcp = false;
  Message message() const {
    Message made{name, type};
    made.id = id;
    return made;
  }
};

class DnsServer {
 public:
  using Handler = std::function<std::optional<Bytes>(const Question&)>;  // nullopt: silence

  DnsServer(asio::io_context& io, Handler handler);
  ~DnsServer();
  Endpoint endpoint() const;
  const std::vector<Question>& asked() const { return asked_; }

 private:
  Task<> serve_udp();
  Task<> serve_tcp();
  Task<> serve_connection(asio::ip::tcp::socket socket);
  std::optional<Bytes> reply(const Bytes& query, bool tcp);

  asio::io_context& io_;
  Handler handler_;
  asio::ip::udp::socket udp_;
  asio::ip::tcp::acceptor tcp_;
  std::vector<Question> asked_;
  Gate gate_;
};

}  // namespace greymx::test

// From a route to a connection that has greeted us: hosts in order, TLS as demanded.
//
// Thread: the relay's.
#pragma once

#include <map>
#include <memory>

#include "relay/outcome.hpp"
#include "relay/parts.hpp"
#include "smtp/client_session.hpp"

namespace greymx::relay {

struct DestinationSettings {
  std::string key;    // what makes it the same: hosts or MX domain, and the demands below
  std::string label;  // for logs and metrics: the configured domain, or whose report it is
  RouteRequest request;
  config::TlsLevel tls = config::TlsLevel::may;
  std::string fingerprint;
  bool xforward = false;
};

// What TLS to a server has to be, by a domain's `tls` (other than "none") and `fingerprint`.
bool demands_tls(config::TlsLevel level, const std::string& fingerprint);
smtp::CertificateCheck certificate_check(config::TlsLevel level, const std::string& fingerprint);
// TLS if it is offered, and nothing less if it is demanded. Absent: the session may go on. `again_plain`: with a new
// connection, mail may go without TLS.
Task<std::optional<Outcome>> secure(smtp::ClientSession& session, smtp::TlsClient& tls, Host host, bool demanded,
                                    bool& again_plain);

class Connection {
 public:
  Connection(std::unique_ptr<smtp::ClientSession> from, Host to, std::shared_ptr<unsigned> open);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  std::unique_ptr<smtp::ClientSession> session;
  Host host;
  unsigned messages = 0;  // given to it so far
  bool kept = false;      // has been idle: the server may have closed it meanwhile
  bool served = false;    // it took a message
  SteadyTime idle_since{};

 private:
  std::shared_ptr<unsigned> open_;
};

struct Connected {
  std::unique_ptr<Connection> connection;
  Outcome trouble;        // without a connection: why
  bool no_route = false;  // …and it was DNS or the configuration, not the hosts
  bool ours = false;      // …and it was that we have no descriptors or memory left: the hosts may be well
  bool others = true;     // …though there are hosts other than those to be avoided, or DNS cannot say
};

class Connector {
 public:
  Connector(Parts& parts, DestinationSettings settings);
  // A new connection, to none of `avoid`.
  Task<Connected> open(std::vector<Endpoint> avoid);
  // It took a connection that was of no use: others come first for a while.
  void failed(const Endpoint& host);
  unsigned connections() const { return *open_; }            // that live now
  const std::vector<Host>& known() const { return known_; }  // the last good route
  void know(std::vector<Host> hosts) { known_ = std::move(hosts); }

 private:
  Task<Connected> try_host(Host host);
  void order(std::vector<Host>& hosts) const;
  smtp::TlsClient& tls();
  void complain(const std::string& reason);

  Parts& parts_;
  DestinationSettings settings_;
  std::shared_ptr<smtp::TlsClient> tls_;  // once it is needed
  std::vector<Host> known_;
  SteadyTime next_complaint_{};
  std::map<Endpoint, SteadyTime> failed_;  // when a host last did not serve us
  std::shared_ptr<unsigned> open_ = std::make_shared<unsigned>(0);
};

}  // namespace greymx::relay

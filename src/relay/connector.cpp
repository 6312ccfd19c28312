#include "relay/connector.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "relay/resolve.hpp"

namespace greymx::relay {

namespace {

using config::TlsLevel;
using smtp::Answer;

constexpr unsigned most_hosts = 5;  // tried in one attempt
constexpr auto complaint_interval = std::chrono::minutes(1);
constexpr auto dns_limit = std::chrono::seconds(30);
constexpr auto failed_for = std::chrono::minutes(15);  // more than an attempt costs that hangs to the end

bool contains(const std::vector<Endpoint>& list, const Endpoint& endpoint) {
  return std::find(list.begin(), list.end(), endpoint) != list.end();
}

bool same_server(const Host& a, const Host& b) {
  return a.name == b.name && a.endpoint.port == b.endpoint.port;
}

// Whether there is a server that no address in `avoid` belongs to: a second address of one is not another.
bool has_others(const Route& route, const std::vector<Endpoint>& avoid) {
  return route.partial || std::any_of(route.hosts.begin(), route.hosts.end(), [&](const Host& host) {
           return std::none_of(route.hosts.begin(), route.hosts.end(), [&](const Host& asked) {
             return same_server(asked, host) && contains(avoid, asked.endpoint);
           });
         });
}

}  // namespace

bool demands_tls(TlsLevel level, const std::string& fingerprint) {
  return level != TlsLevel::may || !fingerprint.empty();
}

smtp::CertificateCheck certificate_check(TlsLevel level, const std::string& fingerprint) {
  if (!fingerprint.empty()) return smtp::CertificateCheck::fingerprint;
  return level == TlsLevel::verify ? smtp::CertificateCheck::name : smtp::CertificateCheck::none;
}

Task<std::optional<Outcome>> secure(smtp::ClientSession& session, smtp::TlsClient& tls, Host host, bool demanded,
                                    bool& again_plain) {
  if (!session.server().starttls) {
    if (!demanded) co_return std::nullopt;
    co_return Outcome{Outcome::Result::deferred, "4.7.4", host.lacks("TLS"), {}, true};
  }
  const Answer answer = co_await session.start_tls(tls, host.name);
  // Refused before the handshake: the connection is as good as it was.
  const bool as_before = !demanded && answer.stage == smtp::Stage::starttls && session.usable();
  if (answer.positive() || as_before) co_return std::nullopt;
  again_plain = !demanded && answer.stage != smtp::Stage::greeting;
  co_return judge(answer, host);
}

Connection::Connection(std::unique_ptr<smtp::ClientSession> from, Host to, std::shared_ptr<unsigned> open)
    : session(std::move(from)), host(std::move(to)), open_(std::move(open)) {
  ++*open_;
}

Connection::~Connection() {
  --*open_;
}

Connector::Connector(Parts& parts, DestinationSettings settings) : parts_(parts), settings_(std::move(settings)) {}

smtp::TlsClient& Connector::tls() {
  if (tls_) return *tls_;
  const smtp::CertificateCheck check = certificate_check(settings_.tls, settings_.fingerprint);
  std::weak_ptr<smtp::TlsClient>& shared = parts_.tls_clients[{check, settings_.fingerprint}];
  tls_ = shared.lock();
  if (!tls_) shared = tls_ = std::make_shared<smtp::TlsClient>(check, settings_.fingerprint);
  return *tls_;
}

// A host that did not answer lately comes last: a dead IPv6 address or primary costs its timeout once.
void Connector::order(std::vector<Host>& hosts) const {
  const SteadyTime now = std::chrono::steady_clock::now();
  std::vector<Host> good;
  std::vector<Host> bad;
  for (Host& host : hosts) {
    const auto failed = failed_.find(host.endpoint);
    const bool lately = failed != failed_.end() && now - failed->second < failed_for;
    (lately ? bad : good).push_back(std::move(host));
  }
  good.insert(good.end(), bad.begin(), bad.end());
  hosts = std::move(good);
}

// Once a minute: every message and every probe would say the same.
void Connector::complain(const std::string& reason) {
  const SteadyTime now = std::chrono::steady_clock::now();
  if (now < next_complaint_) return;
  next_complaint_ = now + complaint_interval;
  parts_.log.warning("smtp", reason);
}

Task<Connected> Connector::open(std::vector<Endpoint> avoid) {
  RouteRequest request = settings_.request;
  const SteadyTime deadline = std::chrono::steady_clock::now() + dns_limit;
  const std::vector<Host> before = known_;
  Route route =
      co_await find_route(std::move(request), parts_.resolver, parts_.identity, known_, parts_.random, deadline);
  if (settings_.request.own && !std::ranges::is_permutation(known_, before)) parts_.changed();
  Connected result;
  if (route.hosts.empty()) {
    result.no_route = true;
    result.trouble.result = route.permanent ? Outcome::Result::failed : Outcome::Result::deferred;
    result.trouble.dsn = route.dsn;
    result.trouble.reason = route.reason;
    co_return result;
  }
  const bool others = has_others(route, avoid);
  order(route.hosts);
  std::erase_if(route.hosts, [&](const Host& host) { return contains(avoid, host.endpoint); });
  if (route.hosts.size() > most_hosts) route.hosts.resize(most_hosts);
  for (Host& host : route.hosts) {
    result = co_await try_host(host);
    if (result.connection) {
      failed_.erase(host.endpoint);
      co_return result;
    }
    if (result.ours) break;
    failed(host.endpoint);
  }
  result.others = others;
  co_return result;
}

void Connector::failed(const Endpoint& host) {
  if (failed_.size() > 100) failed_.clear();  // a zone that changes its addresses all the time
  failed_[host] = std::chrono::steady_clock::now();
}

Task<Connected> Connector::try_host(Host host) {
  Connected result;
  for (bool plain = settings_.tls == TlsLevel::none;;) {
    const SteadyTime deadline = std::chrono::steady_clock::now() + parts_.config->delivery.connect_timeout;
    auto stream = co_await smtp::connect(host.endpoint, deadline);
    if (!stream) {
      result.trouble = unreachable(host, stream.error().text);
      result.ours = stream.error().kind == ErrorKind::no_space;
      if (result.ours) complain(result.trouble.reason);
      co_return result;
    }
    auto session = std::make_unique<smtp::ClientSession>(std::move(*stream), parts_.identity.hostname, parts_.timeouts);
    const Answer answer = co_await session->greet();
    bool again_plain = false;
    std::optional<Outcome> trouble;
    if (!answer.positive()) {
      trouble = judge(answer, host);
    } else if (!plain) {
      const bool demanded = demands_tls(settings_.tls, settings_.fingerprint);
      trouble = co_await secure(*session, tls(), host, demanded, again_plain);
    }
    if (!trouble) {
      if (!session->tls().empty()) {
        const std::string version = session->tls().substr(0, session->tls().find(' '));
        parts_.metrics.count("tls_sessions_total", {{"direction", "out"}, {"version", version}});
      }
      result.connection = std::make_unique<Connection>(std::move(session), host, open_);
      co_return result;
    }
    result.trouble = std::move(*trouble);
    if (!again_plain) co_return result;
    parts_.log.info("smtp", result.trouble.reason + "; trying without TLS");
    plain = true;
  }
}

}  // namespace greymx::relay

#include "smtp/listener.hpp"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <cstdint>
#include <list>

#include "base/sockets.hpp"

namespace greymx::smtp {

using asio::ip::tcp;
using namespace std::chrono_literals;

namespace {

constexpr auto back_off = 100ms;  // when file descriptors or memory have run out
constexpr auto complaint_interval = 60s;
constexpr std::size_t other_descriptors = 200;  // deliveries, callouts, files: never a stranger's
constexpr std::size_t thread_descriptors = 4;   // a network thread's own: its loop and DNS

// How many connections there are descriptors for, beside those of so many threads with so many ports.
std::size_t most_connections(std::size_t threads, std::size_t ports) {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return SIZE_MAX;
  const std::size_t all = files.rlim_cur;
  return all - std::min(other_descriptors + threads * (thread_descriptors + ports), all / 2);
}

// What connections are taken under.
struct Terms {
  config::ConfigPtr config;
  config::Limits limits;  // its, but connections: no more than there are descriptors for
};
using TermsPtr = std::shared_ptr<const Terms>;

// Once a minute, whatever thread complains: floods must not flood the log.
class Complaints {
 public:
  Complaints(const Clock& clock, Log& log) : clock_(clock), log_(log) {}
  void add(const std::string& text) {
    const SteadyTime now = clock_.steady();
    SteadyTime::rep next = next_;
    if (now.time_since_epoch().count() < next) return;
    if (next_.compare_exchange_strong(next, (now + complaint_interval).time_since_epoch().count()))
      log_.warning("smtpd", text);
  }

 private:
  const Clock& clock_;
  Log& log_;
  std::atomic<SteadyTime::rep> next_{SteadyTime::min().time_since_epoch().count()};
};

// One network thread: its own sockets on every port, and the sessions it has taken from them.
class Room {
 public:
  Room(const Worker& worker, ServerParts parts, Connections& connections, Complaints& complaints)
      : executor(worker.executor),
        parts_(parts),
        connections_(connections),
        complaints_(complaints),
        gate_(executor, [&log = parts.log](const std::string& name, const std::string& what) {
          log.error("smtpd", fmt::format("{} ended by an exception: {}", name, what));
        }) {}

  void add(tcp::acceptor acceptor, bool proxy_protocol) { doors_.push_back({std::move(acceptor), proxy_protocol}); }
  void use(TermsPtr terms) { terms_ = std::move(terms); }
  void start() {
    for (Door& door : doors_) gate_.spawn("smtp listener", accept(door));
  }
  Task<> close();                    // no new connections
  Task<> stop(SteadyTime deadline);  // of those that are there

  const asio::any_io_executor executor;

 private:
  struct Door {
    tcp::acceptor acceptor;
    bool proxy_protocol;
  };

  Task<> accept(Door& door);
  void admit(tcp::socket socket, Endpoint peer, bool proxy_protocol);
  Task<> serve(std::shared_ptr<ServerSession> session);

  ServerParts parts_;
  Connections& connections_;
  Complaints& complaints_;
  TermsPtr terms_;
  std::list<Door> doors_;
  std::list<ServerSession*> sessions_;
  Gate gate_;
};

Task<> Room::accept(Door& door) {
  constexpr auto as_value = asio::as_tuple(asio::use_awaitable);
  while (door.acceptor.is_open()) {
    boost::system::error_code error = asio::error::no_memory;  // if anything throws: the port stays open
    try {
      tcp::endpoint peer;
      auto [problem, socket] = co_await door.acceptor.async_accept(peer, as_value);
      if (!problem) admit(std::move(socket), from_asio(peer), door.proxy_protocol);
      error = problem;
    } catch (const std::bad_alloc&) {
    }
    if (!error || error == asio::error::connection_aborted) continue;
    if (error == asio::error::operation_aborted) co_return;
    complaints_.add("cannot accept connections: " + error.message());
    co_await sleep_for(back_off);
  }
}

void Room::admit(tcp::socket socket, Endpoint peer, bool proxy_protocol) {
  std::unique_ptr<Connections::Ticket> ticket = connections_.enter(terms_->limits);
  if (!ticket) {
    complaints_.add(
        fmt::format("limits.connections ({}) reached: refusing new connections", terms_->limits.connections));
    std::string text;
    append_reply(text, make_reply(replies::busy));
    boost::system::error_code ignored;
    socket.non_blocking(true, ignored);
    socket.send(asio::buffer(text), 0, ignored);
    return;
  }
  Connections::Ticket& place = *ticket;
  auto session = std::make_shared<ServerSession>(parts_, terms_->config, make_stream(std::move(socket), peer),
                                                 std::move(ticket), proxy_protocol);
  const std::weak_ptr<ServerSession> weak = session;
  place.on_shed([there = executor, weak] {
    asio::post(there, [weak] {
      if (const auto alive = weak.lock()) alive->shed();
    });
  });
  gate_.spawn("smtp session " + std::to_string(place.number()), serve(std::move(session)));
}

Task<> Room::serve(std::shared_ptr<ServerSession> session) {
  struct Entry {
    std::list<ServerSession*>& list;
    std::list<ServerSession*>::iterator place;
    ~Entry() { list.erase(place); }
  } const entry{sessions_, sessions_.insert(sessions_.end(), session.get())};
  co_await session->run();
}

Task<> Room::close() {
  for (Door& door : doors_) {
    boost::system::error_code ignored;
    door.acceptor.close(ignored);
  }
  co_return;
}

Task<> Room::stop(SteadyTime deadline) {
  for (ServerSession* session : sessions_) session->shut_down();
  asio::steady_timer timer(executor, deadline);
  timer.async_wait([this](const boost::system::error_code& error) {
    if (!error) gate_.cancel();
  });
  co_await gate_.close();
  timer.cancel();
}

}  // namespace

struct Listener::Impl {
  Impl(config::ConfigPtr first, const Clock& clock, Log& lines, Metrics& metrics)
      : config(std::move(first)), log(lines), connections(clock, metrics), complaints(clock, lines) {}

  Result<> open(const config::SmtpListener& listener, const std::optional<Account>& identity);
  TermsPtr make_terms(config::ConfigPtr wanted);

  config::ConfigPtr config;  // to open with
  Log& log;
  Connections connections;
  Complaints complaints;
  std::vector<std::unique_ptr<Room>> rooms;
  std::vector<Endpoint> endpoints;
};

TermsPtr Listener::Impl::make_terms(config::ConfigPtr wanted) {
  Terms terms{std::move(wanted), {}};
  terms.limits = terms.config->limits;
  const std::size_t most = most_connections(rooms.size(), config->listen.smtp.size());
  if (terms.limits.connections > most) {
    log.warning("smtpd",
                fmt::format("limits.connections is {}, but only {} are taken: the system's limit of open files "
                            "(LimitNOFILE= of systemd, or ulimit -n) allows no more",
                            terms.limits.connections, most));
    terms.limits.connections = static_cast<std::uint32_t>(most);
  }
  return std::make_shared<const Terms>(std::move(terms));
}

Result<> Listener::Impl::open(const config::SmtpListener& listener, const std::optional<Account>& identity) {
  std::vector<asio::any_io_executor> executors;
  for (const auto& room : rooms) executors.push_back(room->executor);
  auto acceptors = listen_tcp(executors, listener.endpoint, "listen.smtp", log, identity);
  if (!acceptors) return std::unexpected(acceptors.error());
  if (acceptors->empty()) return {};
  endpoints.push_back(from_asio(acceptors->front().local_endpoint()));
  for (std::size_t i = 0; i < rooms.size(); ++i) rooms[i]->add(std::move((*acceptors)[i]), listener.proxy_protocol);
  return {};
}

Listener::Listener(std::vector<Worker> workers, config::ConfigPtr config, Intake& intake, const TlsServer& tls,
                   const Clock& clock, Log& log, Metrics& metrics)
    : impl_(std::make_unique<Impl>(std::move(config), clock, log, metrics)) {
  for (const Worker& worker : workers) {
    const ServerParts parts{*worker.policy, intake, tls, clock, log, metrics};
    impl_->rooms.push_back(std::make_unique<Room>(worker, parts, impl_->connections, impl_->complaints));
  }
}

Listener::~Listener() = default;

Result<> Listener::open(const std::optional<Account>& identity) {
  const TermsPtr terms = impl_->make_terms(impl_->config);
  for (const auto& room : impl_->rooms) room->use(terms);
  for (const config::SmtpListener& listener : impl_->config->listen.smtp) {
    if (Result<> opened = impl_->open(listener, identity); !opened) return opened;
  }
  return {};
}

std::vector<Endpoint> Listener::endpoints() const {
  return impl_->endpoints;
}

void Listener::start() {
  for (const auto& room : impl_->rooms) asio::post(room->executor, [&room = *room] { room.start(); });
}

void Listener::reload(config::ConfigPtr config) {
  const TermsPtr terms = impl_->make_terms(std::move(config));
  for (const auto& room : impl_->rooms) asio::post(room->executor, [&room = *room, terms] { room.use(terms); });
}

Task<> Listener::stop(SteadyTime deadline) {
  std::vector<Task<>> closings;
  for (const auto& room : impl_->rooms) closings.push_back(on(room->executor, room->close()));
  co_await join_all(std::move(closings));
  std::vector<Task<>> stops;
  for (const auto& room : impl_->rooms) stops.push_back(on(room->executor, room->stop(deadline)));
  co_await join_all(std::move(stops));
}

}  // namespace greymx::smtp

#include "smtp/listener.hpp"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
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
constexpr std::size_t other_descriptors = 200;  // deliveries, callouts, DNS, files: never a stranger's

// How many connections there are descriptors for.
std::size_t most_connections() {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return SIZE_MAX;
  const std::size_t all = files.rlim_cur;
  return all - std::min(other_descriptors, all / 2);
}

// The sessions of one network thread.
struct Room {
  Room(const Worker& worker, ServerParts server_parts)
      : executor(worker.executor),
        parts(server_parts),
        gate(executor, [&log = server_parts.log](const std::string& name, const std::string& what) {
          log.error("smtpd", fmt::format("{} ended by an exception: {}", name, what));
        }) {}

  void begin(tcp::socket socket, std::unique_ptr<Connections::Ticket> ticket, config::ConfigPtr config, bool proxy) {
    Connections::Ticket& place = *ticket;
    auto session = std::make_shared<ServerSession>(parts, std::move(config), make_stream(std::move(socket)),
                                                   std::move(ticket), proxy);
    const std::weak_ptr<ServerSession> weak = session;
    place.on_shed([there = executor, weak] {
      asio::post(there, [weak] {
        if (const auto alive = weak.lock()) alive->shed();
      });
    });
    gate.spawn("smtp session " + std::to_string(place.number()), serve(std::move(session)));
  }

  Task<> serve(std::shared_ptr<ServerSession> session) {
    struct Entry {
      std::list<ServerSession*>& list;
      std::list<ServerSession*>::iterator place;
      ~Entry() { list.erase(place); }
    } const entry{sessions, sessions.insert(sessions.end(), session.get())};
    co_await session->run();
  }

  Task<> stop(SteadyTime deadline) {
    for (ServerSession* session : sessions) session->shut_down();
    asio::steady_timer timer(executor, deadline);
    timer.async_wait([this](const boost::system::error_code& error) {
      if (!error) gate.cancel();
    });
    co_await gate.close();
    timer.cancel();
  }

  asio::any_io_executor executor;
  ServerParts parts;
  std::list<ServerSession*> sessions;
  Gate gate;
};

}  // namespace

struct Listener::Impl {
  struct Door {
    tcp::acceptor acceptor;
    Endpoint endpoint;
    bool proxy_protocol;
  };

  Impl(asio::any_io_executor ex, config::ConfigPtr first, const Clock& time, Log& lines, Metrics& metrics)
      : executor(ex), config(std::move(first)), clock(time), log(lines), connections(time, metrics), gate(ex) {}

  void use(config::ConfigPtr wanted);
  Result<> open(const config::SmtpListener& listener);
  Task<> accept(Door& door);
  void admit(tcp::socket socket, Room& room, bool proxy_protocol);
  void complain(const std::string& text);

  asio::any_io_executor executor;
  config::ConfigPtr config;
  config::Limits limits;  // its, but connections: no more than there are descriptors for
  const Clock& clock;
  Log& log;
  Connections connections;
  std::vector<std::unique_ptr<Room>> rooms;
  std::list<Door> doors;
  std::size_t next_room = 0;
  SteadyTime next_complaint{};
  Gate gate;  // of the accepting coroutines
};

void Listener::Impl::use(config::ConfigPtr wanted) {
  config = std::move(wanted);
  limits = config->limits;
  const std::size_t most = most_connections();
  if (limits.connections <= most) return;
  limits.connections = static_cast<std::uint32_t>(most);
  log.warning("smtpd", fmt::format("limits.connections is {}, but only {} are taken: the system's limit of open files "
                                   "(LimitNOFILE= of systemd, or ulimit -n) allows no more",
                                   config->limits.connections, most));
}

Result<> Listener::Impl::open(const config::SmtpListener& listener) {
  auto acceptor = listen_tcp(executor, listener.endpoint, "listen.smtp", log);
  if (!acceptor) return std::unexpected(acceptor.error());
  if (!*acceptor) return {};
  const Endpoint endpoint = from_asio((*acceptor)->local_endpoint());  // the choice of the port may be the system's
  doors.push_back({std::move(**acceptor), endpoint, listener.proxy_protocol});
  return {};
}

// Once a minute: floods must not flood the log.
void Listener::Impl::complain(const std::string& text) {
  if (clock.steady() < next_complaint) return;
  next_complaint = clock.steady() + complaint_interval;
  log.warning("smtpd", text);
}

Task<> Listener::Impl::accept(Door& door) {
  constexpr auto as_value = asio::as_tuple(asio::use_awaitable);
  while (door.acceptor.is_open()) {
    Room& room = *rooms[next_room++ % rooms.size()];
    auto [error, socket] = co_await door.acceptor.async_accept(room.executor, as_value);
    if (!error) {
      admit(std::move(socket), room, door.proxy_protocol);
    } else if (error == asio::error::operation_aborted) {
      co_return;
    } else if (error != asio::error::connection_aborted) {
      complain("cannot accept connections: " + error.message());
      co_await sleep_for(back_off);
    }
  }
}

void Listener::Impl::admit(tcp::socket socket, Room& room, bool proxy_protocol) {
  std::unique_ptr<Connections::Ticket> ticket = connections.enter(limits);
  if (!ticket) {
    complain(fmt::format("limits.connections ({}) reached: refusing new connections", limits.connections));
    std::string text;
    append_reply(text, make_reply(replies::busy));
    boost::system::error_code ignored;
    socket.non_blocking(true, ignored);
    socket.send(asio::buffer(text), 0, ignored);
    return;
  }
  asio::post(room.executor, [&room, socket = std::move(socket), ticket = std::move(ticket), current = config,
                             proxy_protocol]() mutable {
    room.begin(std::move(socket), std::move(ticket), std::move(current), proxy_protocol);
  });
}

Listener::Listener(asio::any_io_executor executor, std::vector<Worker> workers, config::ConfigPtr config,
                   Intake& intake, const TlsServer& tls, const Clock& clock, Log& log, Metrics& metrics)
    : impl_(std::make_unique<Impl>(std::move(executor), std::move(config), clock, log, metrics)) {
  for (const Worker& worker : workers) {
    const ServerParts parts{*worker.policy, intake, tls, clock, log, metrics};
    impl_->rooms.push_back(std::make_unique<Room>(worker, parts));
  }
}

Listener::~Listener() = default;

Result<> Listener::open() {
  impl_->use(impl_->config);
  for (const config::SmtpListener& listener : impl_->config->listen.smtp) {
    if (Result<> opened = impl_->open(listener); !opened) return opened;
  }
  return {};
}

std::vector<Endpoint> Listener::endpoints() const {
  std::vector<Endpoint> result;
  for (const Impl::Door& door : impl_->doors) result.push_back(door.endpoint);
  return result;
}

void Listener::start() {
  for (Impl::Door& door : impl_->doors) impl_->gate.spawn("smtp listener", impl_->accept(door));
}

void Listener::reload(config::ConfigPtr config) {
  asio::post(impl_->executor, [this, config = std::move(config)]() mutable { impl_->use(std::move(config)); });
}

Task<> Listener::stop(SteadyTime deadline) {
  for (Impl::Door& door : impl_->doors) {
    boost::system::error_code ignored;
    door.acceptor.close(ignored);
  }
  impl_->gate.cancel();
  co_await impl_->gate.close();
  std::vector<Task<>> stops;
  for (const auto& room : impl_->rooms) stops.push_back(on(room->executor, room->stop(deadline)));
  co_await join_all(std::move(stops));
}

}  // namespace greymx::smtp

#include "dns/ares_channel.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "dns/ares_resolver.hpp"

namespace greymx::dns {
namespace {

constexpr int udp_payload = 1232;        // no fragments on any path worth having (DNS flag day 2020)
constexpr int receive_buffer = 1 << 20;  // all pending questions share one socket: bursts of answers must fit
constexpr int answer_class = 1;          // IN

void check(int status, const char* what) {
  if (status != ARES_SUCCESS) throw std::runtime_error(fmt::format("{}: {}", what, ares_strerror(status)));
}

void start_library() {
  static std::once_flag once;
  std::call_once(once, [] { check(ares_library_init(ARES_LIB_INIT_ALL), "ares_library_init"); });
}

// An address in network byte order as c-ares hands it out.
IpAddress address_of(const ares_addr_port_node& node) {
  if (node.family == AF_INET) return IpAddress::v4(ntohl(node.addr.addr4.s_addr));
  std::array<std::uint8_t, 16> bytes{};
  std::copy_n(reinterpret_cast<const std::uint8_t*>(&node.addr.addr6), bytes.size(), bytes.begin());
  return IpAddress::v6(bytes);
}

}  // namespace

// c-ares owns the descriptor: it is released here just before c-ares closes it, never closed by us.
struct AresChannel::Watch {
  asio::posix::stream_descriptor descriptor;
  ares_socket_t socket;
  struct Direction {
    bool wanted = false;
    bool waiting = false;
  };
  Direction read, write;
};

struct AresChannel::Query {
  AresChannel* channel;
  Done done;
};

AresChannel::AresChannel(asio::any_io_executor executor, const Endpoint& server, std::chrono::milliseconds timeout)
    : executor_(executor), timer_(executor) {
  start_library();
  ares_options options{};
  // NOCHECKRESP: every rcode is told apart by us. One try: the resolver repeats and changes servers.
  options.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_NOCHECKRESP | ARES_FLAG_EDNS;
  options.timeout = static_cast<int>(timeout.count());
  options.tries = 1;
  options.ednspsz = udp_payload;
  options.socket_receive_buffer_size = receive_buffer;
  std::string lookups = "b";  // DNS only: /etc/hosts would be read synchronously
  options.lookups = lookups.data();
  options.sock_state_cb = socket_state;
  options.sock_state_cb_data = this;
  int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ | ARES_OPT_LOOKUPS |
             ARES_OPT_SOCK_STATE_CB | ARES_OPT_SOCK_RCVBUF;
#ifdef ARES_OPT_QUERY_CACHE
  options.qcache_max_ttl = 0;  // ours knows the age of what it holds
  mask |= ARES_OPT_QUERY_CACHE;
#endif
  check(ares_init_options(&channel_, &options, mask), "ares_init_options");
  const int status = ares_set_servers_ports_csv(channel_, server.to_string().c_str());
  if (status != ARES_SUCCESS) ares_destroy(channel_);
  check(status, "ares_set_servers_ports_csv");
}

AresChannel::~AresChannel() {
  ares_destroy(channel_);
}

void AresChannel::query(const std::string& name, Type type, Done done) {
  ++pending_;
  auto query = std::make_unique<Query>(this, std::move(done));
  ares_query(channel_, name.c_str(), answer_class, static_cast<int>(type), answered, query.release());
  arm_timer();
}

void AresChannel::answered(void* argument, int status, int, unsigned char* packet, int length) {
  const std::unique_ptr<Query> query{static_cast<Query*>(argument)};
  --query->channel->pending_;
  const std::size_t size = packet && length > 0 ? static_cast<std::size_t>(length) : 0;
  query->done(status, {packet, size});
}

void AresChannel::socket_state(void* self, ares_socket_t socket, int readable, int writable) {
  static_cast<AresChannel*>(self)->watch(socket, readable != 0, writable != 0);
}

void AresChannel::watch(ares_socket_t socket, bool readable, bool writable) {
  const auto existing = watches_.find(socket);
  if (!readable && !writable) {
    if (existing == watches_.end()) return;
    existing->second->descriptor.release();  // cancels the waits; their handlers find no watch
    watches_.erase(existing);
    return;
  }
  std::shared_ptr<Watch>& watch = watches_[socket];
  if (!watch) watch = std::make_shared<Watch>(asio::posix::stream_descriptor{executor_, socket}, socket);
  watch->read.wanted = readable;
  watch->write.wanted = writable;
  await(watch, true);
  await(watch, false);
}

// One wait in flight per direction. Handlers hold no descriptor number: it may be another socket's by then.
void AresChannel::await(const std::shared_ptr<Watch>& watch, bool reading) {
  Watch::Direction& direction = reading ? watch->read : watch->write;
  if (!direction.wanted || direction.waiting) return;
  direction.waiting = true;
  const auto kind = reading ? asio::posix::descriptor_base::wait_read : asio::posix::descriptor_base::wait_write;
  auto ready = [weak_self = weak_from_this(), weak_watch = std::weak_ptr{watch}, reading](auto error) {
    const auto self = weak_self.lock();
    const auto still = weak_watch.lock();
    if (!self || !still) return;
    (reading ? still->read : still->write).waiting = false;
    if (error || !still->descriptor.is_open()) return;
    self->process(reading ? still->socket : ARES_SOCKET_BAD, reading ? ARES_SOCKET_BAD : still->socket);
    if (still->descriptor.is_open()) self->await(still, reading);
  };
  watch->descriptor.async_wait(kind, std::move(ready));
}

void AresChannel::process(ares_socket_t readable, ares_socket_t writable) {
  ares_process_fd(channel_, readable, writable);
  if (pending_ == 0) timer_.cancel();
}

// All queries wait equally long, so a timer that runs expires no later than any younger query: it is set again only
// when it has fired (asking c-ares costs a walk over all that is pending).
void AresChannel::arm_timer() {
  timeval buffer{};
  if (armed_ || pending_ == 0) return;
  const timeval* wait = ares_timeout(channel_, nullptr, &buffer);
  if (!wait) return;
  armed_ = true;
  timer_.expires_after(std::chrono::seconds{wait->tv_sec} + std::chrono::microseconds{wait->tv_usec});
  timer_.async_wait([weak_self = weak_from_this()](boost::system::error_code) {
    const auto self = weak_self.lock();
    if (!self) return;
    self->armed_ = false;
    self->process(ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    self->arm_timer();
  });
}

std::vector<Endpoint> system_servers() {
  start_library();
  ares_channel channel = nullptr;
  check(ares_init(&channel), "ares_init");
  ares_addr_port_node* first = nullptr;
  const int status = ares_get_servers_ports(channel, &first);
  std::vector<Endpoint> servers;
  for (const ares_addr_port_node* node = first; node; node = node->next) {
    constexpr std::uint16_t default_port = 53;
    servers.emplace_back(address_of(*node),
                         node->udp_port > 0 ? static_cast<std::uint16_t>(node->udp_port) : default_port);
  }
  ares_free_data(first);
  ares_destroy(channel);
  check(status, "ares_get_servers_ports");
  return servers;
}

}  // namespace greymx::dns

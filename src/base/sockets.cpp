#include "base/sockets.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/ip/v6_only.hpp>

namespace greymx {

using asio::ip::tcp;
using Unix = asio::local::stream_protocol;

namespace {

std::string remedy(const boost::system::error_code& error, std::string_view key) {
  if (error == asio::error::access_denied) return "; start as root, or give it CAP_NET_BIND_SERVICE";
  if (error == asio::error::address_in_use)
    return fmt::format("; another program listens there: stop it, or change {}", key);
  if (error == boost::system::errc::address_not_available) return "; this host has no such address";
  return "";
}

std::unexpected<Error> unix_problem(std::string_view key, const std::string& path, const std::string& why) {
  return fail(ErrorKind::permanent, fmt::format("{}: cannot listen on {}: {}", key, path, why));
}

// A link that somebody has put in its place leads root nowhere.
bool give(const std::string& path, const Account& owner) {
  return lchown(path.c_str(), owner.uid, owner.gid) == 0;
}

// Replaces the socket that a dead process left behind.
Unix::acceptor bind_here(const asio::any_io_executor& executor, const std::string& path, mode_t mode,
                         boost::system::error_code& error) {
  const Unix::endpoint endpoint(path);
  Unix::acceptor acceptor(executor);
  error.clear();
  struct stat found{};
  if (lstat(path.c_str(), &found) == 0 && S_ISSOCK(found.st_mode)) {
    Unix::socket probe(executor);
    probe.connect(endpoint, error);
    if (!error) error = asio::error::already_connected;
    if (error == asio::error::connection_refused) {
      error.clear();
      if (unlink(path.c_str()) != 0) error.assign(errno, boost::system::system_category());
    }
    if (error) return acceptor;
  }
  acceptor.open(endpoint.protocol(), error);
  const mode_t usual = umask(~mode & 0777);
  if (!error) acceptor.bind(endpoint, error);
  umask(usual);
  return acceptor;
}

}  // namespace

tcp::endpoint to_asio(const Endpoint& endpoint) {
  if (endpoint.address.is_v4()) return {asio::ip::address_v4(endpoint.address.v4_value()), endpoint.port};
  return {asio::ip::address_v6(endpoint.address.bytes()), endpoint.port};
}

Endpoint from_asio(const tcp::endpoint& endpoint) {
  const asio::ip::address address = endpoint.address();
  if (address.is_v4()) return {IpAddress::v4(address.to_v4().to_uint()), endpoint.port()};
  return {IpAddress::v6(address.to_v6().to_bytes()), endpoint.port()};
}

bool lacks_ipv6(const Endpoint& endpoint, const boost::system::error_code& error) {
  if (endpoint.address.is_v4()) return false;
  return error == asio::error::address_family_not_supported ||
         (error == boost::system::errc::address_not_available && to_asio(endpoint).address().is_unspecified());
}

namespace {

void bind_opened(tcp::acceptor& acceptor, const Endpoint& endpoint, boost::system::error_code& error) {
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error && !endpoint.address.is_v4()) acceptor.set_option(asio::ip::v6_only(true), error);
  if (!error) acceptor.set_option(tcp::no_delay(true), error);  // of all that it accepts
  if (!error) acceptor.bind(to_asio(endpoint), error);
}

using reuse_port = asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;

}  // namespace

tcp::acceptor bind_tcp(const asio::any_io_executor& executor, const Endpoint& endpoint,
                       boost::system::error_code& error) {
  tcp::acceptor acceptor(executor);
  acceptor.open(to_asio(endpoint).protocol(), error);
  bind_opened(acceptor, endpoint, error);
  return acceptor;
}

Result<std::optional<tcp::acceptor>> listen_tcp(const asio::any_io_executor& executor, const Endpoint& endpoint,
                                                std::string_view key, Log& log) {
  auto acceptors = listen_tcp(std::vector{executor}, endpoint, key, log);
  if (!acceptors) return std::unexpected(acceptors.error());
  if (acceptors->empty()) return std::nullopt;
  return std::move(acceptors->front());
}

Result<std::vector<tcp::acceptor>> listen_tcp(const std::vector<asio::any_io_executor>& executors,
                                              const Endpoint& endpoint, std::string_view key, Log& log,
                                              const std::optional<Account>& owner) {
  std::vector<tcp::acceptor> acceptors;
  boost::system::error_code error;
  const auto open = [&]() -> Result<> {
    for (const asio::any_io_executor& executor : executors) {
      if (!error) acceptors.emplace_back(executor).open(to_asio(endpoint).protocol(), error);
    }
    return {};
  };
  if (const Result<> opened = owner ? act_as(*owner, open) : open(); !opened) return std::unexpected(opened.error());
  Endpoint bound = endpoint;
  for (tcp::acceptor& acceptor : acceptors) {
    const bool first = &acceptor == &acceptors.front();
    if (!first && !error) acceptor.set_option(reuse_port(true), error);
    bind_opened(acceptor, bound, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (!first || error || acceptors.size() == 1) continue;
    // It listened before it shared the port: whoever else is there, or comes at the same moment, is an error.
    acceptor.set_option(reuse_port(true), error);
    bound = from_asio(acceptor.local_endpoint());  // the choice of the port may be the system's
  }
  if (!error) return acceptors;
  const std::string text =
      fmt::format("{}: cannot listen on {}: {}{}", key, endpoint.to_string(), error.message(), remedy(error, key));
  if (!lacks_ipv6(endpoint, error)) return fail(ErrorKind::permanent, text);
  log.warning("master", text);
  return std::vector<tcp::acceptor>{};
}

Result<Unix::acceptor> bind_unix(asio::any_io_executor executor, const std::string& path, std::string_view key,
                                 mode_t mode, std::optional<Account> owner) {
  if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    return unix_problem(key, path, "the path is too long for a socket (107 bytes)");
  }
  Unix::acceptor acceptor(executor);
  boost::system::error_code error = asio::error::access_denied;
  if (owner) {  // a container's root may lack the right to write where others may, and to give away
    const auto acted = act_as(*owner, [&]() -> Result<> {
      acceptor = bind_here(executor, path, mode, error);
      return {};
    });
    if (!acted && error != asio::error::access_denied) return unix_problem(key, path, acted.error().text);
  }
  if (error == asio::error::access_denied || error == asio::error::no_permission) {  // only root may
    acceptor = bind_here(executor, path, mode, error);
    if (!error && owner && !give(path, *owner)) error.assign(errno, boost::system::system_category());
  }
  if (error == asio::error::already_connected) return unix_problem(key, path, "another process does");
  if (error) return unix_problem(key, path, error.message());
  return acceptor;
}

Result<Unix::acceptor> listen_unix(asio::any_io_executor executor, const std::string& path, std::string_view key,
                                   mode_t mode) {
  auto acceptor = bind_unix(std::move(executor), path, key, mode);
  if (!acceptor) return acceptor;
  boost::system::error_code error;
  acceptor->listen(asio::socket_base::max_listen_connections, error);
  if (error) return unix_problem(key, path, error.message());
  return acceptor;
}

}  // namespace greymx

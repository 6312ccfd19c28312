// Sockets that a server listens on, and addresses as Asio has them. Errors begin with `key`, the setting that asked for
// the socket, and name the remedy.
#pragma once

#include <sys/types.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/account.hpp"
#include "base/async.hpp"
#include "base/ip.hpp"
#include "base/log.hpp"
#include "base/result.hpp"

namespace greymx {

asio::ip::tcp::endpoint to_asio(const Endpoint& endpoint);
Endpoint from_asio(const asio::ip::tcp::endpoint& endpoint);

// Binds it as listen_tcp() would. One family only: "[::]" leaves IPv4 to a socket of its own.
asio::ip::tcp::acceptor bind_tcp(const asio::any_io_executor& executor, const Endpoint& endpoint,
                                 boost::system::error_code& error);
bool lacks_ipv6(const Endpoint& endpoint, const boost::system::error_code& error);  // that is why it cannot be bound

// nullopt, and a warning: the host has no IPv6.
Result<std::optional<asio::ip::tcp::acceptor>> listen_tcp(const asio::any_io_executor& executor,
                                                          const Endpoint& endpoint, std::string_view key, Log& log);
// One on each executor, between which the kernel spreads the connections. Empty, and a warning: the host has no IPv6.
// `owner`: whose they are, if root makes them; sockets of one owner may share a port, and other daemons are root's.
Result<std::vector<asio::ip::tcp::acceptor>> listen_tcp(const std::vector<asio::any_io_executor>& executors,
                                                        const Endpoint& endpoint, std::string_view key, Log& log,
                                                        const std::optional<Account>& owner = {});

// The socket that a dead process left behind is replaced, one that answers is not. `owner`: whom root gives it to. Its
// rights are made by the process's umask: not while other threads make files. The caller is to listen().
Result<asio::local::stream_protocol::acceptor> bind_unix(asio::any_io_executor executor, const std::string& path,
                                                         std::string_view key, mode_t mode,
                                                         std::optional<Account> owner = {});
Result<asio::local::stream_protocol::acceptor> listen_unix(asio::any_io_executor executor, const std::string& path,
                                                           std::string_view key, mode_t mode);

}  // namespace greymx

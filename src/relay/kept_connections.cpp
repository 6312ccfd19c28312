#include "relay/kept_connections.hpp"

#include <algorithm>
#include <utility>

namespace greymx::relay {

namespace {

constexpr auto idle_limit = std::chrono::seconds(5);

Task<> say_quit(std::unique_ptr<Connection> connection) {
  co_await connection->session->quit();
}

}  // namespace

void KeptConnections::keep(std::unique_ptr<Connection> connection) {
  connection->idle_since = std::chrono::steady_clock::now();
  connection->kept = true;
  kept_.push_back(std::move(connection));
}

std::unique_ptr<Connection> KeptConnections::take(const std::vector<Endpoint>& avoid) {
  while (!kept_.empty()) {
    std::unique_ptr<Connection> connection = std::move(kept_.back());
    kept_.pop_back();
    const bool avoided = std::ranges::find(avoid, connection->host.endpoint) != avoid.end();
    if (!avoided && connection->session->usable()) return connection;
  }
  return nullptr;
}

void KeptConnections::expire() {
  const SteadyTime oldest = std::chrono::steady_clock::now() - idle_limit;
  while (!kept_.empty() && kept_.front()->idle_since < oldest) {
    quit(std::move(kept_.front()));
    kept_.erase(kept_.begin());
  }
}

void KeptConnections::drop(const Endpoint& host) {
  std::erase_if(kept_, [&host](const auto& connection) { return connection->host.endpoint == host; });
}

void KeptConnections::quit(std::unique_ptr<Connection> connection) {
  background_.spawn("quit", say_quit(std::move(connection)));
}

}  // namespace greymx::relay

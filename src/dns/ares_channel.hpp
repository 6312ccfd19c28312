// One DNS server, through a c-ares channel on Asio. Knows bytes only: no cache, no second server.
//
// Thread: the executor's. c-ares may call back from inside query() and from the destructor; `Done` must neither call
// back into the channel nor destroy it.
#pragma once

#define CARES_NO_DEPRECATED  // 1.18 knows nothing of what replaces ares_query in 1.28
#include <ares.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/async.hpp"
#include "base/ip.hpp"
#include "dns/resolver.hpp"

namespace greymx::dns {

class AresChannel : public std::enable_shared_from_this<AresChannel> {
 public:
  // The answer whatever its rcode, or no bytes and an ARES_E… status. Called exactly once.
  using Done = std::function<void(int status, std::span<const std::uint8_t> packet)>;

  AresChannel(asio::any_io_executor executor, const Endpoint& server, std::chrono::milliseconds timeout);
  ~AresChannel();
  AresChannel(const AresChannel&) = delete;
  AresChannel& operator=(const AresChannel&) = delete;

  void query(const std::string& name, Type type, Done done);

 private:
  struct Watch;
  struct Query;

  static void socket_state(void* self, ares_socket_t socket, int readable, int writable);
  static void answered(void* query, int status, int timeouts, unsigned char* packet, int length);
  void watch(ares_socket_t socket, bool readable, bool writable);
  void await(const std::shared_ptr<Watch>& watch, bool reading);
  void process(ares_socket_t readable, ares_socket_t writable);
  void arm_timer();

  asio::any_io_executor executor_;
  ares_channel channel_ = nullptr;
  std::unordered_map<ares_socket_t, std::shared_ptr<Watch>> watches_;
  asio::steady_timer timer_;
  bool armed_ = false;
  std::size_t pending_ = 0;
};

}  // namespace greymx::dns

// Who may connect, and who must go when it gets crowded. One object for all listeners and threads.
//
// Strangers are counted by client_unit() (IPv4 address, IPv6 /64): connections at a time and new ones a period. Near
// the total limit sessions that wait for their client's next command are shed, those of the networks with the most
// connections first and of these the longest idle; a session that reads content, or is being answered for less than
// 30 s, never is.
// One handshake a connection is all that a client gets, so the rate of connections bounds that of TLS handshakes.
//
// Thread: any. The state is bounded by the number of connections and by a cap on remembered rates.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "base/bounded.hpp"
#include "base/clock.hpp"
#include "base/ip.hpp"
#include "base/metrics.hpp"
#include "config/config.hpp"

namespace greymx::smtp {

class Connections {
 public:
  // One connection's place; leaves when destroyed. idle() and busy() are cheap.
  class Ticket {
   public:
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

    // The client is now known (again, after PROXY or XCLIENT). Says what was exceeded ("Connection concurrency",
    // "Connection rate"), or nothing if it may stay. `exempt`: trusted clients, and proxies that speak for others.
    std::optional<std::string_view> identify(const IpAddress& client, bool exempt, const config::Limits& limits);
    void idle(SteadyTime since);  // when the wait for a command began, whatever has come of it
    void busy();
    // How to end the session when it must go; called from any thread, once. Forgotten with the ticket.
    void on_shed(std::function<void()> shed);
    std::uint64_t number() const { return number_; }  // of the session, unique in this process

   private:
    friend class Connections;
    Ticket(Connections& owner, std::uint64_t number) : owner_(owner), number_(number) {}
    void leave_client();

    Connections& owner_;
    std::uint64_t number_;
    std::list<Ticket*>::iterator place_;
    std::optional<IpAddress> client_;  // counted under
    IpAddress network_;                // IPv4 /24, IPv6 /48
    bool exempt_ = true;               // not to be shed
    std::function<void()> shed_;
    std::optional<SteadyTime> told_;              // to leave; a question under way is answered first
    std::atomic<SteadyTime::rep> idle_since_{0};  // 0 = busy
  };

  Connections(const Clock& clock, Metrics& metrics) : clock_(clock), metrics_(metrics) {}

  // Null: the house is full, and nobody could be shed in time.
  std::unique_ptr<Ticket> enter(const config::Limits& limits);

 private:
  void shed(std::size_t wanted);

  const Clock& clock_;
  Metrics& metrics_;
  std::mutex mutex_;
  std::list<Ticket*> tickets_;
  std::unordered_map<IpAddress, std::uint32_t> counts_;
  LruMap<IpAddress, TokenBucket> rates_{65536};
  config::Rate rate_;  // of these
  SteadyTime next_shedding_{};
  std::uint64_t next_number_ = 0;
};

}  // namespace greymx::smtp

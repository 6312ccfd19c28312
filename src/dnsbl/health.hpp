// Which lists may be believed. A list that closed, was taken over, refuses us or does not answer is switched off, and
// on again once it is well: block lists die, and dead ones have listed the world.
//
// - Points that every list must have (RFC 5782 5) are asked at the start and hourly: 127.0.0.2 must be listed (any
//   listing, whatever `replies` says), 127.0.0.1 must not; where 127.0.0.2 does not exist, ::FFFF:7F00:2 and
//   ::FFFF:7F00:1, as in a list of IPv6 addresses only; TEST and INVALID for domain lists. Lists without such points
//   have self_test = false.
// - An answer outside 127.0.0.0/8 switches that list off; if a random name under .invalid resolves too, our resolver
//   invents answers, and all lists are off until that ends.
// - If of 100 different clients nearly all were listed, control addresses (127.0.0.1, our own, the primary's) are
// asked:
//   is one of them listed, the list goes off, else it is only warned about (most of a backup MX's clients are listed).
// - Trouble brings the next test forward; a list that does not answer two tests in a row is off, so that nobody waits
//   for it. While off, it is tested every minute.
//
// Shared by all threads; tick() belongs to one, that of the resolver given.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "dnsbl/score.hpp"

namespace greymx::dnsbl {

struct ListStatus {
  std::string zone;  // shown form
  bool by_name = false;
  bool up = true;
  WallTime since;      // of being up or not
  std::string reason;  // why not
  std::uint64_t lookups = 0, listed = 0, errors = 0;
};

struct TestResult {
  bool failed = false;
  bool unanswered = false;
  bool outside = false;  // an answer outside 127.0.0.0/8
  std::string reason;    // what is wrong; empty if nothing is
};
// Asks for the points that every list must have, past the cache; without self_test only whether it answers sanely.
Task<TestResult> test_points(dns::Resolver& resolver, const List& list, SteadyTime deadline);

class Health {
 public:
  using Addresses = std::function<std::vector<IpAddress>()>;

  Health(config::ConfigPtr config, const Clock& clock, Log& log, Metrics& metrics, Alerts& alerts,
         Addresses control_addresses);
  // On reload: what was known of lists that stay stays known. Before any other call. The previous one, which sessions
  // may use for a while, says nothing any more.
  void adopt(Health& previous);

  const std::vector<List>& lists() const { return lists_; }
  std::vector<ListStatus> status() const;

  // By Lists, index into lists(). Why not to ask it; empty = ask.
  std::string why_off(std::size_t list) const;
  // What a lookup brought; `client` for address lists.
  void note(std::size_t list, const ListResult& result, bool outside, std::optional<IpAddress> client);

  // Does whatever is due by the clock, within `deadline`.
  Task<> tick(dns::Resolver& resolver, SteadyTime deadline);

 private:
  enum class Off : std::uint8_t { no, failed_test, lists_everybody };
  struct State {
    Off off = Off::no;
    std::string reason;
    WallTime since;
    SteadyTime next_test;
    unsigned unanswered = 0;  // tests in a row
    bool suspicious = false;  // nearly everybody is listed: ask the control addresses
    std::unordered_set<IpAddress> clients;
    std::size_t listed_clients = 0;
    std::optional<SteadyTime> warned, warned_suspicious;
    std::uint64_t lookups = 0, listed = 0, errors = 0;
  };

  Task<> test(dns::Resolver& resolver, std::size_t list, SteadyTime deadline);
  Task<TestResult> test_control_addresses(dns::Resolver& resolver, const List& list, SteadyTime deadline);
  Task<> test_resolver(dns::Resolver& resolver, SteadyTime deadline);
  void conclude(std::size_t list, const TestResult& points, const TestResult& control);
  void count_client(State& state, const IpAddress& client, bool listed);
  void warn(std::size_t list, const ListResult& result);
  void switch_off(std::size_t list, Off why, const std::string& reason);
  void switch_on(std::size_t list);
  void publish(std::size_t list);

  std::vector<List> lists_;
  const Clock& clock_;
  Log& log_;
  Metrics& metrics_;
  Alerts& alerts_;
  Addresses control_addresses_;
  mutable std::mutex mutex_;  // guards what follows
  std::vector<State> states_;
  bool resolver_invents_ = false;
  std::optional<SteadyTime> test_resolver_at_;
  bool retired_ = false;
};

}  // namespace greymx::dnsbl

// What the admin's side needs of the running daemon. The daemon fills it in; tests put fakes behind it.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "access/access.hpp"
#include "base/async.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "config/config.hpp"
#include "dnsbl/health.hpp"
#include "greylist/greylister.hpp"
#include "queue/spool.hpp"
#include "relay/relay.hpp"

namespace greymx::admin {

class History;

// The relay's any-thread methods.
struct RelayCalls {
  std::function<std::vector<relay::PrimaryStatus>()> status;
  std::function<void()> flush;
  std::function<void(std::string)> flush_domain;
  std::function<void(QueueId, std::set<std::string> domains)> flush_message;
  std::function<Task<Result<>>(QueueId, std::string)> bounce;
};
inline RelayCalls calls_of(relay::Relay& relay) {
  RelayCalls calls;
  calls.status = [&relay] { return relay.status(); };
  calls.flush = [&relay] { relay.flush(); };
  calls.flush_domain = [&relay](std::string domain) { relay.flush_domain(std::move(domain)); };
  calls.flush_message = [&relay](QueueId id, std::set<std::string> domains) {
    relay.flush_message(id, std::move(domains));
  };
  calls.bounce = [&relay](QueueId id, std::string reason) { return relay.bounce(id, std::move(reason)); };
  return calls;
}

// What there is to say of a reload that took effect.
struct Reloaded {
  std::vector<std::string> needs_restart;  // keys that differ from those that greymxd started with
  std::string advice;                      // what to do besides, if anything
  std::vector<std::string> problems;       // what could not be used: what was there before stays
  std::vector<std::string> warnings;       // lines that were left out of what is in use
};

// Functions that return a Task resume on the caller's executor. All others: any thread.
struct Services {
  queue::Spool& spool;
  Metrics& metrics;
  const Clock& clock;
  Log& log;
  History& history;
  asio::thread_pool& pool;  // for what blocks
  greylist::Greylister* greylister = nullptr;
  std::string version;
  WallTime started{};

  std::function<config::ConfigPtr()> config;  // the one in force
  RelayCalls relay;
  std::function<std::vector<dnsbl::ListStatus>()> lists;
  std::function<Task<dnsbl::Score>(IpAddress)> dnsbl;
  std::function<Task<access::Explained>(Facts, Mailbox)> explain;
  std::function<Result<Reloaded>()> reload;                     // blocks: called on `pool`
  std::function<std::optional<WallTime>()> certificate_expiry;  // nullopt: no certificate
  std::function<bool()> terminating;                            // no new mail is taken any more
};

}  // namespace greymx::admin

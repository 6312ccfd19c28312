// From what servers said about a message's recipients to its new state, log lines, reports, and what is learnt.
//
// Thread: the relay's.
#pragma once

#include "relay/destination.hpp"
#include "relay/endings.hpp"

namespace greymx::relay {

// A message that is being delivered.
struct Job {
  Taken taken;
  queue::Loaded loaded;
  std::vector<std::size_t> recipients;  // open here, indices into the envelope's
  SteadyTime taken_at;
  SteadyTime connecting;  // began to look for a connection
  SteadyTime sending;     // had one
  bool utf8 = false;      // needs SMTPUTF8, whoever it is for

  const Envelope& envelope() const { return loaded.message.envelope; }
};

// Since it was loaded the admin deleted it or put it on hold.
inline bool taken_back(const queue::Spool& spool, QueueId id) {
  return !spool.contains(id) || spool.held(id);
}

// What became of one recipient in one attempt.
struct Fate {
  std::size_t index = 0;
  Outcome outcome{};
  std::string remote{};       // who said so; empty = nobody
  bool no_recipient = false;  // it said that there is no such recipient
  bool refused_early = false;
  bool unable = false;          // the server does not offer SMTPUTF8, which it needs
  bool too_many = false;        // as many as it takes at once came before
  bool server_reports = false;  // it offers DSN: success is its to report
};

Task<> settle(Parts& parts, Destination& destination, const Job& job, std::vector<Fate> fates);

}  // namespace greymx::relay

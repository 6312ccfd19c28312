// One primary, or one stranger that gets our reports: its health, connections and workers.
//
// A primary is shared by all domains with the same hosts and the same demands. While it is down nothing is tried but
// one probe an interval; when it is back, deliveries start slowly (drain.hpp). A stranger has no health: its messages
// are tried one by one.
//
// Thread: the relay's. Coroutines hold a shared_ptr to it.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <set>

#include "relay/connector.hpp"
#include "relay/drain.hpp"
#include "relay/health.hpp"
#include "relay/kept_connections.hpp"
#include "relay/memory.hpp"

namespace greymx::relay {

// The configured entry that covers the spool's domain `domain`; null = not ours. Bare Postmaster is the first one's.
const config::Domain* entry_for(const config::Config& config, const std::string& domain);
// By that entry, else a report's way out.
DestinationSettings settings_for(const config::Config& config, const std::string& domain);
// What shares one destination by configuration: the entry's shown name, or the domain where each goes its own way.
std::string name_of(const config::Config& config, const std::string& domain);
std::string example_of(const config::Domain& domain);  // a domain of the spool's kind that the entry covers
// The spool's domain `domain` as it is shown and selected: mail for bare Postmaster is the first entry's.
std::string shown_domain(const config::Config& config, const std::string& domain);
bool has_one_destination(const config::Domain& domain);  // by MX each subdomain goes its own way, when it has mail
inline constexpr char reports_label[] = "reports";       // where reports go, if all go one way

// How a message as a whole spoke for or against the primary.
struct Answered {
  bool delivered = false, deferred = false;
  bool refused = false;  // before DATA
  std::string reason;    // of the refusal
};

class Destination : public std::enable_shared_from_this<Destination> {
 public:
  Destination(Parts& parts, DestinationSettings settings);

  const DestinationSettings& settings() const { return settings_; }
  bool is_for(const std::string& domain) const;  // by the present configuration
  bool own() const { return settings_.request.own; }
  bool unnamed() const;  // a wildcard's subdomain that goes its own way
  const HealthTracker& health() const { return health_; }
  // Of the last good route; before that what relay.conf gives by address.
  const std::vector<Host>& known_hosts() const { return connector_.known(); }
  std::uint64_t size_limit() const { return size_limit_; }
  PrimaryStatus status() const;

  Remembered remembered() const;
  void inherit(const Remembered& before);  // before or after start()
  void clock_is_back() { health_.clock_is_back(parts_.clock.now()); }

  void start();   // an own one is probed from now on
  void reload();  // parts.config is a new one
  void retire();  // the configuration names it no more: what is in flight ends, nothing new begins
  bool unused() const;
  // Not up, and asked for within the last hour: sessions have to know, with or without mail for it.
  bool missed() const;
  // A wildcard's subdomain for which DNS names nobody: it may not exist at all, and is not to be taken for down.
  bool doubtful() const;
  // …and no mail came for it: any stranger can ask for a name that does not exist.
  bool ignored() const { return doubtful() && !had_mail_; }
  void work(const std::string& domain);  // there may be something due in this domain of the spool
  void probe_now();                      // if it is down; if it is suspect one message goes
  void flush();                          // the admin's word: no longer suspect, nor on trial
  void tick();                           // every second
  // Would it take mail for `address`? Resumes by the deadline.
  Task<ProbeResult> callout(std::string address, SteadyTime deadline);

  // --- for its workers ---------------------------------------------------------------------------------------------
  std::optional<Taken> take();
  bool wants_worker() { return may_work(workers_ - 1); }              // is this one not too many?
  void untake() { --takes_; }                                         // what was taken is put back untried
  Task<Connected> acquire(std::vector<Endpoint> avoid);               // a kept connection or a new one
  void give_back(std::unique_ptr<Connection> connection);             // broken or worn out ones too
  void heard() { last_contact_ = std::chrono::steady_clock::now(); }  // it replied
  void message_done(QueueId id, const Answered& answered);
  // A new connection broke and delivered nothing; was it the same with the one before?
  bool broke_again() { return ++useless_ > 1; }
  // `host` broke a connection off and took nothing over it.
  void useless(const Endpoint& host);
  void trouble() { drain_.trouble(std::chrono::steady_clock::now()); }

 private:
  struct Slot;
  struct Crowd {  // destinations that share a number of workers
    unsigned& workers;
    unsigned most;
  };
  std::optional<Crowd> crowd();
  unsigned allowed() const;
  bool may_work(unsigned others);  // one more beside so many of ours
  void kick();
  Task<Connected> connect(std::vector<Endpoint> avoid);
  Task<std::unique_ptr<Connection>> connection_by(SteadyTime deadline, bool& asked);
  void reached(const smtp::ClientSession& session);
  bool serves(const Connected& attempt, SteadyTime since) const;
  void lost(const Connected& attempt, SteadyTime began);
  void tell_size_limit();
  void announce();
  void watch_downtime();
  void watch_trial();
  static Task<> monitor(std::shared_ptr<Destination> self);
  static Task<> probe(std::shared_ptr<Destination> self);
  static Task<> worker(std::shared_ptr<Destination> self);

  Parts& parts_;
  DestinationSettings settings_;
  Connector connector_;
  HealthTracker health_;
  Drain drain_;
  KeptConnections kept_;
  std::deque<std::string> ready_;  // domains to take from, in turns
  std::set<std::string> is_ready_;
  Event wakes_;  // monitor and waiting callouts: something changed
  SteadyTime next_probe_{};
  std::optional<SteadyTime> last_contact_;
  SteadyTime last_wanted_;  // by a callout
  SteadyTime retry_at_{};   // a stranger that cannot be reached is left alone until then
  std::uint64_t size_limit_ = 0, told_size_limit_ = 0;
  unsigned workers_ = 0;
  unsigned takes_ = 0;
  unsigned probes_ = 0;  // connections being opened for callouts and probes
  unsigned callouts_ = 0;
  unsigned useless_ = 0;  // new connections in a row that broke and delivered nothing
  bool canary_ = false;   // SUSPECT: one message may go
  bool retired_ = false;
  bool alerted_ = false;  // about this outage
  bool trial_told_ = false;
  bool nobody_ = false;  // DNS was clear that there is no host
  bool had_mail_ = false;
};

}  // namespace greymx::relay

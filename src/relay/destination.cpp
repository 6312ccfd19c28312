#include "relay/destination.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "relay/delivery.hpp"

namespace greymx::relay {

namespace {

constexpr int quiet_intervals = 10;  // an idle primary that is up is looked at this much more seldom
constexpr unsigned stranger_workers = 2;
constexpr unsigned all_stranger_workers = 20;
constexpr unsigned all_unnamed_workers = 50;  // of ours that relay.conf does not name
constexpr unsigned share = 8;                 // one destination's is an eighth of what is free of these
constexpr unsigned most_callouts = 10;
// In flight: one may hang for minutes. Of subdomains there may be many, all with one host.
constexpr unsigned most_probes = 10;
constexpr unsigned most_unnamed_probes = 2;
constexpr unsigned newest_every = 4;  // every so many messages the newest goes, so that new mail does not wait
constexpr auto alert_after = std::chrono::minutes(15);
constexpr auto trial_patience = std::chrono::hours(24);
constexpr auto missed_for = std::chrono::hours(1);

SteadyTime now() {
  return std::chrono::steady_clock::now();
}

// A connection that was idle: the server had closed it meanwhile.
bool closed_unused(const smtp::Answer& answer) {
  const bool says_so = answer.kind == smtp::Answer::Kind::reply && answer.reply.code == 421;
  return answer.stage <= smtp::Stage::mail && (says_so || answer.kind == smtp::Answer::Kind::lost);
}

class Counted {
 public:
  explicit Counted(unsigned& counter) : counter_(counter) { ++counter_; }
  ~Counted() { --counter_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  unsigned& counter_;
};

}  // namespace

Destination::Destination(Parts& parts, DestinationSettings settings)
    : parts_(parts),
      settings_(std::move(settings)),
      connector_(parts, settings_),
      drain_(parts.config->delivery.concurrency_start, parts.config->delivery.concurrency),
      kept_(parts.background),
      wakes_(parts.executor),
      last_wanted_(now()) {
  std::vector<Host> hosts;
  for (const config::HostPort& host : settings_.request.hosts) {
    if (const auto address = IpAddress::parse(host.host)) hosts.push_back({host.host, {*address, host.port}});
  }
  connector_.know(std::move(hosts));
}

// --- life and health -------------------------------------------------------------------------------------------------

Remembered Destination::remembered() const {
  return {settings_.key,      health_.health(),   health_.since(), health_.reason(),
          health_.on_trial(), health_.downtime(), known_hosts(),   size_limit_};
}

void Destination::inherit(const Remembered& before) {
  health_.inherit(before.health, before.since, before.reason, before.on_trial, before.downtime);
  if (before.key == settings_.key && !last_contact_) {
    if (!before.hosts.empty()) connector_.know(before.hosts);
    size_limit_ = told_size_limit_ = before.size_limit;
  }
  if (health_.health() != Health::up) probe_now();
}

void Destination::start() {
  if (own()) parts_.background.spawn("probes of " + settings_.label, monitor(shared_from_this()));
}

void Destination::reload() {
  ready_.clear();  // by the old configuration; the next tick asks the new one
  is_ready_.clear();
  drain_.set(parts_.config->delivery.concurrency_start, parts_.config->delivery.concurrency);
}

bool Destination::is_for(const std::string& domain) const {
  return settings_for(*parts_.config, domain).key == settings_.key;
}

void Destination::retire() {
  retired_ = true;
  kept_.drop_all();
  ready_.clear();
  is_ready_.clear();
  wakes_.notify_all();
}

bool Destination::unused() const {
  // While it is down there is always a probe, which does no harm when it ends late.
  const unsigned probes = health_.health() == Health::up ? probes_ : 0;
  return workers_ + probes + callouts_ == 0 && ready_.empty() && connector_.connections() == 0;
}

bool Destination::missed() const {
  return own() && !doubtful() && health_.health() != Health::up && now() - last_wanted_ < missed_for;
}

bool Destination::unnamed() const {
  return own() && settings_.request.hosts.empty() && settings_.label.starts_with("*.");
}

bool Destination::doubtful() const {
  return nobody_ && unnamed();
}

void Destination::probe_now() {
  next_probe_ = {};
  retry_at_ = {};
  wakes_.notify_all();
}

void Destination::flush() {
  if (own() && health_.flush(parts_.clock.now())) announce();
  probe_now();
  kick();
}

// Hosts that differ may have it change with every connection.
void Destination::tell_size_limit() {
  if (std::exchange(told_size_limit_, size_limit_) != size_limit_ && own()) parts_.changed();
}

void Destination::tick() {
  tell_size_limit();
  kept_.expire();
  watch_downtime();
  watch_trial();
  kick();
}

Task<> Destination::monitor(std::shared_ptr<Destination> self) {
  while (!self->parts_.stopping && !self->retired_) {
    if (now() < self->next_probe_) {
      co_await self->wakes_.wait(self->next_probe_);
      continue;
    }
    // At random within the second half of the interval, so that several of us do not knock together.
    const config::Seconds interval = self->parts_.config->delivery.probe_interval;
    std::uniform_real_distribution<double> part(0.5, 1.0);
    const auto wait = std::chrono::duration<double>(interval) * part(self->parts_.random);
    self->next_probe_ = now() + std::chrono::duration_cast<SteadyTime::duration>(wait);
    const bool quiet = !self->last_contact_ || now() - *self->last_contact_ > interval * quiet_intervals;
    const unsigned most = self->unnamed() ? most_unnamed_probes : most_probes;
    if (self->health_.health() == Health::suspect) {
      self->canary_ = true;
      self->kick();
    } else if ((self->health_.health() == Health::down || quiet) && self->probes_ < most) {
      // Not awaited: a host may take minutes to greet us, or never do it, and the next probe may find it well.
      self->parts_.background.spawn("probe of " + self->settings_.label, probe(self));
    }
  }
}

Task<> Destination::probe(std::shared_ptr<Destination> self) {
  {
    const Counted counted(self->probes_);
    Connected attempt = co_await self->connect({});
    if (attempt.connection) self->give_back(std::move(attempt.connection));
  }
  self->wakes_.notify_all();
}

Task<Connected> Destination::connect(std::vector<Endpoint> avoid) {
  const bool all = avoid.empty();
  const SteadyTime began = now();
  Connected attempt = co_await connector_.open(std::move(avoid));
  if (attempt.connection) {
    reached(*attempt.connection->session);
  } else if (all && !parts_.stopping) {
    lost(attempt, began);
  }
  co_return attempt;
}

void Destination::reached(const smtp::ClientSession& session) {
  heard();
  nobody_ = false;
  const bool first = size_limit_ == 0;
  size_limit_ = session.server().size_limit;
  if (first) tell_size_limit();
  if (!own() || !health_.reachable(parts_.clock.now())) return;
  announce();
  kick();
}

// It refuses one connection more while it serves others: too many, not down. A connection that has waited long for an
// answer does not show that it serves, unless it says that it refuses: who is dead says nothing.
bool Destination::serves(const Connected& attempt, SteadyTime since) const {
  if (!last_contact_ || attempt.no_route) return false;
  const bool lately = now() - *last_contact_ < parts_.config->delivery.probe_interval;
  const bool alive = lately || !attempt.trouble.said.empty();
  return *last_contact_ > since || (alive && connector_.connections() > kept_.size());
}

void Destination::lost(const Connected& attempt, SteadyTime began) {
  const WallTime now = parts_.clock.now();
  const bool serves = this->serves(attempt, began);
  if (!own()) {
    const bool later = !serves && attempt.trouble.result == Outcome::Result::deferred;
    if (later) retry_at_ = parts_.clock.steady() + parts_.config->queue.retry_min;
    return;
  }
  if (serves || attempt.ours) return trouble();
  const std::string& dsn = attempt.trouble.dsn;
  nobody_ = attempt.no_route && !dsn.ends_with(".4.3") && !dsn.ends_with(".4.6");
  const bool changed = health_.unreachable(now, attempt.trouble.reason);
  if (ignored()) return;
  const bool no_route = attempt.no_route || dsn.ends_with(".4.6");
  WallTime& told = parts_.no_route_told[settings_.label];
  if (no_route && ((changed && !unnamed()) || now >= told + Parts::again_after)) {
    told = now;
    parts_.alerts.raise("no route to the primary of " + settings_.label,
                        attempt.trouble.reason + ". Mail is kept; check the domain's DNS and its entry in relay.conf.");
  }
  if (!changed) return;
  kept_.drop_all();
  announce();
}

void Destination::announce() {
  parts_.changed();
  const std::string& label = settings_.label;
  switch (health_.health()) {
    case Health::down:
      parts_.log.warning("qmgr", fmt::format("primary of {} is down: {}", label, health_.reason()));
      break;
    case Health::suspect:
      parts_.alerts.raise("primary of " + label + " refuses its mail",
                          fmt::format("It is back after an outage and refused half of the first messages, the last "
                                      "with: {}. They are kept, and the drain has stopped. Mend the primary, or say "
                                      "`greymx flush` to let its refusals count.",
                                      health_.reason()));
      break;
    case Health::up: {
      const auto& [begin, end] = health_.downtime().spans().back();
      const auto length = std::chrono::floor<std::chrono::seconds>(end - begin);
      parts_.log.info("qmgr", fmt::format("primary of {} is up again after {}", label, human_duration(length)));
      alerted_ = trial_told_ = false;
      drain_.restart(now());
      break;
    }
  }
}

void Destination::watch_downtime() {
  const bool asked_only = unnamed() && !had_mail_;  // any stranger can ask for one that is down
  if (alerted_ || health_.health() != Health::down || doubtful() || asked_only) return;
  const auto length = std::chrono::floor<std::chrono::seconds>(parts_.clock.now() - health_.since());
  if (length < alert_after) return;
  alerted_ = true;
  parts_.alerts.raise("primary of " + settings_.label + " is down",
                      fmt::format("For {}: {}. Its mail is kept.", human_duration(length), health_.reason()));
}

// Where little mail comes, a trial may last until what was refused in it expires.
void Destination::watch_trial() {
  const bool slow =
      health_.trial_refused() > 0 && !health_.refusals_count() && parts_.clock.now() - health_.since() > trial_patience;
  if (health_.health() != Health::up || !slow || std::exchange(trial_told_, true)) return;
  parts_.alerts.raise("primary of " + settings_.label + " has refused mail since its outage",
                      fmt::format("{} messages, the last with: {}. They are kept, for it has not yet taken enough to "
                                  "show that it is well. If it is, say `greymx flush` to let its refusals count.",
                                  health_.trial_refused(), health_.reason()));
}

void Destination::message_done(QueueId id, const Answered& answered) {
  // A refusal that is not believed does not show that it copes with more.
  if (answered.delivered || (answered.refused && health_.refusals_count())) drain_.taken(now());
  if (answered.deferred) drain_.deferred(now());
  if (answered.delivered || answered.refused) useless_ = 0;
  if (!own()) return;
  bool changed = false;
  if (answered.refused) {
    changed = health_.refused(id, parts_.clock.now(), answered.reason);
  } else if (answered.delivered) {
    changed = health_.delivered(id, parts_.clock.now());
  }
  if (changed) announce();
}

// --- work ------------------------------------------------------------------------------------------------------------

struct Destination::Slot {
  std::shared_ptr<Destination> destination;
  explicit Slot(std::shared_ptr<Destination> of) : destination(std::move(of)) {}
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
  ~Slot() {
    --destination->workers_;
    const auto crowd = destination->crowd();
    if (crowd) --crowd->workers;
    if (!crowd) destination->kick();  // else the others have their turn: Destinations::tick_all()
  }
};

unsigned Destination::allowed() const {
  if (parts_.stopping || retired_) return 0;
  if (!own()) return parts_.clock.steady() < retry_at_ ? 0 : stranger_workers;
  if (health_.health() == Health::suspect) return canary_ ? 1 : 0;
  return health_.health() == Health::up ? drain_.limit() : 0;
}

void Destination::work(const std::string& domain) {
  had_mail_ = true;
  if (is_ready_.insert(domain).second) ready_.push_back(domain);
  kick();
}

// Anybody can have mail sent to more strangers, and to more subdomains, than may be served at once.
std::optional<Destination::Crowd> Destination::crowd() {
  if (!own()) return Crowd{parts_.report_workers, all_stranger_workers};
  if (unnamed()) return Crowd{parts_.unnamed_workers, all_unnamed_workers};
  return std::nullopt;
}

// So that hosts which hang leave workers to the others.
bool Destination::may_work(unsigned others) {
  if (others >= allowed()) return false;
  const auto all = crowd();
  if (!all) return true;
  const unsigned busy = all->workers - (workers_ - others);
  return busy < all->most && others < std::max((all->most - busy) / share, 1U);
}

void Destination::kick() {
  if (ready_.empty() || !may_work(workers_)) return;
  ++workers_;
  if (const auto all = crowd()) ++all->workers;
  parts_.gate.spawn("delivery to " + settings_.label, worker(shared_from_this()));
}

Task<> Destination::worker(std::shared_ptr<Destination> self) {
  const Slot slot(self);
  co_await deliver_due(self->parts_, *self);
}

std::optional<Taken> Destination::take() {
  while (!ready_.empty()) {
    std::string domain = std::move(ready_.front());
    ready_.pop_front();
    const queue::Pick pick = ++takes_ % newest_every == 0 ? queue::Pick::newest : queue::Pick::oldest;
    const std::optional<QueueId> id = parts_.spool.take(domain, parts_.clock.now(), pick);
    if (!id) {
      is_ready_.erase(domain);
      continue;
    }
    ready_.push_back(domain);
    canary_ = false;
    kick();  // there may be more, for one more worker
    return Taken(parts_.spool, *id, std::move(domain));
  }
  return std::nullopt;
}

Task<Connected> Destination::acquire(std::vector<Endpoint> avoid) {
  Connected result;
  result.connection = kept_.take(avoid);
  if (!result.connection) result = co_await connect(std::move(avoid));
  co_return result;
}

void Destination::give_back(std::unique_ptr<Connection> connection) {
  if (!connection || !connection->session->usable()) return;
  const bool worn_out = connection->messages >= parts_.config->delivery.messages_per_connection;
  if (worn_out || parts_.stopping || retired_) return kept_.quit(std::move(connection));
  kept_.keep(std::move(connection));
  wakes_.notify_all();
}

void Destination::useless(const Endpoint& host) {
  connector_.failed(host);
  kept_.drop(host);
}

// --- questions -------------------------------------------------------------------------------------------------------

Task<ProbeResult> Destination::callout(std::string address, SteadyTime deadline) {
  const std::shared_ptr<Destination> self = shared_from_this();
  ProbeResult result;
  result.detail = "the primary cannot be asked now";
  last_wanted_ = now();
  if (!own() || health_.health() == Health::down || callouts_ >= most_callouts) co_return result;
  const Counted counted(callouts_);
  std::optional<smtp::Answer> answer;
  for (bool asked = false; !answer || closed_unused(*answer);) {
    std::unique_ptr<Connection> connection = co_await connection_by(deadline, asked);
    if (!connection) co_return result;
    if (!is_ascii(address) && !connection->session->server().smtputf8) {  // it must not be sent (RFC 6531 3.2)
      result.detail = connection->host.lacks("SMTPUTF8");
      give_back(std::move(connection));
      co_return result;
    }
    Task<smtp::Answer> question = connection->session->verify(address);
    answer = co_await with_deadline(std::move(question), deadline);
    if (!answer) co_return result;
    if (answer->kind == smtp::Answer::Kind::reply) heard();
    result.detail = judge(*answer, connection->host).reason;
    give_back(std::move(connection));
  }
  if (answer->positive()) result.outcome = ProbeOutcome::accepted;
  // What it says while it is suspect teaches nothing.
  if (refuses_recipient(*answer) && health_.refusals_count()) result.outcome = ProbeOutcome::refused;
  co_return result;
}

// For a callout. Connections are opened beside it, one at most: what comes too late for it serves the next, and where
// none comes soon there are no more than callouts.
Task<std::unique_ptr<Connection>> Destination::connection_by(SteadyTime deadline, bool& asked) {
  std::unique_ptr<Connection> connection = kept_.take({});
  for (; !connection; connection = kept_.take({})) {
    if (asked && probes_ == 0) co_return nullptr;
    if (!asked && probes_ < callouts_) {
      parts_.background.spawn("probe of " + settings_.label, probe(shared_from_this()));
    }
    asked = true;
    const bool changed = co_await wakes_.wait(deadline);
    if (!changed || parts_.stopping) co_return nullptr;
  }
  co_return connection;
}

PrimaryStatus Destination::status() const {
  PrimaryStatus status;
  status.domain = own() || settings_.request.hosts.empty() ? settings_.request.domain : settings_.label;
  for (const config::HostPort& host : settings_.request.hosts) status.hosts.push_back(host.to_string());
  status.health = health_.health();
  status.since = health_.since();
  status.last_error = health_.health() == Health::up ? "" : health_.reason();
  status.downtime = health_.downtime();
  status.concurrency = own() ? drain_.limit() : stranger_workers;
  status.connections = connector_.connections();
  status.size_limit = size_limit_;
  if (health_.health() != Health::up) {
    const auto wait = std::max(next_probe_ - now(), SteadyTime::duration::zero());
    status.next_attempt = parts_.clock.now() + std::chrono::floor<std::chrono::microseconds>(wait);
  }
  return status;
}

}  // namespace greymx::relay

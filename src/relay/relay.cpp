#include "relay/relay.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <set>

#include "relay/destinations.hpp"
#include "relay/sweep.hpp"
#include "relay/view.hpp"

namespace greymx::relay {

namespace {

constexpr auto tick_length = std::chrono::seconds(1);
// Left to an admin, at most, before mail expires that a reload gave less time.
constexpr std::chrono::seconds time_to_object = std::chrono::hours(1);

Identity identity_of(const RelaySettings& settings) {
  return {settings.config->hostname, interface_addresses(), settings.listeners};
}

std::function<void(std::string, std::string)> report_exception(Log& log) {
  return [&log](const std::string& name, const std::string& what) {
    log.error("qmgr", fmt::format("{} ended by {}", name, what));
  };
}

bool gives_less_time(const config::Queue& rules, const config::Queue& before) {
  return rules.lifetime < before.lifetime || rules.lifetime_max < before.lifetime_max ||
         rules.bounce_lifetime < before.bounce_lifetime || (rules.count_downtime && !before.count_downtime);
}

// What an ETRN speaks of: "@NAME" may be covered by an entry "*.NAME" alone.
const config::Domain* entry_for_node(const config::Config& config, const std::string& name, bool below) {
  const config::Domain* entry = config.find_domain(name);
  if (entry != nullptr || !below) return entry;
  const auto wildcard = std::ranges::find_if(
      config.domains, [&](const config::Domain& domain) { return domain.wildcard && domain.name == name; });
  return wildcard == config.domains.end() ? nullptr : &*wildcard;
}

}  // namespace

struct Relay::Impl : std::enable_shared_from_this<Impl> {
  Impl(asio::any_io_executor executor, RelaySettings settings, queue::Spool& spool, dns::Resolver& resolver,
       const Clock& clock, Log& log, Metrics& metrics, Alerts& alerts, RecipientObserver* observer)
      : parts{.executor = executor,
              .config = settings.config,
              .identity = identity_of(settings),
              .timeouts = settings.timeouts,
              .spool = spool,
              .resolver = resolver,
              .clock = clock,
              .log = log,
              .metrics = metrics,
              .alerts = alerts,
              .observer = observer,
              .changed = [this] { on_change(); },
              .downtime_of = [this](const std::string& domain) { return destinations.downtime_of(domain); },
              .trouble_of = [this](const std::string& domain) { return destinations.trouble_of(domain); },
              .gate = Gate(executor, report_exception(log)),
              .background = Gate(executor, report_exception(log))},
        destinations(parts),
        sweep(parts),
        wakes(executor),
        view(std::make_shared<const View>(parts.config, destinations.by_key())) {}

  // --- life --------------------------------------------------------------------------------------------------------
  void start();
  Task<> stop(SteadyTime deadline);
  Task<> abort_at(SteadyTime deadline);
  void reload(config::ConfigPtr config);
  void on_work(std::string domain);  // any thread
  void take_work();
  Task<> run_ticks();
  Task<> run_sweeps();
  void tick();
  void watch_clock();
  void end_long_waits();

  // --- what others see ---------------------------------------------------------------------------------------------
  void on_change();
  void publish();
  using Concerns = std::function<bool(const std::string& domain)>;
  void try_now(const Concerns& concerns, void (Destination::*how)());
  void flush(const Concerns& concerns) { try_now(concerns, &Destination::flush); }
  Task<Reply> etrn(std::string node, Client client);
  Task<Result<>> bounce(QueueId id, std::string reason);
  Task<ProbeResult> probe(std::string address, SteadyTime deadline);

  Parts parts;
  Destinations destinations;
  Sweep sweep;
  Event wakes;
  bool unsaved = false;
  bool sweep_now = false;

  std::shared_ptr<const View> shown() const;
  mutable std::mutex mutex;  // of all below
  std::set<std::string> fresh_work;
  std::shared_ptr<const View> view;
};

// --- life ------------------------------------------------------------------------------------------------------------

void Relay::Impl::start() {
  destinations.start();
  unsaved = true;  // what is known or assumed now: without a file the next start takes the history for lost
  publish();
  parts.spool.on_work([weak = weak_from_this()](std::string domain) {
    if (const auto self = weak.lock()) self->on_work(std::move(domain));
  });
  end_long_waits();
  parts.gate.spawn("schedule", run_ticks());
  parts.gate.spawn("sweep", run_sweeps());
}

Task<> Relay::Impl::stop(SteadyTime deadline) {
  const std::shared_ptr<Impl> self = shared_from_this();
  parts.stopping = true;
  parts.spool.on_work([](const std::string&) {});
  wakes.notify_all();
  destinations.retire();
  parts.background.cancel();
  Gate watch(parts.executor);
  watch.spawn("deadline", abort_at(deadline));
  co_await parts.background.close();
  co_await parts.gate.close();
  watch.cancel();
  co_await watch.close();
  (void)co_await destinations.save();
}

Task<> Relay::Impl::abort_at(SteadyTime deadline) {
  co_await sleep_until(deadline);
  parts.gate.cancel();
}

void Relay::Impl::reload(config::ConfigPtr config) {
  if (parts.stopping) return;
  parts.identity.hostname = config->hostname;
  const bool less_time = gives_less_time(config->queue, parts.config->queue);
  destinations.reload(std::move(config));
  if (less_time) {
    parts.expiry_from = parts.clock.steady() + std::min(time_to_object, parts.shortest_lifetime());
    sweep_now = true;  // it says what is about to expire
    wakes.notify_all();
  }
  tick();
}

void Relay::Impl::on_work(std::string domain) {
  const std::scoped_lock lock(mutex);
  if (fresh_work.empty()) asio::post(parts.executor, [self = shared_from_this()] { self->take_work(); });
  fresh_work.insert(std::move(domain));
}

void Relay::Impl::take_work() {
  std::set<std::string> domains;
  {
    const std::scoped_lock lock(mutex);
    domains.swap(fresh_work);
  }
  for (const std::string& domain : domains) {
    if (!parts.stopping) destinations.of(domain)->work(domain);
  }
}

Task<> Relay::Impl::run_ticks() {
  while (!parts.stopping) {
    tick();
    if (std::exchange(unsaved, false)) {
      const bool saved = co_await destinations.save();
      unsaved = unsaved || !saved;
    }
    co_await wakes.wait(std::chrono::steady_clock::now() + tick_length);
  }
}

Task<> Relay::Impl::run_sweeps() {
  SteadyTime next = std::chrono::steady_clock::now();
  while (!parts.stopping) {
    if (!std::exchange(sweep_now, false) && std::chrono::steady_clock::now() < next) {
      co_await wakes.wait(next);
      continue;
    }
    co_await sweep.once();
    next = std::chrono::steady_clock::now() + sweep.interval();
  }
}

void Relay::Impl::tick() {
  watch_clock();
  destinations.tick();
  publish();
}

void Relay::Impl::watch_clock() {
  const auto step = std::chrono::round<std::chrono::seconds>(parts.watch.step());
  if (step == std::chrono::seconds(0)) return;
  parts.log.warning("qmgr", fmt::format("the system clock stepped {} by {}: no mail expires for a while",
                                        step.count() > 0 ? "ahead" : "back", human_duration(abs(step))));
  if (step.count() > 0) return;
  end_long_waits();
  destinations.clock_is_back();
}

// Nothing is deferred for so long but by a clock that was ahead then.
void Relay::Impl::end_long_waits() {
  const config::Queue& rules = parts.config->queue;
  const WallTime longest = parts.clock.now() + std::max(rules.retry_min, rules.retry_max);
  for (const queue::DomainSummary& summary : parts.spool.domains()) {
    parts.spool.make_domain_due(summary.domain, longest);
  }
}

// --- what others see -------------------------------------------------------------------------------------------------

// Seen at once: the callout that found it out is answered next, and asks whether the primary is down.
void Relay::Impl::on_change() {
  unsaved = true;
  publish();
  wakes.notify_all();
}

void Relay::Impl::publish() {
  auto next = std::make_shared<const View>(parts.config, destinations.by_key());
  const std::scoped_lock lock(mutex);
  view.swap(next);
}

std::shared_ptr<const View> Relay::Impl::shown() const {
  const std::scoped_lock lock(mutex);
  return view;
}

void Relay::Impl::try_now(const Concerns& concerns, void (Destination::*how)()) {
  for (const queue::DomainSummary& summary : parts.spool.domains()) {
    if (!concerns(summary.domain)) continue;
    parts.spool.make_domain_due(summary.domain, WallTime::min());
    const Destinations::Pointer one = destinations.of(summary.domain);
    (one.get()->*how)();
  }
  for (const auto& [name, one] : destinations.by_name()) {
    if (concerns(name)) (one.get()->*how)();
  }
}

Task<Reply> Relay::Impl::etrn(std::string node, Client client) {
  const std::shared_ptr<Impl> self = shared_from_this();
  const std::string shown_node = printable(node, 255);
  const bool below = node.starts_with('@');
  const auto name = canonical_domain(below || node.starts_with('#') ? node.substr(1) : node);
  const config::Domain* entry = name ? entry_for_node(*parts.config, *name, below) : nullptr;
  bool allowed = entry != nullptr && client.trusted;
  // Whoever asks: it must not make one.
  const bool by_name = entry != nullptr && entry->name == *name;
  const Destinations::Pointer primary =
      entry != nullptr ? destinations.find(by_name ? example_of(*entry) : *name) : nullptr;
  if (primary && !allowed) {
    allowed = std::ranges::any_of(primary->known_hosts(),
                                  [&](const Host& host) { return host.endpoint.address == client.address; });
  }
  if (!allowed) co_return Reply{459, {}, fmt::format("Node {} not allowed: not a domain of yours", shown_node)};
  const auto concerns = [&](const std::string& queued) {
    const std::string domain = shown_domain(*parts.config, queued);
    return domain == *name || (below && is_in_domain(domain, *name));
  };
  std::uint64_t pending = 0, held = 0;
  for (const queue::DomainSummary& summary : parts.spool.domains()) {
    if (!concerns(summary.domain)) continue;
    pending += summary.messages - summary.held;
    held += summary.held;
  }
  if (pending == 0 && held > 0)
    co_return Reply{458, {}, fmt::format("Unable to queue messages for node {}", shown_node)};
  if (pending == 0) co_return Reply{251, {}, fmt::format("OK, no messages waiting for node {}", shown_node)};
  try_now(concerns, &Destination::probe_now);
  co_return Reply{253, {}, fmt::format("OK, {} pending messages for node {} started", pending, shown_node)};
}

Task<Result<>> Relay::Impl::bounce(QueueId id, std::string reason) {
  const std::shared_ptr<Impl> self = shared_from_this();
  Result<> done = co_await sweep.bounce(id, std::move(reason));
  co_return done;
}

Task<ProbeResult> Relay::Impl::probe(std::string address, SteadyTime deadline) {
  const std::shared_ptr<Impl> self = shared_from_this();
  ProbeResult result;
  const std::string domain = queue::schedule_domain(address);
  Destinations::Pointer primary = destinations.find(domain);
  if (parts.stopping || (!primary && destinations.crowded())) co_return result;
  if (!primary) primary = destinations.of(domain);
  result = co_await primary->callout(std::move(address), deadline);
  co_return result;
}

// --- the façade ------------------------------------------------------------------------------------------------------

Relay::Relay(asio::any_io_executor executor, RelaySettings settings, queue::Spool& spool, dns::Resolver& resolver,
             const Clock& clock, Log& log, Metrics& metrics, Alerts& alerts, RecipientObserver* observer)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(settings), spool, resolver, clock, log, metrics,
                                   alerts, observer)) {}
Relay::~Relay() = default;

void Relay::start() {
  impl_->start();
}
Task<> Relay::stop(SteadyTime deadline) {
  return impl_->stop(deadline);
}

void Relay::reload(config::ConfigPtr config) {
  asio::post(impl_->parts.executor, [impl = impl_, config = std::move(config)] { impl->reload(config); });
}

void Relay::flush() {
  asio::post(impl_->parts.executor, [impl = impl_] { impl->flush([](const std::string&) { return true; }); });
}

void Relay::flush_domain(std::string domain) {
  const bool below = domain.starts_with("*.");
  const std::string name = canonical_domain(below ? domain.substr(2) : domain).value_or(domain);
  asio::post(impl_->parts.executor, [impl = impl_, name, below] {
    impl->flush([&](const std::string& queued) {
      const config::Config& config = *impl->parts.config;
      if (name == reports_label) return entry_for(config, queued) == nullptr;
      const std::string shown = shown_domain(config, queued);
      return below ? shown != name && is_in_domain(shown, name) : shown == name;
    });
  });
}

void Relay::flush_message(QueueId id, std::set<std::string> domains) {
  (void)impl_->parts.spool.make_due(id, impl_->parts.clock.now());
  asio::post(impl_->parts.executor, [impl = impl_, domains = std::move(domains)] {
    for (const std::string& domain : domains) impl->destinations.of(domain)->flush();
  });
}

std::vector<PrimaryStatus> Relay::status() const {
  return impl_->shown()->status(impl_->parts.spool.domains());
}

Health Relay::health(const std::string& domain) const {
  return impl_->shown()->look(domain).health;
}

std::string Relay::hosts(const std::string& domain) const {
  return impl_->shown()->hosts(domain);
}

std::uint64_t Relay::size_limit(const std::string& domain) const {
  return impl_->shown()->look(domain).size_limit;
}

std::uint64_t Relay::largest_size_limit() const {
  return impl_->shown()->largest_size_limit();
}

std::set<IpAddress> Relay::own_addresses() const {
  return impl_->shown()->own_addresses();
}

bool Relay::is_primary_address(const IpAddress& ip) const {
  return impl_->shown()->is_primary_address(ip);
}

Task<ProbeResult> Relay::probe(std::string address, SteadyTime deadline) {
  return on(impl_->parts.executor, impl_->probe(std::move(address), deadline));
}

Task<Reply> Relay::etrn(std::string node, Client client) {
  return on(impl_->parts.executor, impl_->etrn(std::move(node), std::move(client)));
}

Task<Result<>> Relay::bounce(QueueId id, std::string reason) {
  return on(impl_->parts.executor, impl_->bounce(id, std::move(reason)));
}

Task<Result<QueueId>> Relay::submit_report(std::string recipient, std::string content) {
  Report report;
  report.envelope = report_envelope(std::move(recipient), content);
  report.content = std::move(content);
  return submit(impl_->parts.spool, std::move(report));
}

}  // namespace greymx::relay

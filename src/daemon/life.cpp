// What happens to the parts once they are made: begin, reload, the admin's questions, stop; see parts.hpp.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <tuple>

#include "config/load.hpp"
#include "daemon/earlier_queues.hpp"
#include "daemon/parts.hpp"
#include "spf/spf.hpp"

namespace greymx::daemon {

using namespace std::chrono_literals;

std::shared_ptr<const access::Shared> Daemon::Parts::access_parts() const {
  auto parts = std::make_shared<access::Shared>();
  const Shared now = shared();
  parts->config = now.config;
  parts->tables = now.tables;
  parts->memory = memory.get();
  parts->greylister = greylister.get();
  auto& self = const_cast<Parts&>(*this);
  parts->primaries = &self.bridge;
  parts->clock = &clock;
  parts->log = &log;
  parts->metrics = &self.metrics;
  parts->alerts = &self.alerts;
  return parts;
}

void Daemon::Parts::spread() {
  const Shared now = shared();
  const auto parts = access_parts();
  for (const auto& worker : workers) {
    asio::post(worker->thread.executor(), [this, now, parts, &worker = *worker] {
      worker.lists = std::make_shared<dnsbl::Lists>(now.config, worker.resolver, now.health, log, metrics);
      worker.pipeline->update(parts, worker.lists);
    });
  }
}

// Reads resolv.conf and makes the sockets' library ready, so before the view of the file system shrinks.
void Daemon::Parts::use_resolvers(const config::Config& config) {
  dns::DnsSettings settings{.servers = config.dns.servers,
                            .timeout = config.dns.timeout,
                            .attempts = config.dns.attempts,
                            .cache_size = config.dns.cache_size / (workers.size() + 1)};
  if (settings.servers.empty()) settings.servers = dns::system_servers();
  if (settings == dns_) return;  // with what it has in its cache
  dns_ = settings;
  for (const auto& worker : workers) {
    std::shared_ptr<dns::Resolver> fresh = dns::make_resolver(worker->thread.executor(), settings, clock, metrics);
    asio::post(worker->thread.executor(), [&worker = *worker, fresh] { worker.resolver.use(fresh); });
  }
  std::shared_ptr<dns::Resolver> fresh = dns::make_resolver(relay_thread.executor(), settings, clock, metrics);
  asio::post(relay_thread.executor(), [this, fresh] { relay_resolver.use(fresh); });
}

void Daemon::Parts::begin() {
  for (const auto& worker : workers) worker->thread.run();
  relay_thread.run();
  admin_thread.run();
  workers.front()->thread.spawn("block list tests", self_tests());
  admin_thread.spawn("certificate", refresh_certificate());
  watcher->start();
  asio::post(relay_thread.executor(), [this] {
    relay->start();
    memory->start();
  });
  alerts.connect([this](std::string recipient, std::string content) {
    return relay->submit_report(std::move(recipient), std::move(content));
  });
  admin_services.emplace(services());
  asio::post(workers.front()->thread.executor(), [this] { policy_service->start(*greylister); });
  asio::post(admin_thread.executor(), [this] {
    http->start(*admin_services);
    control->start(*admin_services);
    listener->start();
  });
}

Task<> Daemon::Parts::self_tests() {
  for (;;) {
    const std::shared_ptr<dnsbl::Health> health = shared().health;
    co_await health->tick(workers.front()->resolver, std::chrono::steady_clock::now() + 20s);
    co_await sleep_for(1s);
  }
}

Task<> Daemon::Parts::refresh_certificate() {
  for (;;) {
    co_await sleep_for(60s);
    auto refresh = [this] {
      const std::lock_guard alone(reloading_);
      tls.refresh();
    };
    co_await offload(pool, std::move(refresh));
  }
}

// The file as it is now, if it can be used; what is wrong is logged.
Result<config::ConfigPtr> Daemon::Parts::read_again() {
  const config::Loaded loaded = config::load(config()->file);
  for (const config::Diagnostic& warning : loaded.warnings) log.warning("master", warning.to_string());
  if (!loaded.config) {
    std::vector<std::string> lines;
    for (const config::Diagnostic& error : loaded.errors) lines.push_back(error.to_string());
    for (const std::string& line : lines) log.error("master", line);
    log.error("master", "reload: the new configuration is refused, the old one stays");
    return fail(ErrorKind::invalid, fmt::format("{}", fmt::join(lines, "\n")));
  }
  if (auto ok = smtp::TlsServer::check(loaded.config->tls); !ok) return refuse_reload(std::move(ok).error());
  const auto account = [](const config::Config& config) { return std::tie(config.user, config.group); };
  if (was_root_ && account(*loaded.config) != account(*config())) {
    if (auto ok = find_account(*loaded.config); !ok) return refuse_reload(std::move(ok).error());
  }
  // As root we may have opened what the user cannot: it stays open.
  if (loaded.config->log != config()->log) {
    if (auto ok = check_log(loaded.config->log); !ok) return refuse_reload(std::move(ok).error());
  }
  return loaded.config;
}

std::unexpected<Error> Daemon::Parts::refuse_reload(Error why) {
  log.error("master", fmt::format("reload: {}; the old configuration stays", why.text));
  return std::unexpected(std::move(why));
}

Result<admin::Reloaded> Daemon::Parts::reload(access::Reload how) {
  const std::lock_guard one_at_a_time(reloading_);
  const Result<config::ConfigPtr> read = read_again();
  if (!read) return std::unexpected(read.error());
  const config::ConfigPtr& wanted = *read;
  auto tables = watcher->reload(wanted, how);
  if (!tables.tables) {
    const std::string text = tables.errors.empty() ? "a list cannot be read" : tables.errors.front().to_string();
    return refuse_reload(fail(ErrorKind::invalid, text).error());
  }
  admin::Reloaded result{
      .needs_restart = config::needs_restart(*started_with_, *wanted), .advice = {}, .problems = {}, .warnings = {}};
  for (const config::Diagnostic& error : tables.errors) result.problems.push_back(error.to_string());
  for (const config::Diagnostic& warning : tables.warnings) result.warnings.push_back(warning.to_string());
  if (auto ok = log.reconfigure(wanted->log); !ok) {
    log.error("master", ok.error().text);
    result.problems.push_back(ok.error().text);
  }
  for (const std::string& key : result.needs_restart) {
    log.warning("master", fmt::format("reload: {} has changed and needs a restart", key));
  }
  const std::uint64_t waiting = spool->totals().messages;
  if (wanted->queue_path != started_with_->queue_path && waiting > 0) {
    result.advice = move_advice(waiting, started_with_->queue_path, wanted->queue_path);
    log.warning("master", "reload: " + result.advice);
  }
  // It was checked; should it fail now all the same, the old pair stays.
  if (auto ok = tls.load(wanted->tls); !ok) result.problems.push_back(ok.error().text);
  auto health =
      std::make_shared<dnsbl::Health>(wanted, clock, log, metrics, alerts, [this] { return control_addresses(); });
  health->adopt(*shared().health);
  {
    const std::lock_guard lock(mutex_);
    shared_ = {.config = wanted, .tables = tables.tables, .health = health};
  }
  use_resolvers(*wanted);
  spool->limit(wanted->limits.min_free_space, wanted->limits.buffer_memory);
  std::ranges::move(greylister->reload(wanted, result.warnings), std::back_inserter(result.problems));
  relay->reload(wanted);
  alerts.configure(wanted->hostname, wanted->alerts_to);
  asio::post(workers.front()->thread.executor(), [this, wanted] { policy_service->reload(wanted); });
  spread();
  listener->reload(wanted);
  log.info("master", fmt::format("reload: {} is in effect", wanted->file));
  return result;
}

Task<access::Explained> Daemon::Parts::explain(Facts facts, Mailbox recipient) {
  Worker& worker = *workers.front();
  return on(worker.thread.executor(), worker.pipeline->explain(std::move(facts), std::move(recipient)));
}

namespace {

Task<dnsbl::Score> ask(Worker& worker, IpAddress address, SteadyTime deadline) {
  const std::shared_ptr<dnsbl::Lists> lists = worker.lists;
  co_return co_await lists->check_client(address, deadline);
}

}  // namespace

Task<dnsbl::Score> Daemon::Parts::ask_lists(IpAddress address) {
  Worker& worker = *workers.front();
  return on(worker.thread.executor(), ask(worker, address, std::chrono::steady_clock::now() + 20s));
}

// For the policy service, which has no pipeline: on its thread, the first worker's.
Task<std::string> Daemon::Parts::spf_domain(greylist::Request request) {
  const SteadyTime deadline = std::chrono::steady_clock::now() + 5s;
  spf::Query query{request.client, request.sender, request.helo, config()->hostname};
  const spf::Outcome outcome = co_await spf::authorise(workers.front()->resolver, std::move(query), deadline);
  co_return outcome.result == spf::Result::pass ? outcome.domain : std::string();
}

admin::Services Daemon::Parts::services() {
  return {.spool = *spool,
          .metrics = metrics,
          .clock = clock,
          .log = log,
          .history = history,
          .pool = pool,
          .greylister = greylister.get(),
          .version = GREYMX_VERSION,
          .started = started,
          .config = [this] { return config(); },
          .relay = admin::calls_of(*relay),
          .lists = [this] { return shared().health->status(); },
          .dnsbl = [this](IpAddress address) { return ask_lists(address); },
          .explain = [this](Facts facts, Mailbox to) { return explain(std::move(facts), std::move(to)); },
          .reload = [this] { return reload(access::Reload::command); },
          .certificate_expiry = [this] { return tls.expiry(); },
          .terminating = [this] { return terminating.load(); }};
}

void Daemon::Parts::stop() {
  const auto grace = std::chrono::seconds(config()->shutdown_grace);
  const SteadyTime deadline = std::chrono::steady_clock::now() + grace;
  terminating = true;  // a balancer sends nobody here any more
  admin_thread.wait(listener->stop(deadline));
  // Deliveries under way may take what is left of the grace, and a moment in any case.
  const SteadyTime relay_deadline = std::max(deadline, std::chrono::steady_clock::now() + 2s);
  relay_thread.wait(relay->stop(relay_deadline));
  workers.front()->thread.wait(policy_service->stop());
  admin_thread.wait(http->stop());
  admin_thread.wait(control->stop());
  admin_thread.wait(alerts.stop());
  watcher.reset();
  for (const auto& worker : workers) worker->thread.wait(worker->pipeline->stop());
  memory->stop();
  greylister->stop();
  spool->stop();
  // What a thread uses is destroyed on it, when nothing on it runs any more.
  admin_thread.stop();
  relay_thread.stop([this] { relay_resolver.use(nullptr); });
  for (const auto& worker : workers) {
    worker->thread.stop([&worker = *worker] {
      worker.pipeline.reset();
      worker.lists.reset();
      worker.resolver.use(nullptr);
    });
  }
  pool.join();  // after the threads, whose last steps may still be on it
}

}  // namespace greymx::daemon

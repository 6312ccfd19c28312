// How the parts are made and plugged together; see parts.hpp.
#include "daemon/parts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "config/load.hpp"
#include "daemon/earlier_queues.hpp"
#include "greylist/store_bdb.hpp"
#include "relay/route.hpp"

namespace greymx::daemon {

namespace {

// One core is left to the disk, the relay and the resolver that the host runs: on two cores a second network thread
// costs more in switches between threads than it carries.
unsigned worker_count(const config::Config& config) {
  return config.workers > 0 ? config.workers : std::max(2U, std::thread::hardware_concurrency()) - 1;
}

queue::SpoolSettings spool_settings(const config::Config& config) {
  return {.path = config.queue_path,
          .min_free_space = config.limits.min_free_space,
          .buffer_memory = config.limits.buffer_memory};
}

}  // namespace

Daemon::Parts::Parts(config::ConfigPtr config, TargetLog& target)
    : log(target),
      admin_thread("greymx-admin", log, metrics),
      relay_thread("greymx-relay", log, metrics),
      alerts(admin_thread.executor(), clock, log, metrics, history),
      tls(clock, log, metrics, alerts) {
  alerts.configure(config->hostname, config->alerts_to);
  for (unsigned i = 0; i < worker_count(*config); ++i) {
    workers.push_back(std::make_unique<Worker>(fmt::format("greymx-net{}", i), log, metrics));
  }
  started_with_ = config;
  shared_.config = std::move(config);
}

Shared Daemon::Parts::shared() const {
  const std::lock_guard lock(mutex_);
  return shared_;
}

// A block list that lists one of these lists the world.
std::vector<IpAddress> Daemon::Parts::control_addresses() const {
  std::vector<IpAddress> addresses{IpAddress::v4(0x7f000001)};
  const auto is_public = [](const IpAddress& ip) { return !ip.is_private(); };
  std::ranges::copy_if(relay::interface_addresses(), std::back_inserter(addresses), is_public);
  std::ranges::copy_if(relay->own_addresses(), std::back_inserter(addresses), is_public);
  return addresses;
}

Result<> Daemon::Parts::bind_policy() {
  greylist::PolicySettings settings;
  const char* test_clock = std::getenv("GREYMX_TEST_CLOCK");
  settings.test_clock = test_clock != nullptr && std::string_view(test_clock) == "1";
  settings.spf_domain = [this](greylist::Request request) { return spf_domain(std::move(request)); };
  settings.is_primary = [this](const IpAddress& client) { return bridge.is_primary_address(client); };
  auto opened = greylist::PolicyService::open(workers.front()->thread.executor(), config(), log, std::move(settings));
  if (!opened) return std::unexpected(opened.error());
  policy_service = std::move(*opened);
  return {};
}

Result<> Daemon::Parts::bind(const std::optional<Account>& identity) {
  const config::ConfigPtr config = this->config();
  was_root_ = identity.has_value();
  std::vector<smtp::Worker> targets;
  for (const auto& worker : workers) targets.push_back({worker->thread.executor(), &worker->policy});
  listener = std::make_unique<smtp::Listener>(std::move(targets), config, intake, tls, clock, log, metrics);
  if (auto opened = listener->open(identity); !opened) return opened;
  auto opened = admin::HttpServer::open(admin_thread.executor(), config->listen.http, log);
  if (!opened) return std::unexpected(opened.error());
  http = std::move(*opened);
  if (auto bound = bind_policy(); !bound) return bound;
  auto socket = admin::ControlServer::open(admin_thread.executor(), config->listen.control, identity);
  if (!socket) return std::unexpected(socket.error());
  control = std::move(*socket);
  return {};
}

void Daemon::Parts::find_left_behind() {
  const auto count = [this](const std::string& path) -> Result<std::uint64_t> {
    const auto reader = queue::SpoolReader::open(path, *files);
    if (!reader) return std::unexpected(reader.error());
    return (*reader)->ids().size();
  };
  const LeftBehind left = mail_left_behind(config()->queue_path, config()->state_path + "/queues", count);
  if (!left.remembered) log.warning("master", "the place of the queue is not kept: " + left.remembered.error().text);
  for (const std::string& text : left.texts) alerts.raise("mail is left in an earlier queue directory", text);
}

Result<> Daemon::Parts::open() {
  const config::ConfigPtr config = this->config();
  if (auto loaded = tls.load(config->tls); !loaded) return loaded;
  auto tables = access::Tables::load(*config);
  for (const config::Diagnostic& error : tables.errors) log.error("master", error.to_string());
  for (const config::Diagnostic& warning : tables.warnings) log.warning("master", warning.to_string());
  if (!tables.tables) return fail(ErrorKind::invalid, "a file that the configuration names cannot be used, see above");
  use_resolvers(*config);

  auto opened = queue::Spool::open(spool_settings(*config), *files, clock, log, metrics, alerts);
  if (!opened) return std::unexpected(opened.error());
  spool = std::move(*opened);
  intake.attach(*spool);
  find_left_behind();

  relay = std::make_unique<relay::Relay>(
      relay_thread.executor(),
      relay::RelaySettings{.config = config, .listeners = listener->endpoints(), .timeouts = {}}, *spool,
      relay_resolver, clock, log, metrics, alerts, &bridge);
  bridge.attach(*relay);
  auto remembered =
      access::RecipientMemory::open(config->state_path + "/recipients", bridge, clock, log, metrics, alerts);
  if (!remembered) return std::unexpected(remembered.error());
  memory = std::move(*remembered);
  bridge.attach(*memory);

  greylist::BdbSettings settings;
  settings.directory = config->state_path + "/greylist";
  settings.rules = greylist::rules_of(config->greylist);
  auto store = greylist::open_bdb_store(settings, clock, log, alerts);
  if (!store) return std::unexpected(store.error());
  greylister = std::make_unique<greylist::Greylister>(config, std::move(*store), clock, log, metrics, alerts);

  {
    const std::lock_guard lock(mutex_);
    shared_.tables = tables.tables;
    shared_.health =
        std::make_shared<dnsbl::Health>(config, clock, log, metrics, alerts, [this] { return control_addresses(); });
  }
  watcher = std::make_unique<access::TableWatcher>(config, tables.tables, clock, log, alerts, [this](auto fresh) {
    {
      const std::lock_guard lock(mutex_);
      shared_.tables = std::move(fresh);
    }
    spread();
  });
  for (const auto& worker : workers) {
    worker->pipeline = std::make_unique<access::Pipeline>(worker->thread.executor(), access_parts(), worker->resolver);
    worker->policy.attach(*worker->pipeline, *relay);
  }
  spread();
  return {};
}

}  // namespace greymx::daemon

#include "admin/status.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "base/mailbox.hpp"
#include "greylist/store.hpp"
#include "relay/retry.hpp"

namespace greymx::admin {

namespace {

Charts charts(const History& history, WallTime now, std::size_t bars, std::size_t each) {
  return {history.bars("accepted", now, bars, each), history.bars("sent", now, bars, each),
          history.bars("reject/", now, bars, each), history.bars("greylist/greylist", now, bars, each)};
}

std::vector<CountRow> rows(const History& history, WallTime now, std::string_view prefix) {
  std::vector<CountRow> rows;
  for (const std::string& name : history.names(prefix)) {
    CountRow row{name.substr(prefix.size()), history.sum(name, now, 60), history.sum(name, now, History::minutes)};
    if (row.day != 0) rows.push_back(std::move(row));
  }
  std::ranges::sort(rows, std::greater(), &CountRow::day);
  return rows;
}

Json charts_json(const Charts& charts) {
  return Json{{"accepted", charts.accepted},
              {"delivered", charts.delivered},
              {"rejected", charts.rejected},
              {"greylisted", charts.greylisted}};
}

Json rows_json(const std::vector<CountRow>& rows) {
  Json json = Json::array();
  for (const CountRow& row : rows) json.push_back({{"name", row.name}, {"hour", row.hour}, {"day", row.day}});
  return json;
}

// Reports go where strangers choose: those servers are no primaries of ours, whatever becomes of them.
std::vector<DomainLine> gather_domains(const Services& services) {
  const config::ConfigPtr config = services.config();
  std::vector<DomainLine> lines = join_domains(Primaries(services.relay.status(), *config), services.spool.domains());
  const std::set<std::string> ours = our_domains(*config);
  for (DomainLine& line : lines) {
    line.configured = ours.contains(line.domain);
    if (!line.configured) line.primary.reset();
  }
  std::erase_if(lines, [](const DomainLine& line) { return !line.primary && line.queued.messages == 0; });
  return lines;
}

std::uint64_t greylist_records(const Services& services) {
  return services.greylister != nullptr ? services.greylister->store().totals().records() : 0;
}

constexpr const char* reports = "reports";  // they go where strangers choose: they share one series

// When the first message of each line expires. Subdomains of a wildcard have outages of their own.
std::map<std::string, WallTime> first_ends(const Primaries& primaries, const std::vector<queue::DomainSummary>& queued,
                                           const std::set<std::string>& ours, const config::Queue& lifetimes,
                                           WallTime now) {
  std::map<std::string, WallTime> ends;
  for (const queue::DomainSummary& summary : queued) {
    std::string name = line_name(primaries, summary.domain);
    config::Queue rules = lifetimes;
    if (!ours.contains(name)) {
      name = reports;
      rules.lifetime = std::min(rules.lifetime, rules.bounce_lifetime);
    }
    const relay::PrimaryStatus* primary = primaries.find(summary.domain);
    const WallTime end =
        relay::expires_at(summary.oldest, now, primary != nullptr ? &primary->downtime : nullptr, rules);
    const auto first = ends.emplace(name, end).first;
    first->second = std::min(first->second, end);
  }
  return ends;
}

}  // namespace

std::string certificate_text(std::int64_t days) {
  return days < 0 ? "expired" : fmt::format("{} days left", days);
}

std::uint64_t sum(const std::vector<std::uint64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

WallTime Status::oldest() const {
  WallTime oldest = now;
  for (const DomainLine& line : domains) {
    if (line.queued.messages != 0) oldest = std::min(oldest, line.queued.oldest);
  }
  return oldest;
}

Status gather(const Services& services) {
  Status status;
  const WallTime now = services.clock.now();
  services.history.sample(now, counters_of(services.metrics.text()));
  status.hostname = services.config()->hostname;
  status.version = services.version;
  status.now = now;
  status.started = services.started;
  status.totals = services.spool.totals();
  status.terminating = services.terminating();
  if (status.terminating) status.totals.accepting = false, status.totals.problem = "greymxd is terminating";
  status.domains = gather_domains(services);
  status.lists = services.lists();
  status.connections = static_cast<std::uint64_t>(services.metrics.value("connections"));
  status.greylist_records = greylist_records(services);
  if (const auto expiry = services.certificate_expiry()) {
    status.certificate_days = std::chrono::floor<std::chrono::days>(*expiry - now).count();
  }
  status.hour = charts(services.history, now, 60, 1);
  status.day = charts(services.history, now, 96, 15);
  status.rejects = rows(services.history, now, "reject/");
  status.greylist = rows(services.history, now, "greylist/");
  status.events = services.history.events();
  return status;
}

Json to_json(const Status& status) {
  Json domains = Json::array(), lists = Json::array(), events = Json::array();
  for (const DomainLine& line : status.domains) domains.push_back(domain_json(line, status.now));
  for (const dnsbl::ListStatus& list : status.lists) {
    lists.push_back({{"zone", list.zone},
                     {"state", list.up ? "on" : "off"},
                     {"since", unix_seconds(list.since)},
                     {"problem", printable(list.reason)},
                     {"lookups", list.lookups},
                     {"listed", list.listed},
                     {"errors", list.errors}});
  }
  for (const History::Event& event : status.events) {
    events.push_back({{"time", unix_seconds(event.time)}, {"text", event.text}});
  }
  return Json{{"hostname", status.hostname},
              {"version", status.version},
              {"now", unix_seconds(status.now)},
              {"started", unix_seconds(status.started)},
              {"accepting", status.totals.accepting},
              {"problem", status.totals.problem},
              {"queue",
               {{"messages", status.totals.messages},
                {"bytes", status.totals.bytes},
                {"held", status.totals.held},
                {"oldest_seconds", unix_seconds(status.now) - unix_seconds(status.oldest())},
                {"disk_bytes", status.totals.disk_bytes},
                {"free_bytes", status.totals.free_bytes}}},
              {"domains", std::move(domains)},
              {"connections", status.connections},
              {"lists", std::move(lists)},
              {"greylist_records", status.greylist_records},
              {"certificate_days", status.certificate_days ? Json(*status.certificate_days) : Json()},
              {"hour", charts_json(status.hour)},
              {"day", charts_json(status.day)},
              {"rejects", rows_json(status.rejects)},
              {"greylist", rows_json(status.greylist)},
              {"events", std::move(events)}};
}

std::string to_text(const Status& status, Style style) {
  std::string text =
      fmt::format("greymxd {} on {}, up {}\n", status.version, status.hostname, human_age(status.started, status.now));
  const auto line = [&](std::string_view name, std::string value) { text += fmt::format("{:<12} {}\n", name, value); };
  const queue::Totals& totals = status.totals;
  const char* refused = status.terminating ? "no longer accepted" : "refused with 452";
  line("mail", totals.accepting ? style.green("accepting") : style.red(refused) + ": " + totals.problem);
  line("queue", fmt::format("{} messages, {}, {} held, oldest {}; {} on disk, {} free", totals.messages,
                            human_size(totals.bytes), totals.held, human_age(status.oldest(), status.now),
                            human_size(totals.disk_bytes), human_size(totals.free_bytes)));
  line("last hour", fmt::format("{} accepted, {} delivered, {} rejected, {} greylisted", sum(status.hour.accepted),
                                sum(status.hour.delivered), sum(status.hour.rejected), sum(status.hour.greylisted)));
  for (const DomainLine& domain : status.domains) {
    if (!domain.primary) continue;
    const std::string state(relay::to_string(domain.primary->health));
    const bool trouble = domain.primary->health != relay::Health::up && !domain.primary->last_error.empty();
    const bool since = domain.primary->since != WallTime{};  // it has changed
    line("primary", fmt::format("{}: {}{}, {} queued{}", domain.domain, style.verdict(state, state),
                                since ? " for " + human_age(domain.primary->since, status.now) : "",
                                domain.queued.messages, trouble ? ": " + printable(domain.primary->last_error) : ""));
  }
  for (const dnsbl::ListStatus& list : status.lists) {
    const std::string state = list.up ? style.green("on") : style.red("off") + ": " + printable(list.reason);
    line("block list", fmt::format("{}: {} ({} asked, {} listed, {} errors)", list.zone, state, list.lookups,
                                   list.listed, list.errors));
  }
  line("greylist", fmt::format("{} records", status.greylist_records));
  if (const auto days = status.certificate_days) {
    line("certificate", style.verdict(*days < 14 ? "fail" : "ok", certificate_text(*days)));
  }
  for (std::size_t i = 0; i < std::min<std::size_t>(5, status.events.size()); ++i) {
    line("event", human_age(status.events[i].time, status.now) + " ago: " + status.events[i].text);
  }
  return text;
}

void Sampler::refresh_gauges() {
  const WallTime now = services_.clock.now();
  const config::ConfigPtr config = services_.config();
  Metrics& metrics = services_.metrics;
  const auto age = [&](WallTime then) { return std::chrono::duration<double>(now - then).count(); };
  const Primaries primaries(services_.relay.status(), *config);
  const std::vector<queue::DomainSummary> queued = services_.spool.domains();
  const std::set<std::string> ours = our_domains(*config);
  const std::map<std::string, WallTime> ends = first_ends(primaries, queued, ours, config->queue, now);
  std::map<std::string, DomainLine> lines;
  for (const std::string& name : ours) lines[name];
  for (DomainLine& line : join_domains(primaries, queued)) {
    const auto own = lines.find(line.domain);
    if (own != lines.end()) {
      own->second = std::move(line);
    } else if (line.queued.messages != 0) {
      add(lines[reports].queued, line.queued);
    }
  }
  for (const auto& [name, line] : lines) {
    const Metrics::Labels domain{{"domain", name}};
    const double oldest = line.queued.messages != 0 ? std::max(0.0, age(line.queued.oldest)) : 0;
    metrics.set("queue_messages", domain, static_cast<double>(line.queued.messages));
    metrics.set("queue_bytes", domain, static_cast<double>(line.queued.bytes));
    metrics.set("queue_oldest_seconds", domain, oldest);
    const auto end = ends.find(name);
    metrics.set("queue_expiry_seconds", domain,
                -age(end != ends.end() ? end->second : relay::expires_at(now, now, nullptr, config->queue)));
    if (!line.primary) continue;
    for (const char* result : {"sent", "deferred", "bounced"}) {
      metrics.count("deliveries_total", {{"domain", name}, {"result", result}}, 0);
    }
    metrics.set("primary_up", domain, line.primary->health == relay::Health::up ? 1 : 0);
    if (line.primary->since == WallTime{}) continue;
    metrics.set("primary_changed_timestamp_seconds", domain, static_cast<double>(unix_seconds(line.primary->since)));
  }
  for (const std::string& name : shown_) {
    if (lines.contains(name)) continue;
    for (const char* gauge : {"queue_messages", "queue_bytes", "queue_oldest_seconds", "queue_expiry_seconds",
                              "primary_up", "primary_changed_timestamp_seconds"}) {
      metrics.forget(gauge, {{"domain", name}});
    }
  }
  shown_.clear();
  for (const auto& [name, line] : lines) shown_.push_back(name);
  metrics.set("spool_free_bytes", static_cast<double>(services_.spool.totals().free_bytes));
  metrics.set("greylist_records", static_cast<double>(greylist_records(services_)));
  const auto expiry = services_.certificate_expiry();
  metrics.set("certificate_expiry_seconds", expiry ? -age(*expiry) : 0);  // a reload may have taken it away
}

void Sampler::sample() {
  const WallTime now = services_.clock.now();
  services_.history.sample(now, counters_of(services_.metrics.text()));
  std::map<std::string, relay::Health> states;
  const std::set<std::string> ours = our_domains(*services_.config());
  for (const relay::PrimaryStatus& primary : services_.relay.status()) {
    if (!ours.contains(primary.domain)) continue;
    states[primary.domain] = primary.health;
    const auto known = states_.find(primary.domain);
    if (known == states_.end() || known->second == primary.health) continue;
    const bool trouble = primary.health != relay::Health::up && !primary.last_error.empty();
    services_.history.event(now, fmt::format("primary of {} is {}{}", primary.domain, relay::to_string(primary.health),
                                             trouble ? ": " + printable(primary.last_error) : ""));
  }
  states_ = std::move(states);
}

}  // namespace greymx::admin

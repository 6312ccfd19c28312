#include "admin/views.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/clock.hpp"
#include "base/mailbox.hpp"
#include "relay/destination.hpp"
#include "relay/retry.hpp"

namespace greymx::admin {

using queue::Message;
using queue::RecipientStatus;

namespace {

std::string shown_sender(const Message& message) {  // as Postfix shows the null sender
  return message.envelope.reverse_path.empty() ? "MAILER-DAEMON" : printable(message.envelope.reverse_path);
}

std::size_t recipients_of(const Message& message) {
  return std::min(message.envelope.recipients.size(), message.state.recipients.size());
}

template <class Visit>
void each_waiting(const Message& message, Visit visit) {
  for (std::size_t i = 0; i < recipients_of(message); ++i) {
    if (message.state.recipients[i].status != RecipientStatus::done) visit(i);
  }
}

std::string_view authorised_text(Authorised authorised) {
  static constexpr std::array<std::string_view, 4> texts{"unknown", "no", "spf", "client_name"};
  return texts.at(static_cast<std::size_t>(authorised));
}

std::string_view status_text(RecipientStatus status) {
  static constexpr std::array<std::string_view, 3> texts{"pending", "held", "done"};
  return texts.at(static_cast<std::size_t>(status));
}

}  // namespace

std::string Style::paint(std::string_view code, std::string_view text) const {
  return color ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
}

std::string Style::verdict(std::string_view word, std::string_view shown) const {
  if (word == "up" || word == "ok" || word == "pass" || word == "on") return green(shown);
  if (word == "down" || word == "fail" || word == "reject" || word == "off") return red(shown);
  return word == "skipped" ? std::string(shown) : yellow(shown);
}

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string human_size(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::string_view units = "KMGTPE";
  for (; value >= 1023.95 && units.size() > 1; units.remove_prefix(1)) value /= 1024;
  return fmt::format("{:.1f} {}iB", value, units.front());
}

std::string human_age(WallTime then, WallTime now) {
  return human_duration(std::max(std::chrono::seconds(0), std::chrono::floor<std::chrono::seconds>(now - then)));
}

std::int64_t unix_seconds(WallTime time) {
  return std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
}

Primaries::Primaries(std::vector<relay::PrimaryStatus> all, const config::Config& config)
    : all_(std::move(all)), postmasters_(relay::shown_domain(config, "")) {}

const relay::PrimaryStatus* Primaries::find(std::string_view domain) const {
  if (domain.empty()) domain = postmasters_;
  const relay::PrimaryStatus* best = nullptr;
  for (const auto& primary : all_) {
    const std::string_view name = primary.domain;
    if (name == domain) return &primary;
    const bool covers = name.starts_with("*.") && domain.ends_with(name.substr(1));
    if (covers && (best == nullptr || name.size() > best->domain.size())) best = &primary;
  }
  return best;
}

bool is_held(const Message& message) {
  bool waiting = false, pending = false;
  each_waiting(message, [&](std::size_t i) {
    waiting = true;
    pending |= message.state.recipients[i].status == RecipientStatus::pending;
  });
  return message.state.held || (waiting && !pending);
}

std::string waiting_reason(const Message& message, std::size_t recipient, const Primaries& primaries) {
  const queue::RecipientState& state = message.state.recipients[recipient];
  if (state.status == RecipientStatus::held) return printable(state.reason);
  if (message.state.held && !message.state.hold_reason.empty()) return printable(message.state.hold_reason);
  const auto* primary = primaries.find(queue::schedule_domain(message.envelope.recipients[recipient].address));
  if (primary != nullptr && primary->health != relay::Health::up && !primary->last_error.empty()) {
    return "delivery temporarily suspended: " + printable(primary->last_error);
  }
  return printable(state.reason);
}

std::string Mailq::add(const Message& message, bool active) {
  ++count_;
  bytes_ += message.size;
  if (json_) return dump(object(message, active)) + "\n";
  constexpr std::string_view columns = "{:<17} {:>8} {:>19.19} {}\n";
  std::string text = "\n";
  if (count_ == 1) {
    text = fmt::format(columns, "----Queue ID-----", "--Size--", "---Arrival Time----", "--Sender/Recipient------");
  }
  const char* mark = is_held(message) ? "!" : active ? "*" : "";
  text += fmt::format(columns, message.id.to_string() + mark, message.size, mailq_time(message.id.time()),
                      shown_sender(message));
  // A reason stands before all recipients that share it, so those without one come first.
  std::string said, unexplained, explained;
  each_waiting(message, [&](std::size_t i) {
    const std::string reason = waiting_reason(message, i, primaries_);
    std::string& lines = reason.empty() ? unexplained : explained;
    if (!reason.empty() && reason != said) {
      lines += fmt::format("{:>{}}({})\n", "", 76 - std::min<std::size_t>(76, reason.size()), reason);
      said = reason;
    }
    lines += fmt::format(columns, "", "", "", printable(message.envelope.recipients[i].address));
  });
  return text + unexplained + explained;
}

std::string Mailq::end(bool empty_queue) const {
  if (json_) return {};
  if (count_ == 0 && empty_queue) return "Mail queue is empty\n";
  return fmt::format("{}-- {} Kbytes in {} Request{}.\n", count_ == 0 ? "" : "\n", bytes_ / 1024, count_,
                     count_ == 1 ? "" : "s");
}

Json Mailq::object(const Message& message, bool active) const {
  Json json{{"queue_name", is_held(message) ? "hold"
                           : active         ? "active"
                                            : "deferred"},
            {"queue_id", message.id.to_string()},
            {"arrival_time", unix_seconds(message.id.time())},
            {"message_size", message.size},
            {"forced_expire", false},
            {"sender", shown_sender(message)},
            {"recipients", Json::array()}};
  const config::Queue rules = relay::rules_for(message.envelope, rules_);
  WallTime next = WallTime::max(), expires = WallTime::max();
  std::uint32_t attempts = 0;
  const relay::PrimaryStatus* primary = nullptr;
  each_waiting(message, [&](std::size_t i) {
    const std::string& address = message.envelope.recipients[i].address;
    const queue::RecipientState& state = message.state.recipients[i];
    Json recipient{{"address", printable(address)}};
    const std::string reason = waiting_reason(message, i, primaries_);
    if (!reason.empty()) recipient["delay_reason"] = reason;
    json["recipients"].push_back(std::move(recipient));
    attempts = std::max(attempts, state.attempts);
    const auto* its = primaries_.find(queue::schedule_domain(address));
    if (primary == nullptr) primary = its;
    if (state.status == RecipientStatus::pending) {
      const bool up = its == nullptr || its->health == relay::Health::up;
      next = std::min(next, up ? state.next_attempt : std::max(state.next_attempt, its->next_attempt));
      expires = std::min(expires, relay::expires_at(message.id.time(), now_, its ? &its->downtime : nullptr, rules));
    } else {
      expires = std::min(expires, state.held_since + rules_.bounce_lifetime);
    }
  });
  const auto unless_held = [&](WallTime time) {  // by an admin: for as long as it takes
    return message.state.held || time == WallTime::max() ? Json() : Json(unix_seconds(time));
  };
  const bool pending = next != WallTime::max();
  json["next_attempt"] = unless_held(next);
  json["expires"] = pending && primaries_.all().empty() ? Json() : unless_held(expires);  // downtime is not known
  json["attempts"] = attempts;
  json["client"] = message.envelope.client.to_string();
  json["primary_state"] = primary != nullptr ? std::string(relay::to_string(primary->health)) : "unknown";
  return json;
}

void Shape::add(const Message& message, const config::Config& config, WallTime now) {
  const auto age = std::chrono::floor<std::chrono::minutes>(now - message.id.time()).count();
  const auto bucket = std::ranges::find_if(minutes_, [&](int limit) { return age < limit; }) - minutes_.begin();
  each_waiting(message, [&](std::size_t i) {
    const std::string domain = queue::schedule_domain(message.envelope.recipients[i].address);
    ++rows_[relay::shown_domain(config, domain)][static_cast<std::size_t>(bucket)];
  });
}

std::string Shape::text() const {
  Row total{};
  std::vector<std::pair<std::uint64_t, std::string>> order;  // most recipients first
  for (const auto& [domain, row] : rows_) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < row.size(); ++i) sum += row[i], total[i] += row[i];
    order.emplace_back(sum, domain);
  }
  std::ranges::sort(
      order, [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  std::uint64_t all = 0;
  for (const std::uint64_t n : total) all += n;

  std::vector<std::string> labels{"T"};
  for (const int limit : minutes_) labels.push_back(std::to_string(limit));
  labels.push_back(std::to_string(minutes_.back()) + "+");
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const std::uint64_t largest = i == 0 ? all : total[i - 1];
    widths.push_back(std::max({std::size_t{2}, labels[i].size(), std::to_string(largest).size()}) + 1);
  }
  std::string text = fmt::format("{:>39}", "");
  for (std::size_t i = 0; i < labels.size(); ++i) text += fmt::format("{:>{}}", labels[i], widths[i]);
  text += '\n';
  const auto line = [&](std::string_view name, std::uint64_t sum, const Row& row) {
    text += fmt::format("{:>39}{:>{}}", name, sum, widths[0]);
    for (std::size_t i = 0; i < row.size(); ++i) text += fmt::format("{:>{}}", row[i], widths[i + 1]);
    text += '\n';
  };
  line("TOTAL", all, total);
  for (const auto& [sum, domain] : order) line(domain, sum, rows_.at(domain));
  return text;
}

std::vector<Json> Shape::objects() const {
  std::vector<Json> all;
  for (const auto& [domain, row] : rows_) {
    Json ages = Json::object();
    for (std::size_t i = 0; i < minutes_.size(); ++i) ages[std::to_string(minutes_[i])] = row[i];
    ages[std::to_string(minutes_.back()) + "+"] = row.back();
    all.push_back(Json{{"domain", domain}, {"recipients_by_minutes", std::move(ages)}});
  }
  return all;
}

void add(queue::DomainSummary& sum, const queue::DomainSummary& more) {
  if (sum.messages == 0 || more.oldest < sum.oldest) sum.oldest = more.oldest;
  sum.messages += more.messages;
  sum.bytes += more.bytes;
  sum.held += more.held;
}

std::set<std::string> our_domains(const config::Config& config) {
  std::set<std::string> names;
  for (const config::Domain& domain : config.domains) names.insert(domain.shown_name());
  return names;
}

Primaries configured_primaries(const config::Config& config) {
  std::vector<relay::PrimaryStatus> all;
  for (const config::Domain& domain : config.domains) {
    relay::PrimaryStatus& status = all.emplace_back();
    status.domain = domain.shown_name();
    for (const config::HostPort& host : domain.primary) status.hosts.push_back(host.to_string());
  }
  return Primaries(std::move(all), config);
}

std::string line_name(const Primaries& primaries, const std::string& domain) {
  const auto* primary = primaries.find(domain);
  if (primary == nullptr) return domain;
  return primary->wildcard.empty() ? primary->domain : primary->wildcard;
}

std::vector<DomainLine> join_domains(const Primaries& primaries, const std::vector<queue::DomainSummary>& queued) {
  std::vector<DomainLine> lines;
  for (const auto& primary : primaries.all()) {
    if (primary.wildcard.empty()) lines.push_back({primary.domain, primary, {}});
  }
  for (const auto& summary : queued) {
    const std::string name = line_name(primaries, summary.domain);
    auto line = std::ranges::find(lines, name, &DomainLine::domain);
    if (line == lines.end()) line = lines.insert(lines.end(), {name, std::nullopt, {}});
    add(line->queued, summary);
  }
  return lines;
}

namespace {

// Only primaries are watched.
std::string state_of(const DomainLine& line) {
  return line.primary && line.asked && line.configured ? std::string(relay::to_string(line.primary->health))
                                                       : "unknown";
}

std::string hosts_of(const DomainLine& line) {
  if (line.primary && !line.primary->hosts.empty()) return fmt::format("{}", fmt::join(line.primary->hosts, ", "));
  return line.configured ? "by MX" : "not in relay.conf: kept, but for reports";
}

}  // namespace

std::string domains_text(const std::vector<DomainLine>& lines, WallTime now, Style style) {
  constexpr std::string_view columns = "{:<28} {} {:>8} {:>8} {:>10} {:>8} {:>8}  {}\n";
  std::string text = fmt::format(columns, "DOMAIN", fmt::format("{:<8}", "STATE"), "SINCE", "QUEUED", "SIZE", "OLDEST",
                                 "NEXT", "PRIMARY");
  for (const DomainLine& line : lines) {
    const std::string state = state_of(line);
    const bool since = line.primary && line.primary->since != WallTime{};
    const bool next = line.primary && line.primary->next_attempt > now;
    text +=
        fmt::format(columns, line.domain, style.verdict(state, fmt::format("{:<8}", state)),
                    since ? human_age(line.primary->since, now) : "-", line.queued.messages,
                    human_size(line.queued.bytes), line.queued.messages != 0 ? human_age(line.queued.oldest, now) : "-",
                    next ? human_age(now, line.primary->next_attempt) : "-", hosts_of(line));
    if (line.primary && !line.primary->last_error.empty() && line.primary->health != relay::Health::up) {
      text += fmt::format("{:<28} {}\n", "", printable(line.primary->last_error));
    }
  }
  return text;
}

Json domain_json(const DomainLine& line, WallTime now) {
  const relay::PrimaryStatus none;
  const relay::PrimaryStatus& primary = line.primary ? *line.primary : none;
  const auto time = [](WallTime t) { return t == WallTime{} || t == WallTime::max() ? Json() : Json(unix_seconds(t)); };
  return Json{{"domain", line.domain},
              {"hosts", primary.hosts},
              {"state", state_of(line)},
              {"since", time(primary.since)},
              {"last_error", printable(primary.last_error)},
              {"queued", line.queued.messages},
              {"bytes", line.queued.bytes},
              {"held", line.queued.held},
              {"oldest_seconds", line.queued.messages != 0 ? unix_seconds(now) - unix_seconds(line.queued.oldest) : 0},
              {"next_attempt", time(primary.next_attempt)},
              {"concurrency", primary.concurrency},
              {"connections", primary.connections},
              {"size_limit", primary.size_limit},
              {"configured", line.configured}};
}

Json envelope_json(const Message& message) {
  const Envelope& envelope = message.envelope;
  Json json{{"queue_id", message.id.to_string()},
            {"arrival_time", unix_seconds(message.id.time())},
            {"message_size", message.size},
            {"sender", envelope.reverse_path},
            {"held", message.state.held},
            {"hold_reason", message.state.hold_reason},
            {"recipients", Json::array()},
            {"client_name", envelope.client.name},
            {"client_address", envelope.client.address.to_string()},
            {"helo", envelope.helo},
            {"protocol", envelope.protocol},
            {"tls", envelope.tls},
            {"authorised", authorised_text(envelope.authorised)},
            {"body", envelope.body == BodyType::eight_bit_mime ? "8BITMIME" : "7BIT"},
            {"smtputf8", envelope.smtputf8},
            {"ret", envelope.ret == DsnReturn::full      ? "FULL"
                    : envelope.ret == DsnReturn::headers ? "HDRS"
                                                         : ""},
            {"envid", envelope.envid},
            {"origin", envelope.origin == Origin::report ? "report" : "smtp"}};
  for (std::size_t i = 0; i < recipients_of(message); ++i) {
    const queue::RecipientState& state = message.state.recipients[i];
    json["recipients"].push_back({{"address", envelope.recipients[i].address},
                                  {"orcpt", envelope.recipients[i].original_recipient},
                                  {"notify", envelope.recipients[i].notify.to_string()},
                                  {"status", status_text(state.status)},
                                  {"reason", state.reason},
                                  {"dsn", state.dsn},
                                  {"remote", state.remote},
                                  {"attempts", state.attempts},
                                  {"next_attempt", unix_seconds(state.next_attempt)}});
  }
  return json;
}

}  // namespace greymx::admin

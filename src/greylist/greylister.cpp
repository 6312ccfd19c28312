#include "greylist/greylister.hpp"

#include <fmt/format.h>

#include <atomic>
#include <mutex>

#include "base/bounded.hpp"
#include "base/clock_watch.hpp"
#include "base/mailbox.hpp"
#include "greylist/store.hpp"
#include "greylist/triplet.hpp"
#include "greylist/whitelist.hpp"

namespace greymx::greylist {

namespace {

using namespace std::chrono_literals;

constexpr auto budget = 1s;
constexpr std::size_t remembered_messages = 4096;
constexpr auto warning_interval = 1min;
constexpr std::string_view program = "greylist";

Stamp stamp(WallTime time) {
  return std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
}

// What relay.conf and the whitelist files say; replaced as a whole.
struct Settings {
  config::ConfigPtr config;
  Rules rules;
  KeyRules keys;
  std::shared_ptr<const Whitelist> clients, recipients;
};

// What `greymx greylist pass` and `expect` say now.
struct Manual {
  Store::Entries source;
  Stamp valid_until = INT64_MAX;  // then one of them ends
  Whitelist clients{Whitelist::Of::clients}, senders{Whitelist::Of::addresses}, expected{Whitelist::Of::addresses};
};

bool is_network(std::string_view subject) {
  return subject.find_first_of(":/") != std::string_view::npos ||
         subject.find_first_not_of("0123456789.") == std::string_view::npos;
}

std::shared_ptr<const Manual> read_manual(Store::Entries entries, Stamp now) {
  auto manual = std::make_shared<Manual>();
  for (const auto& [key, record] : *entries) {
    if (record.last != 0 && record.last <= now) continue;
    if (record.last != 0) manual->valid_until = std::min(manual->valid_until, record.last);
    const std::string_view subject = split_key(key).client;
    // Entries were checked when they were made; what is no entry any more matches nothing.
    if (kind_of(key) == Kind::expect) {
      static_cast<void>(manual->expected.add(subject));
    } else {
      const bool address = subject.find('@') != std::string_view::npos;
      if (!address) static_cast<void>(manual->clients.add(subject));
      if (address || !is_network(subject)) static_cast<void>(manual->senders.add(subject));
    }
  }
  manual->source = std::move(entries);
  return manual;
}

// Wall time that a step back of the system clock does not take with it while the process lives, so that no wait grows.
// It runs ahead by no more than `longest_wait`: a farther step is that of a clock which was wrong before.
class SteadyWall {
 public:
  // `stepped` is how far the clock has just stepped back, or 0. Steps count from the first call on.
  WallTime read(const Clock& clock, std::chrono::seconds longest_wait, std::chrono::seconds& stepped) {
    const std::scoped_lock lock(mutex_);
    if (!watch_) watch_.emplace(clock);
    const auto step = watch_->step();
    if (step < 0us) {
      offset_ = std::min<std::chrono::microseconds>(offset_ - step, longest_wait);
      stepped = std::chrono::floor<std::chrono::seconds>(-step);
    } else {
      offset_ -= std::min<std::chrono::microseconds>(offset_, step);  // it came back
    }
    return watch_->wall() + offset_;
  }

 private:
  std::mutex mutex_;
  std::optional<ClockWatch> watch_;
  std::chrono::microseconds offset_{0};
};

// "%s" seconds left, "%r" recipient domain; the first of each, as postgrey does it.
std::string fill_in(std::string text, Stamp missing, std::string_view recipient) {
  const auto replace = [&](std::string_view what, const std::string& with) {
    const std::size_t at = text.find(what);
    if (at != std::string::npos) text.replace(at, what.size(), with);
  };
  replace("%s", std::to_string(missing));
  replace("%r", std::string(recipient.substr(recipient.rfind('@') + 1)));
  return printable(text);
}

std::string reason_text(const Outcome& outcome) {
  switch (outcome.reason) {
    case Reason::fresh:
      return "new";
    case Reason::early_retry:
      return fmt::format("early-retry ({}s missing)", outcome.missing);
    case Reason::client:
      return "client AWL";
    case Reason::known:
      break;
  }
  return "triplet found";
}

// postgrey's line; what is empty is left out, and nothing may follow the recipient.
std::string log_line(std::string_view action, std::string_view reason, std::optional<Stamp> delay,
                     const Request& request) {
  std::string line = fmt::format("action={}, reason={}", action, reason);
  const auto add = [&](std::string_view name, std::string_view value) {
    if (!value.empty()) line += fmt::format(", {}={}", name, printable(value));
  };
  if (delay) add("delay", std::to_string(*delay));
  add("client_name", request.client_name);
  add("client_address", request.client.to_string());
  add("sender", request.sender);
  add("recipient", request.recipient);
  return line;
}

}  // namespace

Rules rules_of(const config::Greylist& config) {
  return {.delay = config.delay.count(),
          .retry_window = config.retry_window.count(),
          .max_age = config.max_age.count(),
          .auto_whitelist = config.auto_whitelist_clients};
}

struct Greylister::Impl {
  Impl(std::unique_ptr<Store> s, const Clock& c, Log& l, Metrics& m, Alerts& a)
      : store(std::move(s)), clock(c), log(l), metrics(m), alerts(a) {}

  std::vector<std::string> load(config::ConfigPtr config, std::vector<std::string>& left_out);
  std::shared_ptr<const Whitelist> load_list(Whitelist::Of of, const config::Greylist& config,
                                             const std::shared_ptr<const Whitelist>& old,
                                             std::vector<std::string>& left_out, std::vector<std::string>& problems);
  WallTime now();
  std::shared_ptr<const Manual> manual(Stamp now);
  std::string_view exemption(const Settings& settings, const Request& request, Stamp now);
  Question question(const Settings& settings, const Request& request, Stamp now) const;
  bool first_of_message(const Request& request);
  void note_outcome(const Outcome& outcome, const Request& request);
  Answer without_store(const Settings& settings, const Request& request, const Error& error);
  Answer finish(const Settings& settings, const Request& request, bool pass, std::string reason, std::string_view label,
                std::optional<Stamp> delay = {}, Stamp missing = 0);
  Answer answer(const Settings& settings, const Request& request, const Outcome& outcome);

  const std::unique_ptr<Store> store;
  const Clock& clock;
  Log& log;
  Metrics& metrics;
  Alerts& alerts;
  std::atomic<std::shared_ptr<const Settings>> settings;
  std::atomic<std::shared_ptr<const Manual>> current_manual;
  SteadyWall wall;
  std::mutex mutex;  // below
  LruMap<std::string, bool> messages{remembered_messages};
  SteadyTime warned{};
  std::uint64_t unanswered = 0;  // since the last warning
};

std::shared_ptr<const Whitelist> Greylister::Impl::load_list(Whitelist::Of of, const config::Greylist& config,
                                                             const std::shared_ptr<const Whitelist>& old,
                                                             std::vector<std::string>& left_out,
                                                             std::vector<std::string>& problems) {
  const bool clients = of == Whitelist::Of::clients;
  auto list = load_whitelist(of, clients ? config.whitelist_clients : config.whitelist_recipients,
                             config.whitelists_are_default, left_out);
  if (list) return std::make_shared<const Whitelist>(std::move(*list));
  const std::string text = list.error().text + (old ? "; the list read before stays in use" : "; no list is in use");
  problems.push_back(text);
  alerts.raise("greylist whitelist cannot be read", text);
  if (old) return old;
  return std::make_shared<const Whitelist>(of);
}

std::vector<std::string> Greylister::Impl::load(config::ConfigPtr config, std::vector<std::string>& left_out) {
  const config::Greylist& greylist = config->greylist;
  const auto old = settings.load();
  auto fresh = std::make_shared<Settings>();
  fresh->rules = rules_of(greylist);
  fresh->keys = {greylist.ipv4_prefix, greylist.ipv6_prefix, greylist.lookup_by_host, greylist.sender_pools};
  std::vector<std::string> problems;
  fresh->clients = load_list(Whitelist::Of::clients, greylist, old ? old->clients : nullptr, left_out, problems);
  fresh->recipients =
      load_list(Whitelist::Of::addresses, greylist, old ? old->recipients : nullptr, left_out, problems);
  for (const auto& texts : {left_out, problems}) {
    for (const std::string& text : texts) log.warning(program, text);
  }
  fresh->config = std::move(config);
  store->reload(fresh->rules);
  settings = std::move(fresh);
  return problems;
}

WallTime Greylister::Impl::now() {
  std::chrono::seconds stepped{0};
  const std::chrono::seconds longest_wait(settings.load()->rules.retry_window);
  const WallTime now = wall.read(clock, longest_wait, stepped);
  if (stepped.count() > 0) {
    log.warning(program, fmt::format("the system clock stepped back by {}; nobody is made to wait longer for it",
                                     human_duration(stepped)));
  }
  return now;
}

std::shared_ptr<const Manual> Greylister::Impl::manual(Stamp now) {
  auto known = current_manual.load();
  auto source = store->manual();
  if (known && known->source == source && now < known->valid_until) return known;
  auto fresh = read_manual(std::move(source), now);
  current_manual = fresh;
  return fresh;
}

// Why the triplet is not looked at; empty: it is. Clients before recipients, as postgrey does it.
std::string_view Greylister::Impl::exemption(const Settings& current, const Request& request, Stamp now) {
  if (current.clients->has_client(request.client, request.client_name)) return "client whitelist";
  const std::string user = to_lower(Mailbox::split(request.recipient).local);
  const std::string_view plain = std::string_view(user).substr(0, user.find('+'));
  if (plain == "postmaster" || plain == "abuse" || current.recipients->has_address(request.recipient)) {
    return "recipient whitelist";
  }
  const auto entries = manual(now);
  if (entries->source->empty()) return {};
  if (entries->clients.has_client(request.client, request.client_name)) return "pass entry";
  if (entries->senders.has_address(request.sender)) return "pass entry";
  if (entries->expected.has_address(request.recipient)) return "expected";
  return {};
}

Question Greylister::Impl::question(const Settings& current, const Request& request, Stamp now) const {
  const Mail mail{.client = request.client,
                  .client_name = request.client_name,
                  .sender = request.sender,
                  .recipient = request.recipient,
                  .helo = request.helo,
                  .spf_domain = request.spf_domain};
  Question question{.keys = triplet_keys(mail, current.keys),
                    .client_key = client_key(request.client),
                    .hashed_key = {},
                    .hashed_client_key = {},
                    .client = request.client,
                    .now = now,
                    .rules = current.rules,
                    .dry_run = request.dry_run};
  if (store->totals().hashed > 0) {
    question.hashed_key = privacy_key(plain_key(mail, current.keys));
    question.hashed_client_key = privacy_key(question.client_key);
  }
  return question;
}

// Every recipient of a message may have waited; its header is wanted once.
bool Greylister::Impl::first_of_message(const Request& request) {
  if (request.instance.empty() || request.dry_run) return true;
  const std::scoped_lock lock(mutex);
  if (messages.find(request.instance) != nullptr) return false;
  messages.insert(request.instance, true);
  return true;
}

void Greylister::Impl::note_outcome(const Outcome& outcome, const Request& request) {
  if (outcome.second_try) metrics.observe("greylist_first_retry_seconds", static_cast<double>(outcome.waited));
  if (outcome.clock_corrected) log.warning(program, "correcting date for first seen in the future!");
  if (!outcome.whitelisted_now) return;
  log.info(program, fmt::format("whitelisted: {}[{}]", printable(request.client_name), request.client.to_string()));
}

Answer Greylister::Impl::finish(const Settings& current, const Request& request, bool pass, std::string reason,
                                std::string_view label, std::optional<Stamp> delay, Stamp missing) {
  const config::Greylist& config = current.config->greylist;
  Answer answer;
  answer.reason = std::move(reason);
  if (!pass) {
    answer.text = fill_in(config.text, missing, request.recipient);
    answer.would_defer = config.mode == config::CheckMode::warn;
    answer.action = answer.would_defer ? Action::pass : Action::defer;
  }
  if (request.dry_run) return answer;
  const std::string_view action = answer.action == Action::pass ? "pass" : "greylist";
  answer.log_line =
      log_line(action, answer.would_defer ? "dry-run would greylist" : std::string_view(answer.reason), delay, request);
  metrics.count("greylist_decisions_total",
                {{"verdict", std::string(action)}, {"reason", std::string(answer.would_defer ? "dry-run" : label)}});
  return answer;
}

Answer Greylister::Impl::without_store(const Settings& current, const Request& request, const Error& error) {
  const bool defer = current.config->greylist.defer_on_error;
  {
    const std::scoped_lock lock(mutex);
    ++unanswered;
    const SteadyTime steady = std::chrono::steady_clock::now();
    if (warned == SteadyTime() || steady - warned >= warning_interval) {
      log.warning(program, fmt::format("no answer from the store ({}): {} {}", error.text, unanswered,
                                       defer ? "deferred" : "let through"));
      warned = steady;
      unanswered = 0;
    }
  }
  return finish(current, request, !defer, "store error", "store error", {}, current.rules.delay);
}

Answer Greylister::Impl::answer(const Settings& current, const Request& request, const Outcome& outcome) {
  if (!request.dry_run) note_outcome(outcome, request);
  std::string reason = reason_text(outcome);
  const std::string label = outcome.reason == Reason::early_retry ? "early-retry" : reason;
  const bool enforced = current.config->greylist.mode != config::CheckMode::warn;  // else nobody was made to wait
  const bool waited = enforced && outcome.first_pass && outcome.waited > 0 && first_of_message(request);
  const auto delay = waited ? std::optional(outcome.waited) : std::nullopt;
  Answer answer = finish(current, request, outcome.pass(), std::move(reason), label, delay, outcome.missing);
  if (waited && current.config->greylist.header) {
    answer.header = fmt::format("X-Greylist: delayed {} seconds by greymx-{} at {}; {}", outcome.waited, GREYMX_VERSION,
                                current.config->hostname, rfc5322_date(request.test_time.value_or(clock.now())));
  }
  return answer;
}

Greylister::Greylister(config::ConfigPtr config, std::unique_ptr<Store> store, const Clock& clock, Log& log,
                       Metrics& metrics, Alerts& alerts)
    : impl_(std::make_unique<Impl>(std::move(store), clock, log, metrics, alerts)) {
  std::vector<std::string> left_out;  // logged
  impl_->load(std::move(config), left_out);
}

Greylister::~Greylister() = default;

Task<Answer> Greylister::check(Request request, SpfDomain spf_domain) {
  const auto settings = impl_->settings.load();
  Answer off;
  off.reason = "off";
  if (settings->config->greylist.mode == config::CheckMode::off) co_return off;
  const WallTime now = request.test_time ? *request.test_time : impl_->now();
  const std::string_view exemption = impl_->exemption(*settings, request, stamp(now));
  if (!exemption.empty()) co_return impl_->finish(*settings, request, true, std::string(exemption), exemption);
  Question question = impl_->question(*settings, request, stamp(now));
  question.only_if_passes = spf_domain && settings->keys.pools && !request.sender.empty();
  const bool look_further = question.only_if_passes;
  auto outcome = co_await impl_->store->decide(std::move(question), std::chrono::steady_clock::now() + budget);
  if (look_further && outcome && !outcome->pass()) {
    request.spf_domain = co_await spf_domain(request);
    Question whole = impl_->question(*settings, request, stamp(now));
    outcome = co_await impl_->store->decide(std::move(whole), std::chrono::steady_clock::now() + budget);
  }
  if (!outcome) co_return impl_->without_store(*settings, request, outcome.error());
  co_return impl_->answer(*settings, request, *outcome);
}

std::vector<std::string> Greylister::reload(config::ConfigPtr config, std::vector<std::string>& left_out) {
  return impl_->load(std::move(config), left_out);
}
void Greylister::stop() {
  impl_->store->stop();
}
Store& Greylister::store() {
  return *impl_->store;
}
config::ConfigPtr Greylister::config() const {
  return impl_->settings.load()->config;
}
WallTime Greylister::now() {
  return impl_->now();
}

}  // namespace greymx::greylist

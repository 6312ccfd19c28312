#include <fmt/format.h>

#include <algorithm>

#include "access/decision.hpp"
#include "access/turns.hpp"
#include "base/bounded.hpp"
#include "spf/spf.hpp"

namespace greymx::access {

namespace {

// Waiting here goes by the machine's clock, as timers do; the resolver gets its deadlines by ours.
SteadyTime patience_ends(const Setup& setup) {
  return std::chrono::steady_clock::now() + setup.patience();
}
SteadyTime lookup_deadline(const Setup& setup) {
  return setup.shared->clock->steady() + setup.patience();
}

constexpr std::chrono::seconds data_patience{10};
constexpr std::string_view greylist_header = "X-Greylist:";

Authority authority_of(spf::Result result) {
  if (result == spf::Result::temperror) return Authority::unknown;
  if (result == spf::Result::fail) return Authority::denied;
  return result == spf::Result::pass ? Authority::yes : Authority::no;
}

bool same_sender(const Facts& a, const Facts& b) {
  return a.instance == b.instance && a.sender == b.sender && a.helo == b.helo;
}

// Clients and senders come in bursts: what has been looked up for one serves the next of the same name too, for as
// long as the DNS cache would keep a failure.
template <class Key, class Value>
class Recent {
 public:
  const Value* find(const Key& key, SteadyTime now) {  // null: unknown; valid until the next call of any
    const Entry* entry = entries_.find(key);
    return entry != nullptr && now < entry->until ? &entry->value : nullptr;
  }
  void remember(const Key& key, Value value, SteadyTime now) {
    entries_.insert(key, {std::move(value), now + lifetime});
  }
  void clear() { entries_.clear(); }

 private:
  static constexpr std::size_t most = 1000;
  static constexpr std::chrono::seconds lifetime{5};
  struct Entry {
    Value value;
    SteadyTime until;
  };
  LruMap<Key, Entry> entries_{most};
};

bool uncertain(const dnsbl::Score& score) {
  return std::ranges::any_of(score.results, [](const dnsbl::ListResult& result) {
    return result.outcome == dnsbl::Outcome::list_error || result.outcome == dnsbl::Outcome::timeout;
  });
}

}  // namespace

struct Pipeline::Impl {
  asio::any_io_executor executor;
  Setup setup;
  dns::Resolver& resolver;
  Gate gate;
  Turns name_turns{gate, "client name"};
  Turns score_turns{gate, "dnsbl client"};
  Turns name_score_turns{gate, "dnsbl client name"};
  Turns domain_turns{gate, "sender domain"};
  Turns sender_turns{gate, "dnsbl sender"};
  Turns spf_turns{gate, "spf"};
  Recent<IpAddress, std::shared_ptr<ClientLookups>> recent_clients;
  Recent<std::string, MailDomain> recent_domains;

  // Of one session; null until it has something to look up.
  struct SenderPlaces {
    std::shared_ptr<Place> domain;
    std::shared_ptr<Place> score;
    std::shared_ptr<Place> spf;
  };
  static void look_up(Turns& turns, const Facts& facts, std::shared_ptr<Place>& place, std::function<Task<>()> lookup) {
    if (!place) place = std::make_shared<Place>(turns, facts.client.address);
    place->add(std::move(lookup));
  }

  Impl(asio::any_io_executor ex, Setup initial, dns::Resolver& dns)
      : executor(std::move(ex)), setup(std::move(initial)), resolver(dns), gate(executor, reporter()) {}

  std::function<void(std::string, std::string)> reporter() const {
    return [log = setup.shared->log](const std::string& task, const std::string& what) {
      log->error("smtpd", task + ": " + printable(what));
    };
  }

  SteadyTime time() const { return setup.shared->clock->steady(); }

  // The lookups themselves. They keep what they fill alive, and run on when the session has gone. Those that wait for
  // their turn do not (`to` is null then).
  Task<> look_up_name(std::shared_ptr<ClientLookups> to, IpAddress ip, Setup by, bool scored) {
    if (!to) co_return;
    dns::ClientName name = co_await dns::lookup_client_name(resolver, ip, lookup_deadline(by));
    if (scored) score_name(to, name.name, ip, by, false);
    to->name.set(std::move(name));
    keep(to, ip, by, scored);
  }
  Task<> score_client(std::shared_ptr<ClientLookups> to, IpAddress ip, Setup by, bool named) {
    if (!to) co_return;
    std::vector<dnsbl::Score> scores(1);
    scores[0] = co_await by.lists->check_client(ip, lookup_deadline(by));
    to->scores.set(std::move(scores));
    if (!named) keep(to, ip, by, true);
  }
  // A turn of its own, once the name is known: what a client's slow name server may hold up is its own name alone.
  void score_name(const std::shared_ptr<ClientLookups>& lookups, const std::string& name, IpAddress ip, const Setup& by,
                  bool named) {
    if (name.empty() || !by.lists->ask_about("client")) return lookups->name_scores.set({});
    const std::weak_ptr<ClientLookups> to = lookups;
    name_score_turns.add(ip, [=, this] { return ask_about_name(to.lock(), name, ip, by, named); });
  }
  Task<> ask_about_name(std::shared_ptr<ClientLookups> to, std::string name, IpAddress ip, Setup by, bool named) {
    if (!to) co_return;
    std::vector<dnsbl::Score> scores(1);
    scores[0] = co_await by.lists->check_domain("client", name, lookup_deadline(by));
    to->name_scores.set(std::move(scores));
    if (!named) keep(to, ip, by, true);
  }
  // For the sessions to come, once all is there: unless DNS failed somewhere, or a reload came between.
  void keep(const std::shared_ptr<ClientLookups>& lookups, const IpAddress& ip, const Setup& by, bool scored) {
    const dns::ClientName* name = lookups->name.get();
    if (name == nullptr || name->failed || by.shared != setup.shared) return;
    for (auto* eventual : {&lookups->scores, &lookups->name_scores}) {
      const std::vector<dnsbl::Score>* scores = eventual->get();
      if (scored && (scores == nullptr || std::ranges::any_of(*scores, uncertain))) return;
    }
    recent_clients.remember(ip, lookups, time());
  }
  Task<> score_sender(std::shared_ptr<SenderLookups> to, Facts facts, Setup by) {
    if (!to) co_return;
    const SteadyTime deadline = lookup_deadline(by);
    Task<dnsbl::Score> sender = by.lists->check_domain("sender", facts.sender.to_string(), deadline);
    Task<dnsbl::Score> helo = by.lists->check_domain("helo", facts.helo, deadline);
    std::vector<dnsbl::Score> scores(2);
    scores[0] = co_await std::move(sender);
    scores[1] = co_await std::move(helo);
    to->scores.set(std::move(scores));
  }
  Task<> look_up_domain(std::shared_ptr<SenderLookups> to, std::string domain, Setup by) {
    if (!to) co_return;
    MailDomain state = co_await look_up_mail_domain(resolver, domain, lookup_deadline(by));
    if (state.state != MailDomain::State::failed) recent_domains.remember(domain, state, time());
    to->domain.set(std::move(state));
  }
  Task<> evaluate_spf(std::shared_ptr<SenderLookups> to, spf::Query query, Setup by) {
    if (!to) co_return;
    const spf::Outcome outcome = co_await spf::authorise(resolver, std::move(query), lookup_deadline(by));
    to->authority.set(authority_of(outcome.result));
  }

  std::shared_ptr<ClientLookups> begin(const Setup& now, const Client& client, bool afresh) {
    const bool named = client.name != "unknown";  // by XCLIENT, for this session alone
    const bool score = now.lists && now.config().dnsbl.mode != config::CheckMode::off && !client.trusted;
    if (!named && !afresh) {
      const auto* known = recent_clients.find(client.address, time());
      if (known != nullptr && (!score || (*known)->scores.get() != nullptr)) return *known;
    }
    const auto lookups = std::make_shared<ClientLookups>();
    const std::weak_ptr<ClientLookups> to = lookups;
    const IpAddress ip = client.address;
    if (named) lookups->name.set({.name = client.name, .failed = false, .unconfirmed = {}});
    if (score && !now.lists->ask_about("client")) lookups->name_scores.set({});
    if (named && score) score_name(lookups, client.name, ip, now, true);
    if (!named) name_turns.add(ip, [this, to, ip, now, score] { return look_up_name(to.lock(), ip, now, score); });
    if (score) score_turns.add(ip, [this, to, ip, now, named] { return score_client(to.lock(), ip, now, named); });
    return lookups;
  }
  std::shared_ptr<SenderLookups> begin(const Setup& now, const Facts& facts, bool afresh, SenderPlaces& places) {
    const config::Config& config = now.config();
    const auto lookups = std::make_shared<SenderLookups>();
    const std::weak_ptr<SenderLookups> to = lookups;
    const bool check = config.access.unknown_sender_domain != config::CheckMode::off && !facts.client.trusted;
    if (check && needs_lookup(config, facts.sender)) {
      const std::string& domain = facts.sender.domain;
      const MailDomain* known = afresh ? nullptr : recent_domains.find(domain, time());
      if (known != nullptr)
        lookups->domain.set(*known);
      else
        look_up(domain_turns, facts, places.domain,
                [this, to, domain, now] { return look_up_domain(to.lock(), domain, now); });
    }
    const bool score = now.lists && config.dnsbl.mode != config::CheckMode::off && !facts.client.trusted;
    if (score && (now.lists->ask_about("sender") || now.lists->ask_about("helo")))
      look_up(sender_turns, facts, places.score,
              [this, to, facts, now] { return score_sender(to.lock(), facts, now); });
    else if (score)
      lookups->scores.set({});
    return lookups;
  }
  void seek_authority(const Setup& now, const std::shared_ptr<SenderLookups>& lookups, const Facts& facts,
                      SenderPlaces& places) {
    const config::Config& config = now.config();
    const bool pools = config.greylist.sender_pools && config.greylist.mode != config::CheckMode::off;
    const bool matters = pools || config.queue.bounce != config::BounceMode::never;
    if (std::exchange(lookups->authority_sought, true)) return;
    if (!matters || facts.sender.domain.empty()) return lookups->authority.set(Authority::unknown);
    spf::Query query{facts.client.address, facts.sender.to_string(), facts.helo, config.hostname};
    const std::weak_ptr<SenderLookups> to = lookups;
    look_up(spf_turns, facts, places.spf, [=, this] { return evaluate_spf(to.lock(), query, now); });
  }
};

namespace {

class Session final : public SessionChecks {
 public:
  // `afresh`: what other sessions have found out does not count.
  Session(std::shared_ptr<Pipeline::Impl> pipeline, const Client& client, bool afresh)
      : pipeline_(std::move(pipeline)),
        setup_(pipeline_->setup),
        afresh_(afresh),
        client_(pipeline_->begin(setup_, client, afresh)) {}

  Task<std::string> client_name() override {
    co_await client_->name.wait(patience_ends(setup_));
    co_return known_client_name().value_or("unknown");
  }
  std::optional<std::string> known_client_name() const override {
    const dns::ClientName* name = client_->name.get();
    if (name == nullptr) return std::nullopt;
    return name->name.empty() ? "unknown" : name->name;
  }

  // What DNS said, for explain.
  std::string name_found() const {
    const dns::ClientName* name = client_->name.get();
    if (name == nullptr || name->failed) return "unknown: DNS failed or did not answer in time";
    if (!name->name.empty()) return name->name;
    return name->unconfirmed.empty() ? "unknown: no PTR record"
                                     : fmt::format("unknown: {} does not resolve to the address", name->unconfirmed);
  }

  void mail(const Facts& facts) override {
    if (sender_ && same_sender(facts, facts_)) return;
    facts_ = facts;
    sender_ = pipeline_->begin(setup_, facts, afresh_, places_);
    postponed_.clear();
    headers_.clear();
  }

  Task<Verdict> recipient(Facts facts, Mailbox recipient) override {
    co_return co_await decide(std::move(facts), std::move(recipient), nullptr);
  }

  Task<Verdict> decide(Facts facts, Mailbox recipient, std::vector<Step>* trace) {
    mail(facts);
    Decision decision(setup_, pipeline_->gate, evidence(), std::move(facts), recipient, trace);
    Verdict verdict = co_await decision.run();
    if (verdict.pass()) seek_authority();  // awaited when the content is here
    const bool postponed = verdict.pass() && decision.postponed_greylist();
    if (postponed && std::ranges::find(postponed_, recipient) == postponed_.end()) postponed_.push_back(recipient);
    keep_new_headers(verdict);
    co_return verdict;
  }

  Task<Verdict> data(Facts facts, std::vector<Mailbox> recipients) override {
    Verdict all;
    const config::CheckMode mode = setup_.config().access.unauth_pipelining;
    const auto pipelining = unauth_pipelining_at_data(facts);
    if (pipelining && mode != config::CheckMode::off && !facts.client.trusted) {
      if (mode == config::CheckMode::warn)
        all.warnings.push_back(pipelining->reply);
      else
        all.reply = pipelining->reply, all.check = "unauth_pipelining";
    }
    // Each is asked about, though the first refusal decides: else each would begin to wait when the one before may
    // pass.
    const bool ask = all.pass();
    const SteadyTime enough = std::chrono::steady_clock::now() + data_patience;  // the client waits for one reply
    for (const Mailbox& recipient : postponed_) {
      if (!ask || (!all.pass() && std::chrono::steady_clock::now() > enough)) break;
      if (std::find(recipients.begin(), recipients.end(), recipient) == recipients.end()) continue;
      Decision decision(setup_, pipeline_->gate, evidence(), facts, recipient, nullptr);
      Verdict one = co_await decision.run_greylist();
      if (all.pass()) {
        all.reply = one.reply;
        all.check = one.check;
        all.counts_as_error = one.counts_as_error;
      }
      std::move(one.warnings.begin(), one.warnings.end(), std::back_inserter(all.warnings));
      std::move(one.notes.begin(), one.notes.end(), std::back_inserter(all.notes));
      std::move(one.headers.begin(), one.headers.end(), std::back_inserter(all.headers));
    }
    if (!all.pass()) all.headers.clear();
    keep_new_headers(all);
    co_return all;
  }

  Task<Authorised> authorised(Facts facts) override {
    mail(facts);
    if (facts.sender.domain.empty()) co_return Authorised::no;
    seek_authority();
    const Authority* found = co_await sender_->authority.wait(patience_ends(setup_));
    const Authority authority = found == nullptr ? Authority::unknown : *found;
    // A domain that says no is believed before a name in it, which every customer of its owner may have.
    if (authority == Authority::denied) co_return Authorised::no;
    const std::string organisation = organisational_domain(facts.sender.domain);
    if (!organisation.empty() && is_in_domain(facts.client.name, organisation)) co_return Authorised::client_name;
    if (authority == Authority::unknown) co_return Authorised::unknown;
    co_return authority == Authority::yes ? Authorised::spf : Authorised::no;
  }

 private:
  void seek_authority() { pipeline_->seek_authority(setup_, sender_, facts_, places_); }
  Evidence evidence() {
    return {client_, sender_, [this] { seek_authority(); }};
  }

  // A header is handed out once a message, whichever recipient brought it; of the greylist's, each with the time that
  // one recipient waited, the first.
  void keep_new_headers(Verdict& verdict) {
    std::erase_if(verdict.headers, [this](const std::string& header) {
      const bool waited = header.starts_with(greylist_header);
      const bool known = std::ranges::any_of(headers_, [&](const std::string& had) {
        return had == header || (waited && had.starts_with(greylist_header));
      });
      if (!known) headers_.push_back(header);
      return known;
    });
  }

  std::shared_ptr<Pipeline::Impl> pipeline_;
  Setup setup_;
  bool afresh_;
  std::shared_ptr<ClientLookups> client_;
  Pipeline::Impl::SenderPlaces places_;
  std::shared_ptr<SenderLookups> sender_;
  Facts facts_;                       // those that sender_ is about
  std::vector<Mailbox> postponed_;    // greylisted at DATA
  std::vector<std::string> headers_;  // handed out for this message
};

}  // namespace

Pipeline::Pipeline(asio::any_io_executor executor, std::shared_ptr<const Shared> shared, dns::Resolver& resolver)
    : impl_(std::make_shared<Impl>(std::move(executor), Setup{std::move(shared), nullptr}, resolver)) {}

Pipeline::~Pipeline() = default;

Task<> Pipeline::stop() {
  for (Turns* turns : {&impl_->name_turns, &impl_->score_turns, &impl_->name_score_turns, &impl_->domain_turns,
                       &impl_->sender_turns, &impl_->spf_turns}) {
    turns->clear();
  }
  impl_->gate.cancel();
  co_await impl_->gate.close();
}

void Pipeline::update(std::shared_ptr<const Shared> shared, std::shared_ptr<dnsbl::Lists> lists) {
  impl_->setup = {std::move(shared), std::move(lists)};
  impl_->recent_clients.clear();
  impl_->recent_domains.clear();
}

std::unique_ptr<SessionChecks> Pipeline::begin(const Client& client) {
  return std::make_unique<Session>(impl_, client, false);
}

Task<Explained> Pipeline::explain(Facts facts, Mailbox recipient) {
  Explained explained;
  facts.client.trusted = contains(impl_->setup.config().access.trusted_networks, facts.client.address);
  Session session(impl_, facts.client, true);
  const std::string name = co_await session.client_name();
  facts.client.name = name;
  explained.steps.push_back(
      {"client_name", facts.client.address.to_string(), name == "unknown" ? "unknown" : "pass", session.name_found()});
  explained.verdict = co_await session.decide(std::move(facts), std::move(recipient), &explained.steps);
  co_return explained;
}

}  // namespace greymx::access

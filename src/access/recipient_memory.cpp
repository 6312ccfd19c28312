#include "access/recipient_memory.hpp"

#include <atomic>
#include <mutex>
#include <unordered_map>

#include "access/eventual.hpp"
#include "base/bounded.hpp"
#include "base/clock_watch.hpp"
#include "base/files.hpp"
#include "base/text.hpp"

namespace greymx::access {

namespace {

constexpr std::chrono::seconds good_for = std::chrono::days(31);
constexpr std::chrono::hours bad_for{2};
constexpr std::chrono::hours accept_all_for{24};
constexpr std::chrono::minutes clock_skew{5};
constexpr std::chrono::minutes fresh{60};  // learnt again by every delivery: written once an hour
constexpr std::chrono::milliseconds disk_wait{200};
constexpr std::chrono::seconds longest_question{30};  // the client waits less; the answer is for its next attempt
constexpr std::chrono::seconds housekeeping{1};
constexpr std::size_t most_recent = 100'000;
constexpr std::size_t most_unwritten = 100'000;
constexpr std::size_t most_reads = 20'000;  // that wait for the disk
constexpr std::size_t most_clients = 10'000;
constexpr double questions_per_client = 60;  // a minute
constexpr double questions_in_all = 600;     // a minute
constexpr std::uint64_t nobody = 1;          // no primary's hash: what is in doubt counts as said by another one

std::int64_t seconds(WallTime time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

std::string everyone_at(const Mailbox& mailbox) {
  return "@" + domain_key(mailbox.domain);
}

std::string domain_in(const std::string& key) {
  return key.substr(key.rfind('@') + 1);
}

std::uint64_t fnv1a(std::string_view text) {  // the same for ever: it is on disk
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

// What a clock that was ahead has dated into the future is worth nothing.
bool lasts(const Remembered& what, WallTime now, std::chrono::seconds lifetime) {
  const std::chrono::seconds age(seconds(now) - what.at);
  return what.at != 0 && age >= -clock_skew && age <= lifetime;
}

const Primaries::Answer takes_everybody{Callout::accepted, "the primary takes every recipient"};
const Primaries::Answer known_before{Callout::accepted, "known to an earlier primary; this one gives no answer now"};

constexpr const char* outcome_names[] = {"accepted", "refused", "inconclusive"};

}  // namespace

Known judge(const Remembered& what, WallTime now, bool primary_down, bool same_primary) {
  const bool recent = what.good ? seconds(now) - what.at <= good_for.count() : lasts(what, now, bad_for);
  if (what.good && primary_down) return Known::good;
  if (!recent || !same_primary) return Known::unknown;
  return what.good ? Known::good : Known::bad;
}

struct RecipientMemory::Impl : std::enable_shared_from_this<Impl> {
  using Answer = Primaries::Answer;
  using Question = std::shared_ptr<Eventual<Answer>>;

  Impl(const std::string& directory, Primaries& p, const Clock& c, Log& l, Metrics& m, Alerts& a)
      : primaries(p), clock(c), metrics(m), store(directory, c, l, a), watch(c), everybody(bucket(questions_in_all)) {}

  // However the asking ends, those who wait for the answer get one.
  struct Asking {
    std::shared_ptr<Impl> memory;
    std::string key;
    Question question;
    Answer answer;
    ~Asking() {
      {
        const std::scoped_lock lock(memory->mutex);
        memory->asking.erase(key);
      }
      if (question) question->set(answer);
    }
  };

  TokenBucket bucket(double rate) const { return {rate, std::chrono::minutes(1), clock.steady()}; }
  bool afford(IpAddress client) {
    const SteadyTime now = clock.steady();
    TokenBucket* own = clients.find(client_unit(client));
    if (own == nullptr) own = &clients.insert(client_unit(client), bucket(questions_per_client));
    return own->take(now) && everybody.take(now);
  }

  std::uint64_t primary_of(const std::string& key) const { return fnv1a(primaries.hosts(domain_in(key))); }
  bool same_primary(const Remembered& what, const std::string& key) const {
    return what.primary == 0 || what.primary == primary_of(key);
  }

  // Absent: the store fails or takes too long.
  Task<std::optional<Remembered>> recall(std::string key) {
    if (const auto known = recalled(key)) co_return known;
    if (reads >= most_reads) co_return std::nullopt;  // the disk hangs
    ++reads;
    const auto found = std::make_shared<Eventual<std::optional<Remembered>>>();
    asio::post(thread, [self = shared_from_this(), key, found] {
      --self->reads;
      found->set(self->read(key));
    });
    const auto* record = co_await found->wait(std::chrono::steady_clock::now() + disk_wait);
    co_return record != nullptr ? *record : std::nullopt;
  }
  std::optional<Remembered> read(const std::string& key) {  // store thread
    const std::optional<Remembered> stored = store.get(key);
    const std::scoped_lock lock(mutex);
    const Remembered* newer = recent.find(key);
    if (newer != nullptr) return *newer;
    if (stored) recent.insert(key, *stored);
    return stored;
  }
  std::optional<Remembered> recalled(const std::string& key) {
    const std::scoped_lock lock(mutex);
    const Remembered* known = recent.find(key);
    return known != nullptr ? std::optional(*known) : std::nullopt;
  }
  void learn(const std::string& key, bool good, std::uint64_t primary) {
    const Remembered record{good, seconds(clock.now()), primary};
    const std::scoped_lock lock(mutex);
    const Remembered* known = recent.find(key);
    const bool same = known != nullptr && known->good == good && known->primary == primary;
    if (same && good && lasts(*known, clock.now(), fresh)) return;
    recent.insert(key, record);
    if (unwritten.size() >= most_unwritten) return;
    unwritten.emplace_back(key, record);
    if (unwritten.size() == 1) asio::post(thread, [self = shared_from_this()] { self->write(); });
  }
  void delivered(const std::string& address, bool taken) {
    const std::string key = Mailbox::split(address).key();
    learn(key, taken, primary_of(key));
  }
  void write() {  // store thread
    RecipientStore::Records records;
    {
      const std::scoped_lock lock(mutex);
      records.swap(unwritten);
    }
    RecipientStore::Records doubts;
    for (const auto& [key, record] : records) {
      const auto at = key.rfind('@');
      const bool refused = !record.good && at != key.npos && at > 0;
      if (const auto all = refused ? doubt(key.substr(at), record.at) : std::nullopt)
        doubts.emplace_back(key.substr(at), *all);
    }
    records.insert(records.end(), doubts.begin(), doubts.end());
    store.put(records);
  }
  // That a domain's primary takes everybody, since it has refused somebody. What it took stays known to have been, so
  // that nobody passes for unheard of while it is down.
  std::optional<Remembered> doubt(const std::string& domain, std::int64_t since) {  // store thread
    std::optional<Remembered> all = read(domain);
    if (!all || !all->good || all->primary == nobody || all->at > since) return std::nullopt;
    all->primary = nobody;
    const std::scoped_lock lock(mutex);
    recent.insert(domain, *all);
    return all;
  }

  // Asks, counts, and learns what it may: a primary that has just come back, perhaps without its users, refuses nobody
  // for good.
  Task<Answer> call(std::string address, std::string key) {
    const std::uint64_t primary = primary_of(key);  // a reload may name another one meanwhile
    Answer answer = co_await primaries.call(std::move(address), std::chrono::steady_clock::now() + longest_question);
    metrics.count("callouts_total", {{"outcome", outcome_names[static_cast<std::size_t>(answer.outcome)]}});
    const bool sound = primaries.is_up(domain_in(key));
    if (answer.outcome == Callout::refused && !sound) answer.outcome = Callout::inconclusive;
    if (answer.outcome != Callout::inconclusive) learn(key, answer.outcome == Callout::accepted, primary);
    co_return answer;
  }
  // Does the primary take any local part? Absent: nobody has asked it within a day.
  Task<std::optional<bool>> takes_all(std::string domain) {
    const auto known = co_await recall(domain);
    const bool valid = known && lasts(*known, clock.now(), accept_all_for) && same_primary(*known, domain);
    co_return valid ? std::optional(known->good) : std::nullopt;
  }
  Task<> verify(std::shared_ptr<Asking> question, Mailbox recipient) {
    const std::string domain = everyone_at(recipient);
    const auto all = co_await takes_all(domain);
    const bool mine = !all && start_asking(domain);  // one does it for all that come meanwhile
    if (mine) {
      const Asking once{shared_from_this(), domain, nullptr, {}};
      const Answer anybody = co_await call("greymx-" + random_hex(16) + domain, domain);  // a name that nobody has
      if (anybody.outcome == Callout::accepted) question->answer = takes_everybody;
    }
    if (question->answer.outcome == Callout::accepted) co_return;
    question->answer = co_await call(recipient.to_string(), question->key);
  }
  bool start_asking(const std::string& domain) {
    const std::scoped_lock lock(mutex);
    return asking.try_emplace(domain).second;
  }

  void tick() {  // store thread
    write();
    store.flush();
    if (!watch.settled(bad_for)) return;
    const WallTime now = clock.now();
    const bool round = store.expire([&](const std::string& key, const Remembered& record) {
      return judge(record, now, primaries.is_down(domain_in(key)), true) == Known::unknown;
    });
    if (round) metrics.set("recipient_memory_records", static_cast<double>(store.size()));
  }
  void tick_later() {
    timer.expires_after(housekeeping);
    timer.async_wait([self = weak_from_this()](const boost::system::error_code& error) {
      const auto memory = self.lock();
      if (error || !memory || memory->stopping) return;
      memory->tick();
      memory->tick_later();
    });
  }

  Primaries& primaries;
  const Clock& clock;
  Metrics& metrics;
  std::unique_ptr<File> lock_file;
  RecipientStore store;  // its thread's only
  ClockWatch watch;      // its thread's only
  std::atomic<std::size_t> reads = 0;

  std::mutex mutex;  // of the following
  LruMap<std::string, Remembered> recent{most_recent};
  std::unordered_map<std::string, Question> asking;
  RecipientStore::Records unwritten;
  LruMap<IpAddress, TokenBucket> clients{most_clients};
  TokenBucket everybody;

  asio::thread_pool thread{1};
  asio::steady_timer timer{thread};
  bool stopping = false;  // on the store's thread
};

RecipientMemory::RecipientMemory(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
RecipientMemory::~RecipientMemory() {
  stop();
}

Result<std::unique_ptr<RecipientMemory>> RecipientMemory::open(const std::string& directory, Primaries& primaries,
                                                               const Clock& clock, Log& log, Metrics& metrics,
                                                               Alerts& alerts) {
  const auto files = system_files();
  const auto made = files->make_directory(directory);
  if (!made) return std::unexpected(made.error());
  auto lock = files->lock(directory + "/lock");
  if (!lock) return std::unexpected(lock.error());
  const auto impl = std::make_shared<Impl>(directory, primaries, clock, log, metrics, alerts);
  impl->lock_file = std::move(*lock);
  return std::unique_ptr<RecipientMemory>(new RecipientMemory(impl));
}

void RecipientMemory::start() {
  asio::post(impl_->thread, [impl = impl_] { impl->tick_later(); });
}

Task<Known> RecipientMemory::recall(Mailbox recipient) {
  const std::string key = recipient.key(), everyone = everyone_at(recipient);
  const auto own = co_await impl_->recall(key);
  const bool down = impl_->primaries.is_down(recipient.domain);
  const Known known = own ? judge(*own, impl_->clock.now(), down, impl_->same_primary(*own, key)) : Known::unclear;
  if (!down || known == Known::good || known == Known::bad) co_return known;
  // Of a primary that takes everybody no address is remembered; its word holds until it can be asked again. That of
  // another one tells that users may be unknown to us.
  const auto all = co_await impl_->recall(everyone);
  if (all && all->good) co_return impl_->same_primary(*all, everyone) ? Known::good : Known::unclear;
  co_return all ? known : Known::unclear;
}

Task<Primaries::Answer> RecipientMemory::ask(Gate& gate, Mailbox recipient, IpAddress client, SteadyTime deadline) {
  const std::string key = recipient.key();
  const Primaries::Answer answer = co_await ask_primary(gate, std::move(recipient), client, deadline);
  if (answer.outcome != Callout::inconclusive) co_return answer;
  const auto own = co_await impl_->recall(key);
  const bool another = own && own->good && !impl_->same_primary(*own, key);
  const bool good = another && judge(*own, impl_->clock.now(), false, true) == Known::good;
  co_return good ? known_before : answer;
}

Task<Primaries::Answer> RecipientMemory::ask_primary(Gate& gate, Mailbox recipient, IpAddress client,
                                                     SteadyTime deadline) {
  const std::string key = recipient.key();
  const auto all = co_await impl_->takes_all(everyone_at(recipient));
  if (all.value_or(false)) co_return takes_everybody;
  std::shared_ptr<Impl::Asking> asking;  // set: it is for us to ask
  Impl::Question question;
  {
    const std::scoped_lock lock(impl_->mutex);
    const auto it = impl_->asking.find(key);
    if (it != impl_->asking.end()) {
      question = it->second;
    } else if (impl_->afford(client)) {
      question = impl_->asking[key] = std::make_shared<Eventual<Primaries::Answer>>();
      asking = std::make_shared<Impl::Asking>(impl_, key, question, Primaries::Answer{});
    }
  }
  if (!question) co_return Primaries::Answer{Callout::inconclusive, "too many addresses to verify, try again later"};
  if (asking) gate.spawn("callout", impl_->verify(std::move(asking), recipient));
  const Primaries::Answer* answer = co_await question->wait(deadline);
  if (answer != nullptr) co_return *answer;
  co_return Primaries::Answer{Callout::inconclusive, "the primary did not answer in time"};
}

void RecipientMemory::accepted(const std::string& address) {
  impl_->delivered(address, true);
}

void RecipientMemory::refused(const std::string& address) {
  impl_->delivered(address, false);
}

void RecipientMemory::stop() {
  if (std::exchange(stopped_, true)) return;  // what a pool is given after its end keeps itself alive for ever
  asio::post(impl_->thread, [impl = impl_] {
    impl->stopping = true;
    impl->timer.cancel();
  });
  impl_->thread.join();
  impl_->write();
  impl_->store.flush();
}

}  // namespace greymx::access

#include "dns/ares_resolver.hpp"

#include <map>
#include <utility>

#include "dns/ares_channel.hpp"
#include "dns/cache.hpp"
#include "dns/packet.hpp"

namespace greymx::dns {
namespace {

// One question on its way, shared by all that wait for it; outlives the resolver if they do.
struct Flight {
  Flight(asio::any_io_executor executor, std::string question, Type asked, std::size_t servers, std::size_t begin)
      : name(std::move(question)), type(asked), first(begin), answered(servers), landed(std::move(executor)) {}

  std::chrono::microseconds age() const {
    return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - began);
  }

  std::string name;
  Type type;
  std::size_t first;           // server
  std::size_t tried = 0;       // turns taken
  std::vector<bool> answered;  // servers that said something unusable: not asked again
  Answer answer;
  bool done = false;
  SteadyTime began = std::chrono::steady_clock::now();
  Event landed;
};

Task<Answer> ready(Answer answer) {
  co_return answer;
}

// Touches nothing of the resolver, which may be gone before.
Task<Answer> landing(std::shared_ptr<Flight> flight, SteadyTime deadline) {
  while (!flight->done) {
    const bool in_time = co_await flight->landed.wait(deadline);
    if (in_time || flight->done) continue;
    Answer late = failed_answer("timeout");
    late.took = flight->age();
    co_return late;
  }
  co_return flight->answer;
}

Answer unanswered(int status) {
  switch (status) {
    case ARES_ETIMEOUT:
      return failed_answer("timeout");
    case ARES_ECONNREFUSED:
      return failed_answer("server not reachable");
    default:
      return failed_answer(ares_strerror(status));
  }
}

class AresResolver final : public Resolver {
 public:
  AresResolver(asio::any_io_executor executor, DnsSettings settings, const Clock& clock, Metrics& metrics);
  ~AresResolver() override;
  Task<Answer> lookup(std::string name, Type type, SteadyTime deadline) override;
  void forget(const std::string& name, Type type) override;

 private:
  std::shared_ptr<Flight> join(const std::string& name, Type type);  // null: too many
  void ask(const std::shared_ptr<Flight>& flight);
  void heard(const std::shared_ptr<Flight>& flight, std::size_t server, bool answered, Answer answer);
  void land(Flight& flight);

  asio::any_io_executor executor_;
  unsigned attempts_;
  const Clock& clock_;
  Metrics& metrics_;
  Cache cache_;
  std::vector<std::shared_ptr<AresChannel>> servers_;
  std::size_t preferred_ = 0;  // server
  std::map<std::pair<std::string, Type>, std::shared_ptr<Flight>> flights_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>();  // posted handlers may run after the resolver is gone
};

AresResolver::AresResolver(asio::any_io_executor executor, DnsSettings settings, const Clock& clock, Metrics& metrics)
    : executor_(executor), attempts_(settings.attempts), clock_(clock), metrics_(metrics), cache_(settings.cache_size) {
  if (settings.servers.empty()) settings.servers = system_servers();
  for (const Endpoint& server : settings.servers) {
    servers_.push_back(std::make_shared<AresChannel>(executor_, server, settings.timeout));
  }
}

AresResolver::~AresResolver() {
  for (const auto& [question, flight] : flights_) {
    flight->answer = failed_answer("stopping");
    flight->done = true;
    flight->landed.notify_all();
  }
}

Task<Answer> AresResolver::lookup(std::string name, Type type, SteadyTime deadline) {
  const std::optional<std::string> question = question_name(name);
  if (!question) {
    Answer nowhere;
    nowhere.outcome = Outcome::no_domain;
    return ready(std::move(nowhere));
  }
  if (auto known = cache_.find(*question, type, clock_.steady())) {
    metrics_.count("dns_cache_hits_total");
    return ready(std::move(*known));
  }
  std::shared_ptr<Flight> flight = join(*question, type);
  if (!flight) return ready(failed_answer("too many lookups"));
  return landing(std::move(flight), deadline);
}

void AresResolver::forget(const std::string& name, Type type) {
  if (const auto question = question_name(name)) cache_.erase(*question, type);
}

std::shared_ptr<Flight> AresResolver::join(const std::string& name, Type type) {
  const auto [entry, fresh] = flights_.try_emplace({name, type});
  if (!fresh) return entry->second;
  if (flights_.size() > max_lookups) {
    flights_.erase(entry);
    return nullptr;
  }
  auto flight = std::make_shared<Flight>(executor_, name, type, servers_.size(), preferred_);
  entry->second = flight;
  ask(flight);
  return flight;
}

void AresResolver::ask(const std::shared_ptr<Flight>& flight) {
  const std::size_t turns = servers_.size() * attempts_;
  std::size_t server = 0;
  do {
    if (flight->tried == turns) return land(*flight);
    server = (flight->first + flight->tried++) % servers_.size();
  } while (flight->answered[server]);

  // c-ares may call back from inside query(), and from the destructor: go on from the executor, always.
  auto done = [this, alive = std::weak_ptr{alive_}, executor = executor_, flight, server](int status, auto packet) {
    const bool answered = !packet.empty();
    Answer answer = answered ? parse_answer(packet, flight->name, flight->type) : unanswered(status);
    asio::post(executor, [this, alive, flight, server, answered, answer = std::move(answer)]() mutable {
      if (!alive.expired()) heard(flight, server, answered, std::move(answer));
    });
  };
  servers_[server]->query(flight->name, flight->type, std::move(done));
}

void AresResolver::heard(const std::shared_ptr<Flight>& flight, std::size_t server, bool answered, Answer answer) {
  flight->answer = std::move(answer);
  flight->answered[server] = answered;
  if (flight->answer.outcome == Outcome::failed) return ask(flight);
  preferred_ = server;
  land(*flight);
}

void AresResolver::land(Flight& flight) {
  static constexpr const char* outcomes[] = {"found", "no_record", "no_domain", "failed"};
  metrics_.count("dns_lookups_total", {{"type", to_string(flight.type)},
                                       {"outcome", outcomes[static_cast<std::size_t>(flight.answer.outcome)]}});
  cache_.store(flight.name, flight.type, flight.answer, clock_.steady());
  flight.answer.took = flight.age();
  flight.done = true;
  flight.landed.notify_all();
  flights_.erase({flight.name, flight.type});
}

}  // namespace

std::unique_ptr<Resolver> make_resolver(asio::any_io_executor executor, DnsSettings settings, const Clock& clock,
                                        Metrics& metrics) {
  return std::make_unique<AresResolver>(std::move(executor), std::move(settings), clock, metrics);
}

}  // namespace greymx::dns

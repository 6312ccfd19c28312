#include "dns/ares_resolver.hpp"

#include <unordered_map>
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

  std::string name;
  Type type;
  std::size_t first;           // server
  std::size_t tried = 0;       // turns taken
  std::vector<bool> answered;  // servers that said something unusable: not asked again
  Answer answer;
  bool done = false;
  Event landed;
};

std::string flight_key(const std::string& name, Type type) {
  return std::string{to_string(type)} + ' ' + name;
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

// What handlers refer to, by weak_ptr: they may run after the resolver is gone.
class Core : public std::enable_shared_from_this<Core> {
 public:
  Core(asio::any_io_executor executor, DnsSettings settings, const Clock& clock, Metrics& metrics);
  void stop();
  std::optional<Answer> cached(const std::string& name, Type type);
  void forget(const std::string& name, Type type) { cache_.erase(name, type); }
  std::shared_ptr<Flight> join(const std::string& name, Type type);  // null: too many

 private:
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
  std::unordered_map<std::string, std::shared_ptr<Flight>> flights_;
};

Core::Core(asio::any_io_executor executor, DnsSettings settings, const Clock& clock, Metrics& metrics)
    : executor_(executor), attempts_(settings.attempts), clock_(clock), metrics_(metrics), cache_(settings.cache_size) {
  if (settings.servers.empty()) settings.servers = system_servers();
  for (const Endpoint& server : settings.servers) {
    servers_.push_back(std::make_shared<AresChannel>(executor_, server, settings.timeout));
  }
}

void Core::stop() {
  servers_.clear();
  for (const auto& [key, flight] : flights_) {
    flight->answer = failed_answer("stopping");
    flight->done = true;
    flight->landed.notify_all();
  }
  flights_.clear();
}

std::optional<Answer> Core::cached(const std::string& name, Type type) {
  auto answer = cache_.find(name, type, clock_.steady());
  if (answer) metrics_.count("dns_cache_hits_total");
  return answer;
}

std::shared_ptr<Flight> Core::join(const std::string& name, Type type) {
  const std::string key = flight_key(name, type);
  if (const auto it = flights_.find(key); it != flights_.end()) return it->second;
  if (flights_.size() >= max_lookups) return nullptr;
  auto flight = std::make_shared<Flight>(executor_, name, type, servers_.size(), preferred_);
  flights_.emplace(key, flight);
  ask(flight);
  return flight;
}

void Core::ask(const std::shared_ptr<Flight>& flight) {
  const std::size_t turns = servers_.size() * attempts_;
  std::size_t server = 0;
  do {
    if (flight->tried == turns) return land(*flight);
    server = (flight->first + flight->tried++) % servers_.size();
  } while (flight->answered[server]);

  // c-ares may call back from inside query(): go on from the executor, always.
  auto done = [weak = weak_from_this(), executor = executor_, flight, server](int status, auto packet) {
    const bool answered = !packet.empty();
    Answer answer = answered ? parse_answer(packet, flight->name, flight->type) : unanswered(status);
    asio::post(executor, [weak, flight, server, answered, answer = std::move(answer)]() mutable {
      if (const auto self = weak.lock()) self->heard(flight, server, answered, std::move(answer));
    });
  };
  servers_[server]->query(flight->name, flight->type, std::move(done));
}

void Core::heard(const std::shared_ptr<Flight>& flight, std::size_t server, bool answered, Answer answer) {
  if (flight->done) return;  // stopped
  flight->answer = std::move(answer);
  flight->answered[server] = answered;
  if (flight->answer.outcome == Outcome::failed) return ask(flight);
  preferred_ = server;
  land(*flight);
}

void Core::land(Flight& flight) {
  static constexpr const char* names[] = {"found", "no_record", "no_domain", "failed"};
  metrics_.count("dns_lookups_total", {{"type", std::string{to_string(flight.type)}},
                                       {"outcome", names[static_cast<std::size_t>(flight.answer.outcome)]}});
  cache_.store(flight.name, flight.type, flight.answer, clock_.steady());
  flight.done = true;
  flight.landed.notify_all();
  flights_.erase(flight_key(flight.name, flight.type));
}

class AresResolver final : public Resolver {
 public:
  AresResolver(asio::any_io_executor executor, DnsSettings settings, const Clock& clock, Metrics& metrics)
      : core_(std::make_shared<Core>(std::move(executor), std::move(settings), clock, metrics)) {}
  ~AresResolver() override { core_->stop(); }

  Task<Answer> lookup(std::string name, Type type, SteadyTime deadline) override;
  void forget(const std::string& name, Type type) override;

 private:
  std::shared_ptr<Core> core_;
};

Task<Answer> AresResolver::lookup(std::string name, Type type, SteadyTime deadline) {
  const std::optional<std::string> question = question_name(name);
  if (!question) {
    Answer nowhere;
    nowhere.outcome = Outcome::no_domain;
    co_return nowhere;
  }
  if (auto known = core_->cached(*question, type)) co_return std::move(*known);
  const std::shared_ptr<Flight> flight = core_->join(*question, type);
  if (!flight) co_return failed_answer("too many lookups");
  while (!flight->done) {  // from here on nothing of the resolver is touched: it may be destroyed
    const bool in_time = co_await flight->landed.wait(deadline);
    if (!in_time && !flight->done) co_return failed_answer("timeout");
  }
  co_return flight->answer;
}

void AresResolver::forget(const std::string& name, Type type) {
  if (const auto question = question_name(name)) core_->forget(*question, type);
}

}  // namespace

std::unique_ptr<Resolver> make_resolver(asio::any_io_executor executor, DnsSettings settings, const Clock& clock,
                                        Metrics& metrics) {
  return std::make_unique<AresResolver>(std::move(executor), std::move(settings), clock, metrics);
}

}  // namespace greymx::dns

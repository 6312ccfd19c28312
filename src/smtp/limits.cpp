#include "smtp/limits.hpp"

#include <algorithm>
#include <vector>

namespace greymx::smtp {

using namespace std::chrono_literals;

namespace {

constexpr auto shedding_interval = 100ms;  // looking through all sessions costs about as much as accepting a few
constexpr auto spared = 1s;                // who has been silent for less is not idle
constexpr auto leaving_time = 15s;         // who stays longer when told to leave, hangs: others must go

IpAddress network_of(const IpAddress& address) {
  return address.masked(address.is_v4() ? 24 : 48);
}

}  // namespace

std::unique_ptr<Connections::Ticket> Connections::enter(const config::Limits& limits) {
  const std::scoped_lock lock(mutex_);
  const std::size_t limit = limits.connections;
  const std::size_t crowded = limit - limit / 10;
  if (tickets_.size() >= crowded) shed(tickets_.size() - crowded + limit / 20 + 1);
  if (tickets_.size() >= limit) return nullptr;
  std::unique_ptr<Ticket> ticket(new Ticket(*this, ++next_number_));
  ticket->place_ = tickets_.insert(tickets_.end(), ticket.get());
  metrics_.set("connections", static_cast<double>(tickets_.size()));
  metrics_.count("sessions_total");
  return ticket;
}

void Connections::shed(std::size_t wanted) {
  const SteadyTime now = clock_.steady();
  if (now < next_shedding_) return;
  next_shedding_ = now + shedding_interval;
  struct Candidate {
    Ticket* ticket;
    std::uint32_t crowd;
    SteadyTime::rep since;
  };
  std::unordered_map<IpAddress, std::uint32_t> crowds;
  for (const Ticket* ticket : tickets_) {
    ++crowds[ticket->network_];
    const bool leaves = ticket->told_ && now - *ticket->told_ < leaving_time;
    if (leaves && wanted > 0) --wanted;
  }
  std::vector<Candidate> candidates;
  const SteadyTime::rep latest = (now - spared).time_since_epoch().count();
  for (Ticket* ticket : tickets_) {
    const SteadyTime::rep since = ticket->idle_since_.load(std::memory_order_relaxed);
    if (since == 0 || since > latest || ticket->exempt_ || !ticket->shed_) continue;
    candidates.push_back({ticket, crowds[ticket->network_], since});
  }
  wanted = std::min(wanted, candidates.size());
  const auto end = candidates.begin() + static_cast<std::ptrdiff_t>(wanted);
  std::partial_sort(candidates.begin(), end, candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.crowd != b.crowd ? a.crowd > b.crowd : a.since < b.since;
  });
  for (auto it = candidates.begin(); it != end; ++it) {
    it->ticket->told_ = now;
    std::exchange(it->ticket->shed_, nullptr)();
  }
}

Connections::Ticket::~Ticket() {
  const std::scoped_lock lock(owner_.mutex_);
  leave_client();
  owner_.tickets_.erase(place_);
  owner_.metrics_.set("connections", static_cast<double>(owner_.tickets_.size()));
}

void Connections::Ticket::leave_client() {
  if (!client_) return;
  const auto it = owner_.counts_.find(*client_);
  if (--it->second == 0) owner_.counts_.erase(it);
  client_.reset();
}

std::optional<std::string_view> Connections::Ticket::identify(const IpAddress& client, bool exempt,
                                                              const config::Limits& limits) {
  const IpAddress unit = client_unit(client);
  const SteadyTime now = owner_.clock_.steady();
  const std::scoped_lock lock(owner_.mutex_);
  leave_client();
  network_ = network_of(client);
  exempt_ = exempt;
  if (exempt) return std::nullopt;
  client_ = unit;
  const std::uint32_t count = ++owner_.counts_[unit];
  const config::Rate& allowed = limits.rate_per_client;
  if (allowed.count != owner_.rate_.count || allowed.period != owner_.rate_.period) owner_.rates_.clear();  // reload
  owner_.rate_ = allowed;
  TokenBucket* rate = owner_.rates_.find(unit);
  if (rate == nullptr) {
    rate = &owner_.rates_.insert(unit, TokenBucket(static_cast<double>(allowed.count), allowed.period, now));
  }
  if (!rate->take(now)) return "Connection rate";
  if (count > limits.connections_per_client) return "Connection concurrency";
  return std::nullopt;
}

void Connections::Ticket::idle(SteadyTime since) {
  idle_since_.store(since.time_since_epoch().count(), std::memory_order_relaxed);
}

void Connections::Ticket::busy() {
  idle_since_.store(0, std::memory_order_relaxed);
}

void Connections::Ticket::on_shed(std::function<void()> shed) {
  const std::scoped_lock lock(owner_.mutex_);
  shed_ = std::move(shed);
}

}  // namespace greymx::smtp

#include "dns/cache.hpp"

#include <algorithm>
#include <limits>

#include "base/mailbox.hpp"

namespace greymx::dns {
namespace {

using std::chrono::seconds;

constexpr seconds longest{std::numeric_limits<std::int32_t>::max()};  // RFC 2181 8

seconds lifetime(const Answer& answer) {
  switch (answer.outcome) {
    case Outcome::found:
      return std::clamp<seconds>(answer.ttl, seconds{0}, std::chrono::days{1});
    case Outcome::no_record:
    case Outcome::no_domain:
      return std::clamp<seconds>(answer.ttl, seconds{0}, std::chrono::hours{1});
    case Outcome::failed:
      return seconds{5};  // RFC 2308 7: not longer than 5 minutes; enough to spare a sick server
  }
  return seconds{0};
}

std::size_t weight(const Answer& answer) {
  std::size_t bytes = answer.error.size() + answer.addresses.size() * sizeof(IpAddress);
  for (const Mx& mx : answer.mx) bytes += sizeof(Mx) + mx.host.size();
  for (const std::string& text : answer.texts) bytes += sizeof(std::string) + text.size();
  for (const std::string& name : answer.names) bytes += sizeof(std::string) + name.size();
  return 1 + bytes / 256;
}

std::string key(const std::string& name, Type type) {
  return concat({name, "/", to_string(type)});
}

}  // namespace

std::optional<Answer> Cache::find(const std::string& name, Type type, SteadyTime now) {
  const Entry* entry = entries_.find(key(name, type));
  if (!entry || now - entry->fetched >= entry->lifetime) return std::nullopt;
  Answer answer;
  if (entry->answer) answer = *entry->answer;
  answer.outcome = entry->outcome;
  answer.ttl = entry->ttl;
  answer.age = std::chrono::duration_cast<seconds>(now - entry->fetched);
  return answer;
}

void Cache::store(const std::string& name, Type type, const Answer& answer, SteadyTime now) {
  std::string question = key(name, type);
  let_go(entries_.take(question));
  Entry entry{nullptr, now, lifetime(answer), std::min(answer.ttl, longest), weight(answer), answer.outcome};
  const bool bare = answer.addresses.empty() && answer.mx.empty() && answer.texts.empty() && answer.names.empty() &&
                    answer.error.empty();
  if (!bare) entry.answer = std::make_unique<const Answer>(answer);
  if (entry.lifetime <= seconds{0} || entry.weight > capacity_) return;
  while (weight_ + entry.weight > capacity_) let_go(entries_.take_oldest());
  weight_ += entry.weight;
  entries_.insert(std::move(question), std::move(entry));
}

void Cache::erase(const std::string& name, Type type) {
  let_go(entries_.take(key(name, type)));
}

}  // namespace greymx::dns

#include "support/scripted_resolver.hpp"

#include <algorithm>
#include <optional>
#include <sstream>
#include <stdexcept>

#include "base/mailbox.hpp"
#include "dns/packet.hpp"

namespace greymx::test {
namespace {

using dns::Answer;
using dns::Outcome;
using dns::Type;

constexpr std::chrono::seconds default_ttl{300};

std::string canonical(std::string_view name) {
  return dns::question_name(name).value_or(to_lower(name));
}

std::optional<Type> parse_type(std::string_view word) {
  for (const Type type : {Type::a, Type::cname, Type::soa, Type::ptr, Type::mx, Type::txt, Type::aaaa, Type::tlsa}) {
    if (word == dns::to_string(type)) return type;
  }
  return std::nullopt;
}

std::optional<Answer> parse_outcome(const std::string& word) {
  Answer answer;
  answer.ttl = default_ttl;
  if (word == "NXDOMAIN" || word == "NODATA") {
    answer.outcome = word == "NODATA" ? Outcome::no_record : Outcome::no_domain;
    return answer;
  }
  if (word == "TIMEOUT") return dns::failed_answer("timeout");
  if (word == "SERVFAIL" || word == "REFUSED") return dns::failed_answer(word);
  return std::nullopt;
}

// "a" "b" -> ab; without quotes the text as it is.
std::string parse_text(std::string_view text) {
  if (!text.starts_with('"')) return std::string{text};
  std::string joined;
  bool inside = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"') {
      inside = !inside;
    } else if (inside) {
      if (text[i] == '\\' && i + 1 < text.size()) ++i;
      joined += text[i];
    }
  }
  return joined;
}

void add_record(Answer& answer, Type type, const std::string& data) {
  switch (type) {
    case Type::a:
    case Type::aaaa:
      answer.addresses.push_back(IpAddress::parse(data).value());
      break;
    case Type::txt:
      answer.texts.push_back(parse_text(data));
      break;
    case Type::tlsa:
      answer.texts.push_back(data);
      break;
    case Type::mx: {
      const std::size_t space = data.find(' ');
      const std::string host = data.substr(space + 1);
      dns::Mx mx{static_cast<std::uint16_t>(std::stoi(data)), host == "." ? "" : canonical(host)};
      answer.mx.insert(std::ranges::upper_bound(answer.mx, mx.preference, {}, &dns::Mx::preference), std::move(mx));
      break;
    }
    case Type::ptr:
    case Type::cname:
      answer.names.push_back(canonical(data));
      break;
    case Type::soa:
      break;
  }
}

}  // namespace

void ScriptedResolver::add(std::string_view zone) {
  std::istringstream lines{std::string{zone}};
  for (std::string line; std::getline(lines, line);) {
    const std::size_t begin = line.find_first_not_of(" \t");
    if (begin == std::string::npos || line[begin] == '#' || line[begin] == ';') continue;
    line.erase(line.find_last_not_of(" \t\r") + 1);
    add_line(line);
  }
}

void ScriptedResolver::add_line(std::string_view line) {
  std::istringstream words{std::string{line}};
  std::string name, word;
  words >> name >> word;
  std::optional<std::chrono::seconds> ttl;
  if (!word.empty() && std::ranges::all_of(word, [](char c) { return c >= '0' && c <= '9'; })) {
    ttl = std::chrono::seconds{std::stol(word)};
    words >> word;
  }
  std::string data;
  std::getline(words >> std::ws, data);
  const std::optional<Type> type = parse_type(word);
  if (data.empty() || (!type && word != "ANY")) throw std::invalid_argument("zone line: " + std::string{line});
  name = canonical(name);
  if (const std::optional<Answer> outcome = parse_outcome(data)) {
    (type ? zone_[name][*type] : any_[name]) = *outcome;
    return;
  }
  if (!type) throw std::invalid_argument("zone line: " + std::string{line});
  const auto [entry, fresh] = zone_[name].try_emplace(*type);
  Answer& answer = entry->second;
  if (fresh) answer.ttl = default_ttl;
  if (ttl) answer.ttl = *ttl;
  answer.outcome = Outcome::found;
  add_record(answer, *type, data);
}

void ScriptedResolver::set(const std::string& name, Type type, Answer answer) {
  zone_[canonical(name)][type] = std::move(answer);
}

void ScriptedResolver::erase(const std::string& name) {
  zone_.erase(canonical(name));
  any_.erase(canonical(name));
}

void ScriptedResolver::delay(const std::string& name, std::chrono::microseconds by, const Clock& clock) {
  delays_[canonical(name)] = {by, &clock};
}

void ScriptedResolver::tick() {
  for (const std::weak_ptr<Event>& weak : waiting_) {
    if (const auto waiting = weak.lock()) waiting->notify_all();
  }
}

void ScriptedResolver::set_age(const std::string& name, std::chrono::seconds age) {
  ages_[canonical(name)] = age;
}

std::size_t ScriptedResolver::count(std::string_view question) const {
  return static_cast<std::size_t>(std::ranges::count(asked_, question));
}

void ScriptedResolver::forget(const std::string& name, Type) {
  ages_.erase(canonical(name));
}

Answer ScriptedResolver::answer(std::string name, Type type) const {
  for (unsigned depth = 0; depth <= dns::max_cnames; ++depth) {
    if (const auto any = any_.find(name); any != any_.end()) return any->second;
    const auto records = zone_.find(name);
    if (records == zone_.end()) return *parse_outcome("NXDOMAIN");
    if (const auto exact = records->second.find(type); exact != records->second.end()) return exact->second;
    const auto alias = records->second.find(Type::cname);
    if (alias == records->second.end()) return *parse_outcome("NODATA");
    if (alias->second.names.empty()) return alias->second;
    name = alias->second.names.front();
  }
  return dns::failed_answer("CNAME chain too long");
}

Task<Answer> ScriptedResolver::lookup(std::string name, Type type, SteadyTime deadline) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  const std::string question = canonical(name);
  asked_.push_back(question + ' ' + std::string{dns::to_string(type)});
  co_await asio::post(executor, asio::use_awaitable);
  if (const auto delayed = delays_.find(question); delayed != delays_.end()) {
    const Delay delay = delayed->second;
    const SteadyTime until = delay.clock->steady() + delay.by;
    const auto ticked = std::make_shared<Event>(executor);
    waiting_.push_back(ticked);
    while (delay.clock->steady() < std::min(until, deadline)) {
      co_await ticked->wait(SteadyTime::max());
    }
    if (delay.clock->steady() < until) co_return dns::failed_answer("timeout");
  }
  Answer result = answer(question, type);
  if (const auto age = ages_.find(question); age != ages_.end()) result.age = age->second;
  co_return result;
}

}  // namespace greymx::test

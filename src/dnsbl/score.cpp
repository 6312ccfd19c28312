#include "dnsbl/score.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <span>

#include "base/mailbox.hpp"
#include "base/text.hpp"

namespace greymx::dnsbl {
namespace {

constexpr std::string_view mask = "***";

bool starts(const IpAddress& address, std::initializer_list<unsigned> octets) {
  return address.is_v4() && std::ranges::equal(octets, std::span{address.bytes()}.first(octets.size()));
}

// What lists answer when they refuse service or do not understand (behind a public resolver, over a limit, a typo in
// the zone): never a listing. "" = none of those.
std::string error_code(const IpAddress& address, bool allow_list) {
  if (!starts(address, {127})) return "outside 127.0.0.0/8";
  const bool error = starts(address, {127, 255, 255}) || starts(address, {127, 0, 0, 1}) ||
                     (allow_list && starts(address, {127, 0, 0, 255}));  // list.dnswl.org: would allow everybody
  return error ? "an error code, not a listing" : "";
}

// A first label of 20 or more letters and digits is a customer's key ("KEY.zen.dq.spamhaus.net").
std::string secret_key(const std::string& zone) {
  const std::string label = zone.substr(0, zone.find('.'));
  return label.size() >= 20 && std::ranges::all_of(label, is_alnum) ? label : std::string{};
}

List make_list(const config::DnsblList& settings, bool by_name) {
  List list{settings, settings.zone, secret_key(settings.zone), by_name};
  if (!list.key.empty()) list.shown.replace(0, list.key.size(), mask);
  return list;
}

}  // namespace

std::string_view to_string(Outcome outcome) {
  constexpr std::array<std::string_view, 5> names{"clean", "listed", "list_error", "timeout", "disabled"};
  return names[static_cast<std::size_t>(outcome)];
}

std::vector<List> make_lists(const config::Dnsbl& settings) {
  std::vector<List> lists;
  for (const config::DnsblList& list : settings.lists) lists.push_back(make_list(list, false));
  for (const config::DnsblList& list : settings.domain_lists) lists.push_back(make_list(list, true));
  return lists;
}

Judgement judge(const List& list, const dns::Answer& answer) {
  if (answer.outcome == dns::Outcome::failed) {
    return {answer.error == "timeout" ? Outcome::timeout : Outcome::list_error, answer.error};
  }
  for (const IpAddress& address : answer.addresses) {
    const std::string error = error_code(address, list.weight < 0);
    if (error.empty()) continue;
    return {Outcome::list_error, "answer " + address.to_string() + ": " + error, !starts(address, {127})};
  }
  const auto counts = [&](const IpAddress& address) {
    return list.replies.empty() ||
           std::ranges::any_of(list.replies, [&](const config::Pattern& pattern) { return pattern.matches(address); });
  };
  return {std::ranges::any_of(answer.addresses, counts) ? Outcome::listed : Outcome::clean, {}};
}

bool is_listing(const dns::Answer& answer) {
  return judge(List{}, answer).outcome == Outcome::listed;
}

std::string reason_text(const List& list, const std::vector<std::string>& texts) {
  std::string text = fmt::format("{}", fmt::join(texts, " / "));
  if (!list.key.empty()) {
    for (std::size_t at = 0; (at = to_lower(text).find(list.key, at)) != std::string::npos;) {
      text.replace(at, list.key.size(), mask);
    }
  }
  return printable(text, 500);
}

Score tally(std::vector<ListResult> results, int threshold) {
  Score score;
  score.results = std::move(results);
  const ListResult* decides = nullptr;
  for (const ListResult& result : score.results) {
    if (result.outcome != Outcome::listed) continue;
    score.total += result.weight;
    if (!decides && result.weight > 0) decides = &result;
  }
  if (!decides || score.total < threshold) return score;
  score.reply_text = concat({"Service unavailable; ", decides->subject, " blocked using ", decides->zone,
                             decides->reason.empty() ? "" : "; ", decides->reason});
  return score;
}

Score combine(const std::vector<const Score*>& scores, int threshold) {
  std::vector<ListResult> results;
  for (const Score* score : scores) std::ranges::copy(score->results, std::back_inserter(results));
  return tally(std::move(results), threshold);
}

}  // namespace greymx::dnsbl

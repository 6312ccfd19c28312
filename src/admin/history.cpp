#include "admin/history.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

namespace greymx::admin {

namespace {

constexpr std::int64_t small_step = 5;  // minutes

std::int64_t minute_of(WallTime time) {
  return std::chrono::floor<std::chrono::minutes>(time).time_since_epoch().count();
}

// `check` from `{code="450",check="greylist"}`; our label values hold no quotes.
std::string_view label(std::string_view labels, std::string_view name) {
  const std::string key = std::string(name) + "=\"";
  const auto begin = labels.find(key);
  if (begin == labels.npos) return {};
  labels.remove_prefix(begin + key.size());
  return labels.substr(0, labels.find('"'));
}

}  // namespace

Counters counters_of(std::string_view exposition) {
  Counters counters;
  while (!exposition.empty()) {
    const std::string_view line = exposition.substr(0, exposition.find('\n'));
    exposition.remove_prefix(std::min(exposition.size(), line.size() + 1));
    const auto space = line.rfind(' ');
    if (line.starts_with('#') || space == line.npos) continue;
    const std::string_view name = line.substr(0, line.find_first_of("{ "));
    const std::string_view labels = line.substr(name.size(), space - name.size());
    double value = 0;
    if (std::from_chars(line.data() + space + 1, line.data() + line.size(), value).ec != std::errc()) continue;
    std::string series;
    if (name == "greymx_messages_accepted_total") series = "accepted";
    if (name == "greymx_deliveries_total") series = label(labels, "result");
    if (name == "greymx_rejects_total") series = "reject/" + std::string(label(labels, "check"));
    if (name == "greymx_greylist_decisions_total") series = "greylist/" + std::string(label(labels, "verdict"));
    if (!series.empty() && series != "reject/greylist") counters[series] += value;  // that is counted as a decision
  }
  return counters;
}

void History::clear(std::int64_t after, std::int64_t until) {
  const std::int64_t from = std::max(after, until - static_cast<std::int64_t>(minutes));
  for (std::int64_t m = from + 1; m <= until; ++m) {
    for (auto& [name, series] : series_) series.counts[static_cast<std::size_t>(m) % minutes] = 0;
  }
}

void History::advance(std::int64_t minute) {
  if (minute < minute_ - small_step) {  // a clock that was ahead: what it dated into the future goes
    clear(minute, std::exchange(minute_, minute));
    return;
  }
  clear(minute_, minute);
  minute_ = std::max(minute_, minute);
}

void History::sample(WallTime now, const Counters& counters) {
  const std::lock_guard lock(mutex_);
  advance(minute_of(now));
  for (const auto& [name, value] : counters) {
    auto found = series_.find(name);
    if (found == series_.end()) {
      if (series_.size() >= max_series) continue;
      found = series_.emplace(name, Series{}).first;
    }
    double& last = found->second.last;  // the highest: of two that sample at once, one may come with an older text
    const double grown = std::max(0.0, value - last);
    last = std::max(last, value);
    found->second.counts[static_cast<std::size_t>(minute_) % minutes] += static_cast<std::uint32_t>(grown);
  }
}

std::vector<std::uint64_t> History::bars(std::string_view name, WallTime now, std::size_t bars,
                                         std::size_t each) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::uint64_t> sums(bars, 0);
  const std::int64_t last = std::max(minute_of(now), minute_);
  for (auto it = series_.lower_bound(name); it != series_.end(); ++it) {
    if (name.ends_with('/') ? !it->first.starts_with(name) : it->first != name) break;
    for (std::size_t ago = 0; ago < bars * each; ++ago) {
      const std::int64_t minute = last - static_cast<std::int64_t>(ago);
      const bool known = minute <= minute_ && minute > minute_ - static_cast<std::int64_t>(minutes);
      if (known) sums[bars - 1 - ago / each] += it->second.counts[static_cast<std::size_t>(minute) % minutes];
    }
  }
  return sums;
}

std::uint64_t History::sum(std::string_view name, WallTime now, std::size_t over_minutes) const {
  return bars(name, now, 1, over_minutes).front();
}

std::vector<std::string> History::names(std::string_view prefix) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> found;
  for (const auto& [name, series] : series_) {
    if (name.starts_with(prefix)) found.push_back(name);
  }
  return found;
}

void History::event(WallTime time, std::string text) {
  const std::lock_guard lock(mutex_);
  if (events_.size() >= max_events) events_.pop_back();
  events_.push_front({time, std::move(text)});
}

std::vector<History::Event> History::events() const {
  const std::lock_guard lock(mutex_);
  return {events_.begin(), events_.end()};
}

}  // namespace greymx::admin

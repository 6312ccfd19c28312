#include "base/metrics.hpp"

#include <fmt/format.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <unordered_set>
#include <variant>

namespace greymx {

namespace {

using Counters = prometheus::Family<prometheus::Counter>;
using Gauges = prometheus::Family<prometheus::Gauge>;
using Histograms = prometheus::Family<prometheus::Histogram>;

constexpr std::string_view prefix = "greymx_";

struct Entry {
  const Metrics::Description* description;
  std::variant<Counters*, Gauges*, Histograms*> family;
};

// One set of labels of a family. Found by what a caller has at hand, without a copy: sessions count by the thousand.
struct Series {
  std::string_view name;
  std::vector<std::pair<std::string, std::string>> labels;
  std::variant<prometheus::Counter*, prometheus::Gauge*, prometheus::Histogram*> metric;
};
struct Wanted {
  std::string_view name;
  Metrics::Labels labels;
};

struct SeriesHash {
  using is_transparent = void;
  template <class Key>
  std::size_t operator()(const Key& key) const {
    const std::hash<std::string_view> hash;
    std::size_t all = hash(key.name);
    for (const auto& [label, value] : key.labels) all += hash(label) * 31 + hash(value);  // in whatever order
    return all;
  }
};

struct SameSeries {
  using is_transparent = void;
  template <class Left, class Right>
  bool operator()(const Left& left, const Right& right) const {
    if (left.name != right.name || left.labels.size() != right.labels.size()) return false;
    return std::ranges::all_of(left.labels, [&right](const auto& one) {
      return std::ranges::any_of(right.labels, [&one](const auto& other) {
        return std::string_view(one.first) == other.first && std::string_view(one.second) == other.second;
      });
    });
  }
};

[[noreturn]] void misused(std::string_view name, const char* why) {
  std::fputs(fmt::format("metric greymx_{}: {}\n", name, why).c_str(), stderr);
  std::abort();
}

// The part before the next `separator`, which leaves `rest` together with it.
std::string_view take(std::string_view& rest, char separator) {
  const std::size_t end = std::min(rest.find(separator), rest.size());
  const std::string_view part = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return part;
}

prometheus::Labels owned(Metrics::Labels labels) {
  prometheus::Labels result;
  for (const auto& [label, value] : labels) result.emplace(label, value);
  return result;
}

prometheus::Labels series_labels(std::string_view names, std::string_view values) {
  prometheus::Labels labels;
  while (!names.empty()) labels.emplace(take(names, ','), take(values, ','));
  return labels;
}

bool labels_match(std::string_view declared, const prometheus::Labels& given) {
  std::size_t count = 0;
  while (!declared.empty()) {
    if (!given.contains(std::string(take(declared, ',')))) return false;
    ++count;
  }
  return given.size() == count;
}

}  // namespace

struct Metrics::Impl {
  prometheus::Registry registry;
  std::unordered_map<std::string_view, Entry> entries;  // by name without "greymx_"
  std::unordered_set<Series, SeriesHash, SameSeries> series;
  mutable std::shared_mutex mutex;  // of `series`; alone: a new one, or forget, which destroys one

  const Entry& entry(std::string_view name, const prometheus::Labels& labels) const {
    const auto it = entries.find(name);
    if (it == entries.end()) misused(name, "not in the table");
    if (!labels_match(it->second.description->labels, labels)) misused(name, "has other labels in the table");
    return it->second;
  }

  static decltype(Series::metric) add(const Entry& entry, const prometheus::Labels& labels) {
    if (const auto* counters = std::get_if<Counters*>(&entry.family)) return &(*counters)->Add(labels);
    if (const auto* gauges = std::get_if<Gauges*>(&entry.family)) return &(*gauges)->Add(labels);
    const auto& buckets = entry.description->buckets;
    return &std::get<Histograms*>(entry.family)
                ->Add(labels, prometheus::Histogram::BucketBoundaries(buckets.begin(), buckets.end()));
  }

  // Calls `use` with the series, which it makes if it is the first time.
  template <class Metric, class Use>
  void with(std::string_view name, Labels labels, Use use) {
    const auto checked = [&](const Series& one) -> Metric& {
      const auto* metric = std::get_if<Metric*>(&one.metric);
      if (metric == nullptr) misused(name, "has another type in the table");
      return **metric;
    };
    {
      const std::shared_lock lock(mutex);
      const auto known = series.find(Wanted{name, labels});
      if (known != series.end()) return use(checked(*known));
    }
    const std::unique_lock lock(mutex);
    const prometheus::Labels full = owned(labels);
    const Entry& family = entry(name, full);
    const std::string_view kept = family.description->name.substr(prefix.size());
    const auto [made, fresh] = series.insert({kept, {full.begin(), full.end()}, add(family, full)});
    use(checked(*made));
  }

  void declare(const Description& description) {
    const std::string name(description.name);
    const std::string help(description.help);
    Entry entry{&description, {}};
    if (description.type == "counter") {
      entry.family = &prometheus::BuildCounter().Name(name).Help(help).Register(registry);
    } else if (description.type == "gauge") {
      entry.family = &prometheus::BuildGauge().Name(name).Help(help).Register(registry);
    } else {
      entry.family = &prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
    }
    if (description.labels.empty()) add(entry, {});
    for (std::string_view rest = description.starts; !rest.empty();) {
      add(entry, series_labels(description.labels, take(rest, ';')));
    }
    entries.emplace(description.name.substr(prefix.size()), entry);
  }
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {
  for (const Description& description : table()) impl_->declare(description);
}

Metrics::~Metrics() = default;

void Metrics::count(std::string_view name, Labels labels, double by) {
  impl_->with<prometheus::Counter>(name, labels, [by](prometheus::Counter& counter) { counter.Increment(by); });
}

void Metrics::set(std::string_view name, Labels labels, double value) {
  impl_->with<prometheus::Gauge>(name, labels, [value](prometheus::Gauge& gauge) { gauge.Set(value); });
}

void Metrics::observe(std::string_view name, double value, Labels labels) {
  impl_->with<prometheus::Histogram>(name, labels, [value](prometheus::Histogram& series) { series.Observe(value); });
}

double Metrics::value(std::string_view name, Labels labels) const {
  const std::shared_lock lock(impl_->mutex);
  const prometheus::Labels full = owned(labels);
  const Entry& entry = impl_->entry(name, full);
  if (!std::visit([&](auto* family) { return family->Has(full); }, entry.family)) return 0;
  const auto read = []<class Metric>(Metric* metric) -> double {
    if constexpr (std::is_same_v<Metric, prometheus::Histogram>) {
      return static_cast<double>(metric->Collect().histogram.sample_count);
    } else {
      return metric->Value();
    }
  };
  return std::visit(read, Impl::add(entry, full));
}

void Metrics::forget(std::string_view name, Labels labels) {
  const std::unique_lock lock(impl_->mutex);
  const auto known = impl_->series.find(Wanted{name, labels});
  if (known == impl_->series.end()) return;
  Gauges* const* gauges = std::get_if<Gauges*>(&impl_->entry(name, owned(labels)).family);
  if (gauges == nullptr) misused(name, "has another type in the table");
  (*gauges)->Remove(std::get<prometheus::Gauge*>(known->metric));
  impl_->series.erase(known);
}

std::string Metrics::text() const {
  const std::shared_lock lock(impl_->mutex);
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace greymx

#include "base/metrics.hpp"

#include <fmt/format.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <variant>

namespace greymx {

namespace {

using Counters = prometheus::Family<prometheus::Counter>;
using Gauges = prometheus::Family<prometheus::Gauge>;
using Histograms = prometheus::Family<prometheus::Histogram>;

struct Entry {
  const Metrics::Description* description;
  std::variant<Counters*, Gauges*, Histograms*> family;

  prometheus::Histogram& histogram(const Metrics::Labels& labels) const {
    const auto& buckets = description->buckets;
    return std::get<Histograms*>(family)->Add(labels,
                                              prometheus::Histogram::BucketBoundaries(buckets.begin(), buckets.end()));
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

Metrics::Labels series(std::string_view names, std::string_view values) {
  Metrics::Labels labels;
  while (!names.empty()) labels.emplace(take(names, ','), take(values, ','));
  return labels;
}

bool labels_match(std::string_view declared, const Metrics::Labels& given) {
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
  mutable std::shared_mutex mutex;                      // alone: forget, which destroys a series

  const Entry& entry(std::string_view name, const Labels& labels) const {
    const auto it = entries.find(name);
    if (it == entries.end()) misused(name, "not in the table");
    if (!labels_match(it->second.description->labels, labels)) misused(name, "has other labels in the table");
    return it->second;
  }

  template <class Family>
  Family& family(std::string_view name, const Labels& labels) const {
    const auto* found = std::get_if<Family*>(&entry(name, labels).family);
    if (found == nullptr) misused(name, "has another type in the table");
    return **found;
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
    if (description.labels.empty()) start(entry, {});
    for (std::string_view rest = description.starts; !rest.empty();) {
      start(entry, series(description.labels, take(rest, ';')));
    }
    entries.emplace(description.name.substr(std::string_view("greymx_").size()), entry);
  }

  static void start(const Entry& entry, const Labels& labels) {
    if (const auto* counters = std::get_if<Counters*>(&entry.family)) {
      (*counters)->Add(labels);
    } else if (const auto* gauges = std::get_if<Gauges*>(&entry.family)) {
      (*gauges)->Add(labels);
    } else {
      entry.histogram(labels);
    }
  }
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {
  for (const Description& description : table()) impl_->declare(description);
}

Metrics::~Metrics() = default;

void Metrics::count(std::string_view name, const Labels& labels, double by) {
  const std::shared_lock lock(impl_->mutex);
  impl_->family<Counters>(name, labels).Add(labels).Increment(by);
}

void Metrics::set(std::string_view name, const Labels& labels, double value) {
  const std::shared_lock lock(impl_->mutex);
  impl_->family<Gauges>(name, labels).Add(labels).Set(value);
}

void Metrics::observe(std::string_view name, double value, const Labels& labels) {
  const std::shared_lock lock(impl_->mutex);
  impl_->family<Histograms>(name, labels);
  impl_->entry(name, labels).histogram(labels).Observe(value);
}

double Metrics::value(std::string_view name, const Labels& labels) const {
  const std::shared_lock lock(impl_->mutex);
  const Entry& entry = impl_->entry(name, labels);
  const auto read = [&]<class Family>(Family* family) -> double {
    if (!family->Has(labels)) return 0;
    if constexpr (std::is_same_v<Family, Histograms>) {
      return static_cast<double>(entry.histogram(labels).Collect().histogram.sample_count);
    } else {
      return family->Add(labels).Value();
    }
  };
  return std::visit(read, entry.family);
}

void Metrics::forget(std::string_view name, const Labels& labels) {
  const std::unique_lock lock(impl_->mutex);
  Gauges& gauges = impl_->family<Gauges>(name, labels);
  if (gauges.Has(labels)) gauges.Remove(&gauges.Add(labels));
}

std::string Metrics::text() const {
  const std::shared_lock lock(impl_->mutex);
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace greymx

// The metrics of one daemon, on prometheus-cpp. All families are declared in one table (metrics_table.cpp), which the
// man page is checked against; every family without labels exists from the start with value 0. Any thread.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace greymx {

class Metrics {
 public:
  using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

  Metrics();
  ~Metrics();
  // `name` without "greymx_"; a name, type or label set that is not in the table's aborts (a bug, found by the first
  // test that passes).
  void count(std::string_view name, Labels labels = {}, double by = 1);
  void set(std::string_view name, Labels labels, double value);
  void set(std::string_view name, double value) { set(name, {}, value); }
  void observe(std::string_view name, double value, Labels labels = {});  // histograms
  double value(std::string_view name, Labels labels = {}) const;          // 0 if never touched
  // Removes a gauge series whose subject is gone (a domain, a list).
  void forget(std::string_view name, Labels labels);
  std::string text() const;  // the exposition format

  struct Description {
    std::string_view name;  // with "greymx_"
    std::string_view type;
    std::string_view help;
    std::string_view labels;           // "list,result", or empty
    std::vector<double> buckets = {};  // of a histogram
    std::string_view starts = {};  // series with labels that are there, at 0, from the start: "pass,known;greylist,new"
  };
  static const std::vector<Description>& table();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace greymx

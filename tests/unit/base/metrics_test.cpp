#include "base/metrics.hpp"

#include <set>

#include "death.hpp"
#include "support/catch.hpp"

using namespace greymx;

namespace {

bool has_line(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

}  // namespace

TEST_CASE("every family without labels exists from the start with value 0") {
  const Metrics metrics;
  const std::string text = metrics.text();
  for (const Metrics::Description& row : Metrics::table()) {
    if (!row.labels.empty()) continue;
    const std::string name(row.name);
    INFO(name);
    CHECK(has_line(text, row.type == "histogram" ? name + "_count 0" : name + " 0"));
    CHECK(text.find("# HELP " + name + " ") != std::string::npos);
    CHECK(has_line(text, "# TYPE " + name + " " + std::string(row.type)));
  }
}

TEST_CASE("so do the series with labels that the table names") {
  const std::string text = Metrics().text();
  CHECK(text.find("greymx_greylist_decisions_total{reason=\"triplet found\",verdict=\"pass\"} 0") != std::string::npos);
  CHECK(text.find("greymx_greylist_decisions_total{reason=\"store error\",verdict=\"pass\"} 0") != std::string::npos);
  CHECK(text.find("greymx_rejects_total{check=\"access.helo\",code=\"554\"} 0") != std::string::npos);
  CHECK(text.find("greymx_tls_sessions_total{direction=\"out\",version=\"TLSv1.3\"} 0") != std::string::npos);
  CHECK(text.find("greymx_callouts_total{outcome=\"refused\"} 0") != std::string::npos);
}

TEST_CASE("the table keeps Prometheus' rules for names") {
  std::set<std::string_view> names;
  for (const Metrics::Description& row : Metrics::table()) {
    INFO(row.name);
    CHECK(names.insert(row.name).second);
    CHECK(row.name.starts_with("greymx_"));
    CHECK((row.type == "counter" || row.type == "gauge" || row.type == "histogram"));
    CHECK(row.name.ends_with("_total") == (row.type == "counter"));
    CHECK(row.buckets.empty() == (row.type != "histogram"));
    CHECK_FALSE(row.help.empty());
    CHECK_FALSE(row.help.ends_with('.'));
  }
}

TEST_CASE("counters, gauges and histograms keep their series") {
  Metrics metrics;
  const Metrics::Labels denied = {{"check", "relay"}, {"code", "554"}};
  CHECK(metrics.value("rejects_total", denied) == 0);
  CHECK(metrics.text().find("check=\"relay\"") == std::string::npos);  // reading makes no series
  metrics.count("rejects_total", denied);
  metrics.count("rejects_total", denied, 2);
  CHECK(metrics.value("rejects_total", denied) == 3);
  CHECK(has_line(metrics.text(), "greymx_rejects_total{check=\"relay\",code=\"554\"} 3"));
  metrics.set("connections", 7);
  CHECK(metrics.value("connections") == 7);
  metrics.observe("spool_sync_seconds", 0.002);
  CHECK(metrics.value("spool_sync_seconds") == 1);
  CHECK(has_line(metrics.text(), "greymx_spool_sync_seconds_bucket{le=\"0.003\"} 1"));
  CHECK(has_line(metrics.text(), "greymx_spool_sync_seconds_bucket{le=\"0.001\"} 0"));
}

TEST_CASE("a gauge whose subject is gone is forgotten") {
  Metrics metrics;
  metrics.set("primary_up", {{"domain", "example.com"}}, 1);
  metrics.forget("primary_up", {{"domain", "example.com"}});
  metrics.forget("primary_up", {{"domain", "example.net"}});
  CHECK(metrics.text().find("example") == std::string::npos);
}

TEST_CASE("a name, type or label set that the table does not have ends the process") {
  Metrics metrics;
  CHECK(test::last_words([&] { metrics.count("conections"); }) == "metric greymx_conections: not in the table\n");
  CHECK(test::last_words([&] { metrics.count("connections"); }) ==
        "metric greymx_connections: has another type in the table\n");
  const std::string labels = "metric greymx_primary_up: has other labels in the table\n";
  CHECK(test::last_words([&] { metrics.set("primary_up", 1); }) == labels);
  CHECK(test::last_words([&] { metrics.set("primary_up", {{"host", "x"}}, 1); }) == labels);
  CHECK(test::last_words([&] { metrics.set("primary_up", {{"domain", "x"}, {"host", "x"}}, 1); }) == labels);
}

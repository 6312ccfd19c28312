#include "config/check.hpp"

#include <sys/un.h>

#include <algorithm>

namespace greymx::config {

namespace {

class Checks {
 public:
  Checks(const Config& config, Report& report) : c_(config), report_(report) {}

  void run() {
    domains();
    listeners();
    times();
    tls();
    if (c_.delivery.concurrency_start > c_.delivery.concurrency) {
      wrong("delivery.concurrency_start", "delivery.concurrency",
            fmt::format("{} is more than delivery.concurrency ({})", c_.delivery.concurrency_start,
                        c_.delivery.concurrency));
    }
    if (c_.limits.rate_per_client.count == 0) {
      wrong("limits.rate_per_client", "", "0 would refuse every client; write for example \"60/1m\"");
    }
    if (c_.limits.recipients_per_message < 100 && report_.positions.contains("limits.recipients_per_message")) {
      report_.warning(report_.positions["limits.recipients_per_message"],
                      "limits.recipients_per_message: RFC 5321 4.5.3.1.8 asks for at least 100");
    }
  }

 private:
  // At the first of the two keys that stands in the file. Keys with an error of their own say nothing here.
  void wrong(const std::string& key, const std::string& other, const std::string& text) {
    if (report_.bad.contains(key) || report_.bad.contains(other)) return;
    Position where{1, 1};
    for (const std::string& name : {key, other}) {
      const auto it = report_.positions.find(name);
      if (it == report_.positions.end()) continue;
      where = it->second;
      break;
    }
    report_.error(where, key + ": " + text);
  }

  void domains() {
    if (!c_.domains.empty() || report_.positions.contains("domains")) return;
    report_.error({1, 1},
                  "there is no domain to relay for; add for example [domains.\"example.com\"] and below it primary = "
                  "[\"mx1.example.com\"]");
  }

  void listeners() {
    std::vector<std::pair<std::string, Endpoint>> all;
    const auto add = [&](const char* key, const Endpoint& endpoint) {
      if (endpoint.port == 0) return;
      const auto same = [&](const auto& other) { return other.second == endpoint; };
      if (std::any_of(all.begin(), all.end(), same))
        wrong(key, "", endpoint.to_string() + " is listened on twice; keep one of them");
      all.emplace_back(key, endpoint);
    };
    for (const SmtpListener& listener : c_.listen.smtp) {
      add("listen.smtp", listener.endpoint);
      if (listener.proxy_protocol && c_.access.proxy_networks.empty()) {
        wrong("listen.smtp", "access.proxy_networks",
              "proxy_protocol needs the proxy's address in access.proxy_networks, which is empty");
      }
    }
    for (const PolicyListener& listener : c_.listen.policy) {
      if (listener.unix_path.empty()) add("listen.policy", listener.endpoint);
      socket_path("listen.policy", listener.unix_path);
    }
    socket_path("listen.control", c_.listen.control);
    for (const Endpoint& endpoint : c_.listen.http) add("listen.http", endpoint);
  }

  // What bind() can take, with the final NUL.
  void socket_path(const char* key, const std::string& path) {
    if (path.size() >= sizeof(sockaddr_un::sun_path))
      wrong(key, "", "the path of a socket must be shorter than 108 bytes");
  }

  void times() {
    ordered("queue.retry_min", c_.queue.retry_min, "queue.retry_max", c_.queue.retry_max);
    ordered("queue.lifetime", c_.queue.lifetime, "queue.lifetime_max", c_.queue.lifetime_max);
    ordered("queue.delay_warning", c_.queue.delay_warning, "queue.lifetime", c_.queue.lifetime);
    ordered("greylist.retry_window", c_.greylist.retry_window, "greylist.max_age", c_.greylist.max_age);
    if (c_.greylist.delay >= c_.greylist.retry_window) {
      wrong("greylist.delay", "greylist.retry_window",
            fmt::format("{} is not shorter than greylist.retry_window ({}), so no retry could ever pass",
                        human_duration(c_.greylist.delay), human_duration(c_.greylist.retry_window)));
    }
  }

  void ordered(const std::string& lesser, Seconds small, const std::string& greater, Seconds great) {
    if (small <= great) return;
    wrong(lesser, greater,
          fmt::format("{} is longer than {} ({})", human_duration(small), greater, human_duration(great)));
  }

  void tls() {
    const Tls& tls = c_.tls;
    if (!tls.certificate.empty() && tls.key.empty())
      wrong("tls.certificate", "tls.key", "tls.key, the certificate's private key, is missing");
    if (tls.certificate.empty() && !tls.key.empty())
      wrong("tls.key", "tls.certificate", "tls.certificate, the key's certificate, is missing");
    if (tls.inbound == TlsLevel::encrypt && tls.certificate.empty()) {
      wrong("tls.inbound", "tls.certificate", "\"encrypt\" without tls.certificate would refuse all mail");
    }
  }

  const Config& c_;
  Report& report_;
};

}  // namespace

void check(const Config& config, Report& report) {
  Checks(config, report).run();
}

}  // namespace greymx::config

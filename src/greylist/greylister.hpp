// The greylister as its two front ends (SMTP and the policy service) see it: one engine, one store.
//
// Thread: check() from any network thread; store calls run on the store's own thread. It answers within its budget
// (1 s): if the store is slow or broken it fails open (greylist.on_error), counts it and says so once a minute.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/alerts.hpp"
#include "base/async.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "config/config.hpp"

namespace greymx::greylist {

struct Request {
  IpAddress client;
  std::string client_name;  // forward-confirmed, or "unknown"
  std::string sender;       // as given; empty = null sender
  std::string recipient;    // as given
  std::string helo;
  std::string queue_id;    // for the log line; may be empty
  std::string instance;    // one value per message; at most one header is handed out for it
  std::string spf_domain;  // the sender's domain if SPF says pass for this client and its record is not too wide
  bool dry_run = false;    // `greymx explain`: decides as always, but stores, counts and logs nothing
  std::optional<WallTime> test_time;  // policy_test_time under GREYMX_TEST_CLOCK=1
};

enum class Action : std::uint8_t { pass, defer };

struct Answer {
  Action action = Action::pass;
  std::string reason;        // "new", "early-retry (200s missing)", "triplet found", "client whitelist", …
  std::string text;          // defer: the configured text with %s and %r filled in
  std::string header;        // pass after a wait: "X-Greylist: delayed 300 seconds by greymx-0.1.0 at mx2…; date"
  std::string log_line;      // "action=greylist, reason=new, client_name=…, …" exactly as postgrey writes it
  bool would_defer = false;  // mode = "warn": action is pass, text is what it would have said
};

class Store;
struct Rules;
Rules rules_of(const config::Greylist& config);

class Greylister {
 public:
  // `store` already open. Settings switch on reload().
  Greylister(config::ConfigPtr config, std::unique_ptr<Store> store, const Clock& clock, Log& log, Metrics& metrics,
             Alerts& alerts);
  ~Greylister();  // after stop()
  // `spf_domain` looks up what Request::spf_domain wants; it is called only if the mail would have to wait without it.
  using SpfDomain = std::function<Task<std::string>(Request)>;
  Task<Answer> check(Request request, SpfDomain spf_domain = {});
  // Rereads the whitelist files too (blocks) and returns which cannot be used, so that the old list stays; lines that
  // make no sense are `left_out`. All of it is logged too.
  std::vector<std::string> reload(config::ConfigPtr config, std::vector<std::string>& left_out);
  void stop();  // flushes and closes the store

  // For greylist/operate.hpp.
  Store& store();
  config::ConfigPtr config() const;
  // As check() takes it: the wall time, except that a step back of the system clock makes no wait longer.
  WallTime now();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace greymx::greylist

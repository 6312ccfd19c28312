// A thread with an event loop, and what may only be used on it.
#pragma once

#include <future>
#include <memory>
#include <string>
#include <thread>

#include "base/async.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "dns/resolver.hpp"

namespace greymx::daemon {

class NetworkThread {
 public:
  // `name` for the log and for ps: 15 bytes at most.
  NetworkThread(std::string name, Log& log, Metrics& metrics);
  ~NetworkThread();  // after everything on it has been stopped; ends the loop and joins
  asio::any_io_executor executor() { return io_.get_executor(); }

  void run();  // starts the thread; whatever was posted before runs then
  // Called from another thread: runs `task` here and waits for it.
  void wait(Task<> task);
  // From any thread; the task ends with stop() at the latest (it is cancelled).
  void spawn(std::string name, Task<> task);
  // Cancels what was spawned, joins it, runs `last` here, ends the loop.
  void stop(std::function<void()> last = {});

 private:
  Task<> watch_lag();
  Task<> finish(std::function<void()> last);

  std::string name_;
  Log& log_;
  Metrics& metrics_;
  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  Gate gate_;
  std::thread thread_;
};

// A resolver that a reload can exchange: lookups under way keep the one they began with alive. Its thread only.
class ResolverSwitch final : public dns::Resolver {
 public:
  void use(std::shared_ptr<dns::Resolver> resolver) { current_ = std::move(resolver); }
  Task<dns::Answer> lookup(std::string name, dns::Type type, SteadyTime deadline) override;
  void forget(const std::string& name, dns::Type type) override { current_->forget(name, type); }

 private:
  std::shared_ptr<dns::Resolver> current_;
};

}  // namespace greymx::daemon

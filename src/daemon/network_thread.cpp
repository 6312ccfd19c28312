#include "daemon/network_thread.hpp"

#include <fmt/format.h>
#include <pthread.h>

#include <csignal>

namespace greymx::daemon {

NetworkThread::NetworkThread(std::string name, Log& log, Metrics& metrics)
    : name_(std::move(name)), log_(log), metrics_(metrics), gate_(executor(), [this](auto task, auto what) {
        log_.error("master", fmt::format("{}: {} ended by an exception: {}", name_, task, what));
      }) {}

NetworkThread::~NetworkThread() {
  stop();
}

void NetworkThread::run() {
  spawn("loop lag", watch_lag());
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), name_.c_str());
    io_.run();
  });
}

void NetworkThread::spawn(std::string name, Task<> task) {
  auto start = [this, name = std::move(name), task = std::make_shared<Task<>>(std::move(task))] {
    gate_.spawn(name, std::move(*task));
  };
  asio::post(io_, std::move(start));
}

namespace {

Task<> then_tell(Task<> task, std::shared_ptr<std::promise<void>> done) {
  // an exception reaches the gate, which logs it; who waits must go on all the same
  struct Tell {
    std::shared_ptr<std::promise<void>> done;
    ~Tell() { done->set_value(); }
  } tell{std::move(done)};
  co_await std::move(task);
}

}  // namespace

void NetworkThread::wait(Task<> task) {
  auto done = std::make_shared<std::promise<void>>();
  auto over = done->get_future();
  spawn("step", then_tell(std::move(task), std::move(done)));
  over.wait();
}

void NetworkThread::stop(std::function<void()> last) {
  if (!thread_.joinable()) return;
  auto done = std::make_shared<std::promise<void>>();
  auto over = done->get_future();
  Gate ending(executor());
  asio::post(io_, [&] { ending.spawn("end", then_tell(finish(std::move(last)), std::move(done))); });
  over.wait();
  work_.reset();
  // the loop ends by itself when the last coroutine has
  thread_.join();
}

Task<> NetworkThread::finish(std::function<void()> last) {
  gate_.cancel();
  co_await gate_.close();
  if (last) last();
}

Task<> NetworkThread::watch_lag() {
  for (;;) {
    const SteadyTime due = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    co_await sleep_until(due);
    metrics_.observe("event_loop_lag_seconds",
                     std::chrono::duration<double>(std::chrono::steady_clock::now() - due).count());
  }
}

namespace {

Task<dns::Answer> keep_until_answered(std::shared_ptr<dns::Resolver> resolver, Task<dns::Answer> answer) {
  dns::Answer got = co_await std::move(answer);
  resolver.reset();
  co_return got;
}

}  // namespace

Task<dns::Answer> ResolverSwitch::lookup(std::string name, dns::Type type, SteadyTime deadline) {
  return keep_until_answered(current_, current_->lookup(std::move(name), type, deadline));
}

}  // namespace greymx::daemon

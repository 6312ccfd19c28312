#include "base/async.hpp"

#include <thread>

#include "death.hpp"
#include "support/catch.hpp"
#include "support/run.hpp"

using namespace greymx;
using namespace std::chrono_literals;
using test::run;

namespace {

constexpr auto for_ever = 24h;
SteadyTime in(std::chrono::steady_clock::duration duration) {
  return std::chrono::steady_clock::now() + duration;
}

Task<int> value_after(int value, std::chrono::milliseconds wait) {
  co_await sleep_for(wait);
  co_return value;
}

Task<int> value_at_once(int value) {
  co_return value;
}

Task<int> throwing(std::string text) {
  co_await sleep_for(1ms);
  throw std::runtime_error(text);
}

struct Flag {
  bool& flag;
  ~Flag() { flag = true; }
};

Task<> until_cancelled(bool& ended) {
  const Flag flag{ended};
  co_await sleep_for(for_ever);
}

Task<> add_one(int& counter, std::chrono::milliseconds wait) {
  co_await sleep_for(wait);
  ++counter;
}

// A second thread with its own io_context, as a worker of the daemon has.
struct Worker {
  Worker() : guard(asio::make_work_guard(io)), thread([this] { io.run(); }) {}
  ~Worker() {
    guard.reset();
    thread.join();
  }
  asio::io_context io{1};
  asio::executor_work_guard<asio::io_context::executor_type> guard;
  std::thread thread;
};

Task<std::thread::id> thread_after(std::chrono::milliseconds wait) {
  co_await sleep_for(wait);
  co_return std::this_thread::get_id();
}

Task<bool> comes_back_here(asio::any_io_executor other, std::thread::id theirs) {
  const auto here = std::this_thread::get_id();
  auto task = thread_after(1ms);
  const auto there = co_await on(other, std::move(task));
  co_return there == theirs&& here != theirs&& std::this_thread::get_id() == here;
}

Task<bool> offload_comes_back_here(asio::thread_pool& pool) {
  const auto here = std::this_thread::get_id();
  auto blocking = [] { return std::this_thread::get_id(); };
  const auto there = co_await offload(pool, blocking);
  co_return there != here&& std::this_thread::get_id() == here;
}

}  // namespace

TEST_CASE("with_deadline gives the result of a task that ends in time") {
  CHECK(run(with_deadline(value_after(7, 1ms), in(for_ever))) == 7);
  CHECK(run(with_deadline(value_at_once(8), in(for_ever))) == 8);
}

TEST_CASE("with_deadline cancels and joins a task that does not end in time") {
  bool ended = false;
  const bool in_time = run(with_deadline(until_cancelled(ended), in(1ms)));
  CHECK_FALSE(in_time);
  CHECK(ended);
  CHECK(run(with_deadline(value_after(7, for_ever), in(1ms))) == std::nullopt);
  CHECK(run(with_deadline(value_after(7, for_ever), SteadyTime())) == std::nullopt);
}

TEST_CASE("with_deadline passes an exception on at once") {
  CHECK_THROWS_WITH(run(with_deadline(throwing("broken"), in(for_ever))), "broken");
}

TEST_CASE("deadlines nest and the inner one that passes leaves the outer task running") {
  auto outer = []() -> Task<int> {
    const auto inner = co_await with_deadline(value_after(1, for_ever), in(1ms));
    co_await sleep_for(1ms);
    co_return inner ? 1 : 2;
  };
  CHECK(run(with_deadline(outer(), in(for_ever))) == 2);
}

TEST_CASE("cancelling the one who waits with a deadline cancels and joins the task") {
  asio::io_context io{1};
  Gate gate(io.get_executor());
  bool ended = false;
  auto waits = [](bool& inner_ended) -> Task<> { co_await with_deadline(until_cancelled(inner_ended), in(for_ever)); };
  gate.spawn("waits", waits(ended));
  gate.cancel();
  run(io, gate.close());
  CHECK(ended);
}

TEST_CASE("join_all waits for all and keeps their order") {
  std::vector<Task<int>> tasks;
  tasks.push_back(value_after(1, 5ms));
  tasks.push_back(value_at_once(2));
  tasks.push_back(value_after(3, 1ms));
  CHECK(run(join_all(std::move(tasks))) == std::vector{1, 2, 3});
  CHECK(run(join_all(std::vector<Task<int>>())).empty());
}

TEST_CASE("join_all rethrows only after all have ended") {
  int counter = 0;
  auto counts = [](int& into) -> Task<int> {
    co_await add_one(into, 10ms);
    co_return 0;
  };
  std::vector<Task<int>> tasks;
  tasks.push_back(throwing("first"));
  tasks.push_back(counts(counter));
  CHECK_THROWS_WITH(run(join_all(std::move(tasks))), "first");
  CHECK(counter == 1);
}

TEST_CASE("join_all of tasks without a result") {
  int counter = 0;
  std::vector<Task<>> tasks;
  tasks.push_back(add_one(counter, 1ms));
  tasks.push_back(add_one(counter, 0ms));
  run(join_all(std::move(tasks)));
  CHECK(counter == 2);
}

TEST_CASE("offload runs on the pool and resumes where it was called") {
  asio::io_context io{1};
  asio::thread_pool pool(1);
  CHECK(run(io, offload_comes_back_here(pool)));
}

TEST_CASE("offload passes results and exceptions on") {
  asio::io_context io{1};
  asio::thread_pool pool(2);
  struct NoDefault {
    explicit NoDefault(int v) : value(v) {}
    int value;
  };
  CHECK(run(io, offload(pool, [] { return NoDefault(4); })).value == 4);
  bool ran = false;
  run(io, offload(pool, [&] { ran = true; }));
  CHECK(ran);
  CHECK_THROWS_WITH(run(io, offload(pool, []() -> int { throw std::runtime_error("no disk"); })), "no disk");
}

TEST_CASE("a cancelled coroutine waits for what it has offloaded and gets its result") {
  asio::io_context io{1};
  asio::thread_pool pool(1);
  Gate gate(io.get_executor());
  std::atomic<bool> release = false;
  int result = 0;
  auto waits = [](asio::thread_pool& on_pool, std::atomic<bool>& go, int& into) -> Task<> {
    auto blocking = [&go] {
      go.wait(false);
      return 5;
    };
    into = co_await offload(on_pool, blocking);
  };
  gate.spawn("waits", waits(pool, release, result));
  asio::post(io, [&] { gate.cancel(); });
  asio::post(io, [&] {
    release = true;
    release.notify_all();
  });
  run(io, gate.close());
  CHECK(result == 5);
}

TEST_CASE("on runs a coroutine on the other thread and resumes here") {
  asio::io_context io{1};
  Worker worker;
  CHECK(run(io, comes_back_here(worker.io.get_executor(), worker.thread.get_id())));
  CHECK_THROWS_WITH(run(io, on(worker.io.get_executor(), throwing("there"))), "there");
}

TEST_CASE("on passes cancellation to the other thread and joins") {
  asio::io_context io{1};
  Worker worker;
  bool ended = false;
  for (int i = 0; i < 100; ++i) {
    ended = false;
    const bool in_time = run(io, with_deadline(on(worker.io.get_executor(), until_cancelled(ended)), in(i * 20us)));
    CHECK_FALSE(in_time);
    CHECK(ended);
  }
}

TEST_CASE("a gate counts its coroutines and close waits for the last") {
  asio::io_context io{1};
  Gate gate(io.get_executor());
  int counter = 0;
  CHECK(gate.spawn("one", add_one(counter, 1ms)));
  CHECK(gate.spawn("two", add_one(counter, 5ms)));
  CHECK(gate.size() == 2);
  run(io, gate.close());
  CHECK(counter == 2);
  CHECK(gate.size() == 0);
}

TEST_CASE("a closing gate refuses newcomers and drops them unstarted") {
  asio::io_context io{1};
  Gate gate(io.get_executor());
  run(io, gate.close());
  int counter = 0;
  CHECK(gate.closing());
  CHECK_FALSE(gate.spawn("late", add_one(counter, 0ms)));
  io.restart();
  io.run();
  CHECK(counter == 0);
}

TEST_CASE("a cancelled gate ends its coroutines, silently") {
  asio::io_context io{1};
  std::string reported;
  Gate gate(io.get_executor(), [&](const std::string& name, const std::string&) { reported = name; });
  bool first = false;
  bool second = false;
  gate.spawn("first", until_cancelled(first));
  gate.spawn("second", until_cancelled(second));
  io.run_one();
  gate.cancel();
  run(io, gate.close());
  CHECK(first);
  CHECK(second);
  CHECK(reported.empty());
}

TEST_CASE("an exception ends only the coroutine that it left") {
  asio::io_context io{1};
  std::vector<std::string> reported;
  Gate gate(io.get_executor(),
            [&](const std::string& name, const std::string& what) { reported.push_back(name + ": " + what); });
  int counter = 0;
  auto breaks = []() -> Task<> { co_await throwing("oops"); };
  gate.spawn("breaks", breaks());
  gate.spawn("lives", add_one(counter, 5ms));
  run(io, gate.close());
  CHECK(reported == std::vector<std::string>{"breaks: oops"});
  CHECK(counter == 1);
}

TEST_CASE("without a handler an exception leaves through the loop") {
  asio::io_context io{1};
  Gate gate(io.get_executor());
  auto breaks = []() -> Task<> { co_await throwing("oops"); };
  gate.spawn("breaks", breaks());
  CHECK_THROWS_WITH(io.run(), "oops");
  CHECK(gate.size() == 0);
}

TEST_CASE("close joins even when the one who closes is cancelled") {
  asio::io_context io{1};
  Gate inner(io.get_executor());
  Gate outer(io.get_executor());
  int counter = 0;
  auto closes = [](Gate& gate) -> Task<> { co_await gate.close(); };
  inner.spawn("works", add_one(counter, 5ms));
  outer.spawn("closes", closes(inner));
  outer.cancel();
  run(io, outer.close());
  CHECK(inner.size() == 0);
  CHECK(counter == 1);
}

TEST_CASE("an event wakes all who wait now, not those who come later") {
  asio::io_context io{1};
  Event event(io.get_executor());
  Gate gate(io.get_executor());
  int woken = 0;
  auto waits = [](Event& on_event, int& count) -> Task<> {
    const bool notified = co_await on_event.wait(in(for_ever));
    if (notified) ++count;
  };
  gate.spawn("one", waits(event, woken));
  gate.spawn("two", waits(event, woken));
  asio::post(io, [&] {
    event.notify_all();
    CHECK(woken == 0);  // never inside notify_all
  });
  run(io, gate.close());
  CHECK(woken == 2);
  CHECK_FALSE(run(io, event.wait(in(1ms))));
}

TEST_CASE("an event that goes wakes who still waits") {
  asio::io_context io{1};
  std::optional<Event> event(io.get_executor());
  Gate gate(io.get_executor());
  bool notified = false;
  auto waits = [](Event& on_event, bool& result) -> Task<> { result = co_await on_event.wait(in(for_ever)); };
  gate.spawn("waits", waits(*event, notified));
  asio::post(io, [&] { event.reset(); });
  run(io, gate.close());
  CHECK(notified);
}

TEST_CASE("a gate that is destroyed while held ends the process and names who holds it") {
  const std::string words = test::last_words([] {
    asio::io_context io{1};
    int counter = 0;
    const Gate gate(io.get_executor());
    Gate held(io.get_executor());
    held.spawn("session 7", add_one(counter, 24h));
  });
  CHECK(words == "gate destroyed while held by session 7\n");
}

// The only coroutine helpers. Every coroutine has an owner that outlives it: a parent that awaits it, or a Gate.
//
// House rules: parameters by value (or references to objects that own the coroutine's scope), no capturing lambda
// coroutines, one awaited call a statement with named arguments and its result bound to a name, results instead of
// exceptions across an await, a deadline on whatever can wait.
//
// Threads: everything here belongs to the executor it is used on (one thread); only `offload` and `on` cross over.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/id.hpp"
#include "base/result.hpp"

namespace greymx {

namespace asio = boost::asio;
template <class T = void>
using Task = asio::awaitable<T>;

// Counts the coroutines of one owner. Destroying a held gate is a bug and aborts with the names of the holders.
// An exception that leaves a spawned coroutine is logged through `on_exception` (name, what) and ends only that one.
class Gate {
 public:
  explicit Gate(asio::any_io_executor executor, std::function<void(std::string, std::string)> on_exception = {});
  ~Gate();
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // False (and the task is dropped unstarted) once closing. Call on the gate's executor.
  bool spawn(std::string name, Task<> task);
  void cancel();   // terminal cancellation to all that run; they end at their next await
  Task<> close();  // refuses new ones, waits until none is left; if cancelled already, disable that first
  bool closing() const;
  std::size_t size() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

Task<> sleep_until(SteadyTime deadline);
Task<> sleep_for(std::chrono::steady_clock::duration duration);

// Runs `task` until it ends or the deadline passes; in the latter case it is cancelled, joined, and nullopt comes
// back. Only for tasks that can be cancelled (no offload inside).
template <class T>
Task<std::optional<T>> with_deadline(Task<T> task, SteadyTime deadline);
Task<bool> with_deadline(Task<> task, SteadyTime deadline);  // false: the deadline passed

// Runs `fn` (not a coroutine, may block) on a pool's thread and resumes here with what it returned or threw. Not
// cancellable once begun. The pool must be joined before this side's io_context is destroyed: its thread still lets go
// of that when the result is already here.
template <class Fn>
Task<std::invoke_result_t<Fn>> offload(asio::thread_pool& pool, Fn fn);

// Runs a coroutine on another thread's executor and resumes here with its result. Cancellation is passed on and the
// coroutine joined. The other thread must be joined before this side's io_context is destroyed.
template <class T>
Task<T> on(asio::any_io_executor executor, Task<T> task);

// Runs all at once, waits for all, results in order. If any throws, the first exception is rethrown at the end.
template <class T>
Task<std::vector<T>> join_all(std::vector<Task<T>> tasks);
Task<> join_all(std::vector<Task<>> tasks);

// Lets coroutines of one thread wait for something to change. Waiters wake through the executor, never inside notify.
class Event {
 public:
  explicit Event(asio::any_io_executor executor);
  ~Event();  // wakes all that still wait
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void notify_all();                     // wakes all that wait now
  Task<bool> wait(SteadyTime deadline);  // false: the deadline passed. Spurious wake-ups happen: look again

 private:
  struct Waiters;
  asio::any_io_executor executor_;
  std::shared_ptr<Waiters> waiters_;
};

}  // namespace greymx

#include "base/async_impl.hpp"

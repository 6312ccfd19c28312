// The templates of async.hpp. Nobody includes this but async.hpp.
#pragma once

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <type_traits>
#include <variant>

#include "base/async.hpp"

namespace greymx {

namespace detail {

template <class T>
using Value = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

// co_spawn wants a default-constructible result; this takes any, void included. Absent if an exception was thrown.
template <class T>
Task<std::optional<Value<T>>> boxed(Task<T> task) {
  if constexpr (std::is_void_v<T>) {
    co_await std::move(task);
    co_return std::monostate{};
  } else {
    T result = co_await std::move(task);
    co_return std::optional<T>(std::move(result));
  }
}

template <class T>
Value<T> unbox(std::exception_ptr exception, std::optional<Value<T>> box) {
  if (exception) std::rethrow_exception(exception);
  return std::move(*box);
}

template <class Fn>
Task<std::invoke_result_t<Fn>> as_task(Fn fn) {
  co_return fn();
}

// Asio 1.81 emits a cancellation that crosses executors through a raw pointer into the awaiting side, which may be
// gone by then; here a shared signal crosses instead.
template <class T, class Token>
auto async_on(asio::any_io_executor executor, Task<T> task, Token&& token) {
  using Box = std::optional<Value<T>>;
  auto start = [](auto handler, asio::any_io_executor there, Task<T> work) {
    asio::any_io_executor home = asio::get_associated_executor(handler);
    asio::cancellation_slot slot = asio::get_associated_cancellation_slot(handler);
    auto signal = std::make_shared<asio::cancellation_signal>();
    if (slot.is_connected()) {
      slot.assign(
          [there, signal](asio::cancellation_type type) { asio::post(there, [signal, type] { signal->emit(type); }); });
    }
    auto done = [signal, slot, guard = asio::make_work_guard(home), handler = std::move(handler)](
                    std::exception_ptr exception, Box box) mutable {
      auto finish = [slot, exception, box = std::move(box), handler = std::move(handler)]() mutable {
        slot.clear();
        std::move(handler)(exception, std::move(box));
      };
      asio::post(guard.get_executor(), std::move(finish));
    };
    asio::co_spawn(there, boxed(std::move(work)), asio::bind_cancellation_slot(signal->slot(), std::move(done)));
  };
  return asio::async_initiate<Token, void(std::exception_ptr, Box)>(std::move(start), token, std::move(executor),
                                                                    std::move(task));
}

}  // namespace detail

template <class T>
Task<std::optional<T>> with_deadline(Task<T> task, SteadyTime deadline) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  asio::steady_timer timer(executor, deadline);
  auto group = asio::experimental::make_parallel_group(
      asio::co_spawn(executor, detail::boxed(std::move(task)), asio::deferred), timer.async_wait(asio::deferred));
  auto [order, exception, box, timer_error] =
      co_await group.async_wait(asio::experimental::wait_for_one(), asio::use_awaitable);
  if (order[0] == 1 && !timer_error) co_return std::nullopt;
  co_return detail::unbox<T>(exception, std::move(box));
}

template <class Fn>
Task<std::invoke_result_t<Fn>> offload(asio::thread_pool& pool, Fn fn) {
  // An empty slot: what runs on the pool cannot be cancelled, only awaited.
  using T = std::invoke_result_t<Fn>;
  auto token = asio::bind_cancellation_slot(asio::cancellation_slot(), asio::use_awaitable);
  auto work = detail::boxed(detail::as_task(std::move(fn)));
  auto box = co_await asio::co_spawn(pool.get_executor(), std::move(work), token);
  if constexpr (!std::is_void_v<T>) co_return std::move(*box);
}

template <class T>
Task<T> on(asio::any_io_executor executor, Task<T> task) {
  auto box = co_await detail::async_on(std::move(executor), std::move(task), asio::use_awaitable);
  if constexpr (!std::is_void_v<T>) co_return std::move(*box);
}

template <class T>
Task<std::vector<T>> join_all(std::vector<Task<T>> tasks) {
  using Box = std::optional<T>;
  std::vector<T> results;
  if (tasks.empty()) co_return results;
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  const auto spawn = [executor](Task<T> task) {
    return asio::co_spawn(executor, detail::boxed(std::move(task)), asio::deferred);
  };
  std::vector<decltype(spawn(std::declval<Task<T>>()))> operations;
  operations.reserve(tasks.size());
  for (Task<T>& task : tasks) operations.push_back(spawn(std::move(task)));
  auto group = asio::experimental::make_parallel_group(std::move(operations));
  auto [order, exceptions, boxes] = co_await group.async_wait(asio::experimental::wait_for_all(), asio::use_awaitable);
  results.reserve(boxes.size());
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    Box box = std::move(boxes[i]);
    results.push_back(detail::unbox<T>(exceptions[i], std::move(box)));
  }
  co_return results;
}

}  // namespace greymx

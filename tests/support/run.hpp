// Runs one coroutine to its end from a test: what it returns comes back, what it throws is thrown here.
#pragma once

#include <stdexcept>

#include "base/async.hpp"

namespace greymx::test {

// Other work of `io` goes on meanwhile and is left where it is when `task` has ended. A task that waits for something
// that nobody can bring about any more is an error.
template <class T>
T run(asio::io_context& io, Task<T> task) {
  std::exception_ptr exception;
  std::optional<detail::Value<T>> result;
  bool done = false;
  asio::co_spawn(io, detail::boxed(std::move(task)),
                 [&](std::exception_ptr thrown, std::optional<detail::Value<T>> value) {
                   exception = thrown;
                   result = std::move(value);
                   done = true;
                 });
  io.restart();
  while (!done) {
    if (io.run_one() == 0) throw std::logic_error("the task waits for ever");
  }
  if constexpr (std::is_void_v<T>) {
    if (exception) std::rethrow_exception(exception);
  } else {
    return detail::unbox<T>(exception, std::move(result));
  }
}

// On a loop of its own; not for tasks that use other threads (offload, on), which need a loop that outlives those.
template <class T>
T run(Task<T> task) {
  asio::io_context io{1};
  return run(io, std::move(task));
}

}  // namespace greymx::test

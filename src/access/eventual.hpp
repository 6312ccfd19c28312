// A value that comes once and that many coroutines may wait for, each on its own thread: what sessions share with the
// lookups and callouts that run for them. Kept by shared_ptr on both sides, so that either may go first.
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/async.hpp"

namespace greymx::access {

template <class T>
class Eventual {
 public:
  void set(T value) {  // any thread; the first one counts
    std::vector<std::weak_ptr<asio::steady_timer>> waiters;
    {
      const std::scoped_lock lock(mutex_);
      if (!value_) value_ = std::move(value);
      waiters.swap(waiters_);
    }
    for (const auto& waiter : waiters) {
      const auto timer = waiter.lock();
      if (timer) asio::post(timer->get_executor(), [timer] { timer->cancel(); });
    }
  }

  const T* get() {  // any thread; null: it has not come yet
    const std::scoped_lock lock(mutex_);
    return value_ ? &*value_ : nullptr;
  }
  // Null: the deadline passed. The caller keeps this object alive meanwhile, and as long as it uses the value.
  Task<const T*> wait(SteadyTime deadline) {
    const T* known = get();
    if (known != nullptr) co_return known;
    const asio::any_io_executor executor = co_await asio::this_coro::executor;
    const auto timer = std::make_shared<asio::steady_timer>(executor, deadline);
    if (!enlist(timer)) co_return get();
    // set() cancels through post, so after the wait below has begun.
    co_await timer->async_wait(asio::as_tuple(asio::use_awaitable));
    co_return get();
  }

 private:
  bool enlist(const std::shared_ptr<asio::steady_timer>& timer) {
    const std::scoped_lock lock(mutex_);
    if (!value_) waiters_.push_back(timer);
    return !value_;
  }

  std::mutex mutex_;
  std::optional<T> value_;  // never changes once set
  std::vector<std::weak_ptr<asio::steady_timer>> waiters_;
};

}  // namespace greymx::access

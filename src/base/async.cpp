#include "base/async.hpp"

#include <boost/asio/as_tuple.hpp>
#include <cstdio>
#include <cstdlib>
#include <list>

namespace greymx {

struct Gate::State {
  struct Holder {
    std::string name;
    std::shared_ptr<asio::cancellation_signal> signal;
  };

  explicit State(asio::any_io_executor ex) : executor(std::move(ex)), empty(executor, SteadyTime::max()) {}

  asio::any_io_executor executor;
  std::function<void(std::string, std::string)> on_exception;
  std::list<Holder> holders;
  bool closing = false;
  asio::steady_timer empty;  // never expires; cancelled when the last holder leaves

  // Without a handler the exception leaves through io_context::run, so that no test passes over it.
  void report(const std::string& name, std::exception_ptr exception) const {
    try {
      std::rethrow_exception(exception);
    } catch (const boost::system::system_error& error) {
      if (error.code() == asio::error::operation_aborted) return;  // cancelled, as told
      if (!on_exception) throw;
      on_exception(name, error.what());
    } catch (const std::exception& error) {
      if (!on_exception) throw;
      on_exception(name, error.what());
    }
  }

  void leave(std::list<Holder>::iterator holder, std::exception_ptr exception) {
    const std::string name = std::move(holder->name);
    holders.erase(holder);
    if (holders.empty()) empty.cancel();
    if (exception) report(name, exception);
  }
};

Gate::Gate(asio::any_io_executor executor, std::function<void(std::string, std::string)> on_exception)
    : state_(std::make_shared<State>(std::move(executor))) {
  state_->on_exception = std::move(on_exception);
}

Gate::~Gate() {
  if (state_->holders.empty()) return;
  for (const State::Holder& holder : state_->holders) {
    std::fprintf(stderr, "gate destroyed while held by %s\n", holder.name.c_str());
  }
  std::abort();
}

bool Gate::spawn(std::string name, Task<> task) {
  if (state_->closing) return false;
  auto signal = std::make_shared<asio::cancellation_signal>();
  const auto holder = state_->holders.insert(state_->holders.end(), {std::move(name), signal});
  auto done = [state = state_, holder](std::exception_ptr exception) { state->leave(holder, exception); };
  try {
    asio::co_spawn(state_->executor, std::move(task), asio::bind_cancellation_slot(signal->slot(), std::move(done)));
  } catch (...) {  // no memory: it has not begun, and is not to be waited for
    std::erase_if(state_->holders, [&signal](const State::Holder& one) { return one.signal == signal; });
    throw;
  }
  return true;
}

void Gate::cancel() {
  // Copies: an emitted signal may end its task at once, and with it the holder.
  asio::dispatch(state_->executor, [state = state_] {
    const std::list<State::Holder> holders = state->holders;
    for (const State::Holder& holder : holders) holder.signal->emit(asio::cancellation_type::terminal);
  });
}

Task<> Gate::close() {
  const std::shared_ptr<State> state = state_;
  state->closing = true;
  if (state->holders.empty()) co_return;
  // Leaving early would destroy what the holders still use, so cancellation does not end this wait.
  auto token = asio::bind_cancellation_slot(asio::cancellation_slot(), asio::as_tuple(asio::use_awaitable));
  co_await state->empty.async_wait(token);
}

bool Gate::closing() const {
  return state_->closing;
}
std::size_t Gate::size() const {
  return state_->holders.size();
}

Task<> sleep_until(SteadyTime deadline) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  asio::steady_timer timer(executor, deadline);
  co_await timer.async_wait(asio::use_awaitable);
}

Task<> sleep_for(std::chrono::steady_clock::duration duration) {
  return sleep_until(std::chrono::steady_clock::now() + duration);
}

Task<bool> with_deadline(Task<> task, SteadyTime deadline) {
  const auto box = co_await with_deadline(detail::boxed(std::move(task)), deadline);
  co_return box.has_value();
}

Task<> join_all(std::vector<Task<>> tasks) {
  std::vector<Task<std::optional<std::monostate>>> boxes;
  boxes.reserve(tasks.size());
  for (Task<>& task : tasks) boxes.push_back(detail::boxed(std::move(task)));
  co_await join_all(std::move(boxes));
}

// One timer a waiter: it fires at the deadline, and is cancelled by notify_all().
struct Event::Waiters {
  std::list<asio::steady_timer*> timers;
};

Event::Event(asio::any_io_executor executor) : executor_(std::move(executor)), waiters_(std::make_shared<Waiters>()) {}

Event::~Event() {
  notify_all();
}

void Event::notify_all() {
  for (asio::steady_timer* timer : waiters_->timers) timer->cancel();
}

Task<bool> Event::wait(SteadyTime deadline) {
  struct Place {
    std::shared_ptr<Waiters> waiters;  // may outlive the event
    std::list<asio::steady_timer*>::iterator at;
    ~Place() { waiters->timers.erase(at); }
  };
  asio::steady_timer timer(executor_, deadline);
  const Place place{waiters_, waiters_->timers.insert(waiters_->timers.end(), &timer)};
  const auto [cancelled] = co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  co_return static_cast<bool>(cancelled);
}

}  // namespace greymx

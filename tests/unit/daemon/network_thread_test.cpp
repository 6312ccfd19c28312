#include "daemon/network_thread.hpp"

#include <atomic>

#include "support/catch.hpp"
#include "support/recording_log.hpp"
#include "support/run.hpp"

using namespace greymx;
using namespace std::chrono_literals;

namespace {

// Answers once it is told to; what waits when it goes fails, as with the real one.
class SlowResolver final : public dns::Resolver {
 public:
  explicit SlowResolver(asio::any_io_executor executor) : state_(std::make_shared<State>(executor)) {}
  ~SlowResolver() override { finish(dns::Outcome::failed); }
  Task<dns::Answer> lookup(std::string, dns::Type, SteadyTime) override { return wait(state_); }
  void finish(dns::Outcome outcome) {
    state_->answer.outcome = outcome;
    state_->done = true;
    state_->changed.notify_all();
  }

 private:
  struct State {
    explicit State(asio::any_io_executor executor) : changed(std::move(executor)) {}
    dns::Answer answer;
    bool done = false;
    Event changed;
  };
  static Task<dns::Answer> wait(std::shared_ptr<State> state) {
    while (!state->done) {
      static_cast<void>(co_await state->changed.wait(SteadyTime::max()));
    }
    co_return state->answer;
  }
  std::shared_ptr<State> state_;
};

Task<> hold(std::atomic<bool>& running) {
  struct Mark {
    std::atomic<bool>& running;
    ~Mark() { running = false; }
  } const mark{running};
  running = true;
  co_await sleep_for(1h);
}

}  // namespace

TEST_CASE("a lookup under way keeps the resolver it began with, the next asks the new one") {
  asio::io_context io{1};
  daemon::ResolverSwitch resolver;
  auto first = std::make_shared<SlowResolver>(io.get_executor());
  SlowResolver& slow = *first;
  const std::weak_ptr<SlowResolver> alive = first;
  resolver.use(std::move(first));
  std::optional<dns::Answer> early;
  asio::co_spawn(io, resolver.lookup("a.test", dns::Type::a, SteadyTime::max()),
                 [&](std::exception_ptr, dns::Answer answer) { early = std::move(answer); });
  io.poll();

  auto second = std::make_shared<SlowResolver>(io.get_executor());
  second->finish(dns::Outcome::no_domain);
  resolver.use(std::move(second));
  io.poll();
  CHECK_FALSE(early);
  REQUIRE_FALSE(alive.expired());
  CHECK(test::run(io, resolver.lookup("a.test", dns::Type::a, SteadyTime::max())).outcome == dns::Outcome::no_domain);

  slow.finish(dns::Outcome::found);
  io.poll();
  REQUIRE(early);
  CHECK(early->outcome == dns::Outcome::found);
  CHECK(alive.expired());
}

TEST_CASE("what a thread uses goes when nothing on it runs any more") {
  test::RecordingLog log;
  Metrics metrics;
  daemon::NetworkThread thread("test", log, metrics);
  std::atomic<bool> running = false;
  thread.run();
  thread.spawn("holder", hold(running));
  thread.wait(sleep_for(0s));
  REQUIRE(running);
  bool ran_in_the_end = true;
  bool on_the_thread = false;
  thread.stop([&, main = std::this_thread::get_id()] {
    ran_in_the_end = running;
    on_the_thread = std::this_thread::get_id() != main;
  });
  CHECK_FALSE(ran_in_the_end);
  CHECK(on_the_thread);
}

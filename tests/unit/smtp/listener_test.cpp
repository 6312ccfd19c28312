#include "smtp/listener.hpp"

#include <sys/resource.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <future>
#include <list>
#include <thread>

#include "support/catch.hpp"
#include "support/run.hpp"
#include "support/smtp_server.hpp"

using namespace greymx;
using namespace greymx::smtp;
using asio::ip::tcp;
using namespace std::chrono_literals;

namespace {

// Two network threads, and one that asks them to stop, as in the daemon.
struct Server {
  explicit Server(config::Config wanted) : settings(std::move(wanted)) {
    settings.listen.smtp = {{*Endpoint::parse("127.0.0.1:0"), false}};
    listener.emplace(std::vector<Worker>{{first.get_executor(), &policies[0]}, {second.get_executor(), &policies[1]}},
                     std::make_shared<config::Config>(settings), intake, tls, clock, log, metrics);
    REQUIRE(listener->open());
    listener->start();
    for (asio::io_context* io : {&other, &first, &second}) threads.emplace_back([io] { io->run(); });
  }
  ~Server() {
    stop(1s);
    for (auto* guard : {&other_guard, &first_guard, &second_guard}) guard->reset();
    for (std::thread& thread : threads) thread.join();
  }
  void stop(std::chrono::seconds grace) {
    std::promise<void> done;
    asio::co_spawn(other, listener->stop(std::chrono::steady_clock::now() + grace),
                   [&](std::exception_ptr) { done.set_value(); });
    done.get_future().wait();
  }
  tcp::endpoint endpoint() { return {asio::ip::address_v4::loopback(), listener->endpoints().at(0).port}; }

  config::Config settings;
  SystemClock clock;
  test::RecordingLog log;
  Metrics metrics;
  test::RecordingAlerts alerts;
  test::FakeIntake intake{clock};
  TlsServer tls{clock, log, metrics, alerts};
  std::array<test::FakePolicy, 2> policies;
  asio::io_context other{1};
  asio::io_context first{1};
  asio::io_context second{1};
  using Guard = asio::executor_work_guard<asio::io_context::executor_type>;
  Guard other_guard{other.get_executor()};
  Guard first_guard{first.get_executor()};
  Guard second_guard{second.get_executor()};
  std::optional<Listener> listener;
  std::vector<std::thread> threads;
};

struct Peer {
  explicit Peer(Server& server) { socket.connect(server.endpoint()); }
  std::string read() {  // a line, without its end; empty: closed
    boost::system::error_code error;
    const std::size_t size = asio::read_until(socket, asio::dynamic_buffer(buffer), "\r\n", error);
    if (error) return {};
    const std::string line = buffer.substr(0, size - 2);
    buffer.erase(0, size);
    return line;
  }
  std::string say(const std::string& line) {
    asio::write(socket, asio::buffer(line + "\r\n"));
    return read();
  }
  asio::io_context io;
  tcp::socket socket{io};
  std::string buffer;
};

config::Config strangers() {  // loopback is nobody special
  config::Config settings = test::server_config();
  settings.access.trusted_networks.clear();
  return settings;
}

}  // namespace

TEST_CASE("every worker takes connections of its own") {
  constexpr std::size_t count = 40;  // the kernel chooses by the client's port
  Server server(strangers());
  for (std::size_t i = 0; i < count; ++i) {
    Peer peer(server);
    CHECK(peer.read() == "220 mx2.example.net ESMTP greymx");
    CHECK(peer.say("NOOP") == "250 2.0.0 Ok");
    CHECK(peer.say("QUIT") == "221 2.0.0 Bye");
    CHECK(peer.read().empty());
  }
  server.stop(5s);
  for (const test::FakePolicy& policy : server.policies) CHECK_FALSE(policy.admitted.empty());
  CHECK(server.policies[0].admitted.size() + server.policies[1].admitted.size() == count);
}

TEST_CASE("strangers get no more connections than leave descriptors for deliveries") {
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit few{60, before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
  config::Config settings = strangers();
  settings.limits.connections_per_client = 100;
  Server server(settings);
  setrlimit(RLIMIT_NOFILE, &before);
  CHECK(server.log.count("limits.connections is 10000, but only 30 are taken") == 1);
  std::list<Peer> peers;
  for (int i = 0; i < 30; ++i) CHECK(peers.emplace_back(server).read().starts_with("220"));
  CHECK(Peer(server).read().starts_with("421"));
  CHECK(server.log.contains("limits.connections (30) reached"));
}

TEST_CASE("stopping: idle sessions are told to come back, content finishes") {
  Server server(strangers());
  Peer idle(server);
  Peer busy(server);
  CHECK(idle.read().starts_with("220"));
  CHECK(busy.read().starts_with("220"));
  CHECK(busy.say("HELO x") == "250 mx2.example.net");
  CHECK(busy.say("MAIL FROM:<a@example.org>") == "250 2.1.0 Ok");
  CHECK(busy.say("RCPT TO:<b@example.com>") == "250 2.1.5 Ok");
  CHECK(busy.say("DATA").starts_with("354"));
  std::thread stopper([&] { server.stop(60s); });
  CHECK(idle.read().starts_with("421 4.3.2"));
  CHECK(idle.read().empty());
  boost::system::error_code refused;
  tcp::socket late(idle.io);
  late.connect(server.endpoint(), refused);
  CHECK(refused == asio::error::connection_refused);
  CHECK(busy.say("Subject: x\r\n\r\nhello\r\n.").starts_with("250 2.0.0 Ok: queued as"));
  CHECK(busy.read().starts_with("421 4.3.2"));
  stopper.join();
  CHECK(server.intake.messages.size() == 1);
}

TEST_CASE("stopping: what does not finish in time is cut off and leaves nothing") {
  Server server(strangers());
  Peer slow(server);
  CHECK(slow.read().starts_with("220"));
  slow.say("HELO x");
  slow.say("MAIL FROM:<a@example.org>");
  slow.say("RCPT TO:<b@example.com>");
  CHECK(slow.say("DATA").starts_with("354"));
  server.stop(0s);
  CHECK(slow.read().empty());
  CHECK(server.intake.open == 0);
  CHECK(server.intake.messages.empty());
  CHECK(server.log.contains("disconnect from"));
}

TEST_CASE("a full house answers 421 at once") {
  config::Config settings = strangers();
  settings.limits.connections = 2;
  Server server(settings);
  Peer a(server);
  Peer b(server);
  CHECK(a.read().starts_with("220"));
  CHECK(b.read().starts_with("220"));
  Peer c(server);
  CHECK(c.read() == "421 4.3.2 All server ports are busy");
  CHECK(c.read().empty());
  CHECK(server.log.contains("limits.connections (2) reached"));
}

TEST_CASE("when it gets crowded the idle are shed and newcomers served") {
  config::Config settings = strangers();
  settings.limits.connections = 10;
  settings.limits.connections_per_client = 100;
  Server server(settings);
  std::vector<std::unique_ptr<Peer>> peers;
  for (int i = 0; i < 9; ++i) {
    peers.push_back(std::make_unique<Peer>(server));
    CHECK(peers.back()->read().starts_with("220"));
  }
  // Whoever has been idle for a second may be shed; each newcomer makes the house look.
  bool shed = false;
  const auto limit = std::chrono::steady_clock::now() + 60s;
  while (!shed && std::chrono::steady_clock::now() < limit) {
    Peer newcomer(server);
    newcomer.read();
    for (const auto& peer : peers) {
      boost::system::error_code error;
      peer->socket.non_blocking(true);
      std::array<char, 3> code{};
      shed = shed ||
             (peer->socket.receive(asio::buffer(code), 0, error) == 3 && std::string_view(code.data(), 3) == "421");
    }
  }
  CHECK(shed);
}

TEST_CASE("a new config is for new sessions") {
  Server server(strangers());
  Peer old(server);
  CHECK(old.read().starts_with("220 mx2"));
  config::Config changed = server.settings;
  changed.hostname = "mx3.example.net";
  server.listener->reload(std::make_shared<config::Config>(changed));
  const auto limit = std::chrono::steady_clock::now() + 60s;
  std::string greeting;
  while (!greeting.starts_with("220 mx3") && std::chrono::steady_clock::now() < limit) greeting = Peer(server).read();
  CHECK(greeting == "220 mx3.example.net ESMTP greymx");
  CHECK(old.say("HELO x") == "250 mx2.example.net");
}

TEST_CASE("a port that is taken is an error that says what to do") {
  Server server(strangers());
  config::Config settings = strangers();
  settings.listen.smtp = {{*Endpoint::parse("127.0.0.1:" + std::to_string(server.endpoint().port())), false}};
  Listener second({{server.first.get_executor(), &server.policies[0]}}, std::make_shared<config::Config>(settings),
                  server.intake, server.tls, server.clock, server.log, server.metrics);
  const Result<> opened = second.open();
  REQUIRE_FALSE(opened);
  CHECK(opened.error().text.find("Address already in use; another program listens there") != std::string::npos);
}

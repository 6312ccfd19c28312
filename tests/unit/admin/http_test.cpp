#include <fmt/format.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <future>
#include <thread>

#include "admin/http.hpp"
#include "admin/page.hpp"
#include "fakes.hpp"
#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::admin;

namespace {

struct Server : test::FakeDaemon {
  std::unique_ptr<HttpServer> http;
  std::thread thread;

  Server() {
    auto opened = HttpServer::open(io.get_executor(), {*Endpoint::parse("127.0.0.1:0")}, log);
    REQUIRE(opened);
    http = std::move(*opened);
    http->start(services);
    thread = std::thread([this] { io.run(); });
    // Once the first sample for the history is taken, what a test changes is its own.
    std::promise<void> sampled;
    asio::post(io, [&] { asio::post(pool, [&] { sampled.set_value(); }); });
    sampled.get_future().wait();
  }
  ~Server() {
    std::promise<void> stopped;
    asio::co_spawn(io, http->stop(), [&](std::exception_ptr) { stopped.set_value(); });
    stopped.get_future().wait();
    thread.join();
  }

  std::string raw(const std::string& bytes) const {
    asio::io_context own;
    asio::ip::tcp::socket socket(own);
    socket.connect({asio::ip::make_address("127.0.0.1"), http->endpoints().front().port});
    boost::system::error_code error;
    asio::write(socket, asio::buffer(bytes), error);
    std::string reply;
    asio::read(socket, asio::dynamic_buffer(reply), error);
    return reply;
  }
  std::string get(const std::string& target, const std::string& method = "GET") const {
    return raw(method + " " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  }
};

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("healthz is 200 only while mail can be stored, and says nothing more") {
  Server server;
  CHECK(server.get("/healthz").starts_with("HTTP/1.1 200 "));
  server.spool.state.accepting = false;
  server.spool.state.problem = "/var/spool/greymx: EIO";
  const std::string reply = server.get("/healthz");
  CHECK(reply.starts_with("HTTP/1.1 503 "));
  CHECK_FALSE(has(reply, "EIO"));
  server.spool.state.accepting = true;
  CHECK(server.get("/healthz").starts_with("HTTP/1.1 200 "));
  server.terminating = true;
  CHECK(server.get("/healthz").starts_with("HTTP/1.1 503 "));
  CHECK(has(server.get("/"), "New mail is no longer accepted: greymxd is terminating"));
}

TEST_CASE("metrics come with gauges as they are now") {
  Server server;
  server.spool.put(test::message(test::id_at(1795449600), "a@b.org", {"x@example.com"}, 500), "x");
  server.spool.put(test::message(test::id_at(1795449600, 1), "", {"x@stranger.test"}, 70), "x");
  server.store->records["192.0.2.0/a@example.org/x@example.com"] = {};
  const std::string reply = server.get("/metrics");
  CHECK(has(reply, "text/plain; version=0.0.4"));
  CHECK(has(reply, "greymx_queue_messages{domain=\"example.com\"} 1\n"));
  CHECK(has(reply, "greymx_queue_bytes{domain=\"reports\"} 70\n"));
  CHECK_FALSE(has(reply, "stranger.test"));
  CHECK(has(reply, "greymx_queue_oldest_seconds{domain=\"example.com\"} 63\n"));
  CHECK(has(reply, "greymx_queue_expiry_seconds{domain=\"example.com\"} 1209537\n"));
  CHECK(has(reply, "greymx_queue_expiry_seconds{domain=\"reports\"} 431937\n"));
  CHECK(has(reply, "greymx_primary_up{domain=\"example.com\"} 0\n"));
  CHECK(has(reply, "greymx_certificate_expiry_seconds 5288400\n"));
  CHECK(has(reply, "greymx_primary_changed_timestamp_seconds{domain=\"example.com\"} 1795449000\n"));
  CHECK(has(reply, "greymx_greylist_records 1\n"));
  server.config->domains.front().name = "example.net";
  server.primaries = {test::primary("example.net", relay::Health::up)};
  server.primaries.front().since = {};
  server.expiry.reset();
  const std::string later = server.get("/metrics");
  CHECK(has(later, "greymx_queue_messages{domain=\"example.net\"} 0\n"));
  CHECK_FALSE(has(later, "greymx_queue_messages{domain=\"example.com\"}"));
  CHECK_FALSE(has(later, "greymx_primary_up{domain=\"example.com\"}"));
  CHECK(has(later, "greymx_deliveries_total{domain=\"example.net\",result=\"bounced\"} 0\n"));
  CHECK(has(later, "greymx_certificate_expiry_seconds 0\n"));
  CHECK_FALSE(has(later, "greymx_primary_changed_timestamp_seconds{domain=\"example.net\"}"));
}

TEST_CASE("mail for bare Postmaster counts with the first domain's") {
  Server server;
  server.primaries.front().downtime.begin(server.clock.now() - std::chrono::hours(1));
  server.config->domains.emplace_back().name = "example.net";
  const auto put = [&](std::int64_t hours, const char* recipient) {
    const QueueId id = test::id_at(unix_seconds(server.clock.now() - std::chrono::hours(hours)));
    server.spool.put(test::message(id, "a@b.org", {recipient}, 500), "x");
  };
  put(10, "x@example.com");
  put(20, "Postmaster");
  const std::string reply = server.get("/metrics");
  CHECK(has(reply, "greymx_queue_messages{domain=\"example.com\"} 2\n"));
  CHECK(has(reply, "greymx_queue_oldest_seconds{domain=\"example.com\"} 72000\n"));
  CHECK(has(reply, fmt::format("greymx_queue_expiry_seconds{{domain=\"example.com\"}} {}\n", (336 - 20 + 1) * 3600)));
  CHECK_FALSE(has(reply, "domain=\"reports\""));
}

TEST_CASE("mail under a wildcard expires by the outages of its own subdomain") {
  Server server;
  const auto hours_ago = [&](int hours) { return server.clock.now() - std::chrono::hours(hours); };
  server.config->domains.emplace_back().name = "example.org";
  server.config->domains.back().wildcard = true;
  relay::PrimaryStatus back = test::primary("a.example.org", relay::Health::up), down = back, wildcard = back;
  back.wildcard = down.wildcard = "*.example.org";
  back.downtime.restore({{hours_ago(260), hours_ago(20)}});
  down.domain = "b.example.org";
  down.health = relay::Health::down;
  down.downtime.restore({{hours_ago(300), WallTime::max()}});
  wildcard.domain = "*.example.org";  // as the worst that is not up: nothing yet
  server.primaries = {back, wildcard};
  const auto put = [&](const char* recipient, int hours) {
    const QueueId id = test::id_at(unix_seconds(hours_ago(hours)));
    server.spool.put(test::message(id, "a@b.org", {recipient}, 500), "x");
  };
  const auto expires_in = [&](int hours) {
    return fmt::format("greymx_queue_expiry_seconds{{domain=\"*.example.org\"}} {}\n", hours * 3600);
  };
  put("x@a.example.org", 312);  // of 14 days, 240 hours of them down
  CHECK(has(server.get("/metrics"), expires_in(336 - 312 + 240)));
  wildcard.downtime = down.downtime;
  server.primaries = {back, down, wildcard};
  put("x@b.example.org", 310);
  CHECK(has(server.get("/metrics"), expires_in(336 - 312 + 240)));
}

TEST_CASE("the page has its figures without a script and may run none but its own") {
  Server server;
  server.spool.put(test::message(test::id_at(1795449600), "a@b.org", {"x@example.com"}, 500), "x");
  server.primaries = {test::primary("example.com", relay::Health::down, "<script>alert(1)</script>")};
  server.history.event(test::at(1795449600), "a & b");
  const std::string reply = server.get("/");
  CHECK(reply.starts_with("HTTP/1.1 200 "));
  for (const char* part : {"<b>1</b>", "messages waiting", "Mail is kept; primary not up: example.com", "dot down",
                           "&lt;script&gt;", "a &amp; b", "dead.test", "61 days left",
                           "X-Content-Type-Options: nosniff", "frame-ancestors 'none'", "default-src 'none'"}) {
    CAPTURE(part);
    CHECK(has(reply, part));
  }
  CHECK_FALSE(has(reply, "<script>alert"));
  CHECK_FALSE(has(reply, "{{"));
  CHECK_FALSE(has(reply, "http://"));
  CHECK_FALSE(has(reply, "https://"));
  const std::string nonce = reply.substr(reply.find("script-src 'nonce-") + 18, 32);
  CHECK(has(reply, "<script nonce=\"" + nonce + "\">"));
  CHECK_FALSE(has(server.get("/"), nonce));
  server.expiry = server.clock.now() - std::chrono::hours(1);
  CHECK(has(server.get("/"), "<td class=\"bad\">expired</td>"));
}

TEST_CASE("status.json is what the page shows") {
  Server server;
  server.metrics.count("messages_accepted_total", {}, 3);
  const std::string reply = server.get("/status.json?x=1");
  const Json json = Json::parse(reply.substr(reply.find("\r\n\r\n") + 4));
  CHECK(json["hostname"] == "mx2.example.net");
  REQUIRE(json["hour"]["accepted"].size() == 60);
  CHECK(json["hour"]["accepted"][59] == 3);
  CHECK(json["day"]["rejected"].size() == 96);
}

TEST_CASE("it only reads") {
  Server server;
  for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "PATCH"}) {
    CAPTURE(method);
    const std::string reply = server.get("/", method);
    CHECK(reply.starts_with("HTTP/1.1 405 "));
    CHECK(has(reply, "Allow: GET, HEAD\r\n"));
  }
  const std::string head = server.get("/healthz", "HEAD");
  CHECK(head.starts_with("HTTP/1.1 200 "));
  CHECK(has(head, "Content-Length: 3\r\n"));
  CHECK(head.ends_with("\r\n\r\n"));
  CHECK(server.get("/nothing").starts_with("HTTP/1.1 404 "));
  CHECK(server.get("/../etc/passwd").starts_with("HTTP/1.1 404 "));
}

TEST_CASE("a connection serves several requests") {
  Server server;
  const std::string reply = server.raw(
      "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nHEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
      "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  std::size_t count = 0;
  for (std::size_t at = 0; (at = reply.find("HTTP/1.1 200", at)) != std::string::npos; ++at) ++count;
  CHECK(count == 3);
}

TEST_CASE("who is slow with a request makes way for others") {
  const Server server;
  asio::io_context own;
  std::vector<asio::ip::tcp::socket> slow;
  for (int i = 0; i < 200; ++i) {
    slow.emplace_back(own).connect({asio::ip::make_address("127.0.0.1"), server.http->endpoints().front().port});
    asio::write(slow.back(), asio::buffer("GET / HT", 8));
    if (i % 50 == 49) CHECK(server.get("/healthz").starts_with("HTTP/1.1 200 "));
  }
}

TEST_CASE("what is not HTTP, too large or has a body is refused") {
  Server server;
  CHECK_FALSE(has(server.raw("EHLO x\r\n\r\n"), " 200 "));
  CHECK_FALSE(has(server.raw("GET / HTTP/1.1\r\nX: " + std::string(20000, 'x') + "\r\n\r\n"), " 200 "));
  CHECK_FALSE(has(server.raw("GET / HTTP/1.1\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"), " 200 "));
  CHECK(server.get("/healthz").starts_with("HTTP/1.1 200 "));
}

TEST_CASE("a port that is taken is an error that names it") {
  Server server;
  const Endpoint taken = server.http->endpoints().front();
  asio::io_context io;
  const auto second = HttpServer::open(io.get_executor(), {taken}, server.log);
  REQUIRE_FALSE(second);
  CHECK(has(second.error().text, "listen.http: cannot listen on " + taken.to_string()));
}

TEST_CASE("a primary that changes its state becomes an event") {
  test::FakeDaemon daemon;
  Sampler sampler(daemon.services);
  daemon.primaries.push_back(test::primary("stranger.test", relay::Health::down));
  sampler.sample();
  CHECK(daemon.history.events().empty());
  daemon.primaries = {test::primary("example.com", relay::Health::up),
                      test::primary("stranger.test", relay::Health::up)};
  sampler.sample();
  REQUIRE(daemon.history.events().size() == 1);
  CHECK(daemon.history.events().front().text == "primary of example.com is up");
}

TEST_CASE("a server that a report of ours goes to is no primary") {
  Server server;
  server.primaries = {test::primary("example.com", relay::Health::up),
                      test::primary("stranger.test", relay::Health::down, "connection refused"),
                      test::primary("nothing-left.test", relay::Health::down, "connection refused")};
  server.primaries.front().since = {};
  server.spool.put(test::message(test::id_at(1795449600), "", {"x@stranger.test"}, 70), "x");
  const std::string page = server.get("/");
  CHECK(has(page, "All is well"));
  CHECK(has(page, "<p>up · mx1.example.com:25</p>"));
  CHECK(has(page, "<p>not in relay.conf</p>"));
  CHECK_FALSE(has(page, "nothing-left.test"));
  const std::string text = to_text(gather(server.services), Style{});
  CHECK(has(text, "primary      example.com: up, 0 queued\n"));
  CHECK_FALSE(has(text, "stranger.test"));
}

TEST_CASE("charts stack to their full height and name their numbers") {
  Status status;
  status.hour.accepted = status.hour.greylisted = status.hour.rejected = std::vector<std::uint64_t>(60, 0);
  status.day.accepted = status.day.greylisted = status.day.rejected = std::vector<std::uint64_t>(96, 0);
  status.hour.accepted[59] = 10;
  status.hour.rejected[59] = 30;
  status.now = test::at(1795449663);
  const std::string page = status_page(status, "n");
  CHECK(has(page, "<path class=\"mail\" stroke-width=\"7.2\" d=\"M595.0 150.0V113.8\"/>"));
  CHECK(has(page, "<path class=\"deny\" stroke-width=\"7.2\" d=\"M595.0 113.8V5.0\"/>"));
  CHECK(has(page, "10 accepted, 0 greylisted, 30 refused"));
  CHECK(has(page, "40 a minute"));
}

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <filesystem>

#include "greylist/policy_protocol.hpp"
#include "greylist/policy_service.hpp"
#include "greylist/store.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"
#include "support/memory_store.hpp"
#include "support/recording_alerts.hpp"
#include "support/recording_log.hpp"
#include "support/run.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;
using namespace greymx::greylist;
using namespace std::chrono_literals;

namespace {

const std::string full =
    "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nhelo_name=mail.ex.com\nqueue_id=\n"
    "sender=bob@ex.com\nrecipient=user@dom.org\nrecipient_count=0\nclient_address=192.0.2.77\nclient_name=unknown\n"
    "reverse_client_name=fake.ex.com\ninstance=1a2b.5f.0\netrn_domain=\npolicy_test_time=1800000000\n\n";

std::vector<PolicyRequest> parse(std::string_view bytes) {
  PolicyParser parser;
  std::vector<PolicyRequest> requests;
  while (parser.feed(bytes) == PolicyParser::Status::complete) requests.push_back(parser.take());
  return requests;
}

PolicyRequest request_with(const std::string& from, const std::string& to) {
  std::string text = full;
  text.replace(text.find(from), from.size(), to);
  return parse(text).at(0);
}

config::Config plain_config() {
  config::Config config;
  config.hostname = "mx2.example.net";
  config.access.trusted_networks = {*Network::parse("127.0.0.0/8")};
  return config;
}

// The service on a loopback port and one client's connection to it.
struct Fixture {
  explicit Fixture(PolicySettings settings = {.test_clock = true}, const std::string& trusted = "127.0.0.0/8") {
    auto config = plain_config();
    config.access.trusted_networks = {*Network::parse(trusted)};
    config.listen.policy = {{*Endpoint::parse("127.0.0.1:0"), ""}};
    const auto shared = std::make_shared<const config::Config>(config);
    greylister.emplace(shared, std::make_unique<test::MemoryStore>(), clock, log, metrics, alerts);
    auto opened = PolicyService::open(io.get_executor(), shared, log, std::move(settings));
    REQUIRE(opened.has_value());
    service = std::move(*opened);
    service->start(*greylister);
  }
  ~Fixture() { test::run(io, service->stop()); }

  using Socket = asio::ip::tcp::socket;
  Socket connect() {
    Socket socket(io);
    socket.connect({asio::ip::address_v4::loopback(), service->endpoints().at(0).port});
    return socket;
  }
  // What comes until an empty line, or until the service closes.
  std::string ask(Socket& socket, std::string text) { return test::run(io, exchange(socket, std::move(text))); }
  static Task<std::string> exchange(Socket& socket, std::string text) {
    constexpr auto token = asio::as_tuple(asio::use_awaitable);
    co_await asio::async_write(socket, asio::buffer(text), token);
    std::string answer;
    co_await asio::async_read_until(socket, asio::dynamic_buffer(answer), "\n\n", token);
    co_return answer;
  }

  asio::io_context io{1};
  test::FakeClock clock;
  test::RecordingLog log;
  test::RecordingAlerts alerts;
  Metrics metrics;
  std::optional<Greylister> greylister;
  std::unique_ptr<PolicyService> service;
};

std::string at_time(std::int64_t time, std::string text = full) {
  return text.replace(text.find("1800000000"), 10, std::to_string(time));
}

}  // namespace

TEST_CASE("a policy request is the same however its bytes arrive") {
  for (std::size_t cut = 0; cut <= full.size(); ++cut) {
    PolicyParser parser;
    std::string_view first = std::string_view(full).substr(0, cut), second = std::string_view(full).substr(cut);
    auto status = parser.feed(first);
    if (status == PolicyParser::Status::more) status = parser.feed(second);
    REQUIRE(status == PolicyParser::Status::complete);
    const PolicyRequest request = parser.take();
    CHECK(request.client_address == "192.0.2.77");
    CHECK(request.instance == "1a2b.5f.0");
    CHECK(request.etrn_domain == "");
  }
  std::string crlf = full;
  for (std::size_t at = 0; (at = crlf.find('\n', at)) != std::string::npos; at += 2) crlf.insert(at, "\r");
  CHECK(parse(crlf + full).size() == 2);
  CHECK(parse(crlf).at(0).sender == "bob@ex.com");
  CHECK(parse("garbage\n" + full).at(0).sender == "bob@ex.com");
}

TEST_CASE("what a peer can make the parser hold is bounded") {
  CHECK(parse("sender=" + std::string(1000, 'x') + "\n\n").at(0).sender == std::string(512, 'x'));
  PolicyParser parser;
  std::string_view bytes;
  const std::string long_line(2049, 'x');
  bytes = long_line;
  CHECK(parser.feed(bytes) == PolicyParser::Status::bad);
  std::string many;
  for (int i = 0; i < 2000; ++i) many += "name=0123456789012345678901234567890123456789\n";
  PolicyParser another;
  bytes = many;
  CHECK(another.feed(bytes) == PolicyParser::Status::bad);
}

TEST_CASE("only states with a recipient are asked about") {
  const auto config = plain_config();
  for (const char* state : {"CONNECT", "EHLO", "HELO", "MAIL", "END-OF-MESSAGE", "VRFY", "ETRN"}) {
    const auto question = to_question(request_with("=RCPT", std::string("=") + state), config, false);
    REQUIRE(question.has_value());
    CHECK_FALSE(question->has_value());
  }
  CHECK((*to_question(request_with("=RCPT", "=DATA"), config, false)).has_value());
  CHECK((*to_question(request_with("protocol_state=RCPT\n", ""), config, false)).has_value());
  CHECK_FALSE((*to_question(request_with("recipient=user@dom.org", "recipient="), config, false)).has_value());
}

TEST_CASE("a request that cannot be judged is warned about") {
  const auto config = plain_config();
  for (const std::string attribute :
       {"client_address=192.0.2.77", "client_name=unknown", "sender=bob@ex.com", "recipient=user@dom.org"}) {
    const auto question = to_question(request_with("\n" + attribute + "\n", "\n"), config, false);
    REQUIRE_FALSE(question.has_value());
    CHECK(question.error().text == "attribute missing: " + attribute.substr(0, attribute.find('=')));
  }
  for (const char* address : {"unknown", "", "192.0.2.300", "192.0.2.1/32"}) {
    const auto question = to_question(request_with("=192.0.2.77", std::string("=") + address), config, false);
    REQUIRE_FALSE(question.has_value());
    CHECK(question.error().text == "cannot parse client_address " + std::string(address));
  }
}

TEST_CASE("who is trusted and what is not to be greylisted is not") {
  auto config = plain_config();
  CHECK_FALSE((*to_question(request_with("=192.0.2.77", "=127.0.0.5"), config, false)).has_value());
  config.domains.emplace_back().name = "dom.org";
  config.domains[0].greylist = false;
  CHECK_FALSE((*to_question(parse(full).at(0), config, false)).has_value());
  config.domains[0].greylist = true;
  CHECK((*to_question(parse(full).at(0), config, false)).has_value());
}

TEST_CASE("a test time is believed only when told so, a mapped address is IPv4, the unconfirmed name is not used") {
  const auto config = plain_config();
  CHECK_FALSE((**to_question(parse(full).at(0), config, false)).test_time.has_value());
  const auto question = to_question(request_with("=192.0.2.77", "=::ffff:192.0.2.77"), config, true);
  CHECK((**question).test_time == WallTime(1800000000s));
  CHECK((**question).client.is_v4());
  CHECK((**question).client_name == "unknown");
  CHECK_FALSE(to_question(request_with("=1800000000", "=soon"), config, true).has_value());
}

TEST_CASE("the action is what Postfix wants to hear") {
  const PolicyRequest request = parse(full).at(0);
  Answer answer;
  CHECK(policy_action(request, answer) == "DUNNO");
  answer.header = "X-Greylist: delayed";
  CHECK(policy_action(request, answer) == "PREPEND X-Greylist: delayed");
  answer.header.clear();
  answer.action = Action::defer;
  answer.text = "Greylisted";
  CHECK(policy_action(request, answer) == "DEFER_IF_PERMIT 4.2.0 Greylisted");
  CHECK(policy_action(request_with("etrn_domain=\n", ""), answer) == "DEFER_IF_PERMIT Greylisted");
  answer.text = "4.7.1 Greylisted";
  CHECK(policy_action(request, answer) == "DEFER_IF_PERMIT 4.7.1 Greylisted");
}

TEST_CASE("a conversation over one connection") {
  Fixture f;
  auto socket = f.connect();
  CHECK(f.ask(socket, full) == "action=DEFER_IF_PERMIT 4.2.0 Greylisted, please try again later\n\n");
  CHECK(f.ask(socket, at_time(1800000299)) == "action=DEFER_IF_PERMIT 4.2.0 Greylisted, please try again later\n\n");
  CHECK(f.ask(socket, at_time(1800000300)).starts_with("action=PREPEND X-Greylist: delayed 300 seconds by greymx-"));
  CHECK(f.ask(socket, at_time(1800000301)) == "action=DUNNO\n\n");
  CHECK(
      f.log.contains("greylist: action=greylist, reason=new, client_name=unknown, client_address=192.0.2.77, "
                     "sender=bob@ex.com, recipient=user@dom.org"));
  auto other = f.connect();
  CHECK(f.ask(other, "request=smtpd_access_policy\nsender=\n\n") == "action=DUNNO\n\n");
  CHECK(f.log.contains("policy: warning: attribute missing: client_address"));
}

TEST_CASE("an unknown request and one too long are answered by hanging up") {
  Fixture f;
  auto socket = f.connect();
  CHECK(f.ask(socket, "request=junk\nsender=x\n\n").empty());
  CHECK(f.log.contains("unrecognized request type: 'junk', disconnecting"));
  auto other = f.connect();
  CHECK(f.ask(other, "request=" + std::string(3000, 'x') + "\n\n").empty());
}

TEST_CASE("a peer that closes its side after asking still gets its answer") {
  Fixture f;
  auto socket = f.connect();
  asio::write(socket, asio::buffer(full));
  socket.shutdown(asio::ip::tcp::socket::shutdown_send);
  CHECK(f.ask(socket, "").starts_with("action=DEFER_IF_PERMIT"));
}

TEST_CASE("strangers are not answered") {
  Fixture f({}, "192.0.2.0/24");
  auto socket = f.connect();
  CHECK(f.ask(socket, full).empty());
  CHECK(f.log.contains("refused 127.0.0.1: not in access.trusted_networks"));
}

TEST_CASE("an address of an explicit primary is exempt, as in SMTP") {
  PolicySettings settings{.test_clock = true};
  settings.is_primary = [](const IpAddress& client) { return client.to_string() == "192.0.2.77"; };
  Fixture f(std::move(settings));
  auto socket = f.connect();
  CHECK(f.ask(socket, full) == "action=DUNNO\n\n");
  std::string other = full;
  other.replace(other.find("192.0.2.77"), 10, "192.0.2.78");
  CHECK(f.ask(socket, other).starts_with("action=DEFER_IF_PERMIT "));
}

TEST_CASE("at the most connections the one idle for longest makes way") {
  Fixture f({.test_clock = true, .connections = 2});
  auto first = f.connect(), second = f.connect();
  f.ask(first, full);
  f.ask(second, full);
  f.ask(first, full);
  auto third = f.connect();
  CHECK_FALSE(f.ask(third, full).empty());
  CHECK(f.ask(second, full).empty());
  CHECK_FALSE(f.ask(first, full).empty());
}

TEST_CASE("a connection that says nothing is closed") {
  Fixture f({.test_clock = true, .connections = 2, .idle = 0s});
  auto socket = f.connect();
  CHECK(f.ask(socket, "sender=").empty());
}

TEST_CASE("the authorised domain is asked for only if it can matter") {
  int asked = 0;
  PolicySettings settings{
      .test_clock = true, .connections = 10, .idle = 300s, .spf_domain = [&](Request request) -> Task<std::string> {
        ++asked;
        co_return request.sender.substr(request.sender.find('@') + 1);
      }};
  Fixture f(std::move(settings));
  auto socket = f.connect();
  f.ask(socket, full);
  CHECK(asked == 1);
  std::string elsewhere = at_time(1800000300);
  elsewhere.replace(elsewhere.find("192.0.2.77"), 10, "198.51.100.7");
  CHECK(f.ask(socket, elsewhere).starts_with("action=PREPEND"));
  CHECK(asked == 2);
  CHECK(f.ask(socket, at_time(1800000400)) == "action=DUNNO\n\n");  // known by its plain key
  std::string exempt = full;
  exempt.replace(exempt.find("user@dom.org"), 12, "postmaster@dom.org");
  f.ask(socket, exempt);
  CHECK(asked == 2);
}

TEST_CASE("a Unix socket is open to all who can reach it, and a dead one is replaced") {
  Fixture f;
  const std::string path = std::filesystem::temp_directory_path() / ("policy." + std::to_string(getpid()));
  auto config = plain_config();
  config.listen.policy = {{Endpoint{}, path}};
  const auto shared = std::make_shared<const config::Config>(config);
  for (int round = 0; round < 2; ++round) {
    auto opened = PolicyService::open(f.io.get_executor(), shared, f.log);
    REQUIRE(opened.has_value());
    CHECK((std::filesystem::status(path).permissions() & std::filesystem::perms::others_write) !=
          std::filesystem::perms::none);
    const auto second = PolicyService::open(f.io.get_executor(), shared, f.log);
    REQUIRE_FALSE(second.has_value());
    CHECK(second.error().text.find("another process does") != std::string::npos);
    (*opened)->start(*f.greylister);
    test::run(f.io, (*opened)->stop());
  }
  std::filesystem::remove(path);
}

TEST_CASE("a peer that does not read its answers holds nobody up at the end") {
  Fixture f;
  const test::TempDir dir;
  auto config = plain_config();
  config.listen.policy = {{Endpoint{}, dir / "socket"}};
  const auto shared = std::make_shared<const config::Config>(config);
  auto opened = PolicyService::open(f.io.get_executor(), shared, f.log);
  REQUIRE(opened.has_value());
  (*opened)->start(*f.greylister);
  asio::local::stream_protocol::socket peer(f.io);
  peer.connect(dir / "socket");
  peer.non_blocking(true);
  const std::string question = "request=smtpd_access_policy\n\n";
  boost::system::error_code error;
  while (!error) {  // until nobody takes any more
    peer.write_some(asio::buffer(question), error);
    f.io.poll();
  }
  test::run(f.io, (*opened)->stop());
}

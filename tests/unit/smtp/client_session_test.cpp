// A client session and a server that does not keep to the order of commands and replies.
#include "smtp/client_session.hpp"

#include <openssl/ssl.h>

#include <array>
#include <boost/asio/detached.hpp>
#include <csignal>

#include "support/catch.hpp"
#include "support/certificate.hpp"
#include "support/fake_clock.hpp"
#include "support/fake_primary.hpp"
#include "support/pipe_stream.hpp"
#include "support/run.hpp"

using namespace greymx;
using namespace greymx::smtp;
using Kind = Answer::Kind;

namespace {

const std::string greeting = "220 mx ESMTP\r\n";
const std::string plain = "250 mx\r\n";
const std::string pipelining = "250-mx\r\n250 PIPELINING\r\n";
const std::string ok = "250 ok\r\n";
const std::string go = "354 go\r\n";

// Says the next reply, or what stands for one, when a command has come.
Task<> serve(test::PipeStream& stream, std::vector<std::string> replies, std::string& heard) {
  std::size_t done = 0;
  for (const std::string& reply : replies) {
    stream.put(reply);
    while (heard.find('\n', done) == std::string::npos) {
      std::array<char, 512> bytes;
      const ReadEvent event = co_await stream.read_some(bytes, SteadyTime::max());
      if (event.status != ReadStatus::data) co_return;
      heard.append(bytes.data(), event.bytes);
    }
    done = heard.find('\n', done) + 1;
  }
}

struct Rig {
  explicit Rig(std::vector<std::string> replies) {
    clock.set_steady({});  // no deadline passes
    auto [a, b] = test::PipeStream::make(io.get_executor(), clock);
    server = std::move(b);
    session = std::make_unique<ClientSession>(std::move(a), "mx2.example.net");
    envelope.reverse_path = "author@sender.example";
    for (const char* name : {"a", "b", "c"}) {
      envelope.recipients.push_back({std::string(name) + "@example.com", {}, {}});
    }
    asio::co_spawn(io, serve(*server, std::move(replies), heard), asio::detached);
  }
  ~Rig() {
    session.reset();
    io.restart();
    io.poll();
  }

  Answer greet() { return test::run(io, session->greet()); }
  EnvelopeResult send(std::vector<std::size_t> recipients = {0, 1, 2}) {
    MailTransaction transaction{.envelope = &envelope, .recipients = std::move(recipients)};
    return test::run(io, session->envelope(std::move(transaction)));
  }
  std::optional<Answer> content() { return test::run(io, session->content("Subject: x\r\n", true)); }
  std::string said() {
    io.restart();
    io.poll();
    return heard + server->take();
  }

  asio::io_context io{1};
  test::FakeClock clock;
  std::unique_ptr<test::PipeStream> server;
  std::unique_ptr<ClientSession> session;
  Envelope envelope;
  std::string heard;
};

bool all_garbage(const EnvelopeResult& result) {
  return !result.go && std::ranges::all_of(result.answers, [](const Answer& a) { return a.kind == Kind::garbage; });
}

// Over loopback, with TLS or without.
struct Loopback {
  explicit Loopback(bool with_tls) {
    std::signal(SIGPIPE, SIG_IGN);  // as the daemon does: OpenSSL writes without MSG_NOSIGNAL
    if (with_tls) primary.tls = context.get();
    auto stream = test::run(io, smtp::connect(primary.endpoint(), std::chrono::steady_clock::now() + limit));
    REQUIRE(stream);
    session = std::make_unique<ClientSession>(std::move(*stream), "mx2.example.net", ClientTimeouts::all(limit));
    REQUIRE(test::run(io, session->greet()).positive());
    if (with_tls) REQUIRE(test::run(io, session->start_tls(tls, "fake.example")).positive());
    envelope.recipients.push_back({"a@example.com", {}, {}});
  }
  bool ask() { return test::run(io, session->envelope({.envelope = &envelope, .recipients = {0}})).go; }
  std::optional<Answer> content(std::size_t size) {
    return test::run(io, session->content(std::string(size, 'x'), true));
  }

  static constexpr std::chrono::seconds limit{20};
  const test::Context context = test::server_context("fake.example");
  asio::io_context io{1};
  test::FakePrimary primary{io};
  TlsClient tls{CertificateCheck::none, ""};
  Envelope envelope;
  std::unique_ptr<ClientSession> session;
};

}  // namespace

TEST_CASE("a second reply to the greeting or to EHLO is taken for no answer") {
  Rig early({greeting + ok, plain});
  CHECK(early.greet().kind == Kind::garbage);
  CHECK(early.said().empty());
  Rig again({greeting, plain + ok, ok});
  CHECK(again.greet().positive());
  const EnvelopeResult result = again.send();
  CHECK(all_garbage(result));
  CHECK_FALSE(result.replied);
  CHECK(result.answers[0].detail == "unexpected reply: 250 ok");
  CHECK(again.said().find("MAIL") == std::string::npos);
  CHECK_FALSE(again.session->usable());
}

TEST_CASE("a second reply to a recipient refuses no other one") {
  const std::string no = "550 5.1.1 nobody\r\n";
  SECTION("one command at a time") {
    Rig rig({greeting, plain, ok, ok + ok, no, ok, go});
    rig.greet();
    CHECK(all_garbage(rig.send()));
  }
  SECTION("pipelined: another's acceptance comes to DATA") {
    Rig rig({greeting, pipelining, ok, ok + ok, no, ok, go});
    rig.greet();
    CHECK(all_garbage(rig.send()));
  }
  SECTION("pipelined: another's refusal comes to DATA, and one reply too many is there") {
    Rig rig({greeting, pipelining, ok, ok + ok, ok, no, go});
    rig.greet();
    CHECK(all_garbage(rig.send()));
  }
  SECTION("pipelined and nobody left") {
    Rig rig({greeting, pipelining, ok, no, no, no, go + ok});
    rig.greet();
    CHECK(all_garbage(rig.send()));
    CHECK(rig.said().ends_with("DATA\r\n"));
  }
}

TEST_CASE("a goodbye may come at any time") {
  Rig rig({greeting, plain + "421 4.3.2 bye\r\n"});
  CHECK(rig.greet().positive());
  const EnvelopeResult result = rig.send();
  CHECK_FALSE(result.replied);
  CHECK(result.answers[0].kind == Kind::reply);
  CHECK(result.answers[0].reply.code == 421);
  Rig after({greeting, pipelining, ok, "550 5.1.1 nobody\r\n", "554 5.5.1 none\r\n421 4.7.0 enough\r\n"});
  after.greet();
  CHECK(after.send({0}).answers[0].reply.code == 550);
  CHECK_FALSE(after.session->usable());
}

TEST_CASE("before the end of the content a server can refuse it, but not take it") {
  const auto [early, kind] =
      GENERATE(std::pair{"250 2.0.0 kept\r\n", Kind::garbage}, std::pair{"552 5.3.4 too large\r\n", Kind::reply},
               std::pair{"452 4.3.1 full\r\n", Kind::reply}, std::pair{"421 4.3.2 bye\r\n", Kind::reply});
  Rig rig({greeting, pipelining, ok, ok, go + early});
  rig.greet();
  REQUIRE(rig.send({0}).go);
  const std::optional<Answer> answer = rig.content();
  REQUIRE(answer);
  CHECK(answer->kind == kind);
  CHECK(answer->stage == (kind == Kind::reply ? Stage::dot : Stage::content));
  CHECK(rig.said().ends_with("DATA\r\n"));
  CHECK_FALSE(rig.session->usable());
}

TEST_CASE("a transaction that is not reset is not gone on with") {
  const std::string mail = GENERATE("250 ok\r\n", "503 5.5.1 nested\r\n");
  Rig rig({greeting, pipelining, ok, ok, "451 4.3.0 later\r\n", "502 5.5.1 what?\r\n", mail, ok, go, ok});
  rig.greet();
  CHECK(rig.send({0}).answers[0].reply.code == 451);
  REQUIRE(rig.session->usable());
  const EnvelopeResult result = rig.send({1});
  CHECK_FALSE(result.go);
  CHECK_FALSE(result.replied);
  CHECK(result.answers[0].kind == Kind::lost);
  CHECK_FALSE(rig.session->usable());
  CHECK(rig.said().ends_with("DATA\r\n"));
}

TEST_CASE("an empty message goes only to no one") {
  const bool taken = GENERATE(true, false);
  const std::string rcpt = taken ? ok : "503 5.5.1 need MAIL\r\n";
  Rig rig({greeting, pipelining, "550 5.7.1 no\r\n", rcpt, go, ok});
  rig.greet();
  const EnvelopeResult result = rig.send({0});
  CHECK_FALSE(result.go);
  CHECK(result.answers[0].stage == Stage::mail);
  CHECK(result.answers[0].reply.code == 550);
  CHECK(rig.said().ends_with(taken ? "DATA\r\n" : "\r\n.\r\n"));
  CHECK(rig.session->usable() != taken);
}

TEST_CASE("who says 503 out of turn is not asked again") {
  const std::string out = "503 5.5.1 bad sequence\r\n";
  const std::string no = "550 5.1.1 nobody\r\n";
  const auto [replies, usable] =
      GENERATE_COPY(std::pair{std::vector{greeting, pipelining, out, out, out}, false},
                    std::pair{std::vector{greeting, pipelining, ok, out, out}, false},
                    std::pair{std::vector{greeting, pipelining, ok, ok, out}, false},
                    std::pair{std::vector{greeting, pipelining, no, out, out}, true},  // by RFC 2920 3.1
                    std::pair{std::vector{greeting, pipelining, ok, no, out}, true});
  Rig rig(replies);
  rig.greet();
  CHECK_FALSE(rig.send({0}).go);
  CHECK(rig.session->usable() == usable);
}

TEST_CASE("503 to the end of the content ends the connection, too") {
  Rig rig({greeting, pipelining, ok, ok, go, "", "503 5.5.1 what?\r\n"});  // a line of content, the dot
  rig.greet();
  REQUIRE(rig.send({0}).go);
  REQUIRE_FALSE(rig.content());
  CHECK(test::run(rig.io, rig.session->finish()).reply.code == 503);
  CHECK_FALSE(rig.session->usable());
}

TEST_CASE("messages follow each other over one connection") {
  const bool tls = GENERATE(false, true);
  Loopback rig(tls);
  for (int i = 0; i < 5; ++i) {
    REQUIRE(rig.ask());
    REQUIRE_FALSE(rig.content(1000));
    REQUIRE(test::run(rig.io, rig.session->finish()).positive());
    REQUIRE(rig.session->usable());
  }
  CHECK(rig.primary.transactions.size() == 5);
}

TEST_CASE("what a server said while we wrote is read after it has hung up") {
  const bool tls = GENERATE(false, true);
  CAPTURE(tls);
  Loopback rig(tls);
  SECTION("a refusal") {
    rig.primary.misbehave(test::Step::content, {test::Act::Kind::reply_then_close, "552 5.3.4 too large"});
    REQUIRE(rig.ask());
    const std::optional<Answer> answer = rig.content(16UL << 20);
    REQUIRE(answer);
    CHECK(answer->kind == Kind::reply);
    CHECK(answer->stage == Stage::dot);
    CHECK(answer->reply.text() == "552 5.3.4 too large");
  }
  SECTION("nothing") {
    rig.primary.misbehave(test::Step::content, {test::Act::Kind::close, ""});
    REQUIRE(rig.ask());
    const std::optional<Answer> answer = rig.content(16UL << 20);
    REQUIRE(answer);
    CHECK(answer->kind == Kind::lost);
    CHECK(answer->stage == Stage::content);
  }
  CHECK_FALSE(rig.session->usable());
}

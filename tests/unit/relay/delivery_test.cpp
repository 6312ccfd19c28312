#include "harness.hpp"

namespace greymx::relay {
namespace {

using test::Act;
using test::FakePrimary;
using test::Step;
using Kind = Act::Kind;

struct OnePrimary : Harness {
  FakePrimary primary{io};
  OnePrimary() { add_domain("example.com", {primary.endpoint()}); }
  ~OnePrimary() { stop(); }
};

std::vector<std::string> lines_about(const test::RecordingLog& log, QueueId id) {
  std::vector<std::string> result;
  for (const auto& line : log.lines()) {
    const std::size_t at = line.text.find(id.to_string() + ": ");
    if (at != std::string::npos) result.push_back(line.text.substr(0, at) + line.text.substr(at + 14));
  }
  return result;
}

TEST_CASE_METHOD(OnePrimary, "a message arrives byte for byte, with its dots, and is gone from the queue") {
  Message message;
  message.content = "Subject: x\r\n\r\n.\r\n..\r\n.a\r\nlast";
  const QueueId id = put(message);
  start();
  until_empty();
  REQUIRE(primary.transactions.size() == 1);
  CHECK(primary.transactions[0].content == message.content + "\r\n");
  CHECK(primary.transactions[0].mail ==
        "MAIL FROM:<author@sender.example> SIZE=" + std::to_string(message.content.size()));
  CHECK(primary.transactions[0].rcpt == std::vector<std::string>{"RCPT TO:<user@example.com>"});
  const std::vector<std::string> lines = lines_about(log, id);
  REQUIRE(lines.size() >= 3);
  CHECK(lines[lines.size() - 3] == "qmgr: from=<author@sender.example>, size=29, nrcpt=1 (queue active)");
  CHECK(lines[lines.size() - 2].starts_with("smtp: to=<user@example.com>, relay=127.0.0.1[127.0.0.1]:" +
                                            std::to_string(primary.endpoint().port) + ", delay="));
  CHECK(lines[lines.size() - 2].ends_with(", dsn=2.0.0, status=sent (250 2.0.0 Ok)"));
  CHECK(lines[lines.size() - 1] == "qmgr: removed");
  CHECK(learnt.good == std::vector<std::string>{"user@example.com"});
  CHECK(metrics.value("deliveries_total", {{"domain", "example.com"}, {"result", "sent"}}) == 1);
}

TEST_CASE_METHOD(OnePrimary, "one transaction carries all recipients of a domain, each with its own result") {
  primary.script = [](Step step, const std::string& line) -> std::optional<Act> {
    if (step == Step::rcpt && line.find("no@") != std::string::npos) return Act{Kind::reply, "550 5.1.1 unknown"};
    if (step == Step::rcpt && line.find("later@") != std::string::npos) return Act{Kind::reply, "450 4.2.1 later"};
    return std::nullopt;
  };
  const QueueId id = put({.to = {"yes@example.com", "no@example.com", "later@example.com", "too@example.com"},
                          .change = [](Envelope& e) { e.authorised = Authorised::no; }});
  start();
  until_logged("status=", 4);
  until([&] { return !spool->active(id); });
  REQUIRE(primary.transactions.size() == 1);
  CHECK(primary.transactions[0].rcpt ==
        std::vector<std::string>{"RCPT TO:<yes@example.com>", "RCPT TO:<too@example.com>"});
  const queue::Message message = peek(id);
  CHECK(message.state.recipients[0].status == queue::RecipientStatus::done);
  CHECK(message.state.recipients[1].status == queue::RecipientStatus::held);
  CHECK(message.state.recipients[2].status == queue::RecipientStatus::pending);
  CHECK(message.state.recipients[2].attempts == 1);
  CHECK(message.state.recipients[2].dsn == "4.2.1");
  CHECK(message.state.recipients[2].reason ==
        "host 127.0.0.1[127.0.0.1] said: 450 4.2.1 later (in reply to RCPT TO command)");
  CHECK(message.state.recipients[2].next_attempt == clock.now() + std::chrono::minutes(1));
  CHECK(message.state.recipients[3].status == queue::RecipientStatus::done);
  CHECK(learnt.good == std::vector<std::string>{"yes@example.com", "too@example.com"});
  CHECK(learnt.bad == std::vector<std::string>{"no@example.com"});

  primary.script = nullptr;
  later();
  until_logged("to=<later@example.com>", 2);
  CHECK(primary.transactions[1].rcpt == std::vector<std::string>{"RCPT TO:<later@example.com>"});
}

TEST_CASE_METHOD(OnePrimary, "with PIPELINING an envelope is one write, without it one command waits for the other") {
  const bool pipelined = GENERATE(true, false);
  if (!pipelined) primary.extensions = {"SIZE", "8BITMIME"};
  for (int i = 0; i < 5; ++i) put({.to = {"a@example.com", "b@example.com"}});
  start();
  until_empty();
  CHECK(primary.transactions.size() == 5);
  CHECK(primary.count("DATA") == 5);
  CHECK(primary.count("RCPT") == 10);
}

TEST_CASE_METHOD(OnePrimary, "domains that share a primary are counted each by itself") {
  add_domain("sister.example", {primary.endpoint()});
  add_domain("*.wild.example", {primary.endpoint()});
  for (const char* domain : {"example.com", "sister.example", "a.wild.example", "b.wild.example"}) {
    put({.to = {std::string("user@") + domain}});
  }
  start();
  until_empty();
  CHECK(metrics.value("deliveries_total", {{"domain", "example.com"}, {"result", "sent"}}) == 1);
  CHECK(metrics.value("deliveries_total", {{"domain", "sister.example"}, {"result", "sent"}}) == 1);
  CHECK(metrics.value("deliveries_total", {{"domain", "*.wild.example"}, {"result", "sent"}}) == 2);
}

TEST_CASE_METHOD(OnePrimary, "delete and hold stop what was loaded while another message was on its way") {
  const bool deleted = GENERATE(true, false);
  CAPTURE(deleted);
  config.delivery.concurrency_start = config.delivery.concurrency = 1;
  put();
  const QueueId next = put();
  bool loaded = false;
  primary.script = [&](Step step, const std::string&) -> std::optional<Act> {
    if (step != Step::dot || loaded) return std::nullopt;
    loaded = spool->active(next);
    CHECK((deleted ? spool->remove(next) : spool->hold(next, "wait")).has_value());
    return std::nullopt;
  };
  start();
  until_logged(": removed");
  io.run_for(std::chrono::milliseconds(200));
  CHECK(loaded);
  CHECK(primary.transactions.size() == 1);
}

TEST_CASE_METHOD(OnePrimary, "delete and hold stop what was loaded while the connection for it was opened") {
  const bool deleted = GENERATE(true, false);
  CAPTURE(deleted);
  const QueueId id = put();
  bool loaded = false;
  primary.script = [&](Step step, const std::string&) -> std::optional<Act> {
    if (step != Step::ehlo || loaded) return std::nullopt;
    loaded = spool->active(id);
    if (loaded) CHECK((deleted ? spool->remove(id) : spool->hold(id, "wait")).has_value());
    return std::nullopt;
  };
  start();
  until([&] { return loaded; });
  io.run_for(std::chrono::milliseconds(200));
  CHECK(primary.transactions.empty());
  CHECK(primary.count("MAIL") == 0);
  CHECK_FALSE(spool->active(id));
}

TEST_CASE_METHOD(OnePrimary, "what is deleted or put on hold while its reply is awaited is not returned") {
  const bool deleted = GENERATE(true, false);
  const std::string reply = GENERATE("250 2.0.0 taken", "451 4.3.0 later", "554 5.6.0 no");
  CAPTURE(deleted, reply);
  const QueueId id = put();
  primary.script = [&](Step step, const std::string&) -> std::optional<Act> {
    if (step != Step::dot) return std::nullopt;
    CHECK((deleted ? spool->remove(id) : spool->hold(id, "wait")).has_value());
    return Act{.kind = Kind::reply, .text = reply};
  };
  start();
  until_logged("status=");
  io.run_for(std::chrono::milliseconds(200));
  const bool sent = reply.starts_with("250");
  CHECK(log.count("notification") == 0);
  CHECK(log.count(": removed") == (sent && !deleted ? 1 : 0));  // what deletes says so itself
  CHECK(log.count("status=bounced") == 0);
  CHECK(spool->totals().messages == (sent || deleted ? 0 : 1));
  CHECK(spool->held(id) == (!sent && !deleted));
}

TEST_CASE_METHOD(OnePrimary, "a message is in the log before there is anybody to deliver it to") {
  put();
  put({.sender = "", .change = [](Envelope& e) { e.hold = true; }});
  CHECK(log.count("from=<author@sender.example>, size=23, nrcpt=1 (queue active)") == 1);
  CHECK(log.count("from=<>, size=23, nrcpt=1 (on hold)") == 1);
}

TEST_CASE_METHOD(OnePrimary, "the next message does not wait for a reply that takes its time") {
  config.delivery.concurrency_start = config.delivery.concurrency = 1;
  put();
  const QueueId next = put();
  primary.misbehave(Step::dot, {.kind = Kind::hang, .text = {}});
  start();
  until([&] { return spool->active(next); });
  until([&] { return !spool->active(next); }, std::chrono::seconds(10));
  CHECK(primary.transactions.empty());
  stop(std::chrono::milliseconds(1));
}

TEST_CASE_METHOD(OnePrimary, "the newest has its turn beside old ones that break every connection") {
  config.delivery.concurrency_start = config.delivery.concurrency = 1;
  for (int i = 0; i < 20; ++i) put({.to = {"poison@example.com"}});
  put();
  bool poison = false;
  primary.script = [&](Step step, const std::string& line) -> std::optional<Act> {
    if (step == Step::rcpt) poison = line.find("poison") != std::string::npos;
    if (step == Step::dot && poison) return Act{.kind = Kind::close, .text = {}};
    return std::nullopt;
  };
  start();
  until([&] { return !primary.transactions.empty(); });
  CHECK(primary.count("poison") <= 4);
  stop(std::chrono::milliseconds(1));
}

TEST_CASE_METHOD(OnePrimary, "a host that breaks off every message makes way for the next host") {
  FakePrimary second(io, "127.0.0.1", "second.example");
  config.domains[0].primary.push_back({"127.0.0.1", second.endpoint().port});
  const Step step = GENERATE(Step::rcpt, Step::dot);
  CAPTURE(step);
  primary.misbehave(step, {.kind = Kind::close, .text = {}}, 100);
  put();
  start();
  if (step == Step::dot) until_logged("status=deferred");
  later();
  until_empty();
  CHECK(primary.count("RCPT") == 1);
  CHECK(second.transactions.size() == 1);
  stop();
}

TEST_CASE_METHOD(OnePrimary, "a server that takes only so many messages over one connection gets a new one") {
  const std::string no_more = GENERATE("452 4.3.2 too many messages in this session", "503 5.5.1 no more");
  CAPTURE(no_more);
  config.delivery.concurrency_start = config.delivery.concurrency = 1;
  for (int i = 0; i < 6; ++i) put();
  int mails = 0;
  primary.script = [&](Step step, const std::string&) -> std::optional<Act> {
    if (step != Step::mail || ++mails != 3) return std::nullopt;
    return Act{.kind = Kind::reply, .text = no_more};
  };
  start();
  until_empty();
  CHECK(log.count("status=deferred") == 0);
  CHECK(primary.transactions.size() == 6);
  stop();
}

TEST_CASE_METHOD(OnePrimary, "connections are reused, up to messages_per_connection") {
  config.delivery.messages_per_connection = 4;
  config.delivery.concurrency_start = 1;
  config.delivery.concurrency = 1;
  for (int i = 0; i < 10; ++i) put();
  start();
  until_empty();
  until([&] { return primary.count("QUIT") >= 2; });
  CHECK(primary.transactions.size() == 10);
  CHECK(primary.connections == 3);
  CHECK(primary.most_open <= 2);  // one that says QUIT beside the next
}

TEST_CASE_METHOD(OnePrimary, "concurrency is a limit") {
  config.delivery.concurrency_start = 3;
  config.delivery.concurrency = 3;
  for (int i = 0; i < 200; ++i) put();
  start();
  until_empty();
  CHECK(primary.transactions.size() == 200);
  CHECK(primary.most_open <= 4);
}

TEST_CASE_METHOD(OnePrimary, "parameters go out as the server offers them") {
  Message message;
  message.to = {"user@example.com"};
  message.change = [](Envelope& envelope) {
    envelope.body = BodyType::eight_bit_mime;
    envelope.ret = DsnReturn::headers;
    envelope.envid = "QQ314159";
    envelope.recipients[0].original_recipient = "rfc822;other@example.com";
    envelope.recipients[0].notify = {.success = true, .failure = true, .delay = true};
  };
  SECTION("all of them") {
    put(message);
    start();
    until_empty();
    CHECK(primary.transactions.at(0).mail ==
          "MAIL FROM:<author@sender.example> SIZE=23 BODY=8BITMIME RET=HDRS ENVID=QQ314159");
    CHECK(primary.transactions[0].rcpt[0] ==
          "RCPT TO:<user@example.com> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;other@example.com");
    CHECK(spool->totals().messages == 0);
  }
  SECTION("none of them: 8-bit goes as it is, and we report what the server will not") {
    FakePrimary smart(io);
    smarthost(smart.endpoint());
    primary.extensions = {};
    message.content = "Subject: x\r\n\r\n\xc3\xa4\r\n";
    const QueueId id = put(message);
    start();
    until([&] { return smart.transactions.size() == 1; });
    until_empty();
    // Until the report is queued the message may be sent again.
    const std::string all = log.text();
    CHECK(all.find(id.to_string() + ": sender delivery status notification") < all.find(id.to_string() + ": removed"));
    CHECK(primary.transactions.at(0).mail == "MAIL FROM:<author@sender.example>");
    CHECK(primary.transactions[0].rcpt[0] == "RCPT TO:<user@example.com>");
    CHECK(primary.transactions[0].content == message.content);
    CHECK(smart.transactions[0].mail.starts_with("MAIL FROM:<>"));
    CHECK(smart.transactions[0].content.find("Action: relayed") != std::string::npos);
    stop();
  }
}

TEST_CASE_METHOD(OnePrimary, "a message beyond the server's SIZE fails without being sent") {
  primary.extensions = {"PIPELINING", "SIZE 100"};
  put({.content = std::string(200, 'x') + "\r\n", .change = [](Envelope& e) { e.authorised = Authorised::no; }});
  start();
  until_logged("dsn=5.3.4, status=bounced (message size 202 exceeds size limit 100 of server");
  CHECK(primary.count("MAIL") == 0);
  until([&] { return relay->size_limit("example.com") == 100; });
  CHECK(relay->largest_size_limit() == 100);
  primary.down();
  restart();
  until_health(Health::down);
  CHECK(relay->size_limit("example.com") == 100);
  CHECK(relay->size_limit("other.example") == 0);
}

TEST_CASE_METHOD(OnePrimary,
                 "mail that needs SMTPUTF8 looks for a host that offers it, mail that does not need it does not") {
  FakePrimary second(io, "127.0.0.1", "second.example");
  config.domains[0].primary.push_back({"127.0.0.1", second.endpoint().port});
  primary.extensions = {"PIPELINING", "8BITMIME"};
  Message message;
  message.change = [](Envelope& e) { e.smtputf8 = true; };
  SECTION("needed") {
    message.sender = "grüße@sender.example";
    put(message);
    start();
    until_empty();
    REQUIRE(second.transactions.size() == 1);
    CHECK(second.transactions[0].mail.find(" SMTPUTF8") != std::string::npos);
    CHECK(primary.transactions.empty());
  }
  SECTION("needed for the header") {
    message.content = "Subject: \xc3\xa4\r\n\r\nx\r\n";
    put(message);
    start();
    until_empty();
    CHECK(second.transactions.size() == 1);
  }
  SECTION("nobody offers it") {
    second.extensions = {};
    message.to = {"müller@example.com"};
    message.change = [](Envelope& e) {
      e.smtputf8 = true;
      e.authorised = Authorised::no;
    };
    put(message);
    start();
    until_logged("dsn=5.6.7, status=bounced (SMTPUTF8 is required, but was not offered by host");
    CHECK(primary.count("MAIL") + second.count("MAIL") == 0);
  }
  SECTION("asked for, not needed") {
    put(message);
    start();
    until_empty();
    CHECK(primary.transactions.size() == 1);
  }
  SECTION("asked for, not needed, large") {
    message.content = "Subject: x\r\n\r\n" + std::string(300'000, 'x') + "\r\n\xc3\xa4\r\n";
    put(message);
    start();
    until_empty();
    CHECK(primary.transactions.size() == 1);
  }
  SECTION("needed for the end of a large header") {
    for (int i = 0; i < 5000; ++i) message.content.insert(0, "X-Long: " + std::string(60, 'x') + "\r\n");
    message.content.insert(message.content.find("\r\n\r\n"), " \xc3\xa4");
    put(message);
    start();
    until_empty();
    CHECK(second.transactions.size() == 1);
  }
  SECTION("needed for a recipient elsewhere") {
    FakePrimary third(io);
    add_domain("other.example", {third.endpoint()});
    message.to = {"user@example.com", "m\xc3\xbcller@other.example"};
    put(message);
    start();
    until_empty();
    CHECK(primary.transactions.size() == 1);
    CHECK(third.transactions.size() == 1);
    stop();
  }
  SECTION("nobody offers it, and one recipient of three needs it") {
    second.extensions = {};
    message.to = {"user@example.com", "m\xc3\xbcller@example.com", "other@example.com"};
    put(message);
    start();
    until_logged("to=<m\xc3\xbcller@example.com>", 1);
    until_logged("dsn=5.6.7, status=bounced");
    until_logged("status=sent", 2);
    REQUIRE(primary.transactions.size() == 1);
    CHECK(primary.transactions[0].mail.find("SMTPUTF8") == std::string::npos);
    CHECK(primary.transactions[0].rcpt.size() == 2);
    CHECK(second.transactions.empty());
  }
  SECTION("another host offers it for one recipient of two") {
    message.to = {"user@example.com", "m\xc3\xbcller@example.com"};
    put(message);
    start();
    until_empty();
    REQUIRE(primary.transactions.size() == 1);
    CHECK(primary.transactions[0].rcpt.size() == 1);
    REQUIRE(second.transactions.size() == 1);
    CHECK(second.transactions[0].rcpt.at(0).find("ller@") != std::string::npos);
  }
  SECTION("it is offered: one transaction for all") {
    primary.extensions.push_back("SMTPUTF8");
    message.to = {"user@example.com", "m\xc3\xbcller@example.com"};
    put(message);
    start();
    until_empty();
    REQUIRE(primary.transactions.size() == 1);
    CHECK(primary.transactions[0].rcpt.size() == 2);
    CHECK(primary.transactions[0].mail.find(" SMTPUTF8") != std::string::npos);
  }
  SECTION("the host that offers it is down: it waits") {
    message.sender = "grüße@sender.example";
    second.down();
    put(message);
    start();
    until_logged("dsn=4.6.7, status=deferred (SMTPUTF8 is required, but was not offered by host");
    second.up();
    until([&] {
      later();
      return second.transactions.size() == 1;
    });
    CHECK(log.count("status=bounced") == 0);
  }
  SECTION("a third host offers it") {
    FakePrimary third(io);
    config.domains[0].primary.push_back({"127.0.0.1", third.endpoint().port});
    second.extensions = {};
    message.sender = "grüße@sender.example";
    put(message);
    start();
    until_empty();
    CHECK(third.transactions.size() == 1);
    stop();
  }
  SECTION("a dead address of a host that was asked is no other host") {
    config.domains[0].primary = {{"mx.example.com", primary.endpoint().port}};
    dns.add("mx.example.com A 127.0.0.1\nmx.example.com A 127.0.0.3");
    message.sender = "grüße@sender.example";
    put(message);
    start();
    until_logged("dsn=5.6.7, status=bounced");
  }
  SECTION("a primary on trial is not believed that it has not got it") {
    config.domains[0].primary.pop_back();
    primary.down();
    message.sender = "grüße@sender.example";
    put(message);
    start();
    until_health(Health::down);
    primary.up();
    until_logged("dsn=4.6.7, status=deferred");
    primary.extensions.push_back("SMTPUTF8");
    until([&] {
      later();
      return spool->totals().messages == 0;
    });
    CHECK(log.count("status=bounced") == 0);
    CHECK(primary.transactions.size() == 1);
  }
  stop();
}

TEST_CASE_METHOD(OnePrimary, "XFORWARD tells who the client was, if the server wants to know and we may say") {
  primary.extensions.push_back("XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE");
  Message message;
  SECTION("IPv4") {
    put(message);
    start();
    until_empty();
    CHECK(primary.transactions.at(0).xforward ==
          std::vector<std::string>{"XFORWARD NAME=client.example ADDR=198.51.100.7 PORT=40000 PROTO=ESMTP "
                                   "HELO=helo.example SOURCE=REMOTE"});
  }
  SECTION("IPv6, unknown name, odd HELO") {
    message.change = [](Envelope& envelope) {
      envelope.client = {*IpAddress::parse("2001:db8::7"), 1, "unknown", false};
      envelope.helo = "a b+c=d";
      envelope.protocol = "SMTP";
    };
    put(message);
    start();
    until_empty();
    CHECK(primary.transactions.at(0).xforward ==
          std::vector<std::string>{"XFORWARD NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::7 PORT=1 PROTO=SMTP "
                                   "HELO=a+20b+2Bc+3Dd SOURCE=REMOTE"});
  }
  SECTION("refused: mail goes anyway") {
    primary.misbehave(Step::xforward, {Kind::reply, "550 5.7.0 not you"}, 100);
    put(message);
    start();
    until_empty();
    CHECK(primary.transactions.size() == 1);
  }
  SECTION("switched off") {
    config.domains[0].xforward = false;
    put(message);
    start();
    until_empty();
    CHECK(primary.count("XFORWARD") == 0);
  }
}

TEST_CASE_METHOD(OnePrimary, "a large message streams from its file, byte for byte") {
  Message message;
  message.content = "Subject: large\r\n\r\n";
  for (int i = 0; message.content.size() < 3'000'000; ++i) {
    message.content += (i % 7 == 0 ? "." : "") + std::string(static_cast<std::size_t>(i % 900), 'x') + "\r\n";
  }
  put(message);
  start();
  until_empty();
  REQUIRE(primary.transactions.size() == 1);
  CHECK(primary.transactions[0].content == message.content);
}

TEST_CASE_METHOD(OnePrimary, "a thousand recipients do not lock up a pipelined envelope") {
  Message message;
  message.to.clear();
  for (int i = 0; i < 1000; ++i) message.to.push_back("user" + std::to_string(i) + "@example.com");
  put(message);
  start();
  until_empty();
  REQUIRE(primary.transactions.size() == 1);
  CHECK(primary.transactions[0].rcpt.size() == 1000);
}

TEST_CASE_METHOD(OnePrimary, "a server that takes so many recipients at once gets the rest at once") {
  const char* reply = GENERATE("552 too many", "552 5.5.3 too many", "452 4.5.3 too many");
  unsigned taken = 0;
  primary.script = [&](Step step, const std::string&) -> std::optional<Act> {
    if (step == Step::mail) taken = 0;
    if (step == Step::rcpt && ++taken > 100) return Act{Kind::reply, reply};
    return std::nullopt;
  };
  Message message;
  message.to.clear();
  for (int i = 0; i < 250; ++i) message.to.push_back("user" + std::to_string(i) + "@example.com");
  put(message);
  start();
  until_empty();
  REQUIRE(primary.transactions.size() == 3);
  CHECK(primary.transactions[2].rcpt.size() == 50);
  CHECK(log.count("status=sent") == 250);
  CHECK(log.count("status=deferred") == 0);
}

TEST_CASE_METHOD(OnePrimary, "a server that takes no recipient at all is not asked again at once") {
  primary.misbehave(Step::rcpt, {Kind::reply, "552 5.5.3 too many"}, 2);
  const QueueId id = put({.to = {"a@example.com", "b@example.com"}});
  start();
  until_logged("dsn=4.5.3, status=deferred", 2);
  until([&] { return !spool->active(id); });
  CHECK(primary.count("MAIL") == 1);
  later();
  until_empty();
}

TEST_CASE_METHOD(OnePrimary, "a message for two domains goes to both, and neither waits for the other") {
  FakePrimary slow(io);
  add_domain("slow.example", {slow.endpoint()});
  slow.misbehave(Step::mail, {Kind::hang, ""});
  timeouts.mail = std::chrono::seconds(2);
  const QueueId id = put({.to = {"a@example.com", "b@slow.example"}});
  for (int i = 0; i < 20; ++i) put();
  start();
  until([&] { return primary.transactions.size() == 21; });
  CHECK(slow.transactions.empty());
  until_logged(id.to_string() + ": to=<b@slow.example>");
  later();
  until_empty();
  CHECK(slow.transactions.size() == 1);
  CHECK(log.count(id.to_string() + ": removed") == 1);
  stop();
}

TEST_CASE_METHOD(OnePrimary, "mail for a domain that relay.conf names no more stays here") {
  FakePrimary smart(io);
  smarthost(smart.endpoint());
  const QueueId id = put({.to = {"user@gone.example"}});
  start();
  until_logged("gone.example is not in relay.conf any more");
  CHECK(smart.connections == 0);
  CHECK(alerts.contains("mail for gone.example has nowhere to go"));
  CHECK(spool->contains(id));
  stop();
}

TEST_CASE_METHOD(OnePrimary, "new mail goes between the backlog") {
  config.delivery.concurrency_start = 1;
  config.delivery.concurrency = 1;
  for (int i = 0; i < 40; ++i) put({.to = {"old" + std::to_string(i) + "@example.com"}});
  start();
  until([&] { return primary.transactions.size() >= 4; });
  put({.to = {"new@example.com"}});
  until_empty();
  std::size_t position = 0;
  while (primary.transactions[position].rcpt[0] != "RCPT TO:<new@example.com>") ++position;
  CHECK(position < 20);
}

TEST_CASE_METHOD(OnePrimary, "stop finishes what is in flight, and nothing is lost") {
  for (int i = 0; i < 300; ++i) put();
  start();
  until([&] { return primary.transactions.size() >= 20; });
  stop();
  const std::size_t sent = primary.transactions.size();
  CHECK(spool->totals().messages == 300 - sent);
  start();
  until_empty();
  CHECK(primary.transactions.size() == 300);
}

TEST_CASE_METHOD(OnePrimary, "reload takes mail to the new primary") {
  FakePrimary other(io);
  put();
  start();
  until_empty();
  config.domains[0].primary = {{"127.0.0.1", other.endpoint().port}};
  relay->reload(std::make_shared<config::Config>(config));
  put();
  until_empty();
  CHECK(primary.transactions.size() == 1);
  CHECK(other.transactions.size() == 1);
  stop();
}

}  // namespace
}  // namespace greymx::relay

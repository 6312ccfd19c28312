#include "smtp/session.hpp"

#include <fmt/format.h>

#include "support/catch.hpp"
#include "support/smtp_server.hpp"

using namespace greymx;
using namespace greymx::smtp;
using test::ServerRig;

namespace {

const std::string ehlo = "EHLO mail.example.org";
const std::string mail = "MAIL FROM:<a@example.org>";
const std::string rcpt = "RCPT TO:<b@example.com>";

// What brings a new session into a state.
std::vector<std::string> way_to(State state) {
  std::vector<std::string> lines;
  if (state != State::start) lines.push_back(ehlo);
  if (state == State::mail || state == State::rcpt || state == State::chunks) lines.push_back(mail);
  if (state == State::rcpt || state == State::chunks) lines.push_back(rcpt);
  if (state == State::chunks) lines.push_back("BDAT 3\r\nabc");
  return lines;
}

std::string last_line(std::string replies) {
  if (replies.ends_with("\r\n")) replies.resize(replies.size() - 2);
  const std::size_t begin = replies.rfind("\r\n");
  return begin == std::string::npos ? replies : replies.substr(begin + 2);
}

void enter(ServerRig& rig, State state) {
  rig.say("");
  for (const std::string& line : way_to(state)) {
    if (line.starts_with("BDAT")) {
      rig.say(line);
    } else {
      rig.line(line);
    }
  }
}

}  // namespace

TEST_CASE("the recipients of all messages under way have a bound, and each connection its share") {
  config::Config settings = test::server_config();
  settings.limits.buffer_memory = 20'000;
  settings.limits.connections = 10;
  const auto taken = [](ServerRig& rig) {  // until no more is
    int count = 0;
    while (count < 1000 && rig.line(fmt::format("RCPT TO:<b{:030}@example.com>", count)) == "250 2.1.5 Ok\r\n") ++count;
    return count;
  };
  ServerRig first(settings), second(settings);
  for (ServerRig* rig : {&first, &second}) enter(*rig, State::mail);
  const auto of_others = settings.limits.buffer_memory;
  second.intake.recipient_bytes = of_others;
  const int most = taken(first);
  CHECK(most > 50);
  CHECK(most < 400);
  CHECK(first.line(fmt::format("RCPT TO:<c{:030}@example.com>", 0)) == "452 4.5.3 Error: too many recipients\r\n");
  const int share = taken(second);
  CHECK(share >= most / 12);
  CHECK(share <= most / 10);
  second.intake.recipient_bytes -= of_others;
  CHECK(taken(second) > most / 2);
  first.line("RSET");
  CHECK(first.intake.recipient_bytes == 0);
}

TEST_CASE("every verb in every state") {
  struct Row {
    Verb verb;
    std::string command;
    std::array<std::string, 5> replies;  // in start, greeted, mail, rcpt, chunks
  };
  const std::string first = "503 5.5.1 Error: send HELO/EHLO first";
  const std::string nested = "503 5.5.1 Error: nested MAIL command";
  const std::string need_mail = "503 5.5.1 Error: need MAIL command";
  const std::string need_rcpt = "503 5.5.1 Error: need RCPT command";
  const std::string busy = "503 5.5.1 Error: MAIL transaction in progress";
  const auto always = [](const std::string& reply) { return std::array{reply, reply, reply, reply, reply}; };
  const std::vector<Row> table = {
      {Verb::helo, "HELO x", always("250 mx2.example.net")},
      {Verb::ehlo, "EHLO x", always("250 CHUNKING")},
      {Verb::xclient,
       "XCLIENT NAME=x",
       {"550 5.7.0 Error: insufficient authorization", "550 5.7.0 Error: insufficient authorization", busy, busy,
        busy}},
      {Verb::starttls,
       "STARTTLS",
       {"502 5.5.1 Error: command not implemented", "502 5.5.1 Error: command not implemented", busy, busy, busy}},
      {Verb::auth, "AUTH PLAIN AAAA", always("503 5.5.1 Error: authentication not enabled")},
      {Verb::mail, mail, {first, "250 2.1.0 Ok", nested, nested, nested}},
      {Verb::rcpt, rcpt, {need_mail, need_mail, "250 2.1.5 Ok", "250 2.1.5 Ok", "503 5.5.1 Error: RCPT after BDAT"}},
      {Verb::data,
       "DATA",
       {need_rcpt, need_rcpt, need_rcpt, "354 End data with <CR><LF>.<CR><LF>", "503 5.5.1 Error: DATA after BDAT"}},
      {Verb::bdat, "BDAT 0", {need_rcpt, need_rcpt, need_rcpt, "250 2.0.0 Ok: 0 bytes", "250 2.0.0 Ok: 0 bytes"}},
      {Verb::rset, "RSET", always("250 2.0.0 Ok")},
      {Verb::noop, "NOOP what ever", always("250 2.0.0 Ok")},
      {Verb::vrfy, "VRFY b", always("252 2.0.0 Cannot VRFY user, but will accept message and attempt delivery")},
      {Verb::expn, "EXPN list", always("502 5.5.1 Error: command not implemented")},
      {Verb::help, "HELP", always("214 2.0.0 See RFC 5321")},
      {Verb::etrn,
       "ETRN example.com",
       {"503 Error: send HELO/EHLO first", "250 OK", "503 Error: MAIL transaction in progress",
        "503 Error: MAIL transaction in progress", "503 Error: MAIL transaction in progress"}},
      {Verb::quit, "QUIT", always("221 2.0.0 Bye")},
  };
  REQUIRE(table.size() == verb_count - 1);
  const std::array states = {State::start, State::greeted, State::mail, State::rcpt, State::chunks};
  for (std::size_t row = 0; row < table.size(); ++row) {
    CHECK(table[row].verb == static_cast<Verb>(row));
    for (std::size_t column = 0; column < states.size(); ++column) {
      ServerRig rig;
      rig.policy.etrn = [](const Facts&, const std::string&) { return Reply{250, "", "OK"}; };
      enter(rig, states[column]);
      CAPTURE(table[row].command, column);
      CHECK(last_line(rig.line(table[row].command)) == table[row].replies[column]);
    }
  }
}

TEST_CASE("whatever was refused leaves the session where it was") {
  for (const State state : {State::mail, State::rcpt}) {
    ServerRig rig;
    enter(rig, state);
    for (const std::string bad :
         {"FOO", "MAIL FROM:<x@y.z>", "RCPT TO:<@>", "RSET now", "DATA now", "STARTTLS", "EHLO", "VRFY"}) {
      CHECK(rig.line(bad)[0] == '5');
    }
    CHECK(rig.line(rcpt) == "250 2.1.5 Ok\r\n");
    CHECK(rig.line("DATA").starts_with("354"));
    CHECK(rig.say("Subject: x\r\n\r\nhello\r\n.\r\n").starts_with("250 2.0.0 Ok: queued as "));
    CHECK(rig.intake.messages.size() == 1);
  }
}

TEST_CASE("RSET, EHLO and HELO forget the transaction, and a refused one leaves nothing behind") {
  for (const std::string forget : {"RSET", "EHLO again", "HELO again"}) {
    ServerRig rig;
    enter(rig, State::rcpt);
    CHECK(rig.intake.open == 1);
    rig.line(forget);
    CHECK(rig.intake.open == 0);
    CHECK(rig.line("DATA") == "503 5.5.1 Error: need RCPT command\r\n");
  }
}

TEST_CASE("DATA after only refused recipients") {
  ServerRig rig;
  rig.policy.refuse_recipients({550, "5.1.1", "<b@example.com>: Recipient address rejected: User unknown"},
                               "recipients");
  enter(rig, State::mail);
  CHECK(rig.line(rcpt) == "550 5.1.1 <b@example.com>: Recipient address rejected: User unknown\r\n");
  CHECK(rig.line("DATA") == "554 5.5.1 Error: no valid recipients\r\n");
  CHECK(rig.intake.open == 0);
  CHECK(rig.metrics.value("rejects_total", {{"check", "recipients"}, {"code", "550"}}) == 1);
  CHECK(
      rig.log.contains("smtpd: NOQUEUE: reject: RCPT from mail.example.org[192.0.2.10]: 550 5.1.1 <b@example.com>: "
                       "Recipient address rejected: User unknown; from=<a@example.org> to=<b@example.com> "
                       "proto=ESMTP helo=<mail.example.org>"));
}

TEST_CASE("what the envelope keeps of a message") {
  ServerRig rig;
  rig.policy.data = [](const Facts&) {
    Verdict verdict;
    verdict.headers = {"X-Greylist: delayed 300 seconds"};
    verdict.hold = true;
    return verdict;
  };
  rig.say("");
  rig.line(ehlo);
  rig.line("MAIL FROM:<a@example.org> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=x1");
  rig.line("RCPT TO:<b@example.com> NOTIFY=FAILURE ORCPT=rfc822;b@example.com");
  rig.line("RCPT TO:<\"c d\"@example.com>");
  rig.line("DATA");
  rig.say("Message-ID: <1@example.org>\r\n\r\n..hi\r\n.\r\n");
  REQUIRE(rig.intake.messages.size() == 1);
  const Envelope& envelope = rig.intake.messages[0].envelope;
  Envelope expected;
  expected.reverse_path = "a@example.org";
  expected.recipients = {{"b@example.com", "rfc822;b@example.com", {false, false, true, false}},
                         {"\"c d\"@example.com", "", {}}};
  expected.body = BodyType::eight_bit_mime;
  expected.ret = DsnReturn::headers;
  expected.envid = "x1";
  expected.client = {*IpAddress::parse("192.0.2.10"), 4321, "mail.example.org", false};
  expected.helo = "mail.example.org";
  expected.protocol = "ESMTP";
  expected.authorised = Authorised::spf;
  expected.hold = true;
  expected.message_id = "<1@example.org>";
  CHECK(envelope == expected);
  const std::string& content = rig.intake.messages[0].content;
  const std::string begin =
      "X-Greylist: delayed 300 seconds\r\nReceived: from mail.example.org (mail.example.org [192.0.2.10])\r\n"
      "\tby mx2.example.net (greymx) with ESMTP id ";
  CHECK(content.starts_with(begin));
  CHECK(content.find("\tfor <") == std::string::npos);
  CHECK(content.ends_with("\r\nMessage-ID: <1@example.org>\r\n\r\n.hi\r\n"));
}

TEST_CASE("facts name one instance a transaction and the queue ID from the first recipient on") {
  ServerRig rig;
  enter(rig, State::rcpt);
  rig.line(rcpt);
  rig.line("RSET");
  rig.line("MAIL FROM:<>");
  rig.line(rcpt);
  REQUIRE(rig.policy.asked.size() == 3);
  CHECK(rig.policy.asked[0].queue_id.empty());
  CHECK(QueueId::parse(rig.policy.asked[1].queue_id));
  CHECK(rig.policy.asked[0].instance == rig.policy.asked[1].instance);
  CHECK(rig.policy.asked[2].instance != rig.policy.asked[1].instance);
  CHECK(rig.policy.asked[2].sender.empty());
}

TEST_CASE("refusals for a time are no errors, but free only so often") {
  ServerRig rig;
  std::string command;
  std::string reply;
  std::size_t logged = 119;  // EHLO is not free either: 99 are, and 20 errors end the session
  std::size_t free = 118;
  SECTION("MAIL") {
    rig.intake.room = false;
    enter(rig, State::greeted);
    command = mail;
    reply = "452 4.3.1 Insufficient system storage\r\n";
  }
  SECTION("DATA") {
    rig.policy.data = [](const Facts&) {
      Verdict verdict;
      verdict.reply = Reply{450, "4.2.0", "Greylisted"};
      return verdict;
    };
    enter(rig, State::rcpt);
    command = "DATA";
    reply = "450 4.2.0 Greylisted\r\n";
  }
  SECTION("RCPT, far past the limit") {
    rig.settings.limits.recipients_per_message = 50;
    enter(rig, State::mail);
    for (int i = 0; i < 50; ++i) CHECK(rig.line(rcpt) == "250 2.1.5 Ok\r\n");
    command = rcpt;
    reply = "452 4.5.3 Error: too many recipients\r\n";
    logged = 1000;
    free = 1118;
  }
  for (std::size_t i = 0; i < free; ++i) REQUIRE(rig.line(command) == reply);
  CHECK(rig.line(command) == reply + "421 4.7.0 mx2.example.net Error: too many errors\r\n");
  CHECK(rig.log.count("reject: ") == logged);
}

TEST_CASE("a recipient that is named twice is kept once, with what either NOTIFY asks for") {
  const auto twice = [](const std::string& first, const std::string& second) {
    ServerRig rig;
    enter(rig, State::mail);
    CHECK(rig.line(rcpt + first) == "250 2.1.5 Ok\r\n");
    CHECK(rig.line("RCPT TO:<b@EXAMPLE.com>" + second) == "250 2.1.5 Ok\r\n");
    CHECK(rig.line("RCPT TO:<B@example.com>") == "250 2.1.5 Ok\r\n");  // somebody else, perhaps
    rig.line("DATA");
    rig.line(".");
    REQUIRE(rig.intake.messages.size() == 1);
    const std::vector<EnvelopeRecipient>& recipients = rig.intake.messages[0].envelope.recipients;
    REQUIRE(recipients.size() == 2);
    CHECK(recipients[1].address == "B@example.com");
    return recipients[0];
  };
  const DsnNotify never{true, false, false, false};
  const DsnNotify all{false, true, true, true};
  CHECK(twice(" ORCPT=rfc822;first@example.com", " ORCPT=rfc822;second@example.com") ==
        EnvelopeRecipient{"b@example.com", "rfc822;first@example.com", {}});
  CHECK(twice(" NOTIFY=NEVER", " NOTIFY=NEVER").notify == never);
  CHECK(twice(" NOTIFY=NEVER", "").notify == DsnNotify());
  CHECK(twice("", " NOTIFY=NEVER").notify == DsnNotify());
  CHECK(twice("", " NOTIFY=SUCCESS").notify == all);
  CHECK(twice(" NOTIFY=SUCCESS,FAILURE", " NOTIFY=DELAY").notify == all);
}

TEST_CASE("recipients have room for 256 bytes each") {
  const auto accepted = [](const std::string& domain) {
    ServerRig rig;
    enter(rig, State::mail);
    std::size_t count = 0;
    for (int i = 1000; i < 2000; ++i) {
      const std::string address = "u" + std::to_string(i) + "@" + domain;
      const std::string reply = rig.line("RCPT TO:<" + address + "> ORCPT=rfc822;" + address);
      CHECK((reply == "250 2.1.5 Ok\r\n" || reply == "452 4.5.3 Error: too many recipients\r\n"));
      count += reply[0] == '2' ? 1 : 0;
    }
    return count;
  };
  const std::string label = std::string(53, 'x') + ".";
  CHECK(accepted(label + label + "test") == 1000);                         // 118 bytes, 243 with ORCPT
  CHECK(accepted(label + label + label + label + "test.example") == 538);  // 234 bytes, 475
}

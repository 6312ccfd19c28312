#include "smtp/server_session.hpp"

#include <fstream>

#include "support/catch.hpp"
#include "support/certificate.hpp"
#include "support/smtp_server.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;
using namespace greymx::smtp;
using namespace std::chrono_literals;
using test::ServerRig;

namespace {

const std::string envelope = "EHLO mail.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n";
const std::string message = "Subject: x\r\n\r\nhello\r\n";

std::string last_line(std::string replies) {
  if (replies.ends_with("\r\n")) replies.resize(replies.size() - 2);
  const std::size_t begin = replies.rfind("\r\n");
  return begin == std::string::npos ? replies : replies.substr(begin + 2);
}

// A certificate for the rig's TLS, in files.
struct Pems {
  explicit Pems(config::Tls& tls) {
    const test::Certificate pem = test::make_certificate("mx2.example.net");
    std::ofstream(tls.certificate = directory / "cert.pem") << pem.certificate;
    std::ofstream(tls.key = directory / "key.pem") << pem.key;
  }
  test::TempDir directory;
};

using Crowd = std::vector<std::unique_ptr<Connections::Ticket>>;

// With the rig's one these are ten connections.
Crowd crowd_in(ServerRig& rig) {
  Crowd crowd;
  for (int i = 0; i < 9; ++i) crowd.push_back(rig.connections.enter(rig.settings.limits));
  return crowd;
}

}  // namespace

TEST_CASE("the greeting comes at once, the client's name before the first answer") {
  ServerRig rig;
  CHECK(rig.say("") == "220 mx2.example.net ESMTP greymx\r\n");
  CHECK(rig.log.lines().empty());
  rig.line("NOOP");
  CHECK(rig.log.lines().at(0).text == "smtpd: connect from mail.example.org[192.0.2.10]");
  rig.line("QUIT");
  CHECK(rig.ended());
  CHECK(rig.log.lines().at(1).text == "smtpd: disconnect from mail.example.org[192.0.2.10] noop=1 quit=1 commands=2");
  CHECK(rig.client->peer_closed());
}

TEST_CASE("a late name comes into the log when it is known, behind the line that somebody has come") {
  ServerRig rig;
  rig.policy.name_is_late = true;
  CHECK(last_line(rig.line("EHLO x")).starts_with("250 "));
  CHECK(rig.log.lines().empty());
  rig.line("MAIL FROM:<a b>");
  CHECK(rig.log.lines().at(0).text == "smtpd: connect from unknown[192.0.2.10]");
  CHECK(rig.log.lines().at(1).text.find("Illegal address syntax from unknown[192.0.2.10] in MAIL") !=
        std::string::npos);
  rig.say("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n");
  CHECK(rig.policy.asked.at(0).client.name == "mail.example.org");
  CHECK(rig.log.count("connect from") == 1);
}

TEST_CASE("replies to a pipelined group are sent in one write, in order") {
  ServerRig rig;
  rig.say("");
  const std::string replies = rig.say("EHLO mail.example.org\r\n") +
                              rig.say("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n");
  CHECK(replies.ends_with("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"));
  const std::string rest = rig.say(message + ".\r\nRSET\r\nQUIT\r\n");
  CHECK(rest.starts_with("250 2.0.0 Ok: queued as "));
  CHECK(rest.ends_with("\r\n250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n"));
  CHECK(rig.intake.messages.size() == 1);
}

TEST_CASE("replies do not wait long for the rest of their group") {
  ServerRig rig;
  std::vector<std::string> heard;
  rig.policy.recipient = [&](const Facts&, const Mailbox&) {
    heard.push_back(rig.client->take());
    rig.clock.advance(3s);
    return Verdict();
  };
  rig.say("EHLO x\r\n");
  const std::string rcpt = "RCPT TO:<b@example.com>\r\n";
  const std::string rest = rig.say("MAIL FROM:<a@example.org>\r\n" + rcpt + rcpt + rcpt + rcpt + "DATA\r\n");
  const std::string taken = "250 2.1.5 Ok\r\n";
  CHECK(heard == std::vector<std::string>{"", "", "250 2.1.0 Ok\r\n" + taken + taken, ""});
  CHECK(rest == taken + taken + "354 End data with <CR><LF>.<CR><LF>\r\n");
}

TEST_CASE("a whole session gives the same, whatever the size of reads") {
  const std::string script = envelope + "DATA\r\n" + message +
                             "..\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.com>\r\n" +
                             "BDAT 7\r\nx: y\r\n\rBDAT 8 LAST\r\n\n.\r\n.\r\nXQUIT\r\n";
  std::string expected;
  for (std::size_t step = 1; step < script.size() + 1; step = step < 40 ? step + 1 : step * 2) {
    ServerRig rig;
    rig.say("");
    rig.server->set_max_read(step);
    std::string replies = rig.say(script);
    REQUIRE(rig.intake.messages.size() == 2);
    CHECK(rig.intake.messages[0].content.ends_with(message + ".\r\n"));
    CHECK(rig.intake.messages[1].content.ends_with("x: y\r\n\r\n.\r\n.\r\nX\r\n"));
    if (expected.empty()) expected = replies;
    CHECK(replies == expected);
    CHECK(rig.ended());
  }
}

TEST_CASE("whichever operation of the stream fails, nothing is half accepted and nothing stays") {
  bool completed = false;
  for (std::uint64_t n = 1; !completed; ++n) {
    ServerRig rig;
    rig.start();
    rig.server->fail_at(n);
    rig.pump();
    std::string replies = rig.client->take();
    for (const std::string& part :
         {std::string("EHLO x\r\n"), std::string("MAIL FROM:<a@example.org>\r\n"),
          std::string("RCPT TO:<b@example.com>\r\nDATA\r\n"), message + ".\r\n", std::string("QUIT\r\n")}) {
      replies += rig.say(part);
    }
    CHECK(rig.ended());
    CHECK(rig.intake.open == 0);
    const bool told = replies.find("queued as") != std::string::npos;
    if (told) CHECK(rig.intake.messages.size() == 1);
    completed = replies.ends_with("221 2.0.0 Bye\r\n");
    CHECK(rig.log.contains("disconnect from"));
    if (!completed && !told) CHECK(rig.log.contains("lost connection after"));
    REQUIRE(n < 50);
  }
}

TEST_CASE("errors of the intake are temporary, and the message is gone") {
  SECTION("while writing") {
    ServerRig rig;
    rig.say(envelope + "DATA\r\n");
    rig.intake.write_result = fail(ErrorKind::temporary, "disk error");
    CHECK(last_line(rig.say(message + ".\r\n")) == "451 4.3.0 Error: queue file write error");
    CHECK(rig.log.contains(": warning: queue file write error: disk error"));
    CHECK(rig.intake.open == 0);
  }
  SECTION("while committing, for want of space") {
    ServerRig rig;
    rig.say(envelope + "DATA\r\n");
    rig.intake.commit_result = fail(ErrorKind::no_space, "full");
    CHECK(last_line(rig.say(message + ".\r\n")) == "452 4.3.1 Insufficient system storage");
    CHECK(rig.intake.open == 0);
    CHECK(rig.line("MAIL FROM:<a@example.org>") == "250 2.1.0 Ok\r\n");
  }
  SECTION("before the message") {
    ServerRig rig;
    rig.intake.room = false;
    CHECK(last_line(rig.say("EHLO x\r\nMAIL FROM:<a@example.org>\r\n")) == "452 4.3.1 Insufficient system storage");
    CHECK(
        rig.log.contains("NOQUEUE: reject: MAIL from mail.example.org[192.0.2.10]: 452 4.3.1 Insufficient system "
                         "storage; from=<a@example.org> proto=ESMTP helo=<x>"));
  }
}

TEST_CASE("a command must be complete within command_timeout, however its bytes trickle in") {
  ServerRig rig;
  rig.say("NOOP\r\n");
  CHECK(rig.advance(200s).empty());
  CHECK(rig.say("NO").empty());
  CHECK(rig.advance(99s).empty());
  CHECK(rig.say("OP").empty());
  CHECK(rig.advance(2s) == "421 4.4.2 mx2.example.net Error: timeout exceeded\r\n");
  CHECK(rig.ended());
  CHECK(rig.log.contains("smtpd: timeout after NOOP from mail.example.org[192.0.2.10]"));
}

TEST_CASE("a session with part of a command is idle, and may be shed") {
  config::Config settings = test::server_config();
  settings.limits.connections = 10;
  ServerRig rig(settings);
  rig.say("EHLO x\r\nN");
  rig.ticket->on_shed([&] { rig.session->shed(); });
  rig.clock.advance(2s);
  rig.say("O");  // a byte now and then does not change that
  const Crowd crowd = crowd_in(rig);
  rig.pump();
  CHECK(rig.ended());
}

TEST_CASE("who sends a chunk that nobody wants is idle, may be shed, and has as long as for a command") {
  config::Config settings = test::server_config();
  settings.limits.connections = 10;
  ServerRig rig(settings);
  rig.say("BDAT 50000000\r\nx");
  SECTION("shed") {
    rig.ticket->on_shed([&] { rig.session->shed(); });
    rig.clock.advance(2s);
    const Crowd crowd = crowd_in(rig);
    rig.pump();
    CHECK(rig.ended());
  }
  SECTION("timed out") {
    CHECK(rig.advance(299s).empty());
    rig.say("x");
    CHECK(rig.advance(2s) == "421 4.4.2 mx2.example.net Error: timeout exceeded\r\n");
    CHECK(rig.ended());
  }
}

TEST_CASE("recipients that are put off in thousands end the session") {
  ServerRig rig;
  rig.policy.refuse_recipients({450, "4.2.0", "Greylisted"}, "greylist");
  rig.line("EHLO x");
  std::string group = "RSET\r\nMAIL FROM:<a@example.org>\r\n";
  for (int i = 0; i < 100; ++i) group += "RCPT TO:<b@example.com>\r\n";
  int groups = 0;
  while (!rig.ended() && groups < 100) {
    rig.say(group);
    ++groups;
  }
  CHECK(groups > 10);
  CHECK(groups < 15);
  CHECK(rig.log.contains("too many errors after RCPT from"));
}

TEST_CASE("a session that is answered for 30 s may be shed, not in content") {
  config::Config settings = test::server_config();
  settings.limits.connections = 10;
  ServerRig rig(settings);
  Crowd crowd;
  int asked = 0;
  const auto look = [&](int crowded_at) {
    if (++asked == crowded_at) crowd = crowd_in(rig);
    rig.clock.advance(10s);
    return Verdict();
  };
  std::string group = "MAIL FROM:<a@example.org>\r\n";
  for (int i = 0; i < 8; ++i) group += "RCPT TO:<b@example.com>\r\n";
  rig.line("EHLO x");
  rig.ticket->on_shed([&] { rig.session->shed(); });
  SECTION("for less") {
    rig.policy.recipient = [&](const Facts&, const Mailbox&) { return look(3); };
    rig.say(group);
    CHECK(asked == 8);
    CHECK_FALSE(rig.ended());
  }
  SECTION("for as long") {
    rig.policy.recipient = [&](const Facts&, const Mailbox&) { return look(4); };
    CHECK(last_line(rig.say(group)).starts_with("421 4.3.2 mx2.example.net Server is busy"));
    CHECK(asked == 4);
    CHECK(rig.ended());
  }
  SECTION("with pauses") {
    rig.policy.recipient = [&](const Facts&, const Mailbox&) { return look(5); };
    const std::string two = "RCPT TO:<b@example.com>\r\nRCPT TO:<b@example.com>\r\n";
    rig.say("MAIL FROM:<a@example.org>\r\n" + two);
    rig.clock.advance(1100ms);
    rig.say(two);
    rig.clock.advance(1100ms);
    CHECK(last_line(rig.say(two)).starts_with("421 4.3.2 mx2.example.net Server is busy"));
    CHECK(asked == 5);
  }
  SECTION("with content at the end") {
    rig.policy.recipient = [&](const Facts&, const Mailbox&) { return look(0); };
    rig.say(group + "DATA\r\n");
    rig.clock.advance(2s);
    crowd = crowd_in(rig);
    CHECK(rig.say("\r\n.\r\n").starts_with("250 2.0.0"));
    CHECK_FALSE(rig.ended());
  }
}

TEST_CASE("the end of the connection in a command is its end") {
  ServerRig rig;
  rig.say("EHLO x\r\nNO");
  rig.client->finish();
  rig.pump();
  CHECK(rig.ended());
  CHECK(rig.log.contains("lost connection after EHLO"));
}

TEST_CASE("each command has its own time") {
  ServerRig rig;
  for (int i = 0; i < 5; ++i) {
    CHECK(last_line(rig.say("NOOP\r\nNO")) == "250 2.0.0 Ok");
    rig.advance(290s);
    CHECK(rig.say("OP\r\n") == "250 2.0.0 Ok\r\n");
    rig.advance(290s);
  }
  CHECK_FALSE(rig.ended());
}

TEST_CASE("silence in content ends at data_timeout") {
  ServerRig rig;
  rig.say(envelope + "DATA\r\n");
  rig.say("Subject: x\r\n");
  CHECK(rig.advance(299s).empty());
  CHECK(rig.advance(1s) == "421 4.4.2 mx2.example.net Error: timeout exceeded\r\n");
  CHECK(rig.log.contains("timeout after DATA ("));
  CHECK(rig.intake.open == 0);
}

TEST_CASE("content must move at data_rate_min, averaged over a minute") {
  const auto minutes = [](std::size_t bytes_a_second) {
    ServerRig rig;
    rig.say(envelope + "DATA\r\n");
    for (int second = 0; second < 180; ++second) {
      rig.advance(1s);
      rig.say(std::string(bytes_a_second - 2, 'x') + "\r\n");
      if (rig.ended()) return second;
    }
    CHECK(rig.say(".\r\n").starts_with("250"));
    return -1;
  };
  CHECK(minutes(1000) == 59);
  CHECK(minutes(1100) == -1);
}

TEST_CASE("one pause is not a low rate") {
  ServerRig rig;
  rig.say(envelope + "DATA\r\n");
  rig.say("Subject: x\r\n");
  rig.advance(200s);
  CHECK(rig.say("\r\nhello\r\n.\r\n").starts_with("250 2.0.0 Ok: queued as"));
}

TEST_CASE("chunks must move at data_rate_min, too") {
  ServerRig rig;
  rig.say(envelope);
  std::string reply;
  int chunks = 0;
  for (; chunks < 10 && !rig.ended(); ++chunks) {
    reply = rig.say("BDAT 1\r\nx");
    rig.advance(60s);
  }
  CHECK(chunks == 3);  // the first comes at once
  CHECK(reply.starts_with("421 4.4.2"));
  CHECK(rig.log.contains("data too slow after BDAT from mail.example.org[192.0.2.10]"));
  CHECK(rig.intake.open == 0);
}

TEST_CASE("one pause between chunks is not a low rate") {
  ServerRig rig;
  rig.say(envelope + "BDAT 3\r\nx: ");
  rig.advance(200s);
  CHECK(rig.say("BDAT 3 LAST\r\ny\r\n").starts_with("250 2.0.0 Ok: queued as"));
}

TEST_CASE("small chunks are stored together") {
  ServerRig rig;
  rig.say(envelope);
  for (int i = 0; i < 1000; ++i) CHECK(rig.say("BDAT 1\r\nx") == "250 2.0.0 Ok: 1 bytes\r\n");
  CHECK(rig.intake.writes == 0);
  CHECK(rig.say("BDAT 2 LAST\r\n\r\n").starts_with("250 2.0.0 Ok: queued as"));
  CHECK(rig.intake.writes == 1);
  CHECK(rig.intake.messages.at(0).content.ends_with("\r\n" + std::string(1000, 'x') + "\r\n"));
  rig.say("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nBDAT 3\r\nabcRSET\r\n");
  rig.say("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nBDAT 20000 LAST\r\n" + std::string(20000, 'y'));
  CHECK(rig.intake.writes > 2);
  CHECK(rig.intake.messages.at(1).content.find("abc") == std::string::npos);
}

TEST_CASE("of a chunk that is dropped not more than a message is read") {
  config::Config settings = test::server_config();
  settings.limits.message_size = 20000;
  SECTION("refused at once") {
    ServerRig rig(settings);
    CHECK(last_line(rig.say("EHLO x\r\nBDAT 20001\r\n")) == "503 5.5.1 Error: need RCPT command");
    CHECK(rig.ended());
  }
  SECTION("refused, but short") {
    ServerRig rig(settings);
    rig.say("EHLO x\r\nBDAT 20000\r\n" + std::string(20000, 'x'));
    CHECK(rig.line("NOOP") == "250 2.0.0 Ok\r\n");
  }
  SECTION("by Admission") {
    ServerRig rig(settings);
    rig.policy.data = [](const Facts&) {
      Verdict verdict;
      verdict.reply = Reply{450, "4.2.0", "Greylisted"};
      return verdict;
    };
    CHECK(last_line(rig.say(envelope + "BDAT 20001\r\n")) == "450 4.2.0 Greylisted");
    CHECK(rig.ended());
  }
  SECTION("when it has become too large") {
    ServerRig rig(settings);
    rig.say(envelope);
    CHECK(rig.say("BDAT 99999999999999\r\n" + std::string(20000, 'x')).empty());
    CHECK(rig.say(std::string(10000, 'x')) == "552 5.3.4 Error: message file too big\r\n");
    CHECK(rig.ended());
  }
}

TEST_CASE("of DATA that is dropped not more than another message is read") {
  config::Config settings = test::server_config();
  settings.limits.message_size = 20000;
  ServerRig rig(settings);
  rig.say(envelope + "DATA\r\n");
  SECTION("much more") {
    std::string reply;
    int pieces = 0;
    for (; pieces < 10 && !rig.ended(); ++pieces) reply += rig.say(std::string(10000, 'x'));
    CHECK(pieces == 6);
    CHECK(reply == "552 5.3.4 Error: message file too big\r\n");
    CHECK(rig.intake.open == 0);
    CHECK(rig.log.count("reject: END-OF-MESSAGE") == 1);
  }
  SECTION("a little more") {
    for (int pieces = 0; pieces < 4; ++pieces) CHECK(rig.say(std::string(10000, 'x')).empty());
    CHECK(rig.say("\r\n.\r\n") == "552 5.3.4 Error: message file too big\r\n");
    CHECK(rig.line("NOOP") == "250 2.0.0 Ok\r\n");
  }
}

TEST_CASE("a session that is told to leave does so between commands, never in content") {
  SECTION("idle") {
    ServerRig rig;
    rig.say("EHLO x\r\n");
    rig.session->shut_down();
    rig.pump();
    CHECK(rig.client->take() == "421 4.3.2 mx2.example.net Service shutting down, closing transmission channel\r\n");
    CHECK(rig.ended());
  }
  SECTION("in DATA") {
    ServerRig rig;
    rig.say(envelope + "DATA\r\n");
    rig.session->shut_down();
    CHECK(rig.say("Subject: x\r\n").empty());
    const std::string replies = rig.say("\r\n.\r\n");
    CHECK(replies.starts_with("250 2.0.0 Ok: queued as"));
    CHECK(last_line(replies).starts_with("421 4.3.2"));
    CHECK(rig.intake.messages.size() == 1);
    CHECK(rig.ended());
  }
  SECTION("in a group of commands") {
    ServerRig rig;
    rig.policy.recipient = [&](const Facts&, const Mailbox&) {
      rig.session->shut_down();
      return Verdict();
    };
    const std::string replies = rig.say(envelope + "RCPT TO:<c@example.com>\r\nDATA\r\n");
    CHECK(last_line(replies).starts_with("421 4.3.2"));
    CHECK(rig.policy.asked.size() == 1);
    CHECK(rig.ended());
  }
  SECTION("with part of a command") {
    ServerRig rig;
    rig.say("EHLO x\r\nNO");
    rig.session->shed();
    rig.pump();
    CHECK(rig.client->take().starts_with("421 4.3.2 mx2.example.net Server is busy"));
    CHECK(rig.ended());
  }
  SECTION("with part of a command that goes on and on") {
    ServerRig rig;
    rig.say("EHLO x\r\nNO");
    rig.session->shut_down();
    CHECK(last_line(rig.say("O")).starts_with("421 4.3.2"));
    CHECK(rig.ended());
  }
  SECTION("by shedding") {
    ServerRig rig;
    rig.say("EHLO x\r\n");
    rig.session->shed();
    rig.pump();
    CHECK(rig.client->take().starts_with("421 4.3.2 mx2.example.net Server is busy"));
  }
}

TEST_CASE("an idle session holds no input buffer and hardly any output") {
  const auto spare = std::make_shared<SpareBuffers>();
  InputBuffer buffer(spare);
  const std::span<char> space = buffer.space();
  CHECK(space.size() == InputBuffer::capacity);
  std::copy_n("abcdef", 6, space.begin());
  buffer.filled(6);
  buffer.drop_to(buffer.view().substr(4));
  CHECK(buffer.view() == "ef");
  CHECK(buffer.space().size() == InputBuffer::capacity - 2);
  CHECK(buffer.view() == "ef");
  buffer.drop_to({});
  buffer.release();
  CHECK(buffer.view().empty());
  InputBuffer next(spare);
  CHECK(next.space().data() == space.data());
  CHECK(buffer.space().size() == InputBuffer::capacity);
  CHECK(buffer.space().data() != space.data());
}

TEST_CASE("who speaks before the greeting is noted") {
  ServerRig rig;
  rig.start();
  rig.client->put(envelope);
  rig.pump();
  REQUIRE(rig.policy.asked.size() == 1);
  CHECK(rig.policy.asked[0].early_talker);
}

TEST_CASE("the greeting waits for early_talker_wait, but not for who has spoken") {
  config::Config settings = test::server_config();
  settings.access.early_talker_wait = 5s;
  SECTION("silent") {
    ServerRig rig(settings);
    CHECK(rig.say("").empty());
    CHECK(rig.advance(4s).empty());
    CHECK(rig.advance(1s).starts_with("220 "));
    rig.say(envelope);
    CHECK_FALSE(rig.policy.asked.at(0).early_talker);
  }
  SECTION("not silent") {
    ServerRig rig(settings);
    CHECK(rig.say("").empty());
    CHECK(rig.say("EHLO x\r\n").starts_with("220 "));
    rig.say("MAIL FROM:<>\r\nRCPT TO:<b@example.com>\r\n");
    CHECK(rig.policy.asked.at(0).early_talker);
  }
}

TEST_CASE("improper pipelining is noted for the checks and logged once") {
  const auto improper = [](const std::vector<std::string>& parts) {
    ServerRig rig;
    rig.say("");
    for (const std::string& part : parts) rig.say(part);
    REQUIRE_FALSE(rig.policy.asked.empty());
    const bool noted = rig.policy.asked.back().improper_pipelining;
    CHECK(rig.log.count("improper command pipelining after") == (noted ? 1 : 0));
    return noted;
  };
  const std::string mail = "MAIL FROM:<a@example.org>\r\n";
  const std::string rcpt = "RCPT TO:<b@example.com>\r\n";
  CHECK_FALSE(improper({"EHLO x\r\n", mail + rcpt + "DATA\r\n"}));
  CHECK_FALSE(improper({"EHLO x\r\n", mail + rcpt + "BDAT 0 LAST\r\n" + mail + rcpt + "BDAT 3 LAST\r\nabc"}));
  CHECK_FALSE(improper({"HELO x\r\n", mail, rcpt}));
  CHECK(improper({"EHLO x\r\n" + mail, rcpt}));
  CHECK(improper({"HELO x\r\n", mail + rcpt}));
  CHECK(improper({"EHLO x\r\n", "NOOP\r\n" + mail, rcpt}));
  CHECK(improper({"EHLO x\r\n", mail + rcpt + "DATA\r\n" + message}));
}

TEST_CASE("too many errors end the session; 4xx never count") {
  ServerRig rig;
  rig.policy.recipient = [](const Facts&, const Mailbox&) {
    Verdict verdict;
    verdict.reply = Reply{450, "4.2.0", "<b@example.com>: Recipient address rejected: Greylisted"};
    return verdict;
  };
  rig.say("EHLO x\r\nMAIL FROM:<a@example.org>\r\n");
  for (int i = 0; i < 50; ++i) CHECK(rig.line("RCPT TO:<b@example.com>").starts_with("450"));
  for (int i = 0; i < 19; ++i) CHECK(rig.line("FOO") == "500 5.5.2 Error: command not recognized\r\n");
  CHECK(rig.line("FOO") ==
        "500 5.5.2 Error: command not recognized\r\n421 4.7.0 mx2.example.net Error: too many errors\r\n");
  CHECK(rig.ended());
  CHECK(rig.log.contains("smtpd: too many errors after UNKNOWN from mail.example.org[192.0.2.10]"));
}

TEST_CASE("commands that do nothing for mail are free a hundred times") {
  for (const std::string command : {"RSET", "EHLO x", "HELO x"}) {
    ServerRig rig;
    for (int i = 0; i < 119; ++i) CHECK(last_line(rig.line(command)).starts_with("250"));
    CHECK(last_line(rig.line(command)) == "421 4.7.0 mx2.example.net Error: too many errors");
  }
}

TEST_CASE("a message taken makes them free again") {
  ServerRig rig;
  for (int i = 0; i < 90; ++i) {
    CHECK(last_line(rig.say(envelope + "DATA\r\n")).starts_with("354"));
    CHECK(rig.say(message + ".\r\nRSET\r\n").starts_with("250 2.0.0 Ok: queued as "));
  }
}

TEST_CASE("STARTTLS: the session begins anew and the trace says so") {
  config::Config settings = test::server_config();
  const Pems files(settings.tls);
  ServerRig rig(settings);
  REQUIRE(rig.tls.load(settings.tls));
  CHECK(rig.say("EHLO x\r\n").find("250-STARTTLS\r\n") != std::string::npos);
  CHECK(rig.line("STARTTLS") == "220 2.0.0 Ready to start TLS\r\n");
  CHECK(rig.server->tls());
  CHECK(rig.line("MAIL FROM:<a@example.org>") == "503 5.5.1 Error: send HELO/EHLO first\r\n");
  CHECK(rig.line("STARTTLS") == "554 5.5.1 Error: TLS already active\r\n");
  CHECK(rig.line("EHLO x").find("STARTTLS") == std::string::npos);
  rig.say("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n");
  rig.say(message + ".\r\n");
  REQUIRE(rig.intake.messages.size() == 1);
  CHECK(rig.intake.messages[0].envelope.protocol == "ESMTPS");
  CHECK(rig.intake.messages[0].envelope.tls == "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)");
  CHECK(rig.intake.messages[0].content.find(
            "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n\tby mx2.example.net (greymx) with "
            "ESMTPS id ") != std::string::npos);
  CHECK(rig.policy.asked.at(0).tls);
  CHECK(rig.log.contains("Anonymous TLS connection established from mail.example.org[192.0.2.10]: TLSv1.3 with"));
}

TEST_CASE("what comes in the clear behind STARTTLS ends the session unread") {
  config::Config settings = test::server_config();
  const Pems files(settings.tls);
  ServerRig rig(settings);
  REQUIRE(rig.tls.load(settings.tls));
  rig.say("EHLO x\r\n");
  CHECK(rig.say("STARTTLS\r\nRSET\r\n") == "554 5.5.0 Error: SMTP protocol synchronization\r\n");
  CHECK(rig.ended());
}

TEST_CASE("tls.inbound = encrypt lets only EHLO, NOOP, STARTTLS and QUIT through in the clear") {
  config::Config settings = test::server_config();
  settings.tls.inbound = config::TlsLevel::encrypt;
  const Pems files(settings.tls);
  ServerRig rig(settings);
  REQUIRE(rig.tls.load(settings.tls));
  rig.say("EHLO x\r\n");
  const std::string refused = "530 5.7.0 Must issue a STARTTLS command first\r\n";
  for (const std::string line :
       {"MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>", "DATA", "RSET", "VRFY b", "HELP", "ETRN example.com"}) {
    CHECK(rig.line(line) == refused);
  }
  CHECK(rig.say("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n") == refused + "250 2.0.0 Ok\r\n");
  rig.line("STARTTLS");
  CHECK(last_line(rig.say("EHLO x\r\nMAIL FROM:<a@example.org>\r\n")) == "250 2.1.0 Ok");
}

TEST_CASE("an exception ends the session, releases everything, and is logged by the gate") {
  ServerRig rig;
  rig.policy.recipient = [](const Facts&, const Mailbox&) -> Verdict { throw std::runtime_error("bug"); };
  CHECK_THROWS_AS(rig.say(envelope), std::runtime_error);
  rig.pump();
  CHECK(rig.ended());
  CHECK(rig.log.contains("disconnect from"));
  CHECK(rig.metrics.value("connections") == 0);
}

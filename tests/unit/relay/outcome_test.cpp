#include "relay/outcome.hpp"

#include "relay/retry.hpp"
#include "support/catch.hpp"
#include "support/fake_clock.hpp"

namespace greymx::relay {
namespace {

using namespace std::chrono_literals;
using smtp::Answer;
using smtp::Stage;

const Host host{"mx1.example.com", *Endpoint::parse("192.0.2.1:25")};

Answer said(Stage stage, const std::string& text) {
  smtp::ReplyParser parser;
  parser.feed(text + "\r\n");
  REQUIRE(parser.status() == smtp::ReplyParser::Status::complete);
  return {stage, Answer::Kind::reply, parser.take(), {}};
}

Answer broke(Stage stage, Answer::Kind kind) {
  return {stage, kind, {}, "detail"};
}

TEST_CASE("every answer has one meaning") {
  using Result = Outcome::Result;
  struct Row {
    Answer answer;
    Result result;
    const char* dsn;
    bool next_host;
    const char* reason;
  };
  const Row rows[] = {
      {said(Stage::dot, "250 2.0.0 Ok: queued"), Result::delivered, "2.0.0", false, "250 2.0.0 Ok: queued"},
      {said(Stage::dot, "250 fine"), Result::delivered, "2.0.0", false, "250 fine"},
      {said(Stage::mail, "550 5.7.1 go away"), Result::failed, "5.7.1", false,
       "host mx1.example.com[192.0.2.1] said: 550 5.7.1 go away (in reply to MAIL FROM command)"},
      {said(Stage::rcpt, "550 5.1.1 unknown"), Result::failed, "5.1.1", false,
       "host mx1.example.com[192.0.2.1] said: 550 5.1.1 unknown (in reply to RCPT TO command)"},
      {said(Stage::data, "554 no"), Result::failed, "5.0.0", false,
       "host mx1.example.com[192.0.2.1] said: 554 no (in reply to DATA command)"},
      {said(Stage::dot, "552 5.3.4 big"), Result::failed, "5.3.4", false,
       "host mx1.example.com[192.0.2.1] said: 552 5.3.4 big (in reply to end of DATA command)"},
      {said(Stage::mail, "451 4.3.0 later"), Result::deferred, "4.3.0", false,
       "host mx1.example.com[192.0.2.1] said: 451 4.3.0 later (in reply to MAIL FROM command)"},
      {said(Stage::rcpt, "450 4.2.0 grey"), Result::deferred, "4.2.0", false,
       "host mx1.example.com[192.0.2.1] said: 450 4.2.0 grey (in reply to RCPT TO command)"},
      {said(Stage::dot, "451 later"), Result::deferred, "4.0.0", false,
       "host mx1.example.com[192.0.2.1] said: 451 later (in reply to end of DATA command)"},
      {said(Stage::rcpt, "421 4.3.2 bye"), Result::deferred, "4.3.2", true,
       "host mx1.example.com[192.0.2.1] said: 421 4.3.2 bye (in reply to RCPT TO command)"},
      {said(Stage::mail, "503 5.5.1 need RCPT"), Result::deferred, "4.5.1", true,
       "host mx1.example.com[192.0.2.1] said: 503 5.5.1 need RCPT (in reply to MAIL FROM command)"},
      {said(Stage::greeting, "554 5.7.1 no"), Result::deferred, "4.7.1", true,
       "host mx1.example.com[192.0.2.1] refused to talk to me: 554 5.7.1 no"},
      {said(Stage::greeting, "421 busy"), Result::deferred, "4.3.2", true,
       "host mx1.example.com[192.0.2.1] refused to talk to me: 421 busy"},
      {said(Stage::ehlo, "550 no"), Result::deferred, "4.0.0", true,
       "host mx1.example.com[192.0.2.1] said: 550 no (in reply to EHLO command)"},
      {said(Stage::starttls, "454 4.7.0 no"), Result::deferred, "4.7.0", true,
       "host mx1.example.com[192.0.2.1] said: 454 4.7.0 no (in reply to STARTTLS command)"},
      {broke(Stage::greeting, Answer::Kind::lost), Result::deferred, "4.4.2", true,
       "lost connection with mx1.example.com[192.0.2.1] while receiving the initial server greeting"},
      {broke(Stage::rcpt, Answer::Kind::timed_out), Result::deferred, "4.4.2", true,
       "conversation with mx1.example.com[192.0.2.1] timed out while sending RCPT TO"},
      {broke(Stage::content, Answer::Kind::lost), Result::deferred, "4.4.2", true,
       "lost connection with mx1.example.com[192.0.2.1] while sending message body"},
      {broke(Stage::mail, Answer::Kind::garbage), Result::deferred, "4.5.0", true,
       "host mx1.example.com[192.0.2.1] broke the protocol while sending MAIL FROM: detail"},
      {broke(Stage::handshake, Answer::Kind::tls), Result::deferred, "4.7.5", true,
       "TLS with host mx1.example.com[192.0.2.1] failed: detail"},
      {broke(Stage::greeting, Answer::Kind::loop), Result::deferred, "4.4.6", true,
       "host mx1.example.com[192.0.2.1] calls itself by our name: mail would loop back to us"},
      {broke(Stage::dot, Answer::Kind::lost), Result::uncertain, "4.4.2", false,
       "lost connection with mx1.example.com[192.0.2.1] while sending end of data -- message may be sent more than "
       "once"},
      {broke(Stage::dot, Answer::Kind::timed_out), Result::uncertain, "4.4.2", false,
       "conversation with mx1.example.com[192.0.2.1] timed out while sending end of data -- message may be sent more "
       "than once"},
      {broke(Stage::dot, Answer::Kind::garbage), Result::uncertain, "4.5.0", false,
       "host mx1.example.com[192.0.2.1] broke the protocol while sending end of data -- message may be sent more than "
       "once: detail"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.reason);
    const Outcome outcome = judge(row.answer, host);
    CHECK(outcome.result == row.result);
    CHECK(outcome.dsn == row.dsn);
    CHECK(outcome.next_host == row.next_host);
    CHECK(outcome.reason == row.reason);
  }
  const Outcome refused = unreachable(host, "Connection refused");
  CHECK(refused.reason == "connect to mx1.example.com[192.0.2.1]:25: Connection refused");
  CHECK(refused.dsn == "4.4.1");
}

TEST_CASE("only a true refusal of the recipient teaches that it does not exist") {
  CHECK(refuses_recipient(said(Stage::rcpt, "550 5.1.1 unknown")));
  CHECK(refuses_recipient(said(Stage::rcpt, "554 5.1.2 unknown")));
  CHECK(refuses_recipient(said(Stage::rcpt, "550 unknown")));
  CHECK(refuses_recipient(said(Stage::rcpt, "551 moved")));
  CHECK(refuses_recipient(said(Stage::rcpt, "553 5.1.3 syntax")));
  CHECK_FALSE(refuses_recipient(said(Stage::rcpt, "550 5.7.1 policy")));
  CHECK_FALSE(refuses_recipient(said(Stage::rcpt, "550 5.1.8 sender")));
  CHECK_FALSE(refuses_recipient(said(Stage::rcpt, "550 5.1.7 sender")));
  CHECK_FALSE(refuses_recipient(said(Stage::rcpt, "552 5.2.2 full")));
  CHECK_FALSE(refuses_recipient(said(Stage::rcpt, "554 no")));
  CHECK_FALSE(refuses_recipient(said(Stage::rcpt, "450 4.1.1 later")));
  CHECK_FALSE(refuses_recipient(said(Stage::mail, "550 5.1.1 unknown")));
  CHECK_FALSE(refuses_recipient(broke(Stage::rcpt, Answer::Kind::lost)));
}

TEST_CASE("only a 5yz before content is an early refusal") {
  CHECK(refused_early(said(Stage::mail, "550 no")));
  CHECK(refused_early(said(Stage::rcpt, "550 no")));
  CHECK(refused_early(said(Stage::data, "554 no")));
  CHECK_FALSE(refused_early(said(Stage::dot, "554 no")));
  CHECK_FALSE(refused_early(said(Stage::rcpt, "503 out of step")));
  CHECK_FALSE(refused_early(said(Stage::rcpt, "450 no")));
  CHECK_FALSE(refused_early(said(Stage::greeting, "554 no")));
  CHECK_FALSE(refused_early(broke(Stage::rcpt, Answer::Kind::lost)));
}

TEST_CASE("552 to RCPT is not final, unless it speaks of the mailbox or the system") {
  using Result = Outcome::Result;
  for (const char* reply :
       {"552 too many recipients", "552 5.5.3 too many", "552 5.0.0 no more", "452 4.5.3 no more"}) {
    CAPTURE(reply);
    CHECK(too_many_recipients(said(Stage::rcpt, reply)));
    CHECK(judge(said(Stage::rcpt, reply), host).result == Result::deferred);
    CHECK_FALSE(refused_early(said(Stage::rcpt, reply)));
  }
  CHECK(judge(said(Stage::rcpt, "552 5.5.3 too many"), host).dsn == "4.5.3");
  for (const char* reply : {"552 5.2.2 mailbox full", "552 5.3.4 too large", "550 5.5.3 no"}) {
    CAPTURE(reply);
    CHECK_FALSE(too_many_recipients(said(Stage::rcpt, reply)));
    CHECK(judge(said(Stage::rcpt, reply), host).result == Result::failed);
  }
  CHECK_FALSE(too_many_recipients(said(Stage::mail, "552 too large")));
  CHECK_FALSE(too_many_recipients(said(Stage::rcpt, "452 4.2.2 mailbox full")));
  CHECK(judge(said(Stage::dot, "552 too large"), host).result == Result::failed);
}

TEST_CASE("attempts back off from retry_min to retry_max") {
  const test::FakeClock clock;
  const config::Queue rules;
  const WallTime now = clock.now();
  CHECK(next_attempt(1, now, rules) == now + 1min);
  CHECK(next_attempt(2, now, rules) == now + 2min);
  CHECK(next_attempt(6, now, rules) == now + 32min);
  CHECK(next_attempt(7, now, rules) == now + 1h);
  CHECK(next_attempt(4'000'000'000, now, rules) == now + 1h);
  config::Queue odd;
  odd.retry_min = std::chrono::hours(2);  // longer than retry_max: the minimum holds
  CHECK(next_attempt(1, now, odd) == now + 2h);
}

Envelope from(std::string sender, Authorised authorised) {
  Envelope envelope;
  envelope.reverse_path = std::move(sender);
  envelope.authorised = authorised;
  return envelope;
}

TEST_CASE("who may be told that mail failed") {
  using config::BounceMode;
  struct Row {
    const char* sender;
    Authorised authorised;
    DsnNotify notify;
    Ending always, verified, never;
  };
  const DsnNotify none{}, nobody{.never = true}, success{.success = true}, failure{.failure = true};
  const Row rows[] = {
      {"a@b.example", Authorised::spf, none, Ending::report, Ending::report, Ending::hold_never},
      {"a@b.example", Authorised::client_name, none, Ending::report, Ending::report, Ending::hold_never},
      {"a@b.example", Authorised::no, none, Ending::report, Ending::hold_unverified, Ending::hold_never},
      {"a@b.example", Authorised::unknown, none, Ending::report, Ending::hold_unverified, Ending::hold_never},
      {"a@b.example", Authorised::spf, failure, Ending::report, Ending::report, Ending::hold_never},
      {"a@b.example", Authorised::spf, nobody, Ending::silent, Ending::silent, Ending::silent},
      {"a@b.example", Authorised::spf, success, Ending::silent, Ending::silent, Ending::silent},
      {"", Authorised::spf, none, Ending::hold_null, Ending::hold_null, Ending::hold_null},
      {"", Authorised::spf, nobody, Ending::hold_null, Ending::hold_null, Ending::hold_null},
      {"Double-Bounce@b.example", Authorised::spf, none, Ending::hold_null, Ending::hold_null, Ending::hold_null},
      {"a.double-bounce@b.example", Authorised::spf, none, Ending::report, Ending::report, Ending::hold_never},
  };
  for (const Row& row : rows) {
    const Envelope envelope = from(row.sender, row.authorised);
    const EnvelopeRecipient recipient{"x@example.com", {}, row.notify};
    CHECK(ending_of(envelope, recipient, BounceMode::always) == row.always);
    CHECK(ending_of(envelope, recipient, BounceMode::verified) == row.verified);
    CHECK(ending_of(envelope, recipient, BounceMode::never) == row.never);
  }
}

TEST_CASE("success and delay reports go to verified senders who want them") {
  using config::BounceMode;
  const Envelope verified = from("a@b.example", Authorised::spf);
  const Envelope stranger = from("a@b.example", Authorised::no);
  const Envelope nobody = from("", Authorised::spf);
  const EnvelopeRecipient plain{"x@example.com", {}, {}};
  const EnvelopeRecipient success{"x@example.com", {}, {.success = true}};
  const EnvelopeRecipient delay{"x@example.com", {}, {.delay = true}};
  CHECK(wants_relayed_report(verified, success, BounceMode::verified));
  CHECK(wants_relayed_report(verified, success, BounceMode::always));
  CHECK_FALSE(wants_relayed_report(verified, success, BounceMode::never));
  CHECK_FALSE(wants_relayed_report(verified, plain, BounceMode::verified));
  CHECK_FALSE(wants_relayed_report(stranger, success, BounceMode::always));
  CHECK_FALSE(wants_relayed_report(nobody, success, BounceMode::always));

  config::Queue off;
  config::Queue warning;
  warning.delay_warning = std::chrono::hours(2);
  CHECK(delay_report_after(verified, plain, off) == 0s);
  CHECK(delay_report_after(verified, delay, off) == 4h);
  CHECK(delay_report_after(verified, plain, warning) == 2h);
  CHECK(delay_report_after(verified, delay, warning) == 2h);
  CHECK(delay_report_after(verified, success, warning) == 0s);
  CHECK(delay_report_after(stranger, delay, warning) == 0s);
  CHECK(delay_report_after(nobody, delay, warning) == 0s);
}

}  // namespace
}  // namespace greymx::relay

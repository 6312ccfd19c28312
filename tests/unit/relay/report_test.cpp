#include "relay/report.hpp"

#include "support/catch.hpp"
#include "support/fake_clock.hpp"

namespace greymx::relay {
namespace {

// A golden text is written with LF and in UTC.
std::string lines(std::string text) {
  setenv("TZ", "UTC", 1);
  std::string result;
  for (const char c : text) result += c == '\n' ? "\r\n" : std::string(1, c);
  return result;
}

const std::string content = lines(
    "Received: from client.example ([198.51.100.7]) by mx2.example.net\n"
    "Message-ID: <one@sender.example>\nSubject: hello\n\nbody\n");

Envelope envelope() {
  Envelope result;
  result.reverse_path = "author@sender.example";
  result.recipients = {{"user@example.com", "rfc822;user+2Bx@old.example", {}}, {"other@example.com", {}, {}}};
  result.envid = "QQ+3D314";
  result.authorised = Authorised::spf;
  return result;
}

ReportSource source(const Envelope& of, ReportKind kind = ReportKind::failed) {
  ReportSource result;
  result.kind = kind;
  result.hostname = "mx2.example.net";
  result.id = *QueueId::parse(QueueId{(1795440000000000ULL << 12) & ~0ULL}.to_string());
  result.envelope = &of;
  result.recipients = {{0, "5.1.1", "mx1.example.com[192.0.2.1]:25", "550 5.1.1 no such user",
                        "host mx1.example.com[192.0.2.1] said: 550 5.1.1 no such user (in reply to RCPT TO command)"}};
  result.content = content;
  result.size = content.size();
  result.now = test::FakeClock().now();
  result.retry_until = result.now + std::chrono::hours(240);
  return result;
}

bool has(const Report& report, const std::string& text) {
  INFO(report.content);
  return report.content.find(lines(text)) != std::string::npos;
}

TEST_CASE("a failure report, whole") {
  const Envelope original = envelope();
  const ReportSource from = source(original);
  const Report report = make_report(from);
  const std::string id = from.id.to_string();
  const std::string boundary = id + ".1795449663000000/greymx";
  CHECK(report.content ==
        lines("Date: Mon, 23 Nov 2026 16:01:03 +0000\n"
              "From: MAILER-DAEMON@mx2.example.net (Mail Delivery System)\n"
              "To: author@sender.example\n"
              "Subject: Undelivered Mail Returned to Sender\n"
              "Message-ID: <" +
              id +
              ".1795449663000000@mx2.example.net>\n"
              "References: <one@sender.example>\n"
              "In-Reply-To: <one@sender.example>\n"
              "Auto-Submitted: auto-replied\n"
              "MIME-Version: 1.0\n"
              "Content-Type: multipart/report; report-type=delivery-status; boundary=\"" +
              boundary +
              "\"\n"
              "Content-Transfer-Encoding: 7bit\n"
              "\n"
              "--" +
              boundary +
              "\n"
              "Content-Description: Notification\n"
              "Content-Type: text/plain; charset=utf-8\n"
              "Content-Transfer-Encoding: 7bit\n"
              "\n"
              "This is the mail system at mx2.example.net.\n"
              "\n"
              "Your message could not be delivered to the recipients named below. It will not be\n"
              "tried again.\n"
              "\n"
              "<user@example.com>: "
              "host mx1.example.com[192.0.2.1] said: 550 5.1.1 no such user (in reply to RCPT TO command)\n"
              "\n"
              "The last part of this message is what you sent, or its header.\n"
              "\n"
              "--" +
              boundary +
              "\n"
              "Content-Description: Delivery report\n"
              "Content-Type: message/delivery-status\n"
              "Content-Transfer-Encoding: 7bit\n"
              "\n"
              "Reporting-MTA: dns; mx2.example.net\n"
              "Original-Envelope-Id: QQ=314\n"
              "X-greymx-Queue-ID: " +
              id +
              "\n"
              "X-greymx-Sender: rfc822; author@sender.example\n"
              "Arrival-Date: " +
              rfc5322_date(from.id.time()) +
              "\n"
              "\n"
              "Original-Recipient: rfc822;user+x@old.example\n"
              "Final-Recipient: rfc822;user@example.com\n"
              "Action: failed\n"
              "Status: 5.1.1\n"
              "Remote-MTA: dns; mx1.example.com\n"
              "Diagnostic-Code: smtp; 550 5.1.1 no such user\n"
              "\n"
              "--" +
              boundary +
              "\n"
              "Content-Description: Undelivered Message\n"
              "Content-Type: message/rfc822\n"
              "Content-Transfer-Encoding: 7bit\n"
              "\n" +
              std::string("Received: from client.example ([198.51.100.7]) by mx2.example.net\n"
                          "Message-ID: <one@sender.example>\nSubject: hello\n\nbody\n") +
              "\n"
              "--" +
              boundary + "--\n"));
}

TEST_CASE("a report has a null sender and is never reported about") {
  const Envelope original = envelope();
  const Envelope report = make_report(source(original)).envelope;
  CHECK(report.origin == Origin::report);
  CHECK(report.reverse_path.empty());
  REQUIRE(report.recipients.size() == 1);
  CHECK(report.recipients[0].address == "author@sender.example");
  CHECK(report.recipients[0].notify.never);
  CHECK_FALSE(report.smtputf8);
  CHECK(report.body == BodyType::seven_bit);
}

TEST_CASE("RET=HDRS, long content and other kinds of report return the header only") {
  Envelope original = envelope();
  const auto header_only = [&](const ReportSource& from) {
    const Report report = make_report(from);
    CHECK(has(report, "Content-Type: text/rfc822-headers\n"));
    CHECK(has(report, "Subject: hello\n\n--"));
    CHECK_FALSE(has(report, "\nbody\n"));
  };
  SECTION("RET=HDRS") {
    original.ret = DsnReturn::headers;
    header_only(source(original));
  }
  SECTION("long, and only its beginning is here") {
    ReportSource from = source(original);
    from.size = 60'000;
    header_only(from);
  }
  SECTION("delayed") {
    header_only(source(original, ReportKind::delayed));
  }
  SECTION("relayed") {
    header_only(source(original, ReportKind::relayed));
  }
}

TEST_CASE("a delay report says until when it is tried") {
  const Envelope original = envelope();
  const Report report = make_report(source(original, ReportKind::delayed));
  CHECK(has(report, "Subject: Delayed Mail (still being retried)\n"));
  CHECK(has(report, "Action: delayed\n"));
  CHECK(has(report, "Will-Retry-Until: Thu, 03 Dec 2026 16:01:03 +0000\n"));
}

TEST_CASE("a success report says that the next server does not report") {
  const Envelope original = envelope();
  const Report report = make_report(source(original, ReportKind::relayed));
  CHECK(has(report, "Subject: Successful Mail Delivery Report\n"));
  CHECK(has(report, "Action: relayed\n"));
}

TEST_CASE("what we say ourselves is no SMTP reply") {
  const Envelope original = envelope();
  ReportSource from = source(original);
  from.recipients = {{1, "4.4.7", "", "", "message expired: connect to mx1: Connection refused"}};
  const Report report = make_report(from);
  CHECK(has(report,
            "Final-Recipient: rfc822;other@example.com\nAction: failed\nStatus: 4.4.7\n"
            "Diagnostic-Code: X-greymx; message expired: connect to mx1: Connection refused\n"));
  CHECK_FALSE(has(report, "Remote-MTA"));
}

TEST_CASE("an ordinary status part has no 8-bit text, whatever the server said") {
  const Envelope original = envelope();
  ReportSource from = source(original);
  from.recipients[0].said = "550 5.1.1 unbekannter Empfänger";
  from.recipients[0].reason = "host mx1 said: " + from.recipients[0].said;
  const Report report = make_report(from);
  CHECK(has(report, "Content-Type: message/delivery-status\nContent-Transfer-Encoding: 7bit\n"));
  CHECK(has(report, "Diagnostic-Code: smtp; 550 5.1.1 unbekannter Empf?nger\n"));
  CHECK(has(report, "<user@example.com>: host mx1 said: 550 5.1.1 unbekannter Empfänger\n"));
}

TEST_CASE("a reason that is too long for one line is folded") {
  const Envelope original = envelope();
  ReportSource from = source(original);
  const std::string half(480, 'x');
  from.recipients[0].said.clear();
  from.recipients[0].reason = half + " " + half + " end";
  const Report report = make_report(from);
  CHECK(has(report, "<user@example.com>: " + half + "\n " + half + " end\n"));
}

TEST_CASE("internationalised mail gets the global forms") {
  Envelope original = envelope();
  original.smtputf8 = true;
  original.reverse_path = "grüße@sender.example";
  original.recipients[0].address = "müller@example.com";
  const Report report = make_report(source(original));
  CHECK(has(report, "report-type=global-delivery-status"));
  CHECK(has(report, "Content-Type: message/global-delivery-status\n"));
  CHECK(has(report, "Content-Type: message/global\n"));
  CHECK(has(report, "Final-Recipient: utf-8;müller@example.com\n"));
  CHECK(has(report, "Content-Transfer-Encoding: 8bit\n"));
  CHECK(report.envelope.smtputf8);
  CHECK(report.envelope.body == BodyType::eight_bit_mime);
}

TEST_CASE("the original's Message-ID is unfolded, and kept out of an ordinary report's header unless it is ASCII") {
  Envelope original = envelope();
  ReportSource from = source(original);
  const auto about = [&](const std::string& header) {
    from.content = lines(header + "\n\n");
    from.size = from.content.size();
    return make_report(from);
  };
  CHECK(has(about("Message-ID:\n <a@b>\nSubject: x"), "\nReferences: <a@b>\nIn-Reply-To: <a@b>\nAuto-"));
  CHECK(has(about("Message-ID: \n\t<a@b>\n (c)"), "\nReferences: <a@b> (c)\nIn-Reply-To: <a@b> (c)\nAuto-"));
  CHECK_FALSE(has(about("Message-ID:\nSubject: x"), "\nReferences:"));
  for (const char* id : {"<ä@b>", "<\xe4@b>", "\n <ä@b>"}) {
    const Report report = about(std::string("Message-ID: ") + id);
    CHECK_FALSE(has(report, "\nReferences:"));
    CHECK_FALSE(has(report, "\nIn-Reply-To:"));
  }
  original.smtputf8 = true;
  CHECK(has(about("Message-ID: <ä@b>"), "\nReferences: <ä@b>\nIn-Reply-To: <ä@b>\nAuto-"));
}

TEST_CASE("a boundary that stands in the content is not used") {
  const Envelope original = envelope();
  ReportSource from = source(original);
  from.content += "--" + from.id.to_string() + ".1795449663000000/greymx--\r\n";
  from.size = from.content.size();
  const Report report = make_report(from);
  CHECK(has(report, "boundary=\"" + from.id.to_string() + ".0/greymx\""));
}

TEST_CASE("hostile envelopes and headers stay one line each") {
  Envelope original = envelope();
  original.recipients[0].original_recipient = "rfc822;x+0D+0AStatus:+202.0.0";
  original.envid = "a+0D+0Ab";
  ReportSource from = source(original);
  from.content = "Message-ID: <a\rb>\r\n\r\n";
  from.size = from.content.size();
  const Report report = make_report(from);
  CHECK(has(report, "Original-Recipient: rfc822;x??Status: 2.0.0\n"));
  CHECK(has(report, "Original-Envelope-Id: a??b\n"));
  CHECK(has(report, "References: <a?b>\n"));
}

TEST_CASE("the header ends at the first empty line") {
  CHECK(header_of("A: b\r\n\r\nbody\r\n") == "A: b\r\n");
  CHECK(header_of("A: b\r\n") == "A: b\r\n");
  CHECK(header_of("\r\nbody\r\n").empty());
}

}  // namespace
}  // namespace greymx::relay

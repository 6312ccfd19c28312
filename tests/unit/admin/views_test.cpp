#include <stdlib.h>
#include <time.h>

#include "admin/views.hpp"
#include "sample.hpp"
#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::admin;
using greymx::test::at;
using greymx::test::id_at;
using greymx::test::message;
using greymx::test::primary;
using queue::RecipientStatus;

namespace {

const std::string refused = "connect to 127.0.0.1[127.0.0.1]:1: Connection refused";
constexpr std::int64_t thursday = 1795668232;  // Thu Nov 26 04:43:52 UTC 2026

struct Utc {
  Utc() {
    setenv("TZ", "UTC", 1);
    tzset();
  }
};

std::string list(const std::vector<queue::Message>& messages, const Primaries& primaries = {}) {
  Mailq mailq(false, primaries, config::Queue{}, at(thursday));
  std::string text;
  for (const queue::Message& one : messages) text += mailq.add(one, false);
  return text + mailq.end(messages.empty());
}

}  // namespace

// The expected text is what Postfix 3.7's `postqueue -p` printed for the same envelopes and reasons, queue IDs aside.
TEST_CASE("mailq prints the layout of postqueue -p with long IDs") {
  const Utc utc;
  queue::Message first =
      message(id_at(thursday, 1), "sender2@example.org", {"a@example.com", "b@example.com", "c@example.net"});
  queue::Message second = message(id_at(thursday, 2), "", {"d@example.com"}, 247);
  for (queue::Message* one : {&first, &second}) {
    for (auto& state : one->state.recipients) state.reason = refused;
  }
  const std::string a = first.id.to_string(), b = second.id.to_string();
  REQUIRE(a.size() == 12);
  CHECK(list({first, second}) == "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------\n" + a +
                                     "           260 Thu Nov 26 04:43:52 sender2@example.org\n"
                                     "                       (connect to 127.0.0.1[127.0.0.1]:1: Connection refused)\n"
                                     "                                               a@example.com\n"
                                     "                                               b@example.com\n"
                                     "                                               c@example.net\n"
                                     "\n" +
                                     b +
                                     "           247 Thu Nov 26 04:43:52 MAILER-DAEMON\n"
                                     "                       (connect to 127.0.0.1[127.0.0.1]:1: Connection refused)\n"
                                     "                                               d@example.com\n"
                                     "\n"
                                     "-- 0 Kbytes in 2 Requests.\n");
}

TEST_CASE("an empty queue and a single request are worded as Postfix words them") {
  CHECK(list({}) == "Mail queue is empty\n");
  const std::string one = list({message(id_at(thursday), "a@example.org", {"b@example.com"}, 4096)});
  CHECK(one.ends_with("\n\n-- 4 Kbytes in 1 Request.\n"));
}

TEST_CASE("marks: ! held, * in delivery") {
  queue::Message mail = message(id_at(thursday), "a@example.org", {"b@example.com", "c@example.com"});
  const std::string id = mail.id.to_string();
  Mailq mailq(false, {}, config::Queue{}, at(thursday));
  CHECK(mailq.add(mail, true).find(id + "* ") != std::string::npos);
  mail.state.held = true;
  CHECK(mailq.add(mail, true).find(id + "! ") != std::string::npos);
  mail.state.held = false;
  mail.state.recipients[0].status = RecipientStatus::held;
  CHECK_FALSE(is_held(mail));
  mail.state.recipients[1].status = RecipientStatus::done;
  CHECK(is_held(mail));
}

TEST_CASE("done recipients are not shown, and those without a reason come before the first reason") {
  queue::Message mail =
      message(id_at(thursday), "a@example.org", {"late@example.com", "gone@example.com", "new@example.com"});
  mail.state.recipients[0].reason = "later";
  mail.state.recipients[1].status = RecipientStatus::done;
  const std::string text = list({mail});
  CHECK(text.find("gone@") == std::string::npos);
  CHECK(text.find("new@example.com") < text.find("(later)"));
  CHECK(text.find("(later)") < text.find("late@example.com"));
}

TEST_CASE("a primary that is down or suspect explains why its mail waits") {
  const Primaries primaries({primary("example.com", relay::Health::down, "connect to mx1[192.0.2.1]:25: timeout"),
                             primary("*.example.com", relay::Health::up),
                             primary("*.sub.example.com", relay::Health::suspect, "550 no such user")});
  queue::Message mail =
      message(id_at(thursday), "a@example.org", {"b@EXAMPLE.com", "b@x.example.com", "b@y.sub.example.com"});
  mail.state.recipients[0].reason = mail.state.recipients[1].reason = "old reason";
  CHECK(waiting_reason(mail, 0, primaries) == "delivery temporarily suspended: connect to mx1[192.0.2.1]:25: timeout");
  CHECK(waiting_reason(mail, 1, primaries) == "old reason");
  CHECK(waiting_reason(mail, 2, primaries) == "delivery temporarily suspended: 550 no such user");
  CHECK(primaries.find("y.sub.example.com")->domain == "*.sub.example.com");
  CHECK(primaries.find("example.net") == nullptr);
  mail.state.recipients[0].status = RecipientStatus::held;
  CHECK(waiting_reason(mail, 0, primaries) == "old reason");
  mail.state.held = true;
  mail.state.hold_reason = "held by the admin";
  CHECK(waiting_reason(mail, 1, primaries) == "held by the admin");
}

TEST_CASE("bytes that a terminal would obey do not reach it") {
  queue::Message mail = message(id_at(thursday), "\x1b[2J@example.org", {"b\x07@example.com"});
  mail.state.recipients[0].reason = "said \x1b]0;x\x07";
  const std::string text = list({mail});
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK(text.find('\x07') == std::string::npos);
}

TEST_CASE("mailq --json has postqueue -j's fields in its order, then ours") {
  queue::Message mail = message(id_at(thursday), "", {"b@example.com", "c@example.com"}, 92);
  mail.state.recipients[0].reason = refused;
  mail.state.recipients[0].attempts = 3;
  mail.state.recipients[0].next_attempt = at(thursday + 300);
  mail.state.recipients[1].next_attempt = at(thursday + 60);
  config::Queue rules;
  const Mailq mailq(true, Primaries({primary("example.com", relay::Health::suspect)}), rules, at(thursday));
  CHECK(
      mailq.object(mail, false).dump() ==
      R"({"queue_name":"deferred","queue_id":")" + mail.id.to_string() +
          R"(","arrival_time":1795668232,"message_size":92,"forced_expire":false,"sender":"MAILER-DAEMON",)"
          R"("recipients":[{"address":"b@example.com","delay_reason":"connect to 127.0.0.1[127.0.0.1]:1: Connection refused"},)"
          R"({"address":"c@example.com"}],"next_attempt":1795668292,"expires":1796877832,"attempts":3,)"
          R"("client":"mail.example.org[192.0.2.10]","primary_state":"suspect"})");
  CHECK(mailq.object(mail, true)["queue_name"] == "active");
  mail.state.held = true;
  CHECK(mailq.object(mail, false)["queue_name"] == "hold");
  CHECK(mailq.object(mail, false)["next_attempt"].is_null());
  Mailq listing(true, {}, rules, at(thursday));
  CHECK(listing.end(true).empty());
  CHECK(listing.add(mail, false).ends_with("}\n"));
  mail.state.held = false;
  CHECK(listing.object(mail, false)["expires"].is_null());  // without a daemon nobody knows how long it was down
}

TEST_CASE("time in which the primary was down does not bring expiry nearer, lifetime_max does") {
  relay::PrimaryStatus down = primary("example.com", relay::Health::down);
  down.downtime.begin(at(thursday));
  const queue::Message mail = message(id_at(thursday), "a@example.org", {"b@example.com"});
  const auto expires = [&](int days_later) {
    const Mailq mailq(true, Primaries({down}), config::Queue{}, at(thursday + days_later * 86400));
    return (mailq.object(mail, false)["expires"].get<std::int64_t>() - thursday) / 86400;
  };
  CHECK(expires(0) == 14);
  CHECK(expires(10) == 24);
  CHECK(expires(20) == 30);
}

TEST_CASE("our own reports are given up after bounce_lifetime") {
  queue::Message report = message(id_at(thursday), "", {"b@example.com"});
  report.envelope.origin = Origin::report;
  const Mailq mailq(true, Primaries({primary("example.net", relay::Health::up)}), config::Queue{}, at(thursday));
  CHECK(mailq.object(report, false)["expires"] == thursday + 5 * 86400);
}

TEST_CASE("mail held by an admin neither is tried nor expires; refused bounces expire after bounce_lifetime") {
  queue::Message mail = message(id_at(thursday), "a@example.org", {"b@example.com"});
  const Mailq mailq(true, {}, config::Queue{}, at(thursday));
  mail.state.held = true;
  CHECK(mailq.object(mail, false)["next_attempt"].is_null());
  CHECK(mailq.object(mail, false)["expires"].is_null());
  mail.state.held = false;
  mail.state.recipients[0].status = RecipientStatus::held;
  mail.state.recipients[0].held_since = at(thursday + 86400);
  CHECK(mailq.object(mail, false)["next_attempt"].is_null());
  CHECK(mailq.object(mail, false)["expires"] == thursday + 6 * 86400);
}

TEST_CASE("while its primary is down the next attempt is not before the next probe") {
  relay::PrimaryStatus down = primary("example.com", relay::Health::down);
  down.next_attempt = at(thursday + 30);
  queue::Message mail = message(id_at(thursday), "a@example.org", {"b@example.com"});
  mail.state.recipients[0].next_attempt = at(thursday);
  const Mailq mailq(true, Primaries({down}), config::Queue{}, at(thursday));
  CHECK(mailq.object(mail, false)["next_attempt"] == thursday + 30);
}

TEST_CASE("a JSON line is one line of UTF-8 whatever a stranger sent") {
  const Mailq mailq(true, {}, config::Queue{}, at(thursday));
  const std::string line =
      dump(mailq.object(message(id_at(thursday), "\xff\n@example.org", {"\xc3\x28@example.com"}), false));
  CHECK(line.find('\n') == std::string::npos);
  CHECK_FALSE(Json::parse(line, nullptr, false).is_discarded());
}

// As Postfix's qshape prints it; the longest age a column counts is its label.
TEST_CASE("shape counts recipients by domain and age") {
  const WallTime now = at(thursday);
  Shape shape;
  CHECK(shape.text() ==
        "                                         T  5 10 20 40 80 160 320 640 1280 1280+\n"
        "                                  TOTAL  0  0  0  0  0  0   0   0   0    0     0\n");
  shape.add(message(id_at(thursday - 10), "a@b.org", {"a@example.com", "b@example.com", "c@example.net"}), {}, now);
  shape.add(message(id_at(thursday - 5 * 60), "a@b.org", {"a@example.com"}), {}, now);
  shape.add(message(id_at(thursday - 1280 * 60), "a@b.org", {"a@example.com"}), {}, now);
  CHECK(shape.text() ==
        "                                         T  5 10 20 40 80 160 320 640 1280 1280+\n"
        "                                  TOTAL  5  3  1  0  0  0   0   0   0    0     1\n"
        "                            example.com  4  2  1  0  0  0   0   0   0    0     1\n"
        "                            example.net  1  1  0  0  0  0   0   0   0    0     0\n");
  REQUIRE(shape.objects().size() == 2);
  CHECK(shape.objects()[0]["recipients_by_minutes"]["1280+"] == 1);
}

TEST_CASE("domains joins primaries with what waits, wildcards included, and keeps the rest") {
  const WallTime now = at(thursday);
  const std::vector<queue::DomainSummary> queued = {{"a.example.com", 2, 2048, 0, at(thursday - 60), {}},
                                                    {"b.example.com", 1, 1024, 1, at(thursday - 7200), {}},
                                                    {"stranger.test", 1, 10, 0, at(thursday - 5), {}}};
  const auto lines = join_domains(Primaries({primary("*.example.com", relay::Health::down, "no route")}), queued);
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].queued.messages == 3);
  CHECK(lines[0].queued.bytes == 3072);
  CHECK(lines[0].queued.oldest == at(thursday - 7200));
  CHECK_FALSE(lines[1].primary.has_value());
  CHECK(domain_json(lines[0], now)["state"] == "down");
  CHECK(domain_json(lines[0], now)["oldest_seconds"] == 7200);
  CHECK(domain_json(lines[1], now)["state"] == "unknown");
  CHECK(domain_json(lines[0], now)["configured"] == true);
  const std::string text = domains_text(lines, now, Style{});
  CHECK(text.find("*.example.com                down") != std::string::npos);
  CHECK(text.find("no route") != std::string::npos);
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK(domains_text(lines, now, Style{true}).find("\x1b[31mdown") != std::string::npos);
}

TEST_CASE("subdomains that go their own way explain their mail and count under their wildcard") {
  relay::PrimaryStatus sub = primary("dead.example.com", relay::Health::down, "timeout");
  sub.wildcard = "*.example.com";
  const Primaries primaries({sub, primary("*.example.com", relay::Health::down, "dead.example.com: timeout")});
  const queue::Message mail = message(id_at(thursday), "a@example.org", {"b@dead.example.com"});
  CHECK(waiting_reason(mail, 0, primaries) == "delivery temporarily suspended: timeout");
  const auto lines = join_domains(primaries, {{"dead.example.com", 2, 2048, 0, at(thursday - 60), {}}});
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].domain == "*.example.com");
  CHECK(lines[0].queued.messages == 2);
}

TEST_CASE("the envelope of a message is told in full") {
  queue::Message mail = message(id_at(thursday), "a@example.org", {"b@example.com"});
  mail.envelope.recipients[0].notify = {false, true, true, false};
  mail.envelope.authorised = Authorised::spf;
  mail.envelope.ret = DsnReturn::headers;
  mail.state.recipients[0].status = RecipientStatus::held;
  const Json json = envelope_json(mail);
  CHECK(json["sender"] == "a@example.org");
  CHECK(json["authorised"] == "spf");
  CHECK(json["ret"] == "HDRS");
  CHECK(json["recipients"][0]["notify"] == "SUCCESS,FAILURE");
  CHECK(json["recipients"][0]["status"] == "held");
}

TEST_CASE("sizes and ages read well") {
  CHECK(human_size(0) == "0 B");
  CHECK(human_size(1023) == "1023 B");
  CHECK(human_size(1536) == "1.5 KiB");
  CHECK(human_size(50ULL << 20) == "50.0 MiB");
  CHECK(human_age(at(100), at(50)) == human_duration(std::chrono::seconds(0)));
}

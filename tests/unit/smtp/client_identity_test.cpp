// Who the client is: limits, and those that speak for others.
#include "smtp/server_session.hpp"
#include "support/catch.hpp"
#include "support/smtp_server.hpp"

using namespace greymx;
using namespace greymx::smtp;
using namespace std::chrono_literals;
using test::ServerRig;

namespace {

const std::string envelope = "EHLO mail.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n";

config::Config proxied() {
  config::Config settings = test::server_config();
  settings.access.proxy_networks = {*Network::parse("198.51.100.0/24")};
  return settings;
}

// The first reply to a client's second connection.
std::string second_greeting(const config::Config& settings, ServerRig& rig, std::string_view address) {
  const auto first = rig.connections.enter(settings.limits);
  REQUIRE_FALSE(first->identify(*IpAddress::parse(address), false, settings.limits));
  return rig.say("");
}

}  // namespace

TEST_CASE("a client over its limits is told so and hung up on") {
  config::Config settings = test::server_config();
  std::string exceeded;
  SECTION("of connections at a time") {
    settings.limits.connections_per_client = 1;
    exceeded = "Connection concurrency";
  }
  SECTION("of new ones a period") {
    settings.limits.rate_per_client = {1, 60s};
    exceeded = "Connection rate";
  }
  ServerRig rig(settings);
  CHECK(second_greeting(settings, rig, "192.0.2.10") ==
        "421 4.7.0 mx2.example.net Error: too many connections from 192.0.2.10\r\n");
  CHECK(rig.ended());
  CHECK(rig.log.contains(exceeded + " limit exceeded from unknown[192.0.2.10] for service smtp"));
  CHECK(rig.policy.admitted.empty());
  ServerRig stranger(settings);
  CHECK(second_greeting(settings, stranger, "192.0.2.11").starts_with("220"));
  ServerRig trusted(settings, "127.0.0.1:9");
  CHECK(second_greeting(settings, trusted, "127.0.0.1").starts_with("220"));
}

TEST_CASE("the PROXY protocol names the client, on listeners that ask for it") {
  ServerRig rig(proxied(), "198.51.100.7:5000", true);
  CHECK(rig.say("PROXY TCP4 203.0.113.9 192.0.2.1 1234 25\r\n").starts_with("220"));
  CHECK(rig.policy.admitted.at(0).address == IpAddress::parse("203.0.113.9"));
  CHECK(rig.policy.admitted.at(0).port == 1234);
  rig.say(envelope);
  CHECK_FALSE(rig.policy.asked.at(0).early_talker);
  CHECK(rig.line("XCLIENT NAME=evil.example") == "503 5.5.1 Error: MAIL transaction in progress\r\n");
  rig.line("RSET");
  CHECK(rig.line("XCLIENT NAME=evil.example") == "550 5.7.0 Error: insufficient authorization\r\n");
}

TEST_CASE("a PROXY header from elsewhere, a bad one, or none in time: nothing is said") {
  ServerRig stranger(proxied(), "203.0.113.9:5000", true);
  CHECK(stranger.say("PROXY TCP4 127.0.0.1 192.0.2.1 1234 25\r\n").empty());
  CHECK(stranger.ended());
  ServerRig bad(proxied(), "198.51.100.7:5000", true);
  CHECK(bad.say("EHLO x\r\n").empty());
  CHECK(bad.ended());
  CHECK(bad.log.contains("no valid PROXY protocol header from 198.51.100.7"));
  ServerRig late(proxied(), "198.51.100.7:5000", true);
  CHECK(late.say("PROXY ").empty());
  CHECK(late.advance(6s).empty());
  CHECK(late.ended());
}

TEST_CASE("XCLIENT from a proxy changes who the client is and begins anew") {
  ServerRig rig(proxied(), "198.51.100.7:5000");
  CHECK(rig.say("EHLO proxy\r\n").find("250-XCLIENT NAME ADDR PORT PROTO HELO\r\n") != std::string::npos);
  CHECK(rig.line("XCLIENT NAME=spam.example ADDR=203.0.113.9 PORT=99") == "220 mx2.example.net ESMTP greymx\r\n");
  CHECK(rig.line("MAIL FROM:<a@example.org>") == "503 5.5.1 Error: send HELO/EHLO first\r\n");
  rig.say(envelope);
  const Client client = rig.policy.asked.at(0).client;
  CHECK(client == Client{*IpAddress::parse("203.0.113.9"), 99, "spam.example", false});
  rig.line("RSET");
  CHECK(rig.line("XCLIENT ADDR=127.0.0.1").starts_with("220"));
  rig.say(envelope);
  CHECK(rig.policy.asked.at(1).client == Client{*IpAddress::parse("127.0.0.1"), 0, "mail.example.org", true});
  rig.line("RSET");
  CHECK(rig.line("XCLIENT NAME=[UNAVAILABLE] HELO=other PROTO=SMTP").starts_with("220"));
  rig.say("MAIL FROM:<a@example.org>\r\n");
  rig.say("RCPT TO:<b@example.com>\r\n");
  CHECK(rig.policy.asked.at(2).client.name == "unknown");
  CHECK(rig.policy.asked.at(2).helo == "other");
  CHECK(rig.policy.asked.at(2).protocol == "SMTP");
  CHECK(rig.log.count("connect from") == 1);
}

TEST_CASE("the client that XCLIENT names is held to the limits") {
  config::Config settings = proxied();
  settings.limits.rate_per_client = {1, 60s};
  ServerRig rig(settings, "198.51.100.7:5000");
  rig.say("XCLIENT ADDR=203.0.113.9\r\n");
  CHECK(rig.line("XCLIENT NAME=other.example HELO=x").starts_with("220"));  // still the same client
  CHECK(rig.line("XCLIENT ADDR=203.0.113.9") ==
        "421 4.7.0 mx2.example.net Error: too many connections from 203.0.113.9\r\n");
  CHECK(rig.ended());
}

TEST_CASE("who a balancer names is held to the limits, itself is not") {
  config::Config settings = proxied();
  settings.limits.rate_per_client = {1, 60s};
  const auto second = [&](const std::string& header, const std::string& client) {
    ServerRig rig(settings, "198.51.100.7:5000", true);
    rig.start();
    rig.client->put(header);
    return second_greeting(settings, rig, client);
  };
  CHECK(second("PROXY UNKNOWN\r\n", "198.51.100.7").starts_with("220"));
  // …though its address may speak for others.
  CHECK(second("PROXY TCP4 198.51.100.9 192.0.2.1 5000 25\r\n", "198.51.100.9").starts_with("421"));
}

TEST_CASE("the faults of one client are not those of the next") {
  ServerRig rig(proxied(), "198.51.100.7:5000");
  rig.start();
  rig.client->put("EHLO x\r\nNOOP\r\n");  // early, and pipelined
  rig.pump();
  rig.say("MAIL FROM:<a@example.org>\r\n");
  rig.say("RCPT TO:<b@example.com>\r\n");
  rig.line("RSET");
  rig.line("XCLIENT ADDR=203.0.113.9");
  rig.line("EHLO x");
  rig.say("MAIL FROM:<a@example.org>\r\n");
  rig.say("RCPT TO:<b@example.com>\r\n");
  REQUIRE(rig.policy.asked.size() == 2);
  CHECK((rig.policy.asked[0].early_talker && rig.policy.asked[0].improper_pipelining));
  CHECK_FALSE((rig.policy.asked[1].early_talker || rig.policy.asked[1].improper_pipelining));
}

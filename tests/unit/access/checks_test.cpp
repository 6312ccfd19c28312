#include "access/checks.hpp"

#include "support/catch.hpp"
#include "support/run.hpp"
#include "support/scripted_resolver.hpp"

using namespace greymx;
using namespace greymx::access;

namespace {

std::string text(const Findings& finding) {
  return finding ? finding->reply.to_string() : "";
}

Facts helo(std::string name) {
  Facts facts;
  facts.helo = std::move(name);
  return facts;
}

Facts sender(std::string_view address) {
  Facts facts;
  facts.sender = Mailbox::split(address);
  return facts;
}

config::Config two_domains() {
  config::Config config;
  config.domains.emplace_back().name = "example.com";
  config.domains.emplace_back().name = "example.net";
  config.domains.back().wildcard = true;
  return config;
}

}  // namespace

TEST_CASE("only configured domains are relayed to, and no local part that is a route") {
  const config::Config config = two_domains();
  for (const char* ours : {"a@example.com", "a@EXAMPLE.com.", "a@x.example.net", "Postmaster", "postMASTER",
                           "a:b@example.com", "\"a b\"@example.com", "\"postmaster\""}) {
    INFO(ours);
    CHECK_FALSE(relay_control(config, Mailbox::split(ours)));
  }
  for (const char* theirs :
       {"a@example.org", "a@example.net", "a@x.example.com", "a", "abuse", "", "a%example.org@example.com",
        "a!b@example.com", "\"a@b\"@example.com", "a@b@example.com", "@x,@y:a@example.com", "\"a%b\"@example.com",
        "a@[192.0.2.1]", "a@example.com.example.org", "postmaster@example.org", "postmaster%x", "a@example.com\r"}) {
    INFO(theirs);
    const auto reply = relay_control(config, Mailbox::split(theirs));
    REQUIRE(reply);
    CHECK(reply->code == 554);
    CHECK(reply->enhanced == "5.7.1");
    CHECK(reply->text.ends_with(": Relay access denied"));
  }
  CHECK(relay_control(config, Mailbox::split("a@example.org"))->to_string() ==
        "554 5.7.1 <a@example.org>: Relay access denied");
  CHECK(relay_control(config::Config{}, Mailbox::split("postmaster")));
}

TEST_CASE("bare Postmaster belongs to the first domain in the file") {
  const config::Config config = two_domains();
  CHECK(domain_of(config, Mailbox::split("PostMaster")) == &config.domains[0]);
  CHECK(domain_of(config, Mailbox::split("postmaster@a.example.net")) == &config.domains[1]);
}

TEST_CASE("HELO names: one final dot, underscores and bare addresses are tolerated") {
  for (const char* good : {"", "mx.example.org", "mx.example.org.", "localhost", "_a.b_c.example", "192.0.2.1",
                           "2001:db8::1", "[192.0.2.1]", "[IPv6:2001:db8::1]", "[ipv6:::1]", "1a"}) {
    INFO(good);
    CHECK(text(invalid_helo(helo(good))) == "");
  }
  const std::string long_label(64, 'a');
  for (const std::string bad : {"a..b", "-a.b", "a-.b", "a.b..", ".a", "#a", "a/b", "a b", "b\xc3\xbc.example", "123",
                                "1.2.3", "192.0.2.256", long_label.c_str()}) {
    CHECK(text(invalid_helo(helo(bad))) == "501 5.5.2 <" + bad + ">: Helo command rejected: Invalid name");
  }
  for (const std::string bad :
       {"[]", "[192.0.2]", "[::1]", "[IPv6:192.0.2.1]", "[tag:x]", "[192.0.2.1].", "[192.0.2.1"}) {
    CHECK(text(invalid_helo(helo(bad))) == "501 5.5.2 <" + bad + ">: Helo command rejected: invalid ip address");
  }
  CHECK(text(invalid_helo(helo("a\r\nb"))) == "501 5.5.2 <a??b>: Helo command rejected: Invalid name");
}

TEST_CASE("addresses need a name with a dot; the null sender, literals and bare Postmaster pass") {
  for (const char* good :
       {"", "a@b.example", "a@b.example.", "a@[192.0.2.1]", "a@b_c.example", "a@m\xc3\xbcller.example"}) {
    INFO(good);
    CHECK(text(non_fqdn_sender(sender(good))) == "");
  }
  for (const std::string bad : {"a", "a@b", "a@localhost", "a@192.0.2.1", "a@b..c", "a@"}) {
    const std::string shown = bad == "a@" ? "a" : bad;
    CHECK(text(non_fqdn_sender(sender(bad))) ==
          "504 5.5.2 <" + shown + ">: Sender address rejected: need fully-qualified address");
  }
  CHECK(text(non_fqdn_recipient(Mailbox::split("Postmaster"))) == "");
  CHECK(text(non_fqdn_recipient(Mailbox::split("a@intern"))) ==
        "504 5.5.2 <a@intern>: Recipient address rejected: need fully-qualified address");
}

TEST_CASE("improper pipelining and early talkers") {
  Facts facts;
  CHECK_FALSE(unauth_pipelining(facts, Mailbox::split("a@example.com")));
  CHECK_FALSE(unauth_pipelining_at_data(facts));
  CHECK_FALSE(early_talker(facts));
  facts.improper_pipelining = facts.early_talker = true;
  CHECK(text(unauth_pipelining(facts, Mailbox::split("a@example.com"))) ==
        "503 5.5.0 <a@example.com>: Recipient address rejected: Improper use of SMTP command pipelining");
  CHECK(text(unauth_pipelining_at_data(facts)) ==
        "503 5.5.0 <DATA>: Data command rejected: Improper use of SMTP command pipelining");
  CHECK(text(early_talker(facts)) == "550 5.5.1 Protocol error");
}

TEST_CASE("a sender's domain needs an MX or an address; trouble is no proof that it has none") {
  test::ScriptedResolver resolver(
      "mx.test MX 10 host.mx.test\n"
      "a.test A 192.0.2.1\n"
      "aaaa.test AAAA 2001:db8::1\n"
      "cname.test CNAME mx.test\n"
      "txt.test TXT \"x\"\n"
      "servfail.test ANY SERVFAIL\n"
      "timeout.test ANY TIMEOUT\n"
      "mxfail.test MX SERVFAIL\n"
      "mxfail.test A 192.0.2.1\n"
      "afail.test A SERVFAIL\n");
  dns::Answer null_mx{
      .outcome = dns::Outcome::found, .addresses = {}, .mx = {{0, ""}}, .texts = {}, .names = {}, .error = {}};
  resolver.set("null.test", dns::Type::mx, null_mx);
  null_mx.mx = {{0, "a..b"}, {5, ""}};
  resolver.set("bad.test", dns::Type::mx, null_mx);
  struct Case {
    const char* domain;
    const char* reply;
    bool if_permit;
  };
  const std::string not_found = ": Sender address rejected: Domain not found";
  const Case cases[] = {
      {"mx.test", "", false},
      {"a.test", "", false},
      {"aaaa.test", "", false},
      {"cname.test", "", false},
      {"mxfail.test", "", false},
      {"txt.test", "450 4.1.8 <a@txt.test>: Sender address rejected: Domain not found", false},
      {"absent.test", "450 4.1.8 <a@absent.test>: Sender address rejected: Domain not found", false},
      {"servfail.test", "450 4.1.8 <a@servfail.test>: Sender address rejected: Domain not found", true},
      {"timeout.test", "450 4.1.8 <a@timeout.test>: Sender address rejected: Domain not found", true},
      {"afail.test", "450 4.1.8 <a@afail.test>: Sender address rejected: Domain not found", true},
      {"null.test", "550 5.7.27 <a@null.test>: Sender address rejected: Domain null.test does not accept mail (nullMX)",
       false},
      {"bad.test", "450 4.1.8 <a@bad.test>: Sender address rejected: Malformed DNS server reply", false},
  };
  for (const Case& c : cases) {
    INFO(c.domain);
    const MailDomain state = test::run(look_up_mail_domain(resolver, c.domain, SteadyTime::max()));
    const Findings finding = unknown_sender_domain(sender(std::string("a@") + c.domain), state);
    CHECK(text(finding) == c.reply);
    CHECK((finding && finding->if_permit) == c.if_permit);
  }
}

TEST_CASE("our own domains, literals and the null sender are never looked up") {
  const config::Config config = two_domains();
  for (const char* known : {"", "a", "a@[192.0.2.1]", "a@example.com", "a@x.Example.net"}) {
    CHECK_FALSE(needs_lookup(config, Mailbox::split(known)));
  }
  CHECK(needs_lookup(config, Mailbox::split("a@example.org")));
}

TEST_CASE("a local part that needs no quotes is the same without them") {
  CHECK(unquoted(Mailbox::split("\"joe\"@example.com")).local == "joe");
  CHECK(unquoted(Mailbox::split("\"j\\oe\"@example.com")).local == "joe");
  CHECK(unquoted(Mailbox::split("\"a b\"@example.com")).local == "\"a b\"");
  CHECK(unquoted(Mailbox::split("\"\"@example.com")).local == "\"\"");
  CHECK(unquoted(Mailbox::split("\"@example.com")).local == "\"");
  CHECK(is_postmaster(Mailbox::split("\"PostMaster\"@example.com")));
  CHECK(is_postmaster_or_abuse(Mailbox::split("Abuse@example.com")));
  CHECK_FALSE(is_postmaster_or_abuse(Mailbox::split("abuse")));
  CHECK_FALSE(is_postmaster_or_abuse(Mailbox::split("abuser@example.com")));
}

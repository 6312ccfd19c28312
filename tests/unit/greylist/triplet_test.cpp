#include "greylist/triplet.hpp"

#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::greylist;

namespace {

IpAddress ip(std::string_view text) {
  return IpAddress::parse(text).value();
}

std::string key_of(std::string_view client, std::string_view sender, std::string_view recipient, KeyRules rules = {}) {
  return plain_key(
      {.client = ip(client), .client_name = {}, .sender = sender, .recipient = recipient, .helo = {}, .spf_domain = {}},
      rules);
}

}  // namespace

TEST_CASE("the plain key is postgrey's, byte for byte") {
  CHECK(key_of("192.0.2.77", "Bob+x@Ex.com", "User+ext@Dom.ORG") == "192.0.2.0/bob@ex.com/user+ext@dom.org");
  CHECK(key_of("2001:db8:1:2:3:4:5:6", "a@b.c", "d@e.f") == "2001:db8:1:2:0:0:0:0/a@b.c/d@e.f");
  CHECK(key_of("192.0.2.77", "", "rcpt@dom") == "192.0.2.0//rcpt@dom");
  CHECK(key_of("192.0.2.77", "a@b.c", "d@e.f", {.by_host = true}) == "192.0.2.77/32/a@b.c/d@e.f");
  CHECK(key_of("2001:db8:1:2:3:4:5:6", "a@b.c", "d@e.f", {.by_host = true}) == "2001:db8:1:2:3:4:5:6/128/a@b.c/d@e.f");
  CHECK(key_of("192.0.2.77", "a@b.c", "d@e.f", {.ipv4_prefix = 16}) == "192.0.0.0/a@b.c/d@e.f");
  CHECK(key_of("192.0.2.77", "\xc3\x84@b.c", "d@e.f") == "192.0.2.0/\xc3\x84@b.c/d@e.f");
}

TEST_CASE("senders are normalised as postgrey does it") {
  const std::vector<std::pair<std::string, std::string>> rows{
      {"prvs=1234abcdef=Joe-12-x9@a.b", "Joe-#-x9@a.b"},           // BATV by the draft
      {"prvs=joe=1234abcdef@a.b", "joe@a.b"},                      // the other way round
      {"prvs=1234abcdef=abcdef1234@a.b", "abcdef1234@a.b"},        // both look like a tag: the second part is the user
      {"prvs=joe=ann@a.b", "ann@a.b"},                             // neither does
      {"PRVS=1234abcdef=joe@a.b", "PRVS=1234abcdef=joe@a.b"},      // lower case only
      {"prvs=1234abcdef=joe=x@a.b", "prvs=1234abcdef=joe=x@a.b"},  // not three parts
      {"prvs=1234abcdef=@a.b", "prvs=1234abcdef=@a.b"},            // an empty last part is none
      {"prvs=abc@a.b", "prvs=abc@a.b"},
      {"bounce-123-user=dom.org-77@list.example", "bounce-#-user=dom.org-#@list.example"},
      {"50%off@x.y", "#%off@x.y"},
      {"user123@x.y", "user123@x.y"},
      {"a_12@x.y", "a_12@x.y"},
      {"12@34.56", "#@34.56"},
      {"a.1.b@x.y", "a.#.b@x.y"},
      {"list+owner=12@x.y", "list@x.y"},
      {"+x@x.y", "@x.y"},
      {"SRS0=HHH=TT=orig.com=user@fwd.com", "SRS0=HHH=TT=orig.com=user@fwd.com"},
      {"no-domain-12", "no-domain-12"},
      {"a@b@c-1", "a@b@c-1"},
      {"", ""},
  };
  for (const auto& [given, expected] : rows) {
    CAPTURE(given);
    CHECK(normalise_sender(given) == expected);
  }
}

TEST_CASE("the hashes of postgrey --privacy are found again") {
  const std::string key = key_of("192.0.2.77", "Bob+x@Ex.com", "User+ext@Dom.ORG");
  CHECK(privacy_key(key) == "sha1/f4c743ff384d8e45433ed7735b5af23488ab2d1b");
  CHECK(client_key(ip("192.0.2.77")) == "awl/192.0.2.77");
  CHECK(client_key(ip("2001:db8:1:2:3:4:5:6")) == "awl/2001:DB8:1:2:3:4:5:6");
  CHECK(privacy_key(client_key(ip("192.0.2.77"))) == "awl/sha1/4a8c47af580e39b3bdcdbead9bea5fb1775ec723");
  CHECK(privacy_key(client_key(ip("2001:db8:1:2:3:4:5:6"))) == "awl/sha1/ec22b9e3cf64cd64505e39dffb5663a9628b8253");
}

TEST_CASE("pool keys name the authorised domain and the confirmed organisational domain") {
  const Mail mail{.client = ip("192.0.2.77"),
                  .client_name = "mail-wm1-f42.Google.com",
                  .sender = "Ann+1@Example.org",
                  .recipient = "bob@example.com",
                  .helo = "mail-wm1-f42.google.com",
                  .spf_domain = "Example.org"};
  CHECK(triplet_keys(mail, {}) == std::vector<std::string>{"192.0.2.0/ann@example.org/bob@example.com",
                                                           "spf/example.org/ann@example.org/bob@example.com",
                                                           "ptr/google.com/ann@example.org/bob@example.com"});
  CHECK(triplet_keys(mail, {.pools = false}).size() == 1);
  Mail null_sender = mail;
  null_sender.sender = "";
  null_sender.spf_domain = "";
  CHECK(triplet_keys(null_sender, {})[1] == "ptr/google.com/mail-wm1-f42.google.com/bob@example.com");
  Mail unknown = mail;
  unknown.client_name = "unknown";
  unknown.spf_domain = "";
  CHECK(triplet_keys(unknown, {}).size() == 1);
}

TEST_CASE("a name that says nothing about who runs the host is no pool") {
  const std::vector<std::tuple<std::string, std::string, std::string>> rows{
      {"a8-29.smtp-out.amazonses.com", "54.240.8.29", "amazonses.com"},  // two octets are common in real pools
      {"mail-eopbgr50084.outbound.protection.outlook.com", "40.107.5.84", "outlook.com"},
      {"o1.ptr1234.sendgrid.example.co.uk", "192.0.2.1", "example.co.uk"},
      {"mx.example.org", "2001:db8::1", "example.org"},
      {"static-192-0-2-77.example.net", "192.0.2.77", ""},
      {"77.2.0.192.example.net", "192.0.2.77", ""},
      {"host-002-077-192.example.net", "192.0.2.77", ""},
      {"c000024d.example.net", "192.0.2.77", ""},
      {"192000002077.example.net", "192.0.2.77", ""},
      {"3221226061.example.net", "192.0.2.77", ""},
      {"2001-db8-1-2-3--4.example.net", "2001:db8:1:2:3::4", ""},
      {"x20010db8000100020003000400050006.example.net", "2001:db8:1:2:3:4:5:6", ""},
      {"mx.dyn.example.net", "192.0.2.77", ""},
      {"dhcp7.example.net", "192.0.2.77", ""},
      {"adsl-1.example.net", "192.0.2.77", ""},
      {"mail.shop.github.io", "192.0.2.77", ""},  // anybody may register below github.io
      {"co.uk", "192.0.2.77", ""},
      {"unknown", "192.0.2.77", ""},
      {"", "192.0.2.77", ""},
  };
  for (const auto& [name, client, expected] : rows) {
    CAPTURE(name, client);
    CHECK(pool_domain(name, ip(client)) == expected);
  }
}

TEST_CASE("keys are bounded and stay distinct") {
  const std::string long_a = key_of("192.0.2.1", std::string(400, 'x') + "a@b.c", "d@e.f");
  const std::string long_b = key_of("192.0.2.1", std::string(400, 'x') + "b@b.c", "d@e.f");
  CHECK(bounded_key(long_a).size() == max_key);
  CHECK(bounded_key(long_a) != bounded_key(long_b));
  CHECK(bounded_key(bounded_key(long_a)) == bounded_key(long_a));
  CHECK(bounded_key("192.0.2.0/a@b.c/d@e.f") == "192.0.2.0/a@b.c/d@e.f");
}

TEST_CASE("a key tells its kind and its parts") {
  CHECK(kind_of("192.0.2.0/a@b.c/d@e.f") == Kind::plain);
  CHECK(kind_of("2001:db8:0:0:0:0:0:0//d@e.f") == Kind::plain);
  CHECK(kind_of("spf/b.c/a@b.c/d@e.f") == Kind::spf);
  CHECK(kind_of("ptr/b.c/a@b.c/d@e.f") == Kind::ptr);
  CHECK(kind_of("sha1/00") == Kind::hashed);
  CHECK(kind_of("awl/192.0.2.1") == Kind::client);
  CHECK(kind_of("awl/sha1/00") == Kind::hashed_client);
  CHECK(kind_of("pass/192.0.2.1") == Kind::pass);
  CHECK(kind_of("expect/a@b.c") == Kind::expect);

  const std::vector<std::array<std::string, 4>> rows{
      {"192.0.2.0/a@b.c/d@e.f", "192.0.2.0", "a@b.c", "d@e.f"},
      {"192.0.2.77/32/a@b.c/d@e.f", "192.0.2.77/32", "a@b.c", "d@e.f"},
      {"192.0.2.0//d@e.f", "192.0.2.0", "", "d@e.f"},
      {"192.0.2.0/x/y@b.c/d@e.f", "192.0.2.0", "x/y@b.c", "d@e.f"},
      {"192.0.2.0/\"x@/y\"@b.c/d@e.f", "192.0.2.0", "\"x@/y\"@b.c", "d@e.f"},
      {"192.0.2.0/a@b.c/postmaster", "192.0.2.0", "a@b.c", "postmaster"},
      {"192.0.2.0/root/d@e.f", "192.0.2.0", "root", "d@e.f"},
      {"192.0.2.0/a@b.c/d/e@e.f", "192.0.2.0", "a@b.c", "d/e@e.f"},
      {"ptr/b.c/mx.b.c/d@e.f", "b.c", "mx.b.c", "d@e.f"},
      {"sha1/00ff", "00ff", "", ""},
      {"awl/192.0.2.1", "192.0.2.1", "", ""},
      {"pass/192.0.2.0/24", "192.0.2.0/24", "", ""},
      {"192.0.2.0", "192.0.2.0", "", ""},
  };
  for (const auto& [key, client, sender, recipient] : rows) {
    CAPTURE(key);
    const KeyParts parts = split_key(key);
    CHECK(parts.client == client);
    CHECK(parts.sender == sender);
    CHECK(parts.recipient == recipient);
  }
}

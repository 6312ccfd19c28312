#include "base/mailbox.hpp"

#include "support/catch.hpp"

using namespace greymx;

TEST_CASE("a mailbox splits at its last at sign") {
  CHECK(Mailbox::split("user@example.com") == Mailbox{"user", "example.com"});
  CHECK(Mailbox::split("\"a@b\"@example.com") == Mailbox{"\"a@b\"", "example.com"});
  CHECK(Mailbox::split("Postmaster") == Mailbox{"Postmaster", ""});
  CHECK(Mailbox::split("").empty());
  CHECK(Mailbox::split("user@[192.0.2.1]").domain == "[192.0.2.1]");
  CHECK(Mailbox{"a", "b"}.to_string() == "a@b");
  CHECK(Mailbox{"Postmaster", ""}.to_string() == "Postmaster");
  CHECK(Mailbox{}.to_string().empty());
}

TEST_CASE("a mailbox's key folds case and writes the domain in A-labels") {
  CHECK(Mailbox::split("User@EXAMPLE.com").key() == "user@example.com");
  CHECK(Mailbox::split("User@Bücher.example").key() == "user@xn--bcher-kva.example");
  CHECK(Mailbox::split("Postmaster").key() == "postmaster");
  CHECK(Mailbox::split("U@[IPv6:2001:DB8::1]").key() == "u@[ipv6:2001:db8::1]");
}

TEST_CASE("domains have one canonical form") {
  CHECK(canonical_domain("Example.COM.") == "example.com");
  CHECK(canonical_domain("bücher.example") == "xn--bcher-kva.example");
  CHECK(canonical_domain("BÜCHER.example") == "xn--bcher-kva.example");
  CHECK(canonical_domain("faß.example") == "xn--fa-hia.example");
  CHECK(canonical_domain("_dmarc.example.com") == "_dmarc.example.com");
  for (const std::string& bad : {std::string(), std::string("."), std::string("a..b"), std::string("[192.0.2.1]"),
                                 std::string("a b"), std::string("-a.example"), std::string(64, 'a') + ".example",
                                 std::string("\xff.example"), std::string("b\xc3\xbc\0r.example", 12)}) {
    INFO(bad);
    CHECK_FALSE(canonical_domain(bad));
  }
}

TEST_CASE("host names have labels of letters, digits, hyphen and underscore") {
  CHECK(is_hostname("mail.example.com"));
  CHECK(is_hostname("mail.example.com."));
  CHECK(is_hostname("my_host"));
  CHECK(is_hostname(std::string(63, 'a') + ".example"));
  CHECK(is_hostname("example.com", 2));
  CHECK_FALSE(is_hostname("com", 2));
  CHECK_FALSE(is_hostname("com.", 2));
  std::string longest;
  for (int i = 0; i < 127; ++i) longest += "a.";
  CHECK(is_hostname(longest + "a"));
  CHECK_FALSE(is_hostname(longest + "aa"));
  for (const char* bad :
       {"", ".", "..", "a..b", ".a", "a.-b", "a-.b", "a b", "a/b", "ü.example", "a:b", "example.com.."}) {
    INFO(bad);
    CHECK_FALSE(is_hostname(bad));
  }
}

TEST_CASE("a name is in a domain by whole labels") {
  CHECK(is_in_domain("example.com", "example.com"));
  CHECK(is_in_domain("a.b.example.com", "example.com"));
  CHECK_FALSE(is_in_domain("badexample.com", "example.com"));
  CHECK_FALSE(is_in_domain("com", "example.com"));
  CHECK_FALSE(is_in_domain("example.com", ""));
}

TEST_CASE("the organisational domain is one label below the public suffix") {
  CHECK(organisational_domain("a.b.example.co.uk") == "example.co.uk");
  CHECK(organisational_domain("Example.COM.") == "example.com");
  CHECK(organisational_domain("mail.someone.github.io") == "someone.github.io");
  CHECK(organisational_domain("github.io").empty());
  CHECK(organisational_domain("co.uk").empty());
  CHECK(organisational_domain("com").empty());
  CHECK(organisational_domain("192.0.2.1").empty());
  CHECK(organisational_domain("").empty());
  CHECK(organisational_domain("not a name").empty());
}

TEST_CASE("case is folded in ASCII only") {
  CHECK(to_lower("ABC-xyz\xc3\x84") == "abc-xyz\xc3\x84");
  CHECK(equals_ignoring_case("EHLO", "ehlo"));
  CHECK_FALSE(equals_ignoring_case("EHLO", "EHLO "));
  CHECK_FALSE(equals_ignoring_case("@", "`"));
  CHECK(is_ascii("abc\x7f"));
  CHECK_FALSE(is_ascii("\x80"));
}

TEST_CASE("text from strangers cannot steer a terminal or break a line") {
  CHECK(printable("plain text") == "plain text");
  CHECK(printable("a\r\nb\tc\x1b[31md\x7f") == std::string("a??b?c?[31md?"));
  CHECK(printable(std::string_view("a\0b", 3)) == "a?b");
  CHECK(printable("grüße €😀") == "grüße €😀");
  CHECK(printable("\xc2\x9b"
                  "31m") == "??31m");              // CSI as one C1 character
  CHECK(printable("\xc0\xaf") == "??");            // overlong '/'
  CHECK(printable("\xed\xa0\x80") == "???");       // a surrogate
  CHECK(printable("\xf4\x90\x80\x80") == "????");  // above U+10FFFF
  CHECK(printable("\xe2\x82") == "??");            // cut short
  CHECK(printable("\xff\xfe") == "??");
}

TEST_CASE("printable cuts at its limit on a character border") {
  CHECK(printable("abcdef", 3) == "abc");
  CHECK(printable("aü", 2) == "a");
  CHECK(printable("aü", 3) == "aü");
  CHECK(printable(std::string(1000, 'x')).size() == 500);
}

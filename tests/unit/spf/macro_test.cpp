#include "spf/macro.hpp"

#include <chrono>

#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::spf;

namespace {

const MacroValues rfc{*IpAddress::parse("192.0.2.3"),
                      "strong-bad",
                      "email.example.com",
                      "mx.example.org",
                      "mx2.example.net",
                      "email.example.com"};

}  // namespace

TEST_CASE("RFC 7208 7.4's examples") {
  const std::pair<std::string_view, std::string_view> examples[] = {
      {"%{s}", "strong-bad@email.example.com"},
      {"%{o}", "email.example.com"},
      {"%{d}", "email.example.com"},
      {"%{d4}", "email.example.com"},
      {"%{d3}", "email.example.com"},
      {"%{d2}", "example.com"},
      {"%{d1}", "com"},
      {"%{dr}", "com.example.email"},
      {"%{d2r}", "example.email"},
      {"%{l}", "strong-bad"},
      {"%{l-}", "strong.bad"},
      {"%{lr}", "strong-bad"},
      {"%{lr-}", "bad.strong"},
      {"%{l1r-}", "strong"},
      {"%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"},
      {"%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"},
      {"%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"},
      {"%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"},
      {"%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"},
  };
  for (const auto& [text, expected] : examples) {
    CAPTURE(text);
    CHECK(is_macro_string(text, false));
    CHECK(expand(text, rfc) == expected);
  }
  MacroValues six = rfc;
  six.client = *IpAddress::parse("2001:db8::cb01");
  CHECK(expand("%{ir}.%{v}._spf.%{d2}", six) ==
        "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com");
  CHECK(expand("%{i}", six).starts_with("2.0.0.1.0.d.b.8."));
}

TEST_CASE("literals, escapes and explanation letters") {
  CHECK(expand("a%%b%_c%-d", rfc) == "a%b c%20d");
  CHECK(expand("%{c} %{r} %{h} %{p}", rfc) == "192.0.2.3 mx2.example.net mx.example.org unknown");
  CHECK(std::stoll(expand("%{t}", rfc)) > 1'600'000'000);
  MacroValues nowhere = rfc;
  nowhere.receiver.clear();
  CHECK(expand("%{r}", nowhere) == "unknown");
}

TEST_CASE("what is a macro-string") {
  for (const char* good : {"", "plain", "%{d}", "%{D}", "%{d100r-+,/_=}", "%{dR}", "%%%_%-"}) {
    CAPTURE(good);
    CHECK(is_macro_string(good, false));
  }
  for (const char* bad :
       {"%", "%a", "a%", "%{", "%{}", "%{d", "%{d0}", "%{d00}", "%{x}", "%{1}", "%{d-r}", "%{dq}", "%{dr2}"}) {
    CAPTURE(bad);
    CHECK_FALSE(is_macro_string(bad, true));
  }
  CHECK(is_macro_string("%{c}%{r}%{t}", true));
  CHECK_FALSE(is_macro_string("%{c}", false));
}

TEST_CASE("what is a domain-spec") {
  for (const char* good :
       {"a.b", "a.b.", "%{d}", "x.%{d}", "%{d}.com", "a.x-y", "a.1a", "_a._b.c", "a:b/c.de", "a..b", "a%%"}) {
    CAPTURE(good);
    CHECK(is_domain_spec(good));
  }
  for (const char* bad :
       {"", "a", "a.", ".", "a.-b", "a.b-", "a.1", "%{d}com", "a.b:1", "a.b/2", "%{c}.com", "%{d.}com", "a.b.."}) {
    CAPTURE(bad);
    CHECK_FALSE(is_domain_spec(bad));
  }
}

TEST_CASE("names of more than 253 characters lose labels on the left") {
  const std::string label(60, 'a');
  const std::string name = "x." + label + ".b." + label + '.' + label + '.' + label + ".example";
  REQUIRE(name.size() == 255);
  CHECK(expand_domain(name, rfc) == name.substr(2));
  CHECK(expand_domain("yz." + name.substr(2) + "s", rfc) == name.substr(2 + 61) + "s");
  CHECK(expand_domain("a.b.", rfc) == "a.b");
  CHECK(expand_domain(std::string(300, 'a'), rfc) == std::string(300, 'a'));  // no name at all; asking finds out
}

TEST_CASE("a record full of macros costs no more than its length") {
  MacroValues values = rfc;
  values.local.clear();
  for (int i = 0; i < 120; ++i) values.local += "a.";
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "%{l}";
  CHECK(expand(text, values).size() < 8192);
  const auto start = std::chrono::steady_clock::now();
  const std::string name = expand_domain(text + ".example.org", values);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
  CHECK(name.size() >= 252);
  CHECK(name.size() <= 253);
  CHECK(name.ends_with("a.a..example.org"));
}

TEST_CASE("only p needs a validated name") {
  CHECK(needs_validated_name("a.%{P}.b"));
  CHECK_FALSE(needs_validated_name("p.%{d}"));
}

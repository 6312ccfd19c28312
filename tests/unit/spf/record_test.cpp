#include "spf/record.hpp"

#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::spf;

TEST_CASE("the terms of a record") {
  const auto record = parse_record(
      "v=spf1 +mx/24//64 -a:x.test//48 ~ip4:192.0.2.0/24 ?ip6:2001:db8::/32 include:y.test exists:%{i}.z.test "
      "ptr:p.test redirect=r.test exp=e.test -all");
  REQUIRE(record);
  const auto& terms = record->mechanisms;
  REQUIRE(terms.size() == 8);
  CHECK(terms[0].kind == Kind::mx);
  CHECK(terms[0].domain.empty());
  CHECK(terms[0].prefix4 == 24);
  CHECK(terms[0].prefix6 == 64);
  CHECK(terms[0].text == "mx/24//64");
  CHECK(terms[1].qualifier == spf::Result::fail);
  CHECK(terms[1].domain == "x.test");
  CHECK(terms[1].prefix4 == 32);
  CHECK(terms[1].prefix6 == 48);
  CHECK(terms[2].qualifier == spf::Result::softfail);
  CHECK(terms[2].address == *IpAddress::parse("192.0.2.0"));
  CHECK(terms[2].prefix4 == 24);
  CHECK(terms[3].qualifier == spf::Result::neutral);
  CHECK(terms[3].prefix6 == 32);
  CHECK(terms[4].kind == Kind::include);
  CHECK(terms[5].domain == "%{i}.z.test");
  CHECK(terms[6].kind == Kind::ptr);
  CHECK(terms[7].kind == Kind::all);
  CHECK(record->redirect == "r.test");
  CHECK(record->explanation == "e.test");
}

TEST_CASE("the error names the wrong term") {
  CHECK(parse_record("v=spf1 ip4:192.0.2.1 moo:x -all").error() == "syntax error in \"moo:x\"");
}

TEST_CASE("which texts are SPF records") {
  CHECK(is_spf_record("v=spf1"));
  CHECK(is_spf_record("V=SPF1 -all"));
  CHECK_FALSE(is_spf_record("v=spf10"));
  CHECK_FALSE(is_spf_record("v=spf"));
  CHECK_FALSE(is_spf_record(""));
  CHECK_FALSE(is_spf_record("v=spf1\t-all"));
}

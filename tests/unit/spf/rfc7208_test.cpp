// RFC 7208 section by section. What is asked follows the points that the published RFC 7208 test suite covers; zones,
// names and values are our own.
#include "spf_cases.hpp"
#include "support/catch.hpp"

using greymx::test::check_spf;
using enum greymx::spf::Result;

namespace {
constexpr std::string_view v6 = "2001:db8::10";
constexpr std::string_view mapped = "::ffff:192.0.2.10";
}  // namespace

TEST_CASE("4.3 initial processing") {
  check_spf(
      R"(
    a12345678901234567890123456789012345678901234567890123456789012.example.org TXT "v=spf1 -all"
    example.org TXT "v=spf1 -all exp=who.example.org"
    who.example.org TXT "%{l}"
    helo.test TXT "v=spf1 ip4:192.0.2.10 -all exp=who.helo.test"
    who.helo.test TXT "%{s}"
    sick.test TXT TIMEOUT
    xn--bcher-kva.example TXT "v=spf1 +all"
  )",
      {{"a label of 64 is no domain", "x@A123456789012345678901234567890123456789012345678901234567890123.example.org",
        none},
       {"a label of 63 is one", "x@A12345678901234567890123456789012345678901234567890123456789012.example.org", fail},
       {"empty labels are no domain", "x@a...example.org", none},
       {"a single label is no domain", "x@localhost", none},
       {"an address literal is no domain", "x@[192.0.2.10]", none},
       {"a null sender is checked by HELO", "", pass, "192.0.2.10", "helo.test"},
       {"as postmaster", "", fail, "192.0.2.11", "helo.test", "postmaster@helo.test"},
       {"a single-label HELO is no domain", "", none, "192.0.2.10", "localhost"},
       {"a literal HELO is no domain", "", none, "192.0.2.10", "[192.0.2.10]"},
       {"an empty local part is postmaster", "@example.org", fail, "192.0.2.10", "h.test", "postmaster"},
       {"a quoted at sign belongs to the local part", "\"a@b\"@example.org", fail, "192.0.2.10", "h.test", "\"a@b\""},
       {"an IDN sender is checked by its A-label",
        "x@b\xc3\xbc"
        "cher.example",
        pass},
       {"no local part, no domain: none", "nonsense", none}});
}

TEST_CASE("4.4 record lookup") {
  check_spf(R"(
    yes.test TXT "v=spf1 -all"
    empty.test A 192.0.2.10
    sick.test TXT TIMEOUT
    servfail.test TXT SERVFAIL
    alias.test CNAME yes.test
  )",
            {{"a record is used", "x@yes.test", fail},
             {"also through a CNAME", "x@alias.test", fail},
             {"NXDOMAIN is none", "x@gone.test", none},
             {"NODATA is none", "x@empty.test", none},
             {"a timeout is temperror", "x@sick.test", temperror},
             {"SERVFAIL is temperror", "x@servfail.test", temperror}});
}

TEST_CASE("4.5 selecting records") {
  check_spf(R"(
    empty.test TXT "v=spf1"
    blank.test TXT "v=spf1 "
    joined.test TXT "v=spf1" "mx"
    split.test TXT "v=sp" "f1 -a" "ll"
    ten.test TXT "v=spf10"
    ten.test TXT "v=spf1 +all"
    three.test TXT "v=spf3 +all"
    two.test TXT "v=spf1 -all"
    two.test TXT "V=sPf1 +all"
    same.test TXT "v=spf1 -all"
    same.test TXT "v=spf1 -all"
    upper.test TXT "V=SpF1 ~all"
    other.test TXT "google-site-verification=1"
    other.test TXT "v=spf1 ?all"
    strange.test TXT "v=spf1 -all"
    strange.test TXT "é"
    late.test TXT " v=spf1 -all"
  )",
            {{"an empty record is neutral", "x@empty.test", neutral},
             {"with a space too", "x@blank.test", neutral},
             {"strings are joined without space", "x@joined.test", none},
             {"a version may be split", "x@split.test", fail},
             {"v=spf10 is another version", "x@ten.test", pass},
             {"v=spf3 is none", "x@three.test", none},
             {"two records are permerror, whatever their case", "x@two.test", permerror},
             {"also two equal ones", "x@same.test", permerror},
             {"the version's case does not matter", "x@upper.test", softfail},
             {"other TXT records do not matter", "x@other.test", neutral},
             {"nor do odd ones", "x@strange.test", fail},
             {"the version comes first", "x@late.test", none}});
}

TEST_CASE("4.6 record evaluation") {
  check_spf(
      "t12.test TXT \"v=spf1 a:t12.test\rptr -all\"\nt13.test TXT \"v=spf1 a:\xef\xbb\xbfx.test -all\"\n"
      "t14.test TXT \"v=spf1 \x80"
      "a:x.test -all\"\nt15.test TXT \"v=spf1 ip4:192.0.2.99 \x96"
      "all\"\n"
      "t16.test TXT \"v=spf1\tip4:192.0.2.10\"\nt17.test TXT \"v=spf1 a\t-all\"\n"
      R"(
    t1.test TXT "v=spf1 ip4:192.0.2.10 -all moo"
    t2.test TXT "v=spf1 moo.cow-far_out=man:dog/cat ip4:192.0.2.10 -all"
    t3.test TXT "v=spf1 moo.cow/far_out=man:dog/cat ip4:192.0.2.10 -all"
    t4.test TXT "v=spf1 moo.cow:far_out=man:dog/cat ip4:192.0.2.10 -all"
    t5.test TXT "v=spf1 redirect=t5.test ~all"
    t6.test TXT "v=spf1 ip4:192.0.2.10 redirect=t2.test"
    t7.test TXT "v=spf1 ip4:192.0.2.10"
    t8.test TXT "v=spf1 ip4:192.0.2.10 redirect:t2.test"
    t9.test TXT "v=spf1 a:foo-bar -all"
    t10.test TXT "v=spf1 a:mail.example...com -all"
    t11.test TXT "v=spf1 a:%{H}.bar -all"
    two.test TXT "v=spf1   ip4:192.0.2.10    -all  "
    order.test TXT "v=spf1 -ip4:192.0.2.10 +ip4:192.0.2.10"
    case.test TXT "v=spf1 IP4:192.0.2.10 -ALL"
    plus.test TXT "v=spf1 +ip4:192.0.2.10 -all"
    double.test TXT "v=spf1 --all"
    tilde.test TXT "v=spf1 ~"
  )",
      {{"a syntax error anywhere is found", "x@t1.test", permerror},
       {"unknown modifiers are ignored", "x@t2.test", pass},
       {"a slash ends no modifier's name", "x@t3.test", permerror},
       {"nor does a colon", "x@t4.test", permerror},
       {"redirect counts after all mechanisms", "x@t5.test", softfail},
       {"wherever it stands", "x@t6.test", fail, "192.0.2.11"},
       {"a match comes before redirect", "x@t6.test", pass},
       {"the default is neutral", "x@t7.test", neutral, "192.0.2.11"},
       {"redirect is no mechanism", "x@t8.test", permerror},
       {"a domain has two labels", "x@t9.test", permerror},
       {"a name that cannot exist does not match", "x@t10.test", fail},
       {"also if a macro makes it so", "x@t11.test", fail, "192.0.2.10", "%%%%%%%%"},
       {"a carriage return separates nothing", "x@t12.test", permerror},
       {"non-ASCII in a name", "x@t13.test", permerror},
       {"non-ASCII before a mechanism", "x@t14.test", permerror},
       {"non-ASCII in a mechanism", "x@t15.test", permerror},
       {"a tab does not end the version", "x@t16.test", none},
       {"nor separate terms", "x@t17.test", permerror},
       {"several spaces separate", "x@two.test", pass},
       {"the first match wins", "x@order.test", fail},
       {"mechanism names have no case", "x@case.test", pass},
       {"plus is pass", "x@plus.test", pass},
       {"one qualifier only", "x@double.test", permerror},
       {"a qualifier alone is nothing", "x@tilde.test", permerror}});
}

TEST_CASE("4.6.4 processing limits") {
  check_spf(
      R"(
    loop.test TXT "v=spf1 ip4:192.0.2.99 redirect=loop.test"
    ping.test TXT "v=spf1 include:pong.test"
    pong.test TXT "v=spf1 include:ping.test"
    mail.test A 192.0.2.99
    ten.test TXT "v=spf1 a mx a mx a mx a mx a ptr ip4:192.0.2.10 -all"
    ten.test A 192.0.2.99
    ten.test MX 10 mail.test
    eleven.test TXT "v=spf1 a mx a mx a mx a mx a ptr a ip4:192.0.2.10 -all"
    eleven.test A 192.0.2.99
    eleven.test MX 10 mail.test
    early.test TXT "v=spf1 ip4:192.0.2.10 a a a a a a a a a a a -all"
    early.test A 192.0.2.99
    inner.test TXT "v=spf1 a a a a a a a a"
    inner.test A 192.0.2.99
    outer10.test TXT "v=spf1 a include:inner.test ip4:192.0.2.10 -all"
    outer10.test A 192.0.2.98
    outer11.test TXT "v=spf1 a include:inner.test a ip4:192.0.2.10 -all"
    outer11.test A 192.0.2.98
    mxten.test TXT "v=spf1 mx ip4:192.0.2.10 -all"
    void2.test TXT "v=spf1 a:gone1.test a:gone2.test ?all"
    void3.test TXT "v=spf1 a:gone1.test a:gone2.test a:gone3.test ?all"
    voidmix.test TXT "v=spf1 a:mail.test mx:mail.test exists:gone.test a:gone.test ?all"
    voidinc.test TXT "v=spf1 include:void2.test exists:gone3.test ?all"
    voidptr.test TXT "v=spf1 ptr ptr ptr ptr ?all"
    mxeleven.test TXT "v=spf1 mx ip4:192.0.2.10 -all"
    many.test TXT "v=spf1 a -all"
  )"
      "mxten.test MX 0 mail.test\nmxten.test MX 1 mail.test\nmxten.test MX 2 mail.test\nmxten.test MX 3 mail.test\n"
      "mxten.test MX 4 mail.test\nmxten.test MX 5 mail.test\nmxten.test MX 6 mail.test\nmxten.test MX 7 mail.test\n"
      "mxten.test MX 8 mail.test\nmxten.test MX 9 mail.test\n"
      "mxeleven.test MX 0 mail.test\nmxeleven.test MX 1 mail.test\nmxeleven.test MX 2 mail.test\n"
      "mxeleven.test MX 3 mail.test\nmxeleven.test MX 4 mail.test\nmxeleven.test MX 5 mail.test\n"
      "mxeleven.test MX 6 mail.test\nmxeleven.test MX 7 mail.test\nmxeleven.test MX 8 mail.test\n"
      "mxeleven.test MX 9 mail.test\nmxeleven.test MX 10 mail.test\n"
      "many.test A 192.0.2.1\nmany.test A 192.0.2.2\nmany.test A 192.0.2.3\nmany.test A 192.0.2.4\n"
      "many.test A 192.0.2.5\nmany.test A 192.0.2.6\nmany.test A 192.0.2.7\nmany.test A 192.0.2.8\n"
      "many.test A 192.0.2.9\nmany.test A 192.0.2.11\nmany.test A 192.0.2.12\nmany.test A 192.0.2.10\n",
      {{"a redirect loop ends", "x@loop.test", permerror},
       {"an include loop ends", "x@ping.test", permerror},
       {"ten terms are allowed", "x@ten.test", pass},
       {"eleven are not", "x@eleven.test", permerror},
       {"terms behind the match do not count", "x@early.test", pass},
       {"those of includes count", "x@outer10.test", pass},
       {"and break the limit", "x@outer11.test", permerror},
       {"ten MX are allowed", "x@mxten.test", pass},
       {"eleven are not", "x@mxeleven.test", permerror},
       {"addresses are not limited", "x@many.test", pass},
       {"two void lookups are allowed", "x@void2.test", neutral},
       {"three are not", "x@void3.test", permerror},
       {"of any kind", "x@voidmix.test", permerror},
       {"in includes too", "x@voidinc.test", permerror},
       {"missing PTR records are the client's fault, not the sender's", "x@voidptr.test", neutral}});
}

TEST_CASE("5.1 all") {
  check_spf(R"(
    dot.test TXT "v=spf1 -all."
    arg.test TXT "v=spf1 -all:foo"
    cidr.test TXT "v=spf1 -all/8"
    neutral.test TXT "v=spf1 ?all"
    twice.test TXT "v=spf1 all -all"
  )",
            {{"no dot", "x@dot.test", permerror},
             {"no argument", "x@arg.test", permerror},
             {"no prefix", "x@cidr.test", permerror},
             {"any qualifier", "x@neutral.test", neutral},
             {"what follows is not reached", "x@twice.test", pass}});
}

TEST_CASE("5.2 include") {
  check_spf(R"(
    fails.test TXT "v=spf1 ip4:192.0.2.99 -all"
    softly.test TXT "v=spf1 ip4:192.0.2.99 ~all"
    unsure.test TXT "v=spf1 ip4:192.0.2.99 ?all"
    passes.test TXT "v=spf1 ip4:192.0.2.10 -all"
    sick.test TXT TIMEOUT
    broken.test TXT "v=spf1 include +all"
    i1.test TXT "v=spf1 include:fails.test ~all"
    i2.test TXT "v=spf1 include:softly.test all"
    i3.test TXT "v=spf1 include:unsure.test -all"
    i4.test TXT "v=spf1 include:sick.test -all"
    i5.test TXT "v=spf1 include:broken.test -all"
    i6.test TXT "v=spf1 include:nothing.test -all"
    i7.test TXT "v=spf1 include: -all"
    i8.test TXT "v=spf1 include:passes.test/24 -all"
    i9.test TXT "v=spf1 -include:passes.test +all"
    i10.test TXT "v=spf1 include:i11.test -all"
    i11.test TXT "v=spf1 include:passes.test ~all"
    i12.test TXT "v=spf1 include:redirects.test -all"
    redirects.test TXT "v=spf1 redirect=passes.test"
    i13.test TXT "v=spf1 include:passes.test. -all"
  )",
            {{"fail does not match", "x@i1.test", softfail},
             {"softfail does not match", "x@i2.test", pass},
             {"neutral does not match", "x@i3.test", fail},
             {"temperror stays", "x@i4.test", temperror},
             {"permerror stays", "x@i5.test", permerror},
             {"none is permerror", "x@i6.test", permerror},
             {"a domain is needed", "x@i7.test", permerror},
             {"no prefix", "x@i8.test", permerror},
             {"a syntax error", "x@broken.test", permerror},
             {"the qualifier is that of the include", "x@i9.test", fail},
             {"includes nest", "x@i10.test", pass},
             {"and may redirect", "x@i12.test", pass},
             {"a final dot is fine", "x@i13.test", pass}});
}

TEST_CASE("5.3 a") {
  check_spf(R"(
    a1.test TXT "v=spf1 a/0 -all"
    a2.test TXT "v=spf1 a/0 -all"
    a2.test A 198.51.100.1
    a2.test AAAA 2001:db8:1::2
    a3.test TXT "v=spf1 a//0 -all"
    a3.test AAAA 2001:db8:1::1
    a4.test TXT "v=spf1 a//0 -all"
    a4.test A 198.51.100.1
    a5.test TXT "v=spf1 a:111.222.33.44"
    a6.test TXT "v=spf1 a:abc.123"
    a7.test TXT "v=spf1 a:museum"
    a8.test TXT "v=spf1 a:museum."
    a9.test TXT "v=spf1 a//33 -all"
    a9.test A 192.0.2.11
    a10.test TXT "v=spf1 a/33 -all"
    a11.test TXT "v=spf1 a//129 -all"
    dual.test TXT "v=spf1 a/24//64 -all"
    dual.test A 192.0.2.200
    dual.test AAAA 2001:db8::dead:beef
    wrong.test TXT "v=spf1 a/24/64 -all"
    only4.test TXT "v=spf1 a/24 -all"
    only4.test AAAA 2001:db8::dead:beef
    only6.test TXT "v=spf1 a//64 -all"
    only6.test A 192.0.2.200
    port.test TXT "v=spf1 a:example.com:8080"
    several.test TXT "v=spf1 a:many.test/24"
    many.test A 198.51.100.1
    many.test A 192.0.2.77
    odd.test TXT "v=spf1 a:foo:bar/baz.example.org"
    foo:bar/baz.example.org A 192.0.2.10
    dash.test TXT "v=spf1 a:example.-com"
    empty.test TXT "v=spf1 a:"
    idn.test TXT "v=spf1 a:foo.example.xn--zckzah -all"
    foo.example.xn--zckzah A 192.0.2.10
    here.test TXT "v=spf1 a -all"
    here.test A 192.0.2.10
    here.test AAAA 2001:db8::10
    sick.test TXT "v=spf1 a:broken.test -all"
    broken.test A SERVFAIL
    under.test TXT "v=spf1 a:_spf.under.test -all"
    _spf.under.test A 192.0.2.10
    slash.test TXT "v=spf1 a/ -all"
    zero.test TXT "v=spf1 a/024 -all"
  )",
            {{"no address, no match, even with /0", "x@a1.test", fail},
             {"/0 matches if there is an address", "x@a2.test", pass},
             {"/0 is for IPv4 only", "x@a2.test", fail, v6},
             {"//0 is for IPv6 only", "x@a3.test", fail},
             {"and not for mapped IPv4", "x@a3.test", fail, mapped},
             {"//0 matches if there is an IPv6 address", "x@a3.test", pass, v6},
             {"and does not if there is none", "x@a4.test", fail, v6},
             {"an address is no domain", "x@a5.test", permerror},
             {"a numeric top label is none", "x@a6.test", permerror},
             {"one label is too few", "x@a7.test", permerror},
             {"a final dot does not help", "x@a8.test", permerror},
             {"33 is an IPv6 prefix", "x@a9.test", fail},
             {"and no IPv4 prefix", "x@a10.test", permerror},
             {"129 is none", "x@a11.test", permerror},
             {"both prefixes: IPv4", "x@dual.test", pass},
             {"both prefixes: IPv6", "x@dual.test", pass, v6},
             {"one slash between them is wrong", "x@wrong.test", permerror},
             {"the other family's prefix is the default: IPv6", "x@only4.test", fail, v6},
             {"the other family's prefix is the default: IPv4", "x@only6.test", fail},
             {"no ports", "x@port.test", permerror},
             {"any address matches", "x@several.test", pass},
             {"colons and slashes may be in names", "x@odd.test", pass},
             {"for mapped IPv4 too", "x@odd.test", pass, mapped},
             {"a top label does not begin with a dash", "x@dash.test", permerror},
             {"an empty domain is none", "x@empty.test", permerror},
             {"a top label may have dashes", "x@idn.test", pass},
             {"the domain itself", "x@here.test", pass},
             {"the domain itself, IPv6", "x@here.test", pass, v6},
             {"DNS trouble is temperror", "x@sick.test", temperror},
             {"underscores", "x@under.test", pass},
             {"a slash without prefix", "x@slash.test", permerror},
             {"no leading zeros", "x@zero.test", permerror}});
}

TEST_CASE("5.4 mx") {
  check_spf(R"(
    m1.test TXT "v=spf1 mx/0 -all"
    m1.test MX 0 gone.test
    m2.test TXT "v=spf1 mx/0 -all"
    m2.test MX 0 m2.test
    m2.test A 198.51.100.1
    m2.test AAAA 2001:db8:1::2
    m3.test TXT "v=spf1 mx//0 -all"
    m3.test MX 0 m3.test
    m3.test AAAA 2001:db8:1::1
    m4.test TXT "v=spf1 mx"
    m4.test A 192.0.2.10
    m5.test TXT "v=spf1 mx:abc.123"
    m6.test TXT "v=spf1 mx/33 -all"
    m7.test TXT "v=spf1 mx//129 -all"
    m8.test TXT "v=spf1 mx:example.com:8080"
    m9.test TXT "v=spf1 mx:hosts.test/24"
    hosts.test MX 5 first.test
    hosts.test MX 10 second.test
    first.test A 198.51.100.1
    second.test A 198.51.100.2
    second.test A 192.0.2.99
    m10.test TXT "v=spf1 mx: -all"
    null.test TXT "v=spf1 mx"
    null.test MX 0 .
    m11.test TXT "v=spf1 mx ?all"
    m11.test MX 5 broken.test
    broken.test A TIMEOUT
    m12.test TXT "v=spf1 mx ?all"
    m12.test MX SERVFAIL
    m13.test TXT "v=spf1 mx -all"
    m13.test MX 5 exact.test
    m13.test MX 6 broken.test
    exact.test A 192.0.2.10
  )",
            {{"no address, no match, even with /0", "x@m1.test", fail},
             {"/0 matches if there is an address", "x@m2.test", pass},
             {"/0 is for IPv4 only", "x@m2.test", fail, v6},
             {"//0 is for IPv6 only", "x@m3.test", fail},
             {"and not for mapped IPv4", "x@m3.test", fail, mapped},
             {"//0 matches if there is an IPv6 address", "x@m3.test", pass, v6},
             {"no implicit MX", "x@m4.test", neutral},
             {"a numeric top label is none", "x@m5.test", permerror},
             {"33 is too long", "x@m6.test", permerror},
             {"129 is too long", "x@m7.test", permerror},
             {"no ports", "x@m8.test", permerror},
             {"any address of any host", "x@m9.test", pass},
             {"an empty domain is none", "x@m10.test", permerror},
             {"the null MX matches nobody", "x@null.test", neutral},
             {"trouble with a host's address", "x@m11.test", temperror},
             {"trouble with MX", "x@m12.test", temperror},
             {"none of it behind the match", "x@m13.test", pass}});
}

TEST_CASE("5.5 ptr") {
  check_spf(R"(
    10.2.0.192.in-addr.arpa PTR lies.test
    10.2.0.192.in-addr.arpa PTR Mail.Example.org
    0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR mail.example.org
    mail.example.org A 192.0.2.10
    mail.example.org AAAA 2001:db8::10
    lies.test A 198.51.100.1
    lies.test TXT "v=spf1 ptr -all"
    mail.example.org TXT "v=spf1 ptr -all"
    p1.test TXT "v=spf1 ptr/0 -all"
    p2.test TXT "v=spf1 ptr:example.Org -all"
    p3.test TXT "v=spf1 ptr:"
    p4.test TXT "v=spf1 ptr:ample.org -all"
    11.2.0.192.in-addr.arpa PTR SERVFAIL
    12.2.0.192.in-addr.arpa PTR sick.example.org
    sick.example.org A TIMEOUT
    13.2.0.192.in-addr.arpa PTR n1.test
    13.2.0.192.in-addr.arpa PTR n2.test
    13.2.0.192.in-addr.arpa PTR n3.test
    13.2.0.192.in-addr.arpa PTR n4.test
    13.2.0.192.in-addr.arpa PTR n5.test
    13.2.0.192.in-addr.arpa PTR n6.test
    13.2.0.192.in-addr.arpa PTR n7.test
    13.2.0.192.in-addr.arpa PTR n8.test
    13.2.0.192.in-addr.arpa PTR n9.test
    13.2.0.192.in-addr.arpa PTR n10.test
    13.2.0.192.in-addr.arpa PTR eleventh.example.org
    eleventh.example.org A 192.0.2.13
  )",
            {{"no prefix", "x@p1.test", permerror},
             {"names below the target match, whatever their case", "x@p2.test", pass},
             {"for IPv6 too", "x@p2.test", pass, v6},
             {"the domain itself is the default", "x@mail.example.org", pass},
             {"a name that leads elsewhere does not count", "x@lies.test", fail},
             {"an empty domain is none", "x@p3.test", permerror},
             {"labels match whole", "x@p4.test", fail},
             {"trouble with PTR is no match", "x@p2.test", fail, "192.0.2.11"},
             {"trouble with an address is no match", "x@p2.test", fail, "192.0.2.12"},
             {"ten names are looked at", "x@p2.test", fail, "192.0.2.13"},
             {"no PTR is no match", "x@p2.test", fail, "192.0.2.14"}});
}

TEST_CASE("5.6 ip4 and ip6") {
  check_spf(R"(
    i1.test TXT "v=spf1 ip4:198.51.100.1/0 -all"
    i2.test TXT "v=spf1 ip4:192.0.2.10/32 -all"
    i3.test TXT "v=spf1 ip4:192.0.2.10/33 -all"
    i4.test TXT "v=spf1 ip4:192.0.2.10/032 -all"
    i5.test TXT "v=spf1 ip4"
    i6.test TXT "v=spf1 ip4:192.0.2.10//32"
    i7.test TXT "v=spf1 -ip4:192.0.2.10 ip6:::FFFF:192.0.2.10"
    i8.test TXT "v=spf1 ip4:192.0.2.10:8080"
    i9.test TXT "v=spf1 ip4:192.0.2"
    i10.test TXT "v=spf1 ip4:2001:db8::1"
    i11.test TXT "v=spf1 ip4:192.0.2.77/24 -all"
    s1.test TXT "v=spf1 -all ip6"
    s2.test TXT "v=spf1 ip6:2001:db8:ffff::1/0"
    s3.test TXT "v=spf1 ip6:2001:db8::1/129"
    s4.test TXT "v=spf1 ip6:2001:db8::1//33"
    s5.test TXT "v=spf1 ip6:2001:DB8:8000::/33"
    s6.test TXT "v=spf1 ip6::CAFE::BABE"
    s7.test TXT "v=spf1 ip6:192.0.2.10"
    s8.test TXT "v=spf1 ip6:2001:db8::10"
  )",
            {{"/0 is everybody", "x@i1.test", pass},
             {"but no IPv6 client", "x@i1.test", fail, v6},
             {"/32 is one", "x@i2.test", pass},
             {"and no other", "x@i2.test", fail, "192.0.2.11"},
             {"/33 is wrong", "x@i3.test", permerror},
             {"no leading zeros", "x@i4.test", permerror},
             {"an address is needed", "x@i5.test", permerror},
             {"no double slash", "x@i6.test", permerror},
             {"a mapped client is an IPv4 client", "x@i7.test", fail, mapped},
             {"no ports", "x@i8.test", permerror},
             {"all four octets", "x@i9.test", permerror},
             {"no IPv6 in ip4", "x@i10.test", permerror},
             {"host bits do not matter", "x@i11.test", pass},
             {"ip6 needs an address", "x@s1.test", permerror},
             {"::/0 is every IPv6 client", "x@s2.test", pass, v6},
             {"but no IPv4 client", "x@s2.test", neutral},
             {"nor a mapped one", "x@s2.test", neutral, mapped},
             {"/129 is wrong", "x@s3.test", permerror},
             {"no double slash in ip6", "x@s4.test", permerror},
             {"/33 is right for IPv6", "x@s5.test", pass, "2001:db8:8000::1"},
             {"and cuts where it says", "x@s5.test", neutral, "2001:db8:7fff::1"},
             {"a malformed address", "x@s6.test", permerror},
             {"no IPv4 in ip6", "x@s7.test", permerror},
             {"one IPv6 address", "x@s8.test", pass, v6}});
}

TEST_CASE("5.7 exists") {
  check_spf(R"(
    four.test A 127.0.0.2
    six.test AAAA 2001:db8::1
    sick.test A TIMEOUT
    e1.test TXT "v=spf1 exists:"
    e2.test TXT "v=spf1 exists"
    e3.test TXT "v=spf1 exists:four.test/24"
    e4.test TXT "v=spf1 exists:four.test -all"
    e5.test TXT "v=spf1 exists:six.test -all"
    e6.test TXT "v=spf1 exists:sick.test -all"
    e7.test TXT "v=spf1 exists:%{i}._ip.%{d} -all"
    192.0.2.10._ip.e7.test A 127.0.0.2
  )",
            {{"a domain is needed", "x@e1.test", permerror},
             {"not implied", "x@e2.test", permerror},
             {"no prefix", "x@e3.test", permerror},
             {"any A record matches", "x@e4.test", pass},
             {"for IPv6 clients too", "x@e4.test", pass, v6},
             {"AAAA does not count", "x@e5.test", fail, v6},
             {"trouble is temperror", "x@e6.test", temperror},
             {"macros make the name", "x@e7.test", pass},
             {"that nobody else has", "x@e7.test", fail, "192.0.2.11"}});
}

TEST_CASE("6 modifiers") {
  check_spf(R"(
    r1.test TXT "v=spf1 redirect=nothing.test"
    r2.test TXT "v=spf1 exp=no.test redirect=plain.test"
    plain.test TXT "v=spf1 -all"
    r3.test TXT "v=spf1 exp=no.test redirect=telling.test"
    telling.test TXT "v=spf1 -all exp=see.test"
    no.test TXT "not this"
    see.test TXT "See me."
    right.test TXT "Correct!"
    r4.test TXT "v=spf1 redirect=-all ?all"
    r5.test TXT "v=spf1 ?all redirect="
    r6.test TXT "v=spf1 redirect=plain.test -all redirect=plain.test"
    r7.test TXT "v=spf1 redirect=implicit.test"
    r7.test A 192.0.2.99
    implicit.test TXT "v=spf1 a -all"
    implicit.test A 192.0.2.10
    r8.test TXT "v=spf1 redirect=sick.test"
    sick.test TXT SERVFAIL
    x1.test TXT "v=spf1 include:telling.test -all exp=right.test"
    x2.test TXT "v=spf1 -all exp=two.test"
    two.test TXT "one"
    two.test TXT "two"
    x3.test TXT "v=spf1 -all exp=sick.test"
    x4.test TXT "v=spf1 -all exp=nothing.test"
    x5.test TXT "v=spf1 exp= -all"
    x6.test TXT "v=spf1 exp=bad.test -all"
    bad.test TXT "The %{x}-files."
    x7.test TXT "v=spf1 exp=-all"
    x8.test TXT "v=spf1 exp=see.test -all exp=see.test"
    x9.test TXT "v=spf1 -all exp=latin.test"
    x10.test TXT "v=spf1 a:gone1.test a:gone2.test exp=nothing.test -all"
    x11.test TXT "v=spf1 -all exp=local.test"
    local.test TXT "%{l} in implementation"
    x12.test TXT "v=spf1 ~all exp=see.test"
    x13.test TXT "v=spf1 EXP=see.test -all"
    u1.test TXT "v=spf1 1up=foo"
    u2.test TXT "v=spf1 =all"
    u3.test TXT "v=spf1 -all foo=%abc"
    u4.test TXT "v=spf1 default=pass"
    u5.test TXT "v=spf1 default=+"
    u6.test TXT "v=spf1 foo= -all"
  )"
            "latin.test TXT \"\xef\xbb\xbf"
            "Explanation\"\n",
            {{"redirect to nothing is permerror", "x@r1.test", permerror},
             {"redirect drops exp", "x@r2.test", fail, "192.0.2.10", "h.test", ""},
             {"and takes that of its target", "x@r3.test", fail, "192.0.2.10", "h.test", "See me."},
             {"redirect needs a domain-spec", "x@r4.test", permerror},
             {"not an empty one", "x@r5.test", permerror},
             {"and once only", "x@r6.test", permerror},
             {"the target is the new domain", "x@r7.test", pass},
             {"trouble with the target is temperror", "x@r8.test", temperror},
             {"include drops its exp", "x@x1.test", fail, "192.0.2.10", "h.test", "Correct!"},
             {"two explanations are none", "x@x2.test", fail, "192.0.2.10", "h.test", ""},
             {"DNS trouble is none", "x@x3.test", fail, "192.0.2.10", "h.test", ""},
             {"no record is none", "x@x4.test", fail, "192.0.2.10", "h.test", ""},
             {"exp needs a domain-spec", "x@x5.test", permerror},
             {"a bad explanation is none", "x@x6.test", fail, "192.0.2.10", "h.test", ""},
             {"exp needs a valid domain-spec", "x@x7.test", permerror},
             {"exp once only", "x@x8.test", permerror},
             {"explanations are ASCII", "x@x9.test", fail, "192.0.2.10", "h.test", ""},
             {"a missing one is no void lookup", "x@x10.test", fail, "192.0.2.10", "h.test", ""},
             {"spaces in the local part", "Macro Error@x11.test", fail, "192.0.2.10", "h.test",
              "Macro Error in implementation"},
             {"softfail is not explained", "x@x12.test", softfail, "192.0.2.10", "h.test", ""},
             {"modifier names have no case", "x@x13.test", fail, "192.0.2.10", "h.test", "See me."},
             {"a modifier's name begins with a letter", "x@u1.test", permerror},
             {"and is not empty", "x@u2.test", permerror},
             {"unknown ones have valid macros", "x@u3.test", permerror},
             {"default= means nothing", "x@u4.test", neutral},
             {"whatever it says", "x@u5.test", neutral},
             {"an unknown one may be empty", "x@u6.test", fail}});
}

TEST_CASE("7 macros") {
  check_spf(
      R"(
    example.org TXT "v=spf1 redirect=%{d}.d.spf.test."
    example.org.d.spf.test TXT "v=spf1 include:o.spf.test. ~all"
    o.spf.test TXT "v=spf1 ip4:192.0.2.10"
    dot.test TXT "v=spf1 exp=msg.dot.test. -all"
    msg.dot.test TXT "This is a test."
    m1.test TXT "v=spf1 -all exp=%{r}.m1.test"
    m2.test TXT "v=spf1 -exists:%(ir).sbl.test ?all"
    m3.test TXT "v=spf1 exists:foo%(ir).sbl.test ?all"
    m4.test TXT "v=spf1 exists:foo%.sbl.test ?all"
    m5.test TXT "v=spf1 a:%{a}.test -all"
    m6.test TXT "v=spf1 a:%{d -all"
    m7.test TXT "v=spf1 a:%{d0}.test -all"
    m8.test TXT "v=spf1 a:%{dx}.test -all"
    m9.test TXT "v=spf1 -all exp=%{ir}.m9.test"
    10.2.0.192.m9.test TXT "Connections from %{c} not authorized by %{r}."
    m10.test TXT "v=spf1 -all exp=msg.m10.test"
    msg.m10.test TXT "%{c} is queried as %{ir}.%{v}.arpa"
    m11.test TXT "v=spf1 -all exp=msg.m11.test"
    msg.m11.test TXT "connect from %{p}"
    m12.test TXT "v=spf1 exists:%{p}.should.test ~exists:%{p}.ok.test"
    mx.m12.test.should.test A 127.0.0.2
    m13.test TXT "v=spf1 -all exp=msg.%{D2}"
    msg.m13.test TXT "http://x.test/why?l=%{L}&s=%{S}"
    m14.test TXT "v=spf1 a:%{H} -all"
    mail.helo.test A 192.0.2.10
    m15.test TXT "v=spf1 exists:%{i}.%{l2r-}.user.%{d2}"
    192.0.2.10.last.first.user.m15.test A 127.0.0.2
    m16.test TXT "v=spf1 exists:%{l2r+-}.user.%{d2}"
    bar.foo.user.m16.test A 127.0.0.2
    m19.test TXT "v=spf1 exists:%{o}.%{d3R}.x.test -all"
    m19.test.test.m19.x.test A 127.0.0.2
    m20.test TXT "v=spf1 exists:%{l99}.x.test -all"
    a.b.x.test A 127.0.0.2
    m21.test TXT "v=spf1 -include:_helo.%{d2} ip4:192.0.2.0/24 -all"
    _helo.m21.test TXT "v=spf1 -a:%{h} +all"
    m22.test TXT "v=spf1 -all exp=msg.m22.test"
    msg.m22.test TXT "%{s} %{o} %{h} %{v}"
    m23.test TXT "v=spf1 exists:%{ir}.%{v}.x.test -all"
    0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.x.test A 127.0.0.2
    mx.m11.test A 192.0.2.41
    mx.m11.test A 192.0.2.42
    mx.m11.test AAAA 2001:db8::10
    mx.m12.test A 192.0.2.42
    other.test A 192.0.2.42
    40.2.0.192.in-addr.arpa PTR mx.m11.test
    41.2.0.192.in-addr.arpa PTR mx.m11.test
    42.2.0.192.in-addr.arpa PTR other.test
    42.2.0.192.in-addr.arpa PTR mx.m11.test
    42.2.0.192.in-addr.arpa PTR mx.m12.test
    0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR mx.m11.test
  )",
      {{"a final dot is dropped from names", "x@example.org", pass},
       {"but not from explanations", "x@dot.test", fail, "192.0.2.10", "h.test", "This is a test."},
       {"c, r and t are for explanations", "x@m1.test", permerror},
       {"a percent sign needs a brace", "x@m2.test", permerror},
       {"in the middle too", "x@m3.test", permerror},
       {"and at the end", "x@m4.test", permerror},
       {"unknown letters", "x@m5.test", permerror},
       {"an open brace", "x@m6.test", permerror},
       {"zero parts", "x@m7.test", permerror},
       {"unknown transformers", "x@m8.test", permerror},
       {"i and c are alike for IPv4", "x@m9.test", fail, "192.0.2.10", "h.test",
        "Connections from 192.0.2.10 not authorized by mx2.example.net."},
       {"v for IPv4", "x@m10.test", fail, "192.0.2.10", "h.test", "192.0.2.10 is queried as 10.2.0.192.in-addr.arpa"},
       {"v for IPv6", "x@m10.test", fail, v6, "h.test",
        "2001:db8::10 is queried as "
        "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"},
       {"p unconfirmed", "x@m11.test", fail, "192.0.2.40", "h.test", "connect from unknown"},
       {"p confirmed", "x@m11.test", fail, "192.0.2.41", "h.test", "connect from mx.m11.test"},
       {"p confirmed, IPv6", "x@m11.test", fail, v6, "h.test", "connect from mx.m11.test"},
       {"p without PTR", "x@m11.test", fail, "192.0.2.43", "h.test", "connect from unknown"},
       {"p prefers names below the domain", "x@m12.test", pass, "192.0.2.42"},
       {"upper-case macros are URL-escaped", "~jack&jill=up-a_b3.c@m13.test", fail, "192.0.2.10", "h.test",
        "http://x.test/why?l=~jack%26jill%3Dup-a_b3.c&s=~jack%26jill%3Dup-a_b3.c%40m13.test"},
       {"HELO", "x@m14.test", pass, "192.0.2.10", "mail.helo.test"},
       {"an impossible HELO matches nothing", "x@m14.test", fail, "192.0.2.10", "JUMPIN' JUPITER"},
       {"nor does a literal", "x@m14.test", fail, "192.0.2.10", "[192.0.2.10]"},
       {"split, reverse, keep the parts on the right", "first-last-gone@m15.test", pass},
       {"not those on the left", "gone-first-last@m15.test", neutral},
       {"several delimiters", "foo-bar+zip+quux@m16.test", pass},
       {"R reverses too", "x@m19.test", pass},
       {"more parts than there are", "a.b@m20.test", pass},
       {"a policy on HELO", "x@m21.test", fail, "192.0.2.10", "OEMCOMPUTER"},
       {"sender, domain, HELO", "me@m22.test", fail, "192.0.2.10", "h.test", "me@m22.test m22.test h.test in-addr"},
       {"nibbles", "x@m23.test", pass, v6}});
}

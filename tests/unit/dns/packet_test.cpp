#include "dns/packet.hpp"

#include <fmt/format.h>

#include "packet_builder.hpp"
#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::dns;
using namespace greymx::test;
using std::chrono::seconds;

namespace {

const Bytes ip4{192, 0, 2, 1};

Answer parse(const Message& message, std::string_view name, Type type) {
  return parse_answer(message.bytes(), name, type);
}
void require_failed(const Answer& answer, std::string_view error) {
  REQUIRE(answer.outcome == Outcome::failed);
  REQUIRE(answer.error == error);
}

}  // namespace

TEST_CASE("question names are lower-case, without final dot, within DNS's lengths") {
  CHECK(question_name("Mail.Example.ORG.") == "mail.example.org");
  CHECK(question_name("_spf.example.org") == "_spf.example.org");
  CHECK(question_name("user+tag=x._l.example") == "user+tag=x._l.example");
  CHECK(question_name("b\xc3\xbc"
                      "cher.example") == "xn--bcher-kva.example");
  CHECK(question_name(std::string(63, 'a') + ".example") == std::string(63, 'a') + ".example");
  for (const std::string& bad :
       {std::string{}, std::string{"."}, std::string{"a..b"}, std::string{".a"}, std::string{"a\tb"},
        std::string{"a\\.b"}, std::string(64, 'a') + ".example", std::string{"a\0b", 3}, std::string{"a.."}}) {
    CAPTURE(bad);
    CHECK_FALSE(question_name(bad));
  }
  std::string longest;
  while (longest.size() + 4 <= 252) longest += "abc.";
  longest += "d";
  REQUIRE(longest.size() == 253);
  CHECK(question_name(longest));
  CHECK_FALSE(question_name("e" + longest));
}

TEST_CASE("addresses are read with the smallest TTL") {
  Message message{"x.test", Type::a};
  message.answers = {record(pointer(12), Type::a, 300, ip4), record(wire_name("X.TEST"), Type::a, 60, {192, 0, 2, 2})};
  const Answer answer = parse(message, "x.test", Type::a);
  REQUIRE(answer.outcome == Outcome::found);
  REQUIRE(answer.addresses == std::vector{*IpAddress::parse("192.0.2.1"), *IpAddress::parse("192.0.2.2")});
  REQUIRE(answer.ttl == seconds{60});
}

TEST_CASE("IPv6 addresses are read") {
  Message message{"x.test", Type::aaaa};
  message.answers = {record(pointer(12), Type::aaaa, 5, {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})};
  REQUIRE(parse(message, "x.test", Type::aaaa).addresses == std::vector{*IpAddress::parse("2001:db8::1")});
}

TEST_CASE("records of other names, types and classes do not count") {
  Message message{"x.test", Type::a};
  message.answers = {record(wire_name("evil.test"), Type::a, 300, ip4), record(pointer(12), Type::a, 300, ip4, 3),
                     record(pointer(12), Type::txt, 300, label("no"))};
  REQUIRE(parse(message, "x.test", Type::a).outcome == Outcome::no_record);
}

TEST_CASE("a CNAME chain is followed in any order and its TTLs count") {
  Message message{"x.test", Type::a};
  message.answers = {record(wire_name("z.test"), Type::a, 300, ip4),
                     record(wire_name("y.test"), Type::cname, 20, wire_name("Z.test")),
                     record(pointer(12), Type::cname, 100, wire_name("y.test"))};
  const Answer answer = parse(message, "x.test", Type::a);
  REQUIRE(answer.outcome == Outcome::found);
  REQUIRE(answer.addresses.size() == 1);
  REQUIRE(answer.ttl == seconds{20});
}

TEST_CASE("a CNAME chain of eight is followed, a longer one and a loop have failed") {
  const auto chain = [](int length) {
    Message message{"n0.test", Type::a};
    for (int i = 0; i < length; ++i) {
      message.answers.push_back(
          record(wire_name(fmt::format("n{}.test", i)), Type::cname, 60, wire_name(fmt::format("n{}.test", i + 1))));
    }
    message.answers.push_back(record(wire_name(fmt::format("n{}.test", length)), Type::a, 60, ip4));
    return parse(message, "n0.test", Type::a);
  };
  REQUIRE(chain(8).outcome == Outcome::found);
  require_failed(chain(9), "CNAME chain too long");
  Message loop{"x.test", Type::a};
  loop.answers = {record(wire_name("x.test"), Type::cname, 60, wire_name("x.test"))};
  require_failed(parse(loop, "x.test", Type::a), "CNAME chain too long");
}

TEST_CASE("a chain that ends without the type asked for is no record; with NXDOMAIN, no domain") {
  Message message{"x.test", Type::a};
  message.answers = {record(pointer(12), Type::cname, 600, wire_name("y.other"))};
  message.authority = {soa("other", 900, 120)};
  Answer answer = parse(message, "x.test", Type::a);
  REQUIRE(answer.outcome == Outcome::no_record);
  REQUIRE(answer.ttl == seconds{120});
  message.rcode = 3;
  answer = parse(message, "x.test", Type::a);
  REQUIRE(answer.outcome == Outcome::no_domain);
  REQUIRE(answer.ttl == seconds{120});
}

TEST_CASE("a question for CNAME is answered with the CNAME itself") {
  Message message{"x.test", Type::cname};
  message.answers = {record(pointer(12), Type::cname, 600, wire_name("y.test"))};
  REQUIRE(parse(message, "x.test", Type::cname).names == std::vector<std::string>{"y.test"});
}

TEST_CASE("the negative TTL is the SOA's TTL or minimum, whichever is smaller; none without SOA") {
  Message message{"x.test", Type::a};
  message.rcode = 3;
  REQUIRE(parse(message, "x.test", Type::a).ttl == seconds{0});
  message.authority = {soa("test", 900, 1800)};
  REQUIRE(parse(message, "x.test", Type::a).ttl == seconds{900});
  message.authority = {soa("test", 900, 30)};
  REQUIRE(parse(message, "x.test", Type::a).ttl == seconds{30});
  message.authority = {soa("elsewhere", 900, 30)};
  REQUIRE(parse(message, "x.test", Type::a).ttl == seconds{0});
}

TEST_CASE("records beside NXDOMAIN mean nothing") {
  Message message{"x.test", Type::a};
  message.rcode = 3;
  message.answers = {record(pointer(12), Type::a, 300, ip4)};
  const Answer answer = parse(message, "x.test", Type::a);
  REQUIRE(answer.outcome == Outcome::no_domain);
  REQUIRE(answer.addresses.empty());
}

TEST_CASE("a TTL with the top bit set is zero") {
  Message message{"x.test", Type::a};
  message.answers = {record(pointer(12), Type::a, 0x80000001, ip4)};
  REQUIRE(parse(message, "x.test", Type::a).ttl == seconds{0});
}

TEST_CASE("other rcodes, truncation and answers to other questions have failed") {
  Message message{"x.test", Type::a};
  message.answers = {record(pointer(12), Type::a, 300, ip4)};
  message.rcode = 2;
  require_failed(parse(message, "x.test", Type::a), "SERVFAIL");
  message.rcode = 5;
  require_failed(parse(message, "x.test", Type::a), "REFUSED");
  message.rcode = 9;
  require_failed(parse(message, "x.test", Type::a), "rcode 9");
  message.rcode = 0;
  require_failed(parse(message, "y.test", Type::a), "answer to another question");
  require_failed(parse(message, "x.test", Type::aaaa), "answer to another question");
  message.flags |= 0x0200;
  require_failed(parse(message, "x.test", Type::a), "truncated answer");
  message.flags = 0x0100;
  require_failed(parse(message, "x.test", Type::a), "malformed answer");
  Message refused;  // some servers leave the question out
  refused.rcode = 5;
  require_failed(parse(refused, "x.test", Type::a), "REFUSED");
}

TEST_CASE("every proper prefix of an answer has failed") {
  Message message{"x.test", Type::mx};
  message.answers = {record(pointer(12), Type::mx, 300, u16(10) + label("mail") + pointer(12)),
                     record(pointer(12), Type::mx, 300, u16(20) + wire_name("backup.test"))};
  message.authority = {soa("test", 1, 1)};
  const Bytes whole = message.bytes();
  REQUIRE(parse_answer(whole, "x.test", Type::mx).mx == std::vector<Mx>{{10, "mail.x.test"}, {20, "backup.test"}});
  for (std::size_t length = 0; length < whole.size(); ++length) {
    CAPTURE(length);
    CHECK(parse_answer(std::span{whole}.first(length), "x.test", Type::mx).outcome == Outcome::failed);
  }
}

TEST_CASE("MX hosts are sorted by preference, equal ones in file order, at most sixteen") {
  Message message{"x.test", Type::mx};
  for (unsigned i = 0; i < 20; ++i) {
    message.answers.push_back(
        record(pointer(12), Type::mx, 300, u16(i < 10 ? 50 : 40 - i) + wire_name(fmt::format("m{}.test", i))));
  }
  const Answer answer = parse(message, "x.test", Type::mx);
  REQUIRE(answer.mx.size() == 16);
  CHECK(answer.mx.front() == Mx{21, "m19.test"});
  CHECK(answer.mx[9] == Mx{30, "m10.test"});
  CHECK(answer.mx[10] == Mx{50, "m0.test"});
  CHECK(answer.mx.back() == Mx{50, "m5.test"});
}

TEST_CASE("the null MX has an empty host") {
  Message message{"x.test", Type::mx};
  message.answers = {record(pointer(12), Type::mx, 300, u16(0) + Bytes{0})};
  REQUIRE(parse(message, "x.test", Type::mx).mx == std::vector<Mx>{{0, ""}});
}

TEST_CASE("the strings of one TXT record are joined, an overlong record is ignored") {
  Message message{"x.test", Type::txt};
  Bytes huge;
  for (int i = 0; i < 17; ++i) huge = huge + label(std::string(255, 'x'));
  message.answers = {record(pointer(12), Type::txt, 300, label("v=spf1 ") + label("") + label("-all")),
                     record(pointer(12), Type::txt, 300, huge), record(pointer(12), Type::txt, 300, label("two"))};
  REQUIRE(parse(message, "x.test", Type::txt).texts == std::vector<std::string>{"v=spf1 -all", "two"});
  message.answers = {record(pointer(12), Type::txt, 300, Bytes{5, 'a'})};
  require_failed(parse(message, "x.test", Type::txt), "malformed answer");
}

TEST_CASE("TLSA data are given in hex") {
  Message message{"_25._tcp.x.test", Type::tlsa};
  message.answers = {record(pointer(12), Type::tlsa, 300, {3, 1, 1, 0xab, 0xcd})};
  REQUIRE(parse(message, "_25._tcp.x.test", Type::tlsa).texts == std::vector<std::string>{"030101abcd"});
}

TEST_CASE("at most 64 records are looked at") {
  Message message{"x.test", Type::a};
  for (int i = 0; i < 100; ++i) message.answers.push_back(record(pointer(12), Type::a, 300, ip4));
  REQUIRE(parse(message, "x.test", Type::a).addresses.size() == max_records);
}

TEST_CASE("record data of the wrong length are malformed") {
  for (const Bytes& data : {Bytes{1, 2, 3}, Bytes{1, 2, 3, 4, 5}}) {
    Message message{"x.test", Type::a};
    message.answers = {record(pointer(12), Type::a, 300, data)};
    require_failed(parse(message, "x.test", Type::a), "malformed answer");
  }
  Message message{"x.test", Type::ptr};
  message.answers = {record(pointer(12), Type::ptr, 300, wire_name("y.test") + Bytes{0})};
  require_failed(parse(message, "x.test", Type::ptr), "malformed answer");
}

TEST_CASE("compression pointers lead backwards only") {
  for (const unsigned target : {0u, 24u, 26u, 200u, 0x3fffu}) {  // 24 is the pointer itself
    Message message{"x.test", Type::a};
    message.answers = {record(pointer(target), Type::a, 300, ip4)};
    CAPTURE(target);
    CHECK(parse(message, "x.test", Type::a).outcome != Outcome::found);
  }
  Message message{"x.test", Type::a};  // two pointers at each other
  message.answers = {record(pointer(26), Type::a, 300, ip4), record(pointer(24), Type::a, 300, ip4)};
  require_failed(parse(message, "x.test", Type::a), "malformed answer");
}

TEST_CASE("names longer than 255 octets and labels of reserved kinds are malformed") {
  Bytes overlong;
  for (int i = 0; i < 5; ++i) overlong = overlong + label(std::string(60, 'a'));
  Message message{"x.test", Type::ptr};
  message.answers = {record(pointer(12), Type::ptr, 300, overlong + Bytes{0})};
  require_failed(parse(message, "x.test", Type::ptr), "malformed answer");
  message.answers = {record(pointer(12), Type::ptr, 300, Bytes{0x41, 'a', 0})};
  require_failed(parse(message, "x.test", Type::ptr), "malformed answer");
}

TEST_CASE("odd bytes in names become question marks, dots within labels too") {
  Message message{"x.test", Type::ptr};
  message.answers = {record(pointer(12), Type::ptr, 300, label(std::string_view{"A b\n.\0", 6}) + wire_name("test"))};
  REQUIRE(parse(message, "x.test", Type::ptr).names == std::vector<std::string>{"a b???.test"});
}

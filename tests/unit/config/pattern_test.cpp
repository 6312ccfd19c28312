#include "config/pattern.hpp"

#include "support/catch.hpp"

using namespace greymx;
using greymx::config::Pattern;

namespace {

bool matches(std::string_view pattern, std::string_view address) {
  const auto parsed = Pattern::parse(pattern);
  REQUIRE(parsed);
  return parsed->matches(*IpAddress::parse(address));
}

}  // namespace

TEST_CASE("an exact pattern matches one address") {
  CHECK(matches("127.0.0.2", "127.0.0.2"));
  CHECK_FALSE(matches("127.0.0.2", "127.0.0.3"));
  CHECK_FALSE(matches("127.0.0.2", "127.0.1.2"));
}

TEST_CASE("ranges include both ends") {
  CHECK(matches("127.0.0.[2..11]", "127.0.0.2"));
  CHECK(matches("127.0.0.[2..11]", "127.0.0.11"));
  CHECK_FALSE(matches("127.0.0.[2..11]", "127.0.0.1"));
  CHECK_FALSE(matches("127.0.0.[2..11]", "127.0.0.12"));
  CHECK(matches("[0..255].0.0.1", "255.0.0.1"));
}

TEST_CASE("alternatives, also of ranges, in any octet") {
  for (const char* address : {"127.0.0.2", "127.0.0.4", "127.0.0.7", "127.0.1.5"}) {
    CHECK(matches("127.0.[0;1].[2;4..7]", address));
  }
  for (const char* address : {"127.0.0.3", "127.0.0.8", "127.0.2.2", "127.1.0.2"}) {
    CHECK_FALSE(matches("127.0.[0;1].[2;4..7]", address));
  }
}

TEST_CASE("an octet has at most three digits") {
  CHECK(matches("127.000.000.[002]", "127.0.0.2"));
  CHECK_FALSE(Pattern::parse("127.0.0.0002"));
  CHECK_FALSE(Pattern::parse("127.0.0.[1..0002]"));
}

TEST_CASE("IPv6 never matches") {
  CHECK_FALSE(matches("127.0.0.2", "2001:db8::2"));
}

TEST_CASE("a pattern that no listing matches is known as such") {
  for (const char* never : {"10.0.0.1", "127.255.255.254", "127.255.255.[0..255]", "127.0.0.1"}) {
    CHECK_FALSE(Pattern::parse(never)->can_list());
  }
  for (const char* some : {"127.0.0.2", "[0..255].[0..255].255.255", "127.255.[254;255].0", "127.0.0.[1;2]"}) {
    CHECK(Pattern::parse(some)->can_list());
  }
}

TEST_CASE("what is no pattern") {
  for (const char* bad : {"",
                          "127.0.0",
                          "127.0.0.",
                          "127.0.0.2.",
                          "127.0.0.2]",
                          "127.0.0.2.3",
                          "127.0.0.256",
                          "127.0.0.-1",
                          "127.0.0.[]",
                          "127.0.0.[2",
                          "127.0.0.[2..]",
                          "127.0.0.[..2]",
                          "127.0.0.[11..2]",
                          "127.0.0.[2;]",
                          "127.0.0.[2;;3]",
                          "127.0.0.[2.3]",
                          "127.0.0.[2...4]",
                          "127.0.0.[2,3]",
                          "[127.0.0.2]",
                          "*",
                          "127.0.0.2..4",
                          "127.0.0.2;3",
                          "127.0.0.x",
                          " 127.0.0.2",
                          "127.0.0.[2]]",
                          "127..0.0.2"}) {
    CAPTURE(bad);
    CHECK_FALSE(Pattern::parse(bad));
  }
}

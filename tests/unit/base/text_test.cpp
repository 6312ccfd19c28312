#include "base/text.hpp"

#include "support/catch.hpp"

using namespace greymx;

TEST_CASE("letters and digits are those of ASCII") {
  for (int i = 0; i < 256; ++i) {
    const char c = static_cast<char>(i);
    const bool digit = std::string_view("0123456789").find(c) != std::string_view::npos;
    const bool small = std::string_view("abcdefghijklmnopqrstuvwxyz").find(c) != std::string_view::npos;
    const bool capital = std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZ").find(c) != std::string_view::npos;
    CAPTURE(i);
    CHECK(is_digit(c) == digit);
    CHECK(is_alpha(c) == (small || capital));
    CHECK(is_alnum(c) == (digit || small || capital));
    CHECK(lower(c) == (capital ? c + ('a' - 'A') : c));
  }
}

TEST_CASE("blanks are taken off both ends") {
  CHECK(trim(" \ta b\t ") == "a b");
  CHECK(trim(" \t ").empty());
  CHECK(trim("").empty());
  CHECK(trim("\r a \r") == "\r a \r");
  CHECK(trim("\r a \r", " \r") == "a");
}

TEST_CASE("a plain number has digits only and keeps to its maximum") {
  CHECK(plain_number("0", 9) == 0U);
  CHECK(plain_number("65535", 65535) == 65535U);
  for (const char* bad : {"", "65536", "-1", "+1", " 1", "1 ", "01", "00", "0x1", "1a", "4294967296", "99999999999"}) {
    CAPTURE(bad);
    CHECK(plain_number(bad, 65535) == std::nullopt);
  }
}

TEST_CASE("random digits are as many as wanted, and others each time") {
  const std::string digits = random_hex(32);
  CHECK(digits.size() == 32);
  CHECK(digits.find_first_not_of("0123456789abcdef") == std::string::npos);
  CHECK(digits != random_hex(32));
}

TEST_CASE("in ASCII every other character is one question mark") {
  CHECK(to_ascii("plain\t\x7f") == "plain\t\x7f");
  CHECK(to_ascii("d\u00e9j\u00e0 \u20ac5 \U0001f600") == "d?j? ?5 ?");
}

#include "config/values.hpp"

#include "support/catch.hpp"

using namespace greymx::config;
using namespace std::chrono_literals;

TEST_CASE("durations are numbers with falling units") {
  const std::pair<const char*, Seconds> rows[] = {
      {"0s", 0s}, {"300s", 300s}, {"5m", 300s}, {"1h30m", 5400s}, {"5d", 120h}, {"1d2h3m4s", 93784s}, {"90m", 90min},
  };
  for (const auto& [text, value] : rows) CHECK(parse_duration(text) == value);
  for (const char* text :
       {"", "5", "m", "5x", "5 m", "-5m", "+5m", "5m5", "5m3h", "5m3m", "1.5h", "5M", "5min", "1w"}) {
    INFO(text);
    CHECK_FALSE(parse_duration(text));
  }
  for (const char* text : {"40000d", "99999999999999999999s", "18446744073709551615d", "30000d900000h"}) {
    INFO(text);
    CHECK(parse_duration(text) == 36500 * 24h);  // no setting allows as much
  }
}

TEST_CASE("sizes are one number with a binary unit") {
  CHECK(parse_size("0B") == 0);
  CHECK(parse_size("512B") == 512);
  CHECK(parse_size("1KiB") == 1024);
  CHECK(parse_size("50MiB") == 50ULL << 20);
  CHECK(parse_size("2GiB") == 2ULL << 30);
  for (const char* text : {"", "5", "KiB", "1KB", "1kib", "1 KiB", "1KiB1B", "-1B", "1TiB", "1.5MiB"}) {
    INFO(text);
    CHECK_FALSE(parse_size(text));
  }
  CHECK(parse_size("5000000000B") == 5'000'000'000);
  for (const char* text : {"99999999999GiB", "99999999999999999999B"}) CHECK(parse_size(text) == 1ULL << 62);
}

TEST_CASE("rates are a count or a size per duration") {
  CHECK(parse_count_rate("60/1m") == Rate{60, 60s});
  CHECK(parse_count_rate("5/1h30m") == Rate{5, 5400s});
  CHECK(parse_byte_rate("1KiB/1s") == Rate{1024, 1s});
  CHECK(parse_byte_rate("0B/1s") == Rate{0, 1s});
  for (const char* text : {"", "60", "60/", "/1m", "60/m", "60/0s", "60/1m/1m", "1KiB/1m", "-1/1m", "60 / 1m"}) {
    INFO(text);
    CHECK_FALSE(parse_count_rate(text));
  }
  CHECK_FALSE(parse_byte_rate("60/1m"));
  CHECK_FALSE(parse_byte_rate("99999999999999999999999GiB/1s"));
  CHECK_FALSE(parse_count_rate("60/99999999999d"));
}

TEST_CASE("hosts have an optional port, IPv6 has brackets") {
  CHECK(parse_host_port("mx1.example.com") == HostPort{"mx1.example.com", 25});
  CHECK(parse_host_port("MX1.example.com.:2525") == HostPort{"mx1.example.com", 2525});
  CHECK(parse_host_port("192.0.2.1:26") == HostPort{"192.0.2.1", 26});
  CHECK(parse_host_port("[2001:DB8::1]:26") == HostPort{"2001:db8::1", 26});
  CHECK(parse_host_port("[2001:db8::1]") == HostPort{"2001:db8::1", 25});
  CHECK(parse_host_port("localhost", 53) == HostPort{"localhost", 53});
  CHECK(HostPort{"2001:db8::1", 26}.to_string() == "[2001:db8::1]:26");
  CHECK(HostPort{"mx1.example.com", 25}.to_string() == "mx1.example.com:25");
  for (const char* text :
       {"", ":25", "host:", "host:0", "host:65536", "host:smtp", "2001:db8::1", "2001:db8::1:25", "[host]:25",
        "[192.0.2.1]:25", "[]:25", "a b", "host:25:25", "-host", "5", "127.0.0", "1.2.3.4.5"}) {
    INFO(text);
    CHECK_FALSE(parse_host_port(text));
  }
}

TEST_CASE("fingerprints lose their colons and their case") {
  std::string plain, coloned;
  for (int i = 0; i < 32; ++i) {
    plain += "a9";
    coloned += i == 0 ? "A9" : ":A9";
  }
  CHECK(parse_fingerprint(plain) == plain);
  CHECK(parse_fingerprint(coloned) == plain);
  for (const std::string& text : {plain + "a9", plain.substr(1), coloned + ":", ":" + coloned, plain + "g",
                                  plain.substr(2) + "xy", "SHA256:" + plain, std::string("a:9") + plain.substr(2)}) {
    INFO(text);
    CHECK_FALSE(parse_fingerprint(text));
  }
}

TEST_CASE("the nearest word is the one that was meant, or none") {
  const std::vector<std::string> known = {"retry_min", "retry_max", "lifetime", "bounce"};
  CHECK(nearest("retry_mim", known) == "retry_min");
  CHECK(nearest("retrymax", known) == "retry_max");
  CHECK(nearest("LifeTime", known) == "lifetime");
  CHECK(nearest("ibfetime", known) == "lifetime");
  CHECK(nearest("bonuce", known) == "bounce");
  CHECK(nearest("banner", known).empty());
  CHECK(nearest("x", known).empty());
  CHECK(nearest(std::string(10000, 'x'), known).empty());
}

TEST_CASE("sizes are shown in their largest whole unit") {
  CHECK(size_text(0) == "0B");
  CHECK(size_text(1000) == "1000B");
  CHECK(size_text(1024) == "1KiB");
  CHECK(size_text(50ULL << 20) == "50MiB");
  CHECK(size_text(3ULL << 30) == "3GiB");
}

#include "base/ip.hpp"

#include <unordered_set>

#include "support/catch.hpp"

using namespace greymx;

namespace {

IpAddress ip(std::string_view text) {
  const auto address = IpAddress::parse(text);
  INFO(text);
  REQUIRE(address);
  return *address;
}

Network net(std::string_view text) {
  const auto network = Network::parse(text);
  INFO(text);
  REQUIRE(network);
  return *network;
}

}  // namespace

TEST_CASE("addresses are read and written in their canonical form") {
  const std::pair<const char*, const char*> rows[] = {
      {"192.0.2.1", "192.0.2.1"},
      {"0.0.0.0", "0.0.0.0"},
      {"255.255.255.255", "255.255.255.255"},
      {"2001:DB8::1", "2001:db8::1"},
      {"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},
      {"2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"},
      {"::", "::"},
      {"::1", "::1"},
      {"64:ff9b::192.0.2.33", "64:ff9b::c000:221"},
      {"::ffff:192.0.2.1", "192.0.2.1"},
      {"::ffff:c000:201", "192.0.2.1"},
  };
  for (const auto& [text, canonical] : rows) CHECK(ip(text).to_string() == canonical);
}

TEST_CASE("what is no address is refused") {
  for (const char* text :
       {"", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", " 1.2.3.4", "0x1.2.3.4", "[::1]", "::1%lo",
        "fe80::1%eth0", ":::", "1::2::3", "12345::", "g::", "1:2:3:4:5:6:7", "::ffff:1.2.3.256", "example.com"}) {
    INFO(text);
    CHECK_FALSE(IpAddress::parse(text));
  }
  CHECK_FALSE(IpAddress::parse(std::string_view("1.2.3.4\0", 8)));
  CHECK_FALSE(IpAddress::parse(std::string(1000, '1')));
}

TEST_CASE("a mapped address is the IPv4 address") {
  CHECK(ip("::ffff:192.0.2.1") == ip("192.0.2.1"));
  CHECK(ip("::ffff:192.0.2.1").is_v4());
  CHECK(ip("192.0.2.1") == IpAddress::v4(0xc0000201));
  CHECK(ip("192.0.2.1").v4_value() == 0xc0000201);
  CHECK_FALSE(ip("::192.0.2.1").is_v4());
}

TEST_CASE("masks keep the network's bits") {
  const std::tuple<const char*, unsigned, const char*> rows[] = {
      {"192.0.2.255", 24, "192.0.2.0"},
      {"192.0.2.255", 31, "192.0.2.254"},
      {"192.0.2.255", 32, "192.0.2.255"},
      {"192.0.2.255", 0, "0.0.0.0"},
      {"192.0.2.255", 1, "128.0.0.0"},
      {"2001:db8:1:2:3::", 64, "2001:db8:1:2::"},
      {"2001:db8:ffff::", 36, "2001:db8:f000::"},
      {"2001:db8::1", 128, "2001:db8::1"},
      {"2001:db8::1", 0, "::"},
  };
  for (const auto& [text, prefix, masked] : rows) CHECK(ip(text).masked(prefix).to_string() == masked);
}

TEST_CASE("labels for reverse names and block lists") {
  CHECK(ip("192.0.2.1").reversed_labels() == "1.2.0.192");
  CHECK(ip("192.0.2.1").reverse_name() == "1.2.0.192.in-addr.arpa");
  CHECK(ip("::").reverse_name().ends_with("0.0.ip6.arpa"));
  CHECK(ip("2001:db8::1").reversed_labels() == "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2");
  CHECK(ip("2001:db8::1").uncompressed() == "2001:db8:0:0:0:0:0:1");
  CHECK(ip("192.0.2.1").uncompressed() == "192.0.2.1");
  CHECK(ip("192.0.2.1").to_literal() == "[192.0.2.1]");
  CHECK(ip("2001:db8::1").to_literal() == "[IPv6:2001:db8::1]");
}

TEST_CASE("private and special addresses are known") {
  for (const char* text : {"0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.1.1", "172.16.0.1",
                           "172.31.255.255", "192.168.1.1", "224.0.0.1", "255.255.255.255", "::", "::1", "fc00::1",
                           "fdff::1", "fe80::1", "febf::1", "ff02::1", "::ffff:10.0.0.1"}) {
    INFO(text);
    CHECK(ip(text).is_private());
  }
  for (const char* text :
       {"9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1", "172.15.255.255",
        "172.32.0.0", "192.167.255.255", "223.255.255.255", "2001:4860::1", "fbff::1", "fec0::1"}) {
    INFO(text);
    CHECK_FALSE(ip(text).is_private());
  }
  CHECK(ip("127.255.0.1").is_loopback());
  CHECK(ip("::1").is_loopback());
  CHECK_FALSE(ip("::2").is_loopback());
  CHECK_FALSE(ip("126.0.0.1").is_loopback());
}

TEST_CASE("networks are read, host bits are an error") {
  CHECK(net("192.0.2.0/24").to_string() == "192.0.2.0/24");
  CHECK(net("192.0.2.1").to_string() == "192.0.2.1/32");
  CHECK(net("2001:db8::").to_string() == "2001:db8::/128");
  CHECK(net("::ffff:192.0.2.0/120").to_string() == "192.0.2.0/24");
  CHECK(net("0.0.0.0/0").to_string() == "0.0.0.0/0");
  for (const char* text :
       {"192.0.2.1/24", "192.0.2.0/33", "192.0.2.0/", "192.0.2.0/-1", "192.0.2.0/024", "192.0.2/24", "2001:db8::/129",
        "2001:db8::1/64", "/24", "192.0.2.0/24/24", "192.0.2.0/ 24", "::ffff:192.0.2.0/24"}) {
    INFO(text);
    CHECK_FALSE(Network::parse(text));
  }
}

TEST_CASE("a network contains its own addresses only, and only of its family") {
  CHECK(net("192.0.2.0/24").contains(ip("192.0.2.255")));
  CHECK(net("192.0.2.0/24").contains(ip("::ffff:192.0.2.7")));
  CHECK_FALSE(net("192.0.2.0/24").contains(ip("192.0.3.0")));
  CHECK(net("0.0.0.0/0").contains(ip("8.8.8.8")));
  CHECK_FALSE(net("0.0.0.0/0").contains(ip("::1")));
  CHECK_FALSE(net("::/0").contains(ip("127.0.0.1")));
  const std::vector<Network> networks = {net("127.0.0.0/8"), net("::1")};
  CHECK(contains(networks, ip("::1")));
  CHECK_FALSE(contains(networks, ip("::2")));
  CHECK_FALSE(contains({}, ip("::2")));
}

TEST_CASE("clients are counted by IPv4 address or IPv6 /64") {
  CHECK(client_unit(ip("192.0.2.1")) == ip("192.0.2.1"));
  CHECK(client_unit(ip("2001:db8::1:2:3:4")) == ip("2001:db8::"));
}

TEST_CASE("endpoints need a port, and brackets around IPv6") {
  CHECK(Endpoint::parse("192.0.2.1:25")->to_string() == "192.0.2.1:25");
  CHECK(Endpoint::parse("[2001:db8::1]:25")->to_string() == "[2001:db8::1]:25");
  CHECK(Endpoint::parse("[::]:0")->to_string() == "[::]:0");
  for (const char* text : {"", "192.0.2.1", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:025", "192.0.2.1:+25",
                           "2001:db8::1:25", "[2001:db8::1]", "[192.0.2.1]:25", "[]:25", "host:25", ":25"}) {
    INFO(text);
    CHECK_FALSE(Endpoint::parse(text));
  }
}

TEST_CASE("addresses of one /64 hash apart") {
  std::unordered_set<std::size_t> hashes;
  for (std::uint32_t i = 0; i < 1000; ++i) {
    std::array<std::uint8_t, 16> bytes = {0x20, 0x01, 0x0d, 0xb8};
    bytes[14] = static_cast<std::uint8_t>(i >> 8);
    bytes[15] = static_cast<std::uint8_t>(i);
    hashes.insert(std::hash<IpAddress>()(IpAddress::v6(bytes)));
  }
  CHECK(hashes.size() == 1000);
}

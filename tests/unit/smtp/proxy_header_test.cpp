#include "smtp/proxy_header.hpp"

#include <string>

#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::smtp;
using Status = ProxyHeader::Status;

namespace {

std::string client(std::string_view bytes) {
  const ProxyHeader header = parse_proxy_header(bytes);
  if (header.status == Status::need_more) return "more";
  if (header.status == Status::invalid) return "invalid";
  return (header.client ? header.client->to_string() : "none") + "/" + std::to_string(header.size);
}

std::string v2(char command, char family, const std::string& payload) {
  std::string bytes("\r\n\r\n\0\r\nQUIT\n", 12);
  bytes += command;
  bytes += family;
  bytes += static_cast<char>(payload.size() >> 8);
  bytes += static_cast<char>(payload.size() & 255);
  return bytes + payload;
}

const std::string v4_pair("\xcb\x00\x71\x09\xc0\x00\x02\x01\x04\xd2\x00\x19", 12);

}  // namespace

TEST_CASE("version 1 names the client") {
  CHECK(client("PROXY TCP4 203.0.113.9 192.0.2.1 1234 25\r\nEHLO x\r\n") == "203.0.113.9:1234/42");
  CHECK(client("PROXY TCP6 2001:db8::9 2001:db8::1 1234 25\r\n") == "[2001:db8::9]:1234/44");
  CHECK(client("PROXY TCP6 ::ffff:203.0.113.9 ::ffff:192.0.2.1 1234 25\r\n") == "203.0.113.9:1234/56");
  CHECK(client("PROXY UNKNOWN\r\n") == "none/15");
  CHECK(client("PROXY UNKNOWN ffff:: ffff:: 1 2\r\n") == "none/33");
}

TEST_CASE("version 1 that is malformed or too long is invalid") {
  for (const std::string_view bytes :
       {"EHLO x\r\n", "PROXY TCP4 203.0.113.9 192.0.2.1 1234\r\n", "PROXY TCP4 203.0.113.9 192.0.2.1 1234 25 \r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 1234 25 x\r\n", "PROXY TCP4 203.0.113.9 192.0.2.1 65536 25\r\n",
        "PROXY TCP4 203.0.113.9 192.0.2.1 01 25\r\n", "PROXY TCP4 203.0.113 192.0.2.1 1 25\r\n",
        "PROXY TCP4 2001:db8::9 192.0.2.1 1 25\r\n", "PROXY UDP4 203.0.113.9 192.0.2.1 1 25\r\n", "PROXY \r\n",
        "PROXY  TCP4 203.0.113.9 192.0.2.1 1 25\r\n", "proxy TCP4 203.0.113.9 192.0.2.1 1 25\r\n",
        "PROXY UNKNOWNX\r\n"}) {
    CAPTURE(bytes);
    CHECK(client(bytes) == "invalid");
  }
  CHECK(client("PROXY TCP4 " + std::string(100, '1')) == "invalid");
}

TEST_CASE("version 2 names the client, TLVs behind the addresses are skipped") {
  CHECK(client(v2(0x21, 0x11, v4_pair)) == "203.0.113.9:1234/28");
  CHECK(client(v2(0x21, 0x11, v4_pair + std::string("\x04\x00\x01x", 4)) + "EHLO") == "203.0.113.9:1234/32");
  std::string v6_pair(32, '\0');
  v6_pair.replace(0, 4, std::string("\x20\x01\x0d\xb8", 4));
  v6_pair[15] = 9;
  CHECK(client(v2(0x21, 0x21, v6_pair + std::string("\x04\xd2\x00\x19", 4))) == "[2001:db8::9]:1234/52");
}

TEST_CASE("version 2 LOCAL and other families name nobody") {
  CHECK(client(v2(0x20, 0x00, "")) == "none/16");
  CHECK(client(v2(0x20, 0x11, v4_pair)) == "none/28");
  CHECK(client(v2(0x21, 0x31, std::string(216, 'x'))) == "none/232");
  CHECK(client(v2(0x21, 0x12, v4_pair)) == "none/28");
}

TEST_CASE("version 2 that is malformed or too long is invalid") {
  CHECK(client(v2(0x11, 0x11, v4_pair)) == "invalid");
  CHECK(client(v2(0x22, 0x11, v4_pair)) == "invalid");
  CHECK(client(v2(0x21, 0x11, v4_pair.substr(1))) == "invalid");
  CHECK(client(v2(0x21, 0x11, std::string(5000, 'x'))) == "invalid");
}

TEST_CASE("a header that is not there yet asks for more, at every length") {
  const std::string headers[] = {"PROXY TCP4 203.0.113.9 192.0.2.1 1234 25\r\n", v2(0x21, 0x11, v4_pair)};
  for (const std::string& header : headers) {
    for (std::size_t size = 0; size < header.size(); ++size) CHECK(client(header.substr(0, size)) == "more");
  }
}

#include "smtp/reply.hpp"

#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::smtp;

namespace {

std::string written(const Reply& reply, bool utf8 = false) {
  std::string out;
  append_reply(out, reply, utf8);
  return out;
}

}  // namespace

TEST_CASE("a reply is code, enhanced code and text") {
  CHECK(written({250, "2.1.0", "Ok"}) == "250 2.1.0 Ok\r\n");
  CHECK(written({220, "", "mx2.example.net ESMTP greymx"}) == "220 mx2.example.net ESMTP greymx\r\n");
  CHECK(make_reply(replies::too_many_connections, "mx2.example.net", "192.0.2.1").to_string() ==
        "421 4.7.0 mx2.example.net Error: too many connections from 192.0.2.1");
}

TEST_CASE("what strangers said is made printable and cut") {
  const Reply reply = make_reply(replies::unsupported_option, {}, "X\r\n250 ok" + std::string(1000, 'y'));
  CHECK(reply.text.starts_with("Unsupported option: X??250 ok"));
  CHECK(reply.text.size() < 300);
}

TEST_CASE("a long reply becomes several lines, each with its codes, none longer than 512 octets") {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "word" + std::to_string(i) + " ";
  text += std::string(1200, 'x');
  const std::string out = written({554, "5.7.1", text});
  std::string joined;
  std::size_t begin = 0;
  while (begin < out.size()) {
    const std::size_t end = out.find("\r\n", begin) + 2;
    CHECK(end - begin <= 512);
    const std::string line = out.substr(begin, end - begin - 2);
    CHECK(line.substr(0, 4) == (end == out.size() ? "554 " : "554-"));
    CHECK(line.substr(4, 6) == "5.7.1 ");
    joined += line.substr(10);
    if (joined.size() < text.size() && text[joined.size()] == ' ') joined += ' ';
    begin = end;
  }
  CHECK(joined == text);
}

TEST_CASE("a client that did not ask for UTF-8 gets ASCII") {
  const Reply reply{554, "5.7.1", "caf\u00e9 \u20ac5"};
  CHECK(written(reply) == "554 5.7.1 caf? ?5\r\n");
  CHECK(written(reply, true) == "554 5.7.1 caf\u00e9 \u20ac5\r\n");
  CHECK(reply.to_string() == "554 5.7.1 caf\u00e9 \u20ac5");  // as the log has it
}

TEST_CASE("a long reply is not cut inside a character") {
  std::string text;
  for (int i = 0; i < 600; ++i) text += "\u00e9";
  const std::string out = written({554, "5.7.1", text}, true);
  std::size_t count = 0;
  for (std::size_t at = out.find("\r\n"); at != std::string::npos; at = out.find("\r\n", at + 1), ++count) {
    CHECK(out.substr(at - 2, 2) == "\u00e9");
  }
  CHECK(count == 3);
}

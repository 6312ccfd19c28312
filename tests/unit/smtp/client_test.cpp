// What the client side makes of bytes from a server, and what it sends.
#include "smtp/client_commands.hpp"
#include "smtp/client_reply.hpp"
#include "support/catch.hpp"

namespace greymx::smtp {
namespace {

using Status = ReplyParser::Status;

ServerReply parse(std::string_view text) {
  ReplyParser parser;
  CHECK(parser.feed(text) == text.size());
  REQUIRE(parser.status() == Status::complete);
  return parser.take();
}

TEST_CASE("a reply is the same however its bytes arrive, and nothing of the next one is taken") {
  const std::string text = "250-first\r\n250-second line\r\n250 2.1.0 last\r\n";
  const ServerReply whole = parse(text);
  CHECK(whole.code == 250);
  CHECK(whole.lines == std::vector<std::string>{"first", "second line", "2.1.0 last"});
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    ReplyParser parser;
    const std::string both = text + "354 next";
    std::size_t used = parser.feed(std::string_view(both).substr(0, cut));
    used += parser.feed(std::string_view(both).substr(used));
    REQUIRE(parser.status() == Status::complete);
    CHECK(used == text.size());
    CHECK(parser.take() == whole);
    CHECK(parser.status() == Status::more);
  }
}

TEST_CASE("bare LF and a code alone are tolerated, other things are no replies") {
  CHECK(parse("220 hello\n").lines == std::vector<std::string>{"hello"});
  CHECK(parse("250\r\n").code == 250);
  CHECK(parse("250-a\r\n550 b\r\n").code == 550);
  for (const char* bad :
       {"\r\n", "25\r\n", "hello\r\n", "150 x\r\n", "650 x\r\n", "250_x\r\n", "2 50\r\n", "250-a\r\nb\r\n"}) {
    CAPTURE(bad);
    ReplyParser parser;
    parser.feed(bad);
    CHECK(parser.status() == Status::malformed);
  }
}

TEST_CASE("an enhanced code counts only with the class of the reply") {
  CHECK(parse("550 5.1.1 x\r\n").enhanced == "5.1.1");
  CHECK(parse("550 5.1.100\r\n").enhanced == "5.1.100");
  CHECK(parse("550 4.1.1 x\r\n").enhanced.empty());
  CHECK(parse("550 5.1 x\r\n").enhanced.empty());
  CHECK(parse("550 5.1.1000 x\r\n").enhanced.empty());
  CHECK(parse("550 5..1 x\r\n").enhanced.empty());
  CHECK(parse("550 55.1.1 x\r\n").enhanced.empty());
}

TEST_CASE("an enhanced code is found behind more spaces than one and in a later line") {
  CHECK(parse("550  5.7.1  policy\r\n").enhanced == "5.7.1");
  CHECK(parse("550-Mail from your host is refused\r\n550 5.7.1 by policy\r\n").enhanced == "5.7.1");
  CHECK(parse("452-4.2\r\n452-5.2.2 x\r\n452-4.2.2 full\r\n452 4.3.1 x\r\n").enhanced == "4.2.2");
  CHECK(parse("550 see 5.7.1\r\n").enhanced.empty());
}

TEST_CASE("a hostile server's reply is bounded and harmless") {
  CHECK(parse("550 " + std::string(5000, 'x') + "\r\n").lines[0].size() == 512);
  CHECK(parse("550 a\x1b[2J\rb\r\n").lines[0] == "a?[2J?b");
  ReplyParser lines;
  for (int i = 0; i < 200 && lines.status() == Status::more; ++i) lines.feed("250-x\r\n");
  CHECK(lines.status() == Status::malformed);
  ReplyParser endless;
  std::size_t fed = 0;
  for (int i = 0; i < 1000 && endless.status() == Status::more; ++i) fed += endless.feed(std::string(1000, 'x'));
  CHECK(endless.status() == Status::malformed);
  CHECK(fed < 70'000);
  std::string many;
  for (int i = 0; i < 90; ++i) many += "550-" + std::string(400, 'y') + "\r\n";
  CHECK(parse(many + "550 end\r\n").text().size() <= 512);
}

TEST_CASE("capabilities are read from EHLO") {
  const Capabilities server = parse_capabilities(parse(
      "250-MX1.Example.COM greets you\r\n250-pipelining\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-DSN\r\n250-STARTTLS\r\n"
      "250-XFORWARD NAME addr\r\n250-\r\n250 SMTPUTF8\r\n"));
  CHECK(server.name == "mx1.example.com");
  CHECK(server.pipelining);
  CHECK(server.size);
  CHECK(server.size_limit == 1000);
  CHECK(server.eight_bit_mime);
  CHECK(server.dsn);
  CHECK(server.starttls);
  CHECK(server.smtputf8);
  CHECK(server.xforward == std::vector<std::string>{"NAME", "ADDR"});
  CHECK(parse_capabilities(parse("250-x\r\n250 SIZE 99999999999999999999999\r\n")).size_limit == 0);
  CHECK_FALSE(parse_capabilities(parse("250 PIPELINING\r\n")).pipelining);  // the first line is a name
}

TEST_CASE("no part of a command can smuggle in another one") {
  Envelope envelope;
  envelope.reverse_path = "a\r\nRCPT TO:<x>@b";
  CHECK(mail_command(envelope, 0, false, {}) == "MAIL FROM:<a??RCPT TO:<x>@b>\r\n");
  CHECK(rcpt_command({std::string("a\0b@c", 5), {}, {}}, false, {}) == "RCPT TO:<a?b@c>\r\n");
}

TEST_CASE("an ORCPT has UTF-8 only where SMTPUTF8 is in force") {
  Capabilities server;
  server.dsn = server.smtputf8 = true;
  const EnvelopeRecipient recipient{"a@b.example", "utf-8;\xc3\xbc+2B@\xe4\xbe\x8b\xf0\x9f\x90\x9f", {}};
  CHECK(rcpt_command(recipient, true, server) ==
        "RCPT TO:<a@b.example> ORCPT=utf-8;\xc3\xbc+2B@\xe4\xbe\x8b\xf0\x9f\x90\x9f\r\n");
  const std::string ascii = "RCPT TO:<a@b.example> ORCPT=utf-8;\\x{FC}+2B@\\x{4F8B}\\x{1F41F}\r\n";
  CHECK(rcpt_command(recipient, false, server) == ascii);
  server.smtputf8 = false;
  CHECK(rcpt_command(recipient, true, server) == ascii);
}

TEST_CASE("XFORWARD stays within 512 octets a command and says what it does not know") {
  Envelope envelope;
  envelope.client = {*IpAddress::parse("192.0.2.1"), 0, "unknown", false};
  envelope.helo = std::string(600, '+');  // three octets each
  Capabilities server;
  server.xforward = {"HELO", "NAME", "ADDR", "PORT", "IDENT", "SOURCE"};
  const std::vector<std::string> commands = xforward_commands(envelope, server);
  CHECK(commands.size() == 1);
  std::string all;
  for (const std::string& line : commands) {
    CHECK(line.starts_with("XFORWARD "));
    all += line;
  }
  CHECK(all.find("NAME=[UNAVAILABLE]") != std::string::npos);
  CHECK(all.find("PORT=[UNAVAILABLE]") != std::string::npos);
  CHECK(all.find("PROTO=") == std::string::npos);
  CHECK(all.find("IDENT=") == std::string::npos);
  for (const std::string& line : commands) CHECK(line.size() <= 512);
  CHECK(xforward_commands(envelope, {}).empty());
  envelope.client.name = std::string(250, 'n');
  const std::vector<std::string> two = xforward_commands(envelope, server);
  CHECK(two.size() == 2);
  for (const std::string& line : two) CHECK(line.size() <= 512);
}

std::string encode(std::string_view first, std::string_view second) {
  ContentEncoder encoder;
  std::string out;
  encoder.add(first, out);
  encoder.add(second, out);
  encoder.finish(out);
  return out;
}

TEST_CASE("content is stuffed with dots and ends in CRLF dot CRLF") {
  CHECK(encode("", "") == ".\r\n");
  CHECK(encode("a\r\n", "") == "a\r\n.\r\n");
  CHECK(encode("a", "") == "a\r\n.\r\n");
  CHECK(encode(".\r\n..\r\n.x\r\ny.\r\n", "") == "..\r\n...\r\n..x\r\ny.\r\n.\r\n");
}

TEST_CASE("whatever the content, only its end looks like an end, however it is split") {
  const char alphabet[] = {'\r', '\n', '.', 'x'};
  for (std::size_t length = 0; length <= 6; ++length) {
    std::size_t combinations = 1;
    for (std::size_t i = 0; i < length; ++i) combinations *= 4;
    for (std::size_t n = 0; n < combinations; ++n) {
      std::string text;
      for (std::size_t i = 0, rest = n; i < length; ++i, rest /= 4) text += alphabet[rest % 4];
      const std::string out = encode(text, "");
      for (std::size_t cut = 1; cut < length; ++cut) {
        if (encode(text.substr(0, cut), text.substr(cut)) != out) FAIL("split " << cut << " of " << n);
      }
      bool clean = out == ".\r\n" || out.ends_with("\r\n.\r\n");
      for (std::size_t i = 0; i < out.size(); ++i) {
        if (out[i] == '\n') clean = clean && i > 0 && out[i - 1] == '\r';
        if (out[i] == '\r') clean = clean && i + 1 < out.size() && out[i + 1] == '\n';
      }
      const std::string framed = "\r\n" + out;
      clean = clean && framed.find("\r\n.\r\n") == framed.size() - 5;
      if (!clean) FAIL("length " << length << " number " << n);
    }
  }
}

}  // namespace
}  // namespace greymx::smtp

#include "smtp/body_decoder.hpp"

#include <vector>

#include "support/catch.hpp"

using greymx::smtp::BodyDecoder;
using Status = BodyDecoder::Status;

namespace {

struct Decoded {
  std::string content;
  std::string rest;
  int ends = 0;
  bool bare_lf = false;
  bool bare_cr = false;
  bool operator==(const Decoded&) const = default;
};

// Decodes pieces as they come; after the end nothing more is looked at.
Decoded decode(const std::vector<std::string_view>& pieces) {
  BodyDecoder decoder;
  Decoded result;
  for (std::string_view piece : pieces) {
    if (result.ends == 0 && decoder.decode_data(piece, result.content) == Status::end) ++result.ends;
    if (result.ends > 0) result.rest += piece;
  }
  result.bare_lf = decoder.bare_lf();
  result.bare_cr = decoder.bare_cr();
  if (decoder.size() != result.content.size()) FAIL("size() is not what came out");
  return result;
}

std::string data(std::string_view input) {
  return decode({input}).content;
}

std::string chunks(const std::vector<std::string_view>& pieces) {
  BodyDecoder decoder;
  std::string content;
  for (const std::string_view piece : pieces) decoder.decode_chunk(piece, content);
  decoder.finish_chunks(content);
  if (decoder.size() != content.size()) FAIL("size() is not what came out");
  return content;
}

bool only_crlf(std::string_view content) {
  for (std::size_t i = 0; i < content.size(); ++i) {
    if (content[i] == '\r' && content.substr(i, 2) != "\r\n") return false;
    if (content[i] == '\n' && (i == 0 || content[i - 1] != '\r')) return false;
  }
  return true;
}

// All texts over CR, LF, dot, 'a' and NUL of exactly `length`.
template <class Visit>
void every_sequence(int length, Visit visit) {
  static const char alphabet[] = {'\r', '\n', '.', 'a', '\0'};
  std::vector<int> digits(static_cast<std::size_t>(length), 0);
  for (;;) {
    std::string text;
    for (const int digit : digits) text += alphabet[digit];
    visit(text);
    std::size_t i = 0;
    while (i < digits.size() && ++digits[i] == 5) digits[i++] = 0;
    if (i == digits.size()) return;
  }
}

}  // namespace

TEST_CASE("only CRLF dot CRLF ends data") {
  CHECK(decode({"a\r\n.\r\nQUIT\r\n"}) == Decoded{"a\r\n", "QUIT\r\n", 1, false, false});
  CHECK(decode({".\r\n"}) == Decoded{"", "", 1, false, false});
  for (const std::string_view not_an_end :
       {"a\n.\n", "a\n.\r\n", "a\r\n.\n", "a\r.\r", "a\r\n.\r", "a\r.\r\n", "a\r\n.\r\r\n", "a\r\n.a\r\n",
        "a\r\n..\r\n", "a.\r\n", "\n.\r\n", "\r\n\n.\r\n"}) {
    CAPTURE(not_an_end);
    CHECK(decode({not_an_end}).ends == 0);
  }
  CHECK(decode({std::string_view("a\r\n\0.\r\n", 7)}).ends == 0);
  CHECK(decode({std::string_view("a\r\n.\0\r\n", 7)}).ends == 0);
}

TEST_CASE("the dot that began a line is taken away, behind a true CRLF only") {
  CHECK(data("..\r\n.a\r\n...b\r\nc.\r\n") == ".\r\na\r\n..b\r\nc.\r\n");
  CHECK(data("a\n.b\r\n") == "a\r\n.b\r\n");
  CHECK(data("a\n..b\r\n") == "a\r\n..b\r\n");
  CHECK(data("a\r\n.\nb\r\n") == "a\r\n\r\nb\r\n");
}

TEST_CASE("a bare LF becomes a line end and a bare CR a space") {
  CHECK(decode({"a\nb\r\n.\r\n"}) == Decoded{"a\r\nb\r\n", "", 1, true, false});
  CHECK(decode({"a\rb\r\n.\r\n"}) == Decoded{"a b\r\n", "", 1, false, true});
  CHECK(data("a\r\r\nb") == "a \r\nb");
  CHECK(data("\n\n\r\n") == "\r\n\r\n\r\n");
  CHECK(data(std::string_view("a\0b\r\n", 5)) == std::string_view("a\0b\r\n", 5));
}

TEST_CASE("every split of every sequence around an end of data decodes alike and ends exactly once") {
  for (int length = 0; length <= 7; ++length) {
    std::size_t failures = 0;
    every_sequence(length, [&](const std::string& middle) {
      const std::string text = "x\r\n" + middle + "y\r\n.\r\nNOOP\r\n";
      const std::string_view view = text;
      const Decoded whole = decode({view});
      const bool ends_early = whole.rest != "NOOP\r\n";
      if (whole.ends != 1 || !only_crlf(whole.content) ||
          ends_early != (("\r\n" + middle).find("\r\n.\r\n") != std::string::npos)) {
        ++failures;
      }
      for (std::size_t at = 1; at < text.size(); ++at) {
        if (decode({view.substr(0, at), view.substr(at)}) != whole) ++failures;
      }
      std::vector<std::string_view> bytes;
      for (std::size_t i = 0; i < text.size(); ++i) bytes.push_back(view.substr(i, 1));
      if (decode(bytes) != whole) ++failures;
    });
    CAPTURE(length);
    CHECK(failures == 0);
  }
}

TEST_CASE("chunks keep dots and join line ends that were split") {
  CHECK(chunks({".\r\n..\r\n", "\r\n.\r\n"}) == ".\r\n..\r\n\r\n.\r\n");
  CHECK(chunks({"a\r", "\nb\r\n"}) == "a\r\nb\r\n");
  CHECK(chunks({"a\r", "b\r\n"}) == "a b\r\n");
  CHECK(chunks({"a\n", "b"}) == "a\r\nb\r\n");
  CHECK(chunks({"a\r"}) == "a \r\n");
  CHECK(chunks({"a\n"}) == "a\r\n");
  CHECK(chunks({""}).empty());
  BodyDecoder decoder;
  std::string content;
  decoder.decode_chunk("a\r", content);
  CHECK_FALSE(decoder.bare_cr());
  decoder.finish_chunks(content);
  CHECK(decoder.bare_cr());
  CHECK_FALSE(decoder.bare_lf());
}

TEST_CASE("every split of every chunk sequence decodes alike, to clean lines") {
  for (int length = 0; length <= 6; ++length) {
    std::size_t failures = 0;
    every_sequence(length, [&](const std::string& text) {
      const std::string_view view = text;
      const std::string whole = chunks({view});
      if (!only_crlf(whole) || !(whole.empty() || whole.ends_with("\r\n"))) ++failures;
      for (std::size_t at = 0; at <= text.size(); ++at) {
        if (chunks({view.substr(0, at), view.substr(at)}) != whole) ++failures;
      }
    });
    CHECK(failures == 0);
  }
}

TEST_CASE("Received lines are counted in the header only") {
  BodyDecoder decoder;
  std::string content;
  std::string_view input =
      "Received: from a\r\n\tby b\r\nRECEIVED : x\r\nX-Received: y\r\nSubject: Received: z\r\n\r\nReceived: "
      "body\r\n.\r\n";
  CHECK(decoder.decode_data(input, content) == Status::end);
  CHECK(decoder.received() == 2);
}

TEST_CASE("a line that is no header field begins the body") {
  BodyDecoder decoder;
  std::string content;
  std::string_view input = "Received: a\r\nhello world\r\nReceived: b\r\nMessage-ID: <x@y>\r\n.\r\n";
  CHECK(decoder.decode_data(input, content) == Status::end);
  CHECK(decoder.received() == 1);
  CHECK(decoder.message_id().empty());
}

TEST_CASE("the Message-ID is found, folded or not, however the input is split") {
  for (const std::string_view text : {"Message-Id: <1.2@example.org>\r\nMessage-ID: <other>\r\n\r\n",
                                      "Subject: x\r\nmessage-id:\r\n <1.2@example.org> \r\n\r\n"}) {
    for (std::size_t at = 0; at < text.size(); ++at) {
      BodyDecoder decoder;
      std::string content;
      decoder.decode_chunk(text.substr(0, at), content);
      decoder.decode_chunk(text.substr(at), content);
      CHECK(decoder.message_id() == "<1.2@example.org>");
    }
  }
}

TEST_CASE("an endless header line is remembered only in part") {
  BodyDecoder decoder;
  std::string content;
  decoder.decode_chunk("Message-ID: <" + std::string(100000, 'x') + ">\r\n\r\n", content);
  CHECK(decoder.message_id().size() == 500);
  CHECK(content.size() > 100000);
}

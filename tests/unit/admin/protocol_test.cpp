#include "admin/protocol.hpp"
#include "sample.hpp"
#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::admin;

TEST_CASE("a request survives its way over the socket") {
  Request request;
  request.command = "bounce";
  request.json = request.color = true;
  request.select.ids = {test::id_at(1795668232)};
  request.args = {{"comment", "a \"b\"\n"}, {"for", "5d"}};
  const std::string line = to_line(request);
  CHECK(line.find('\n') == line.size() - 1);
  const auto back = parse_request(line);
  REQUIRE(back);
  CHECK(to_line(*back) == line);
  CHECK(back->arg("for") == "5d");
  CHECK(back->arg("none").empty());
}

TEST_CASE("a request that is not understood says which part") {
  const auto error = [](std::string_view line) {
    const auto request = parse_request(line);
    return request ? std::string() : request.error().text;
  };
  CHECK(error("").find("no JSON object") != std::string::npos);
  CHECK(error("[1]").find("no JSON object") != std::string::npos);
  CHECK(error("{}").find("no command") != std::string::npos);
  CHECK(error(R"({"command":"x","extra":1})").find("extra") != std::string::npos);
  CHECK(error(R"({"command":7})").find("command") != std::string::npos);
  CHECK(error(R"({"command":"x","args":{"a":1}})").find("a") != std::string::npos);
  CHECK(error(R"({"command":"x","select":{"ids":"y"}})").find("ids") != std::string::npos);
  CHECK(error(std::string(500000, '[')).find("no JSON object") != std::string::npos);
}

TEST_CASE("bytes of a message survive as base64, every length and value") {
  std::string bytes;
  for (int i = 0; i < 300; ++i) {
    const std::string line = reply::data(bytes);
    CHECK(decode_base64(Json::parse(line)["data"].get<std::string>()) == bytes);
    bytes += static_cast<char>(i * 7);
  }
  CHECK(decode_base64("a").empty());
  CHECK(decode_base64("####").empty());
}

TEST_CASE("reply lines are one line each") {
  CHECK(reply::text("a\nb\n") == "{\"text\":\"a\\nb\\n\"}\n");
  CHECK(reply::progress(3, 7) == "{\"done\":3,\"total\":7}\n");
  CHECK(reply::end({}) == "{\"exit\":0}\n");
  CHECK(reply::end({1, "no\n"}) == "{\"exit\":1,\"error\":\"no\\n\"}\n");
  CHECK(reply::file("ID.eml") == "{\"file\":\"ID.eml\"}\n");
}

#include "admin/select.hpp"
#include "sample.hpp"
#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::admin;
using greymx::test::at;
using greymx::test::id_at;
using greymx::test::message;

namespace {

bool selected(const queue::Message& mail, auto set) {
  Selection selection;
  set(selection);
  return selection.matches(mail, {}, mail.id.time() + std::chrono::hours(2));
}

}  // namespace

TEST_CASE("every filter must agree") {
  queue::Message mail = message(id_at(1795668232), "Joe@Example.ORG", {"bob@example.com", "eve@sub.example.net"});
  CHECK(selected(mail, [](Selection& s) { s.all = true; }));
  CHECK(selected(mail, [](Selection& s) { s.from = "joe@example.org"; }));
  CHECK(selected(mail, [](Selection& s) { s.from = "@example.org"; }));
  CHECK_FALSE(selected(mail, [](Selection& s) { s.from = "@ample.org"; }));
  CHECK_FALSE(selected(mail, [](Selection& s) { s.from = "example.org"; }));
  CHECK_FALSE(selected(mail, [](Selection& s) { s.from = ""; }));
  CHECK(selected(mail, [](Selection& s) { s.to = "BOB@example.com"; }));
  CHECK_FALSE(selected(mail, [](Selection& s) { s.to = "rob@example.com"; }));
  CHECK(selected(mail, [](Selection& s) { s.domain = "Example.NET"; }));
  CHECK_FALSE(selected(mail, [](Selection& s) { s.domain = "ample.net"; }));
  CHECK(selected(mail, [](Selection& s) { s.domain = "*.Example.net"; }));
  CHECK_FALSE(selected(mail, [](Selection& s) { s.domain = "*.example.com"; }));
  CHECK(selected(mail, [](Selection& s) { s.older = std::chrono::hours(2); }));
  CHECK_FALSE(selected(mail, [](Selection& s) { s.older = std::chrono::hours(3); }));
  CHECK_FALSE(selected(mail, [](Selection& s) { s.from = "joe@example.org", s.to = "nobody@example.com"; }));
  mail.state.recipients[0].status = queue::RecipientStatus::done;
  CHECK_FALSE(selected(mail, [](Selection& s) { s.to = "bob@example.com"; }));
}

TEST_CASE("addresses are the same in either form of their domain") {
  const queue::Message mail = message(id_at(1795668232), "Ü@BÜCHER.example",
                                      {"x@xn--bcher-kva.example", "ü@bücher.example", "y@[IPv6:2001:DB8::1]"});
  for (const char* to : {"x@bücher.example", "X@BÜCHER.example", "x@XN--bcher-kva.example.", "ü@BÜCHER.example",
                         "@BÜCHER.example", "@xn--BCHER-kva.example", "y@[ipv6:2001:db8::1]", "@[IPv6:2001:DB8::1]"}) {
    CAPTURE(to);
    CHECK(selected(mail, [&](Selection& s) { s.to = to; }));
  }
  for (const char* to :
       {"z@bücher.example", "x@bucher.example", "Ü@bücher.example", "bücher.example", "@x@bücher.example", "x", ""}) {
    CAPTURE(to);
    CHECK_FALSE(selected(mail, [&](Selection& s) { s.to = to; }));
  }
  CHECK(selected(mail, [](Selection& s) { s.from = "Ü@xn--bcher-kva.example"; }));
  CHECK_FALSE(selected(mail, [](Selection& s) { s.from = "<>"; }));
}

TEST_CASE("the null sender is meant by <> and by nothing") {
  const queue::Message mail = message(id_at(1795668232), "", {"bob@example.com"});
  CHECK(selected(mail, [](Selection& s) { s.from = "<>"; }));
  CHECK(selected(mail, [](Selection& s) { s.from = ""; }));
  CHECK_FALSE(selected(mail, [](Selection& s) { s.from = "a@example.org"; }));
}

TEST_CASE("a selection survives its way over the socket") {
  Selection selection;
  selection.ids = {id_at(1795668232), id_at(1795668233)};
  selection.all = true;
  selection.from = "<>";
  selection.to = "a@b.org";
  selection.domain = "example.com";
  selection.older = std::chrono::seconds(90);
  const auto back = Selection::from_json(selection.to_json());
  REQUIRE(back);
  CHECK(back->to_json() == selection.to_json());
  CHECK_FALSE(back->empty());
  CHECK(Selection::from_json(Json::object())->empty());
}

TEST_CASE("IDs may be repeated, unordered and marked; nonsense is refused") {
  const QueueId early = id_at(1795668232), late = id_at(1795668233);
  const Json json{{"ids", {late.to_string() + "!", early.to_string() + "*", late.to_string()}}};
  const auto selection = Selection::from_json(json);
  REQUIRE(selection);
  CHECK(selection->ids == std::vector{early, late});
  for (const char* wrong : {R"({"ids":["all"]})", R"({"ids":[7]})", R"({"all":1})", R"({"older":-1})",
                            R"({"older":1e18})", R"({"from":null})", R"({"colour":"red"})", "[]", "7"}) {
    CAPTURE(wrong);
    CHECK_FALSE(Selection::from_json(Json::parse(wrong)));
  }
}

#include "relay/route.hpp"

#include <set>

#include "relay/resolve.hpp"
#include "support/catch.hpp"
#include "support/run.hpp"
#include "support/scripted_resolver.hpp"

namespace greymx::relay {
namespace {

const Identity us{"mx2.example.net",
                  {*IpAddress::parse("127.0.0.1"), *IpAddress::parse("203.0.113.2"), *IpAddress::parse("2001:db8::2")},
                  {*Endpoint::parse("0.0.0.0:25"), *Endpoint::parse("[::]:25"), *Endpoint::parse("127.0.0.5:2525")}};

RouteRequest by_mx(std::string domain = "example.com") {
  RouteRequest request;
  request.domain = std::move(domain);
  return request;
}

RouteRequest explicitly(std::vector<config::HostPort> hosts) {
  RouteRequest request;
  request.domain = "example.com";
  request.hosts = std::move(hosts);
  return request;
}

struct Found {
  Route route;
  std::vector<Host> known;
};

Found find(RouteRequest request, test::ScriptedResolver& dns, std::vector<Host> known = {}, unsigned seed = 1) {
  std::mt19937 random(seed);
  Found found;
  found.known = std::move(known);
  asio::io_context io{1};
  found.route = test::run(io, find_route(std::move(request), dns, us, found.known, random,
                                         std::chrono::steady_clock::now() + std::chrono::seconds(5)));
  return found;
}

Found find(RouteRequest request, std::string_view zone, unsigned seed = 1) {
  test::ScriptedResolver dns(zone);
  return find(std::move(request), dns, {}, seed);
}

std::string list(const Route& route) {
  std::string all;
  for (const Host& host : route.hosts) all += (all.empty() ? "" : " ") + host.remote();
  return all;
}

TEST_CASE("explicit primaries are tried in their order, and no MX is asked") {
  test::ScriptedResolver dns("b.example A 198.51.100.1\na.example A 198.51.100.2");
  const Found found = find(explicitly({{"b.example", 25}, {"a.example", 2525}, {"192.0.2.9", 26}}), dns);
  CHECK(list(found.route) == "b.example[198.51.100.1]:25 a.example[198.51.100.2]:2525 192.0.2.9[192.0.2.9]:26");
  CHECK(dns.count("example.com MX") == 0);
}

TEST_CASE("MX hosts are tried by preference, equal ones in random order") {
  const char* zone =
      "example.com MX 20 late.example\nexample.com MX 10 a.example\nexample.com MX 10 b.example\n"
      "late.example A 198.51.100.3\na.example A 198.51.100.1\nb.example A 198.51.100.2";
  std::set<std::string> orders;
  for (unsigned seed = 0; seed < 40; ++seed) orders.insert(list(find(by_mx(), zone, seed).route));
  CHECK(orders ==
        std::set<std::string>{"a.example[198.51.100.1]:25 b.example[198.51.100.2]:25 late.example[198.51.100.3]:25",
                              "b.example[198.51.100.2]:25 a.example[198.51.100.1]:25 late.example[198.51.100.3]:25"});
}

TEST_CASE("IPv6 and IPv4 take turns, so that a dead family never hides the other") {
  const Found found = find(explicitly({{"mx.example", 25}}),
                           "mx.example AAAA 2001:db8::a\nmx.example AAAA 2001:db8::b\nmx.example AAAA 2001:db8::c\n"
                           "mx.example A 198.51.100.1");
  REQUIRE(found.route.hosts.size() == 4);
  CHECK_FALSE(found.route.hosts[0].endpoint.address.is_v4());
  CHECK(found.route.hosts[1].endpoint.address.is_v4());
}

TEST_CASE("a domain without MX is its own mail host, one with unusable MX is not") {
  CHECK(list(find(by_mx(), "example.com A 198.51.100.7").route) == "example.com[198.51.100.7]:25");
  const Found found = find(by_mx(), "example.com A 198.51.100.7\nexample.com MX 10 gone.example");
  CHECK(found.route.hosts.empty());
  CHECK(found.route.reason == "Host or domain name not found. gone.example has no address");
}

TEST_CASE("we and everything of equal or worse preference are left out, by name and by address") {
  const std::string better = "example.com MX 5 mx1.example\nmx1.example A 198.51.100.1\n";
  const std::string rest =
      "example.com MX 10 mx3.example\nexample.com MX 20 mx4.example\nmx3.example A 198.51.100.3\n"
      "mx4.example A 198.51.100.4\n";
  SECTION("by name") {
    const Found found = find(by_mx(), better + rest + "example.com MX 10 MX2.Example.NET");
    CHECK(list(found.route) == "mx1.example[198.51.100.1]:25");
  }
  SECTION("by address") {
    const Found found = find(by_mx(), better + rest + "example.com MX 10 alias.example\nalias.example A 203.0.113.2");
    CHECK(list(found.route) == "mx1.example[198.51.100.1]:25");
  }
  SECTION("by IPv6 address") {
    const Found found =
        find(by_mx(), better + rest + "example.com MX 10 alias.example\nalias.example AAAA 2001:db8::2");
    CHECK(list(found.route) == "mx1.example[198.51.100.1]:25");
  }
  SECTION("nothing is left: kept, never returned") {
    const Found found = find(by_mx(), rest + "example.com MX 10 mx2.example.net");
    CHECK(found.route.hosts.empty());
    CHECK_FALSE(found.route.permanent);
    CHECK(found.route.dsn == "4.4.6");
    CHECK(found.route.reason == "mail for example.com loops back to myself");
  }
  SECTION("a better one without address") {
    const Found found = find(by_mx(), "example.com MX 5 gone.example\n" + rest + "example.com MX 10 mx2.example.net");
    CHECK_FALSE(found.route.permanent);
    CHECK(found.route.reason == "Host or domain name not found. gone.example has no address");
  }
}

TEST_CASE("an explicit primary is us only if it is one of our listeners") {
  CHECK(find(explicitly({{"127.0.0.1", 25}}), "").route.reason.find("is a listener of ours") != std::string::npos);
  CHECK(find(explicitly({{"203.0.113.2", 25}}), "").route.hosts.empty());
  CHECK(find(explicitly({{"127.0.0.5", 2525}}), "").route.hosts.empty());
  CHECK(find(explicitly({{"203.0.113.2", 2526}}), "").route.hosts.size() == 1);
  CHECK(find(explicitly({{"127.0.0.1", 2525}}), "").route.hosts.size() == 1);
  CHECK_FALSE(find(explicitly({{"127.0.0.1", 25}}), "").route.permanent);
}

TEST_CASE("MX records may not lead to private addresses unless allowed") {
  const char* zone = "example.com MX 10 mx.example\nmx.example A 10.0.0.1\nmx.example A 192.168.0.9";
  const Found refused = find(by_mx(), zone);
  CHECK(refused.route.hosts.empty());
  CHECK(refused.route.reason.find("delivery.private_targets") != std::string::npos);
  RouteRequest request = by_mx();
  request.allow_private = true;
  CHECK(find(request, zone).route.hosts.size() == 2);
  CHECK(find(explicitly({{"10.0.0.1", 25}}), "").route.hosts.size() == 1);
}

TEST_CASE("DNS trouble about our own domains never returns mail, about strangers only what is for good") {
  struct Row {
    const char* zone;
    const char* own;       // dsn
    const char* stranger;  // dsn
  };
  const Row rows[] = {
      {"", "4.4.4", "5.4.4"},
      {"example.com MX SERVFAIL", "4.4.3", "4.4.3"},
      {"example.com MX TIMEOUT", "4.4.3", "4.4.3"},
      {"example.com MX 0 .", "4.1.10", "5.1.10"},
      {"example.com MX 10 mx.example\nmx.example A SERVFAIL\nmx.example AAAA SERVFAIL", "4.4.3", "4.4.3"},
      {"example.com MX 10 mx.example", "4.4.4", "5.4.4"},
      {"example.com TXT x", "4.4.4", "5.4.4"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.zone);
    RouteRequest request = by_mx();
    const Route own = find(request, row.zone).route;
    CHECK(own.dsn == row.own);
    CHECK_FALSE(own.permanent);
    request.own = false;
    const Route stranger = find(request, row.zone).route;
    CHECK(stranger.dsn == row.stranger);
    CHECK(stranger.permanent == (row.stranger[0] == '5'));
  }
}

TEST_CASE("trouble about a smarthost is the admin's to mend, and ends no report") {
  RouteRequest request = explicitly({{"gone.example", 25}});
  request.own = false;
  const Route route = find(request, "").route;
  CHECK(route.hosts.empty());
  CHECK_FALSE(route.permanent);
  CHECK(route.dsn == "4.4.4");
}

TEST_CASE("the last known addresses stand in when DNS fails, not when it says no") {
  test::ScriptedResolver dns("example.com MX 10 mx.example\nmx.example A 198.51.100.1");
  Found found = find(by_mx(), dns);
  REQUIRE(list(found.route) == "mx.example[198.51.100.1]:25");
  SECTION("MX fails") {
    test::ScriptedResolver down("example.com ANY SERVFAIL\nmx.example ANY SERVFAIL");
    CHECK(list(find(by_mx(), down, found.known).route) == "mx.example[198.51.100.1]:25");
  }
  SECTION("the address fails") {
    test::ScriptedResolver down("mx.example ANY SERVFAIL");
    CHECK(list(find(explicitly({{"mx.example", 25}}), down, found.known).route) == "mx.example[198.51.100.1]:25");
    CHECK(find(explicitly({{"other.example", 25}}), down, found.known).route.hosts.empty());
  }
  SECTION("one family fails") {
    const bool v4 = GENERATE(true, false);
    CAPTURE(v4);
    test::ScriptedResolver up("mx.example A 198.51.100.1\nmx.example AAAA 2001:db8::1");
    const RouteRequest request = explicitly({{"mx.example", 25}});
    found = find(request, up, found.known);
    const std::string both = "mx.example[2001:db8::1]:25 mx.example[198.51.100.1]:25";
    REQUIRE(list(found.route) == both);
    test::ScriptedResolver half(v4 ? "mx.example A SERVFAIL\nmx.example AAAA 2001:db8::1"
                                   : "mx.example A 198.51.100.1\nmx.example AAAA SERVFAIL");
    found = find(request, half, found.known);
    CHECK(list(found.route) == both);
    test::ScriptedResolver down("mx.example ANY SERVFAIL");
    CHECK(list(find(request, down, found.known).route) == both);
    test::ScriptedResolver none("mx.example A SERVFAIL\nmx.example AAAA NODATA");
    CHECK(list(find(request, none, found.known).route) == "mx.example[198.51.100.1]:25");
  }
  SECTION("the domain is gone") {
    test::ScriptedResolver gone("other.example A 198.51.100.9");
    CHECK(find(by_mx(), gone, found.known).route.hosts.empty());
    CHECK(find(explicitly({{"mx.example", 25}}), gone, found.known).route.hosts.empty());
  }
}

TEST_CASE("an address literal is its own host") {
  CHECK(list(find(by_mx("[198.51.100.8]"), "").route) == "198.51.100.8[198.51.100.8]:25");
  CHECK(list(find(by_mx("[IPv6:2001:db8::8]"), "").route) == "2001:db8::8[2001:db8::8]:25");
  CHECK(find(by_mx("[10.1.1.1]"), "").route.hosts.empty());
}

TEST_CASE("a hostile zone costs a bounded number of look-ups") {
  std::string zone;
  for (int i = 0; i < 60; ++i) {
    zone += "example.com MX 10 mx" + std::to_string(i) + ".example\n";
    for (int k = 0; k < 30; ++k) {
      zone += "mx" + std::to_string(i) + ".example A 198.51.100." + std::to_string(k) + "\n";
    }
  }
  test::ScriptedResolver dns(zone);
  const Found found = find(by_mx(), dns);
  CHECK(dns.asked().size() <= 1 + 16 * 2);
  CHECK(found.route.hosts.size() <= 16 * 8);
}

}  // namespace
}  // namespace greymx::relay

#include <fmt/format.h>

#include "dns/resolver.hpp"
#include "support/catch.hpp"
#include "support/run.hpp"
#include "support/scripted_resolver.hpp"

using namespace greymx;
using namespace greymx::dns;
using greymx::test::ScriptedResolver;

namespace {

ClientName client_name(ScriptedResolver& resolver, std::string_view ip) {
  return test::run(lookup_client_name(resolver, *IpAddress::parse(ip), SteadyTime::max()));
}
Answer addresses(ScriptedResolver& resolver, std::string name) {
  return test::run(lookup_addresses(resolver, std::move(name), SteadyTime::max()));
}

}  // namespace

TEST_CASE("a PTR name whose address is the client's is its name") {
  ScriptedResolver resolver{"1.2.0.192.in-addr.arpa PTR Mail.Example.org\nmail.example.org A 192.0.2.1"};
  const ClientName name = client_name(resolver, "192.0.2.1");
  CHECK(name.name == "mail.example.org");
  CHECK(name.unconfirmed == "mail.example.org");
  CHECK_FALSE(name.failed);
}

TEST_CASE("IPv6 clients have names too") {
  ScriptedResolver resolver{
      "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR six.test\nsix.test AAAA "
      "2001:db8::1"};
  CHECK(client_name(resolver, "2001:db8::1").name == "six.test");
}

TEST_CASE("a PTR name that leads elsewhere is not confirmed") {
  ScriptedResolver resolver{"1.2.0.192.in-addr.arpa PTR mail.bank.test\nmail.bank.test A 192.0.2.99"};
  const ClientName name = client_name(resolver, "192.0.2.1");
  CHECK(name.name.empty());
  CHECK(name.unconfirmed == "mail.bank.test");
  CHECK_FALSE(name.failed);
}

TEST_CASE("without PTR there is no name and no failure") {
  ScriptedResolver resolver;
  const ClientName name = client_name(resolver, "192.0.2.1");
  CHECK(name.name.empty());
  CHECK(name.unconfirmed.empty());
  CHECK_FALSE(name.failed);
}

TEST_CASE("DNS trouble on either way is a failure unless another name is confirmed") {
  ScriptedResolver resolver{"1.2.0.192.in-addr.arpa PTR SERVFAIL"};
  CHECK(client_name(resolver, "192.0.2.1").failed);
  resolver.add("2.2.0.192.in-addr.arpa PTR sick.test\nsick.test A TIMEOUT");
  CHECK(client_name(resolver, "192.0.2.2").failed);
  resolver.add("2.2.0.192.in-addr.arpa PTR well.test\nwell.test A 192.0.2.2");
  CHECK(client_name(resolver, "192.0.2.2").name == "well.test");
  CHECK_FALSE(client_name(resolver, "192.0.2.2").failed);
}

TEST_CASE("five names are tried, sixteen addresses each") {
  ScriptedResolver resolver;
  for (int i = 1; i <= 6; ++i) {
    resolver.add(fmt::format("1.2.0.192.in-addr.arpa PTR n{}.test\nn{}.test A 192.0.2.{}", i, i, i == 6 ? 1 : 100 + i));
  }
  CHECK(client_name(resolver, "192.0.2.1").name.empty());
  CHECK(resolver.asked().size() == 6);
  for (int i = 0; i < 16; ++i) resolver.add(fmt::format("many.test A 198.51.100.{}", i));
  resolver.add("many.test A 192.0.2.7\n7.2.0.192.in-addr.arpa PTR many.test");
  CHECK(client_name(resolver, "192.0.2.7").name.empty());
}

TEST_CASE("what is no hostname, or an address, is not taken for a name") {
  ScriptedResolver resolver{
      "1.2.0.192.in-addr.arpa PTR a?b.test\n1.2.0.192.in-addr.arpa PTR 192.0.2.1\n"
      "a?b.test A 192.0.2.1\n192.0.2.1 A 192.0.2.1"};
  const ClientName name = client_name(resolver, "192.0.2.1");
  CHECK(name.name.empty());
  CHECK(name.unconfirmed.empty());
}

TEST_CASE("A and AAAA are asked at once: found if either is, failed if either failed") {
  ScriptedResolver resolver{
      "both.test 60 A 192.0.2.1\nboth.test 30 AAAA 2001:db8::1\nfour.test 60 A 192.0.2.1\nfour.test AAAA SERVFAIL\n"
      "sick.test A NODATA\nsick.test AAAA TIMEOUT\nbare.test TXT x"};
  const Answer both = addresses(resolver, "both.test");
  CHECK(both.addresses == std::vector{*IpAddress::parse("192.0.2.1"), *IpAddress::parse("2001:db8::1")});
  CHECK(both.ttl == std::chrono::seconds{30});
  CHECK(addresses(resolver, "four.test").outcome == Outcome::found);
  CHECK(addresses(resolver, "sick.test").outcome == Outcome::failed);
  CHECK(addresses(resolver, "sick.test").error == "timeout");
  CHECK(addresses(resolver, "bare.test").outcome == Outcome::no_record);
  CHECK(addresses(resolver, "none.test").outcome == Outcome::no_domain);
}

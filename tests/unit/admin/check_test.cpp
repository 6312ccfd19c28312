#include "admin/check.hpp"
#include "sample.hpp"
#include "support/catch.hpp"
#include "support/certificate.hpp"

using namespace greymx;
using namespace greymx::admin;

namespace {

const IpAddress us = *IpAddress::parse("192.0.2.9");

dns::Answer found(std::vector<IpAddress> addresses) {
  dns::Answer answer;
  answer.outcome = dns::Outcome::found;
  answer.addresses = std::move(addresses);
  return answer;
}
dns::Answer outcome(dns::Outcome outcome, std::string error = {}) {
  dns::Answer answer;
  answer.outcome = outcome;
  answer.error = std::move(error);
  return answer;
}
dns::Answer records(std::vector<dns::Mx> mx) {
  dns::Answer answer;
  answer.outcome = dns::Outcome::found;
  answer.mx = std::move(mx);
  return answer;
}
bool advised(const CheckLine& line) {
  return (line.result == CheckResult::ok) == line.remedy.empty();
}

}  // namespace

TEST_CASE("the host name is full, resolves, and leads here") {
  CHECK(judge_name("mx2.example.net", found({us}), {us}).result == CheckResult::ok);
  CHECK(judge_name("mx2", found({us}), {us}).result == CheckResult::fail);
  CHECK(judge_name("mx2.example.net", outcome(dns::Outcome::no_domain), {us}).result == CheckResult::fail);
  CHECK(judge_name("mx2.example.net", outcome(dns::Outcome::failed, "timeout"), {us}).result == CheckResult::warn);
  const CheckLine nat = judge_name("mx2.example.net", found({us}), {*IpAddress::parse("10.0.0.5")});
  CHECK(nat.result == CheckResult::warn);
  CHECK(nat.remedy.find("NAT") != std::string::npos);
}

TEST_CASE("a PTR record that leads back is fine, none is not") {
  CHECK(judge_ptr("mx2.example.net", us, {"mx2.example.net", false, ""}).result == CheckResult::ok);
  CHECK(judge_ptr("mx2.example.net", us, {"host9.example.org", false, ""}).result == CheckResult::ok);
  CHECK(judge_ptr("mx2.example.net", us, {"", false, ""}).result == CheckResult::warn);
  CHECK(judge_ptr("mx2.example.net", us, {"", false, "evil.test"}).text.find("evil.test") != std::string::npos);
  CHECK(judge_ptr("mx2.example.net", us, {"", true, ""}).result == CheckResult::warn);
}

TEST_CASE("MX records must name us below the primary") {
  const std::string host = "mx2.example.net";
  CHECK(judge_mx("example.com", host, records({{10, "mx1.example.com"}, {20, host}})).result == CheckResult::ok);
  const CheckLine missing = judge_mx("example.com", host, records({{10, "mx1.example.com"}}));
  CHECK(missing.result == CheckResult::fail);
  CHECK(missing.remedy == "add: example.com. IN MX 20 mx2.example.net.");
  CHECK(judge_mx("example.com", host, records({{10, host}, {20, "mx1.example.com"}})).result == CheckResult::fail);
  CHECK(judge_mx("example.com", host, records({{10, host}, {10, "mx1.example.com"}})).result == CheckResult::fail);
  CHECK(judge_mx("example.com", host, outcome(dns::Outcome::no_record)).result == CheckResult::fail);
  CHECK(judge_mx("example.com", host, outcome(dns::Outcome::failed, "SERVFAIL")).result == CheckResult::warn);
}

TEST_CASE("an SPF record that leaves us out is a warning with the words to add") {
  spf::Outcome result;
  result.result = spf::Result::fail;
  const CheckLine line = judge_spf("example.com", us, result);
  CHECK(line.result == CheckResult::warn);
  CHECK(line.remedy.find("ip4:192.0.2.9") != std::string::npos);
  result.result = spf::Result::pass;
  CHECK(judge_spf("example.com", us, result).result == CheckResult::ok);
  result.result = spf::Result::none;
  CHECK(judge_spf("example.com", us, result).result == CheckResult::ok);
}

TEST_CASE("an MTA-STS policy must name us if it is enforced") {
  const auto judged = [](std::string_view policy) {
    return judge_sts("example.com", "mx2.example.net", policy).result;
  };
  CHECK(judged("version: STSv1\r\nmode: enforce\r\nmx: mx1.example.com\r\nmx: mx2.example.net\r\nmax_age: 86400\r\n") ==
        CheckResult::ok);
  CHECK(judged("version: STSv1\nmode: enforce\nmx: *.example.net\n") == CheckResult::ok);
  CHECK(judged("version: STSv1\nmode: enforce\nmx: *.net\n") == CheckResult::fail);
  CHECK(judged("version: STSv1\nmode: enforce\nmx: mx1.example.com\n") == CheckResult::fail);
  CHECK(judged("version: STSv1\nmode: testing\nmx: mx1.example.com\n") == CheckResult::warn);
  CHECK(judged("version: STSv1\nmode: none\n") == CheckResult::ok);
  CHECK(judged("") == CheckResult::ok);
}

TEST_CASE("of several certificates one must name us and none may expire soon") {
  const std::string host = "mx2.example.net";
  const auto pem = [](const std::string& name, int days, test::KeyType type = test::KeyType::ecdsa) {
    return test::make_certificate(name, type, std::chrono::hours(24 * days + 1)).certificate;
  };
  const std::string ours = pem(host, 30), other = pem("mx.example.org", 60), soon = pem("mx.example.org", 5);
  CHECK(judge_certificates(host, ours).text == "mx2.example.net, 30 days left");
  CHECK(judge_certificates(host, other + ours).result == CheckResult::ok);
  CHECK(judge_certificates(host, other).text == "not for mx2.example.net");
  const CheckLine late = judge_certificates(host, ours + soon);
  CHECK(late.result == CheckResult::warn);
  CHECK(late.text == "5 days left");
  CHECK(judge_certificates(host, ours + pem(host, -1)).text == "has expired");
  CHECK(judge_certificates(host, "nonsense").result == CheckResult::fail);
  CHECK(certificates_for(host, other + ours + pem(host, 30, test::KeyType::rsa)).size() == 2);
}

TEST_CASE("TLSA records must match the certificate or its key") {
  const auto judged = [](std::vector<std::string> records,
                         const std::vector<Certificate>& certificates = {{"cert", "key\x80"}}) {
    dns::Answer answer = outcome(records.empty() ? dns::Outcome::no_domain : dns::Outcome::found);
    answer.texts = std::move(records);
    return judge_tlsa("mx2.example.net", answer, certificates).result;
  };
  CHECK(judge_tlsa("mx2.example.net", outcome(dns::Outcome::failed, "SERVFAIL"), {}).result == CheckResult::warn);
  CHECK(judged({"030000"
                "63657274"},
               {}) == CheckResult::fail);
  CHECK(judged({"030000"
                "63657274"},
               {{"cert", ""}, {"second", ""}}) == CheckResult::fail);
  CHECK(judged({"030000"
                "63657274",
                "030000"
                "7365636f6e64"},
               {{"cert", ""}, {"second", ""}}) == CheckResult::ok);
  CHECK(judged({}) == CheckResult::ok);
  CHECK(judged({"030000"
                "63657274"}) == CheckResult::ok);
  CHECK(judged({"030100"
                "6b657980"}) == CheckResult::ok);
  // SHA-256 of "cert"
  CHECK(judged({"030001"
                "06298432e8066b29e2223bcc23aa9504b56ae508fabf3435508869b9c3190e22"}) == CheckResult::ok);
  CHECK(judged({"030101"
                "06298432e8066b29e2223bcc23aa9504b56ae508fabf3435508869b9c3190e22"}) == CheckResult::fail);
  CHECK(judged({"0301", "zz"}) == CheckResult::fail);
  CHECK(judged({"020101"
                "00"}) == CheckResult::ok);
}

TEST_CASE("space is judged against what refuses mail") {
  CHECK(judge_space(10, 100).result == CheckResult::fail);
  CHECK(judge_space(200, 100).result == CheckResult::warn);
  CHECK(judge_space(400, 100).result == CheckResult::ok);
}

TEST_CASE("whatever is not ok says what to do") {
  for (const CheckLine& line :
       {judge_name("mx2", found({us}), {us}), judge_ptr("h.test", us, {}), judge_mx("example.com", "h.test", {}),
        judge_space(1, 2), judge_sts("example.com", "h.test", "mode: enforce"), judge_tlsa("h.test", {}, {}),
        judge_certificates("h.test", ""), judge_space(9, 1)}) {
    CAPTURE(line.name, line.text);
    CHECK(advised(line));
  }
}

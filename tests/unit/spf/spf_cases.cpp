#include "spf_cases.hpp"

#include "support/catch.hpp"
#include "support/run.hpp"
#include "support/scripted_resolver.hpp"

namespace greymx::test {

void check_spf(std::string_view zone, const std::vector<SpfCase>& cases) {
  ScriptedResolver resolver{zone};
  for (const SpfCase& one : cases) {
    spf::Query query{*IpAddress::parse(one.client), std::string{one.sender}, std::string{one.helo}, "mx2.example.net"};
    const spf::Outcome outcome = run(spf::check_host(resolver, query, SteadyTime::max()));
    CAPTURE(one.name, one.sender, outcome.problem, outcome.mechanism);
    CHECK(to_string(outcome.result) == to_string(one.result));
    if (one.explanation) CHECK(outcome.explanation == *one.explanation);
    const bool error = one.result == spf::Result::temperror || one.result == spf::Result::permerror;
    CHECK(outcome.problem.empty() != error);
  }
}

}  // namespace greymx::test

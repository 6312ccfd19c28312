// `greymx check`: is this machine ready to be an MX? Runs in the tool; the daemon need not.
//
// Judgements are pure; check.cpp fetches what they judge.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.hpp"
#include "dns/resolver.hpp"
#include "spf/spf.hpp"

namespace greymx::admin {

enum class CheckResult : std::uint8_t { ok, warn, fail };
std::string_view to_string(CheckResult result);

struct CheckLine {
  std::string name;
  CheckResult result = CheckResult::ok;
  std::string text;
  std::string remedy;  // what to do; empty if ok
};

// Reports each line as soon as it is known. Blocks; every question has a deadline of a few seconds.
void check_machine(config::ConfigPtr config, const std::function<void(const CheckLine&)>& report);

CheckLine judge_name(const std::string& hostname, const dns::Answer& addresses, const std::vector<IpAddress>& local);
CheckLine judge_ptr(const std::string& hostname, const IpAddress& address, const dns::ClientName& name);
CheckLine judge_mx(const std::string& domain, const std::string& hostname, const dns::Answer& mx);
// `name` is that of our HELO or one of our domains.
CheckLine judge_spf(const std::string& name, const IpAddress& us, const spf::Outcome& outcome);
// An MTA-STS policy (RFC 8461 3.2) that leaves us out makes senders refuse to deliver here.
CheckLine judge_sts(const std::string& domain, const std::string& hostname, std::string_view policy);
// A PEM file of one chain or several: one must name us, none may expire soon.
CheckLine judge_certificates(const std::string& hostname, const std::string& pem);
struct Certificate {
  std::string whole, public_key;  // DER
};
std::vector<Certificate> certificates_for(const std::string& hostname, const std::string& pem);  // those that name it
// TLSA records of our own name (RFC 7672 3.1): each certificate must match one.
CheckLine judge_tlsa(const std::string& hostname, const dns::Answer& answer,
                     const std::vector<Certificate>& certificates);
CheckLine judge_space(std::uint64_t free_bytes, std::uint64_t min_free);

}  // namespace greymx::admin

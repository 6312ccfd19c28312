#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "admin/check.hpp"
#include "admin/views.hpp"
#include "base/mailbox.hpp"

namespace greymx::admin {

namespace {

CheckLine ok(std::string name, std::string text) {
  return {std::move(name), CheckResult::ok, std::move(text), ""};
}
CheckLine warn(std::string name, std::string text, std::string remedy) {
  return {std::move(name), CheckResult::warn, std::move(text), std::move(remedy)};
}
CheckLine bad(std::string name, std::string text, std::string remedy) {
  return {std::move(name), CheckResult::fail, std::move(text), std::move(remedy)};
}

// RFC 6698 2.1.3: the bytes themselves, their SHA-256 or their SHA-512, in hex.
std::string matching_form(std::string_view bytes, const std::string& type) {
  std::vector<unsigned char> form(bytes.begin(), bytes.end());
  if (type != "00") {
    unsigned length = 0;
    form.resize(EVP_MAX_MD_SIZE);
    EVP_Digest(bytes.data(), bytes.size(), form.data(), &length, type == "01" ? EVP_sha256() : EVP_sha512(), nullptr);
    form.resize(length);
  }
  return fmt::format("{:02x}", fmt::join(form, ""));
}

struct Free {
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(BIO* bio) const { BIO_free(bio); }
};
template <class T>
using Pointer = std::unique_ptr<T, Free>;

// The first certificate of each chain: each one that is not the issuer of the one before it.
std::vector<Pointer<X509>> first_of_chains(const std::string& pem) {
  const Pointer<BIO> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  std::vector<Pointer<X509>> first;
  Pointer<X509> before;
  while (Pointer<X509> next{PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)}) {
    const bool issuer = before && X509_verify(before.get(), X509_get0_pubkey(next.get())) == 1;
    X509_up_ref(next.get());
    before.reset(next.get());
    if (!issuer) first.push_back(std::move(next));
  }
  ERR_clear_error();
  return first;
}

bool is_for(X509* certificate, const std::string& hostname) {
  return X509_check_host(certificate, hostname.data(), hostname.size(), 0, nullptr) == 1;
}

template <class Encode>
std::string der(Encode encode) {
  unsigned char* bytes = nullptr;
  const int length = encode(&bytes);
  std::string text(reinterpret_cast<char*>(bytes), static_cast<std::size_t>(std::max(0, length)));
  OPENSSL_free(bytes);
  return text;
}

}  // namespace

std::string_view to_string(CheckResult result) {
  return result == CheckResult::ok ? "ok" : result == CheckResult::warn ? "warn" : "fail";
}

CheckLine judge_name(const std::string& hostname, const dns::Answer& addresses, const std::vector<IpAddress>& local) {
  const std::string name = "hostname";
  if (!is_hostname(hostname, 2)) {
    return bad(name, hostname + " is no full name", "set hostname in relay.conf to the name in your MX records");
  }
  if (addresses.outcome == dns::Outcome::failed) {
    return warn(name, fmt::format("{}: DNS does not answer: {}", hostname, addresses.error), "look again later");
  }
  if (addresses.outcome != dns::Outcome::found) {
    return bad(name, hostname + " has no address", "give it an A (and AAAA) record with this machine's address");
  }
  std::string shown;
  for (const IpAddress& address : addresses.addresses) shown += (shown.empty() ? "" : ", ") + address.to_string();
  const auto here = [&](const IpAddress& address) { return std::ranges::find(local, address) != local.end(); };
  if (std::ranges::all_of(addresses.addresses, here)) return ok(name, hostname + " is " + shown + ", this machine");
  return warn(name, fmt::format("{} is {}, not all of it this machine's", hostname, shown),
              "fine behind NAT that forwards port 25 here; otherwise correct the records");
}

CheckLine judge_ptr(const std::string& hostname, const IpAddress& address, const dns::ClientName& name) {
  const std::string what = "PTR of " + address.to_string();
  if (name.name == hostname) return ok(what, hostname);
  if (name.failed) return warn(what, "DNS does not answer", "look again later");
  const std::string remedy =
      "ask whoever gave you the address to set it to " + hostname + ", or large sites refuse your reports";
  if (!name.name.empty()) return ok(what, name.name + ", which leads back here");
  return warn(what, name.unconfirmed.empty() ? "none" : printable(name.unconfirmed, 255) + " does not lead back here",
              remedy);
}

CheckLine judge_mx(const std::string& domain, const std::string& hostname, const dns::Answer& mx) {
  const std::string what = "MX of " + domain;
  if (mx.outcome == dns::Outcome::failed) return warn(what, "DNS does not answer: " + mx.error, "look again later");
  if (mx.outcome != dns::Outcome::found) {
    return bad(what, "none",
               fmt::format("the domain needs MX records: its primary, then {} with a higher number", hostname));
  }
  const auto us = std::ranges::find(mx.mx, hostname, &dns::Mx::host);
  const auto best = std::ranges::min(mx.mx, {}, &dns::Mx::preference);
  if (us == mx.mx.end()) {
    return bad(what, "does not name " + hostname,
               fmt::format("add: {}. IN MX {} {}.", domain, best.preference + 10, hostname));
  }
  if (us->preference <= best.preference) {
    return bad(what, fmt::format("{} with {} is not below the primary", hostname, us->preference),
               "give it a higher number than the primary's");
  }
  return ok(what, fmt::format("{} {}, below {} {}", us->preference, hostname, best.preference, best.host));
}

CheckLine judge_spf(const std::string& name, const IpAddress& us, const spf::Outcome& outcome) {
  const std::string what = "SPF of " + name;
  const std::string result(spf::to_string(outcome.result));
  const std::string ip = fmt::format("{}:{}", us.is_v4() ? "ip4" : "ip6", us.to_string());
  switch (outcome.result) {
    case spf::Result::none:
      return ok(what, "none");
    case spf::Result::pass:
      return ok(what, "pass for " + us.to_string());
    case spf::Result::neutral:
      return ok(what, "neutral for " + us.to_string());
    case spf::Result::temperror:
      return warn(what, printable(outcome.problem), "look again later");
    case spf::Result::permerror:
      return warn(what, "broken: " + printable(outcome.problem), "mend the record");
    default:
      break;
  }
  return warn(what, fmt::format("{} for {}", result, us.to_string()),
              "add " + ip + " to it, or make sure that the primary does not judge our connections by SPF");
}

CheckLine judge_sts(const std::string& domain, const std::string& hostname, std::string_view policy) {
  const std::string what = "MTA-STS of " + domain;
  bool named = false;
  std::string mode = "none";
  while (!policy.empty()) {
    std::string_view line = policy.substr(0, policy.find('\n'));
    policy.remove_prefix(std::min(policy.size(), line.size() + 1));
    const auto colon = line.find(':');
    if (colon == line.npos) continue;
    std::string value;
    for (const char c : to_lower(line.substr(colon + 1))) value += c > ' ' ? std::string(1, c) : "";
    if (line.substr(0, colon) == "mode") mode = value;
    if (line.substr(0, colon) != "mx") continue;
    const auto dot = hostname.find('.');  // "*.example.net" stands for exactly one label (RFC 8461 4.1)
    named |= value == hostname ||
             (value.starts_with("*.") && dot != hostname.npos && hostname.substr(dot) == value.substr(1));
  }
  if (named || mode == "none") return ok(what, "mode " + printable(mode, 20) + (named ? ", names us" : ""));
  const std::string text = "mode " + printable(mode, 20) + " and " + hostname + " is not in it";
  const std::string remedy = "add \"mx: " + hostname + "\" to the policy";
  return mode == "enforce" ? bad(what, text + ": senders refuse to deliver here", remedy) : warn(what, text, remedy);
}

CheckLine judge_certificates(const std::string& hostname, const std::string& pem) {
  const std::string what = "certificate";
  const std::vector<Pointer<X509>> all = first_of_chains(pem);
  if (all.empty()) return bad(what, "none in PEM form in the file", "correct tls.certificate");
  if (std::ranges::none_of(all, [&](const auto& one) { return is_for(one.get(), hostname); })) {
    return bad(what, "not for " + hostname, "get one that names it");
  }
  int days = std::numeric_limits<int>::max();
  bool expired = false;
  for (const auto& one : all) {
    int left = 0, seconds = 0;
    ASN1_TIME_diff(&left, &seconds, nullptr, X509_get0_notAfter(one.get()));
    days = std::min(days, left);
    expired |= left < 0 || seconds < 0;
  }
  const std::string remedy = "renew it; greymxd reads it again by itself";
  if (expired) return bad(what, "has expired", remedy);
  const std::string text = fmt::format("{} days left", days);
  return days < 14 ? warn(what, text, remedy) : ok(what, hostname + ", " + text);
}

std::vector<Certificate> certificates_for(const std::string& hostname, const std::string& pem) {
  std::vector<Certificate> found;
  for (const auto& one : first_of_chains(pem)) {
    if (!is_for(one.get(), hostname)) continue;
    X509* certificate = one.get();
    found.push_back({der([&](unsigned char** out) { return i2d_X509(certificate, out); }),
                     der([&](unsigned char** out) { return i2d_PUBKEY(X509_get0_pubkey(certificate), out); })});
  }
  return found;
}

CheckLine judge_tlsa(const std::string& hostname, const dns::Answer& answer,
                     const std::vector<Certificate>& certificates) {
  const std::string what = "TLSA of " + hostname;
  const std::vector<std::string>& records = answer.texts;
  if (answer.outcome == dns::Outcome::failed) {
    return warn(what, "DNS does not answer: " + answer.error, "look again later");
  }
  if (records.empty()) return ok(what, "none");
  const auto matches = [&](const Certificate& certificate) {
    return std::ranges::any_of(records, [&](const std::string& record) {
      if (record.size() < 8) return false;
      const std::string& bytes = record.substr(2, 2) == "00" ? certificate.whole : certificate.public_key;
      return matching_form(bytes, record.substr(4, 2)) == record.substr(6);
    });
  };
  const auto issuer = [](const std::string& record) { return record.starts_with("00") || record.starts_with("02"); };
  if (!certificates.empty() && std::ranges::all_of(certificates, matches)) return ok(what, "matches our certificate");
  if (std::ranges::any_of(records, issuer)) return ok(what, "names an issuer; not compared");
  return bad(what, "does not match our certificate: senders that check DANE do not deliver here",
             "publish the record of the new certificate, or take the old one down");
}

CheckLine judge_space(std::uint64_t free_bytes, std::uint64_t min_free) {
  const std::string what = "disk space";
  const std::string text =
      fmt::format("{} free, new mail is refused below {}", human_size(free_bytes), human_size(min_free));
  if (free_bytes < min_free) return bad(what, text, "make room where paths.queue is");
  if (free_bytes / 4 < min_free) return warn(what, text, "an outage of the primary may fill it: make room");
  return ok(what, text);
}

}  // namespace greymx::admin

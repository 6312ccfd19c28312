// What the tests of access share.
#pragma once

#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <map>
#include <set>
#include <string>

#include "access/access.hpp"
#include "support/temp_dir.hpp"

namespace greymx::test {

inline std::string write(const TempDir& directory, const std::string& name, std::string_view content) {
  std::ofstream(directory / name, std::ios::binary) << content;
  return directory / name;
}

// While it lives, no file can be written.
class FullDisk {
 public:
  FullDisk() {
    getrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit none{0, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &none);
  }
  ~FullDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, SIG_DFL);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_{};
};

// Primaries that answer as told, and remember what they were asked.
class FakePrimaries final : public access::Primaries {
 public:
  std::set<std::string> down;
  std::set<std::string> suspect;  // neither up nor down
  std::set<IpAddress> addresses;
  std::string named = "mx1.example.com:25";        // the primary of every domain
  std::map<std::string, access::Callout> answers;  // by address; others as `otherwise`
  access::Callout otherwise = access::Callout::refused;
  std::vector<std::string> asked;
  std::optional<Event> gate;  // set: answers wait for it
  bool dies_when_asked = false;

  bool is_up(const std::string& domain) const override { return !down.contains(domain) && !suspect.contains(domain); }
  bool is_down(const std::string& domain) const override { return down.contains(domain); }
  bool is_primary_address(const IpAddress& ip) const override { return addresses.contains(ip); }
  std::string hosts(const std::string&) const override { return named; }
  Task<Answer> call(std::string address, SteadyTime) override {
    asked.push_back(address);
    if (gate) co_await gate->wait(SteadyTime::max());
    if (dies_when_asked) down.insert(address.substr(address.rfind('@') + 1));
    const auto it = answers.find(address);
    const access::Callout outcome = it == answers.end() ? otherwise : it->second;
    co_return Answer{outcome, "the primary said so"};
  }
};

}  // namespace greymx::test

// SPF evaluation where an attacker owns the sender, the HELO name and all of DNS. Line 1 is the sender, line 2 the HELO
// name; the other lines are TXT answers, which name they belong to depends on the name alone.
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/mailbox.hpp"
#include "spf/record.hpp"
#include "support/run.hpp"

using namespace greymx;

namespace {

void require(bool invariant) {
  if (!invariant) std::abort();
}

class HostileResolver final : public dns::Resolver {
 public:
  explicit HostileResolver(std::vector<std::string> lines) : lines_(std::move(lines)) {}

  std::size_t asked = 0;

  Task<dns::Answer> lookup(std::string name, dns::Type type, SteadyTime) override {
    ++asked;
    const std::size_t hash = std::hash<std::string>{}(name);
    dns::Answer answer;
    answer.outcome = hash % 8 == 7 ? dns::Outcome::no_domain : dns::Outcome::found;
    if (answer.outcome != dns::Outcome::found) co_return answer;
    switch (type) {
      case dns::Type::txt:
        if (!lines_.empty()) answer.texts.push_back(lines_[hash % lines_.size()]);
        break;
      case dns::Type::mx:
        for (std::size_t i = 0; i < hash % 16; ++i) answer.mx.push_back({0, name + std::to_string(i)});
        break;
      case dns::Type::ptr:
        for (std::size_t i = 0; i < hash % 16; ++i) answer.names.push_back("n" + std::to_string(i) + ".example.org");
        break;
      default:
        answer.addresses.push_back(IpAddress::v4(0xc0000200U + static_cast<std::uint32_t>(hash % 4)));
    }
    co_return answer;
  }

 private:
  std::vector<std::string> lines_;
};

std::vector<std::string> split_lines(std::string_view input) {
  std::vector<std::string> lines(1);
  for (const char c : input) {
    if (c == '\n') {
      lines.emplace_back();
    } else {
      lines.back() += c;
    }
  }
  return lines;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 8192) return 0;
  std::vector<std::string> lines = split_lines({reinterpret_cast<const char*>(data), size});
  if (lines.size() < 3) return 0;
  spf::Query query{IpAddress::v4(0xc0000201), lines[0], lines[1], "mx2.example.net"};
  lines.erase(lines.begin(), lines.begin() + 2);
  for (const std::string& line : lines) {
    if (spf::is_spf_record(line)) spf::parse_record(line);
  }
  HostileResolver resolver{std::move(lines)};
  const spf::Outcome outcome = test::run(spf::check_host(resolver, query, SteadyTime::max()));
  require(outcome.lookups <= 10);
  require(resolver.asked <= 1 + 10 * 11 + 11 + 1);  // records, terms with their hosts, PTR with its names, exp
  require(printable(outcome.explanation) == outcome.explanation);
  require(printable(outcome.mechanism) == outcome.mechanism);
  return 0;
}

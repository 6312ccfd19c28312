// Answers from DNS servers. The first byte chooses the type that was asked for; the question is always x.test.
#include <array>
#include <cstdlib>

#include "dns/packet.hpp"

using namespace greymx;

namespace {

void require(bool invariant) {
  if (!invariant) std::abort();
}

void check_name(const std::string& name) {
  require(name.size() <= 253);
  for (const char c : name) require(c >= ' ' && c < 0x7f && !(c >= 'A' && c <= 'Z'));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using dns::Type;
  constexpr std::array types{Type::a, Type::aaaa, Type::mx, Type::txt, Type::ptr, Type::cname, Type::soa, Type::tlsa};
  if (size == 0) return 0;
  const dns::Answer answer = dns::parse_answer({data + 1, size - 1}, "x.test", types[data[0] % types.size()]);
  require(answer.ttl >= std::chrono::seconds{0});
  require((answer.outcome == dns::Outcome::failed) != answer.error.empty());
  require(answer.addresses.size() + answer.texts.size() + answer.names.size() <= dns::max_records);
  require(answer.mx.size() <= dns::max_mx);
  if (answer.outcome != dns::Outcome::found) {
    require(answer.addresses.empty() && answer.texts.empty() && answer.names.empty() && answer.mx.empty());
  }
  for (std::size_t i = 0; i < answer.mx.size(); ++i) {
    check_name(answer.mx[i].host);
    require(i == 0 || answer.mx[i - 1].preference <= answer.mx[i].preference);
  }
  for (const std::string& name : answer.names) check_name(name);
  for (const std::string& text : answer.texts) require(text.size() <= dns::max_text);
  return 0;
}

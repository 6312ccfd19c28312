// The policy protocol: any bytes, in any pieces, give the same requests; a question is either bounded and usable or
// refused.
#include <cstdlib>

#include "greylist/policy_protocol.hpp"

using namespace greymx;
using namespace greymx::greylist;

namespace {

std::vector<PolicyRequest> parse(std::string_view bytes, std::size_t piece) {
  PolicyParser parser;
  std::vector<PolicyRequest> requests;
  while (!bytes.empty()) {
    std::string_view some = bytes.substr(0, piece);
    const std::size_t before = some.size();
    const auto status = parser.feed(some);
    bytes.remove_prefix(before - some.size());
    if (status == PolicyParser::Status::bad) break;
    if (status == PolicyParser::Status::complete) requests.push_back(parser.take());
  }
  return requests;
}

void require(bool what) {
  if (!what) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto requests = parse(bytes, bytes.size());
  const auto again = parse(bytes, 1 + size % 7);
  require(requests.size() == again.size());
  config::Config config;
  config.access.trusted_networks = {*Network::parse("127.0.0.0/8")};
  for (std::size_t i = 0; i < requests.size(); ++i) {
    require(requests[i].sender == again[i].sender && requests[i].client_address == again[i].client_address);
    require(requests[i].recipient.value_or("").size() <= 512);
    const auto question = to_question(requests[i], config, true);
    require(!question || !*question || !(*question)->recipient.empty());
    Answer answer;
    answer.action = Action::defer;
    answer.text = "Greylisted";
    require(policy_action(requests[i], answer).find('\n') == std::string::npos);
  }
  return 0;
}

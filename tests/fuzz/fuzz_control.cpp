// The control socket: whatever line a peer sends is refused or is a request that survives its way, and running it
// ends; reply lines and policies that the tool reads are bounded nonsense at worst.
#include "admin/check.hpp"
#include "admin/client.hpp"
#include "fakes.hpp"

using namespace greymx;
using namespace greymx::admin;

namespace {

class Nowhere final : public Sink {
 public:
  Task<bool> send(std::string lines) override {
    for (std::size_t begin = 0, end; (end = lines.find('\n', begin)) != lines.npos; begin = end + 1) {
      if (Json::parse(lines.substr(begin, end - begin), nullptr, false).is_discarded()) std::abort();
    }
    co_return true;
  }
};

class Once final : public Source {
 public:
  explicit Once(std::string lines) : lines_(std::move(lines)) {}
  Task<Result<std::string>> more() override { co_return std::exchange(lines_, {}); }

 private:
  std::string lines_;
};

void refill(test::FakeDaemon& daemon) {
  daemon.calls.clear();
  daemon.log.clear();
  daemon.store->records.clear();
  for (int i = 0; i < 3; ++i) {
    const QueueId id = test::id_at(1795448000 + i);
    daemon.spool.put(test::message(id, i == 0 ? "" : "a@example.org", {"b@example.com", "c@other.test"}),
                     "Subject: x\r\n");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static test::FakeDaemon daemon;
  static std::FILE* const nowhere = std::fopen("/dev/null", "w");
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view line = input.substr(0, input.find('\n'));
  if (const auto request = parse_request(line)) {
    const std::string again = to_line(*request);
    const auto back = parse_request(again);
    if (!back || to_line(*back) != again) std::abort();
    refill(daemon);
    Once source(std::string(input.substr(std::min(size, line.size() + 1))));
    Nowhere sink;
    const Ending ending = test::run(daemon.io, run_command(*request, daemon.services, source, sink, "uid 0"));
    if (ending.exit != 0 && ending.error.empty()) std::abort();
  }
  Printer printer(nowhere, false, "/nonexistent");
  printer.line(line);
  counters_of(input);
  judge_sts("example.com", "mx2.example.net", input);
  dns::Answer tlsa;
  tlsa.outcome = dns::Outcome::found;
  tlsa.texts.emplace_back(line);
  judge_tlsa("mx2.example.net", tlsa, {{"certificate", "key"}});
  return 0;
}

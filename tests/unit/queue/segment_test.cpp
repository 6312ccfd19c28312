// Segments made ready ahead: recovery reads them by number, so their numbers must tell the order of their records.
#include <atomic>
#include <future>

#include "fixture.hpp"
#include "queue/segment.hpp"

using namespace greymx;
using namespace greymx::test;
using namespace std::chrono_literals;

namespace {

class RenameHook final : public MemoryFiles {  // tells of renames before they are done
 public:
  std::function<void()> on_rename;

  Result<> rename(const std::string& from, const std::string& to) override {
    on_rename();
    return MemoryFiles::rename(from, to);
  }
};

}  // namespace

TEST_CASE(
    "segments: one that the writer needs while another is made ready never gets a higher number than a later one") {
  RenameHook files;
  REQUIRE(files.make_directory("/spool").has_value());
  SegmentStore store(files, "/spool", 64 * 1024);
  std::atomic<int> renames = 0;
  std::future<Result<std::shared_ptr<Segment>>> needed;
  files.on_rename = [&] {
    if (renames++ > 0) return;
    needed = std::async(std::launch::async, [&] { return store.next(WallTime{}, false); });
    needed.wait_for(200ms);  // time enough to overtake
  };
  REQUIRE(store.refill(WallTime{}).has_value());
  const auto first = needed.get();
  const auto second = store.next(WallTime{}, false);
  REQUIRE(first.has_value());
  REQUIRE(second.has_value());
  CHECK((*first)->number() < (*second)->number());
}

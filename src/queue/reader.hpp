// For `greymx spool verify` and `dump`: a spool as it is on disk, read without its lock, daemon or not.
#pragma once

#include "queue/spool.hpp"

namespace greymx::queue {

struct SpoolReport {
  std::uint64_t segments = 0, messages = 0;
  std::vector<std::string> failures;  // something is damaged or missing
  std::vector<std::string> warnings;  // something is left over
};
// Reads every record and every content and compares all checksums.
Result<SpoolReport> verify_spool(const std::string& path, Files& files);

// One JSON object for each segment, message, change and end, in the order of the log; false from `out` ends it.
Result<> dump_spool(const std::string& path, Files& files, const std::function<bool(const std::string& line)>& out);

}  // namespace greymx::queue

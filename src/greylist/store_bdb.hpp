// The greylist's store on Berkeley DB: one thread that takes all that waits as one transaction, one that flushes and
// makes checkpoints beside it. What was answered survives kill -9; a power cut may cost the last second.
//
// Trouble never reaches a mail for longer than its deadline: a store that fails is let go of at once, everything asked
// of it is an error until a background attempt, every few seconds, has opened it again. Damaged files are moved aside,
// the records in them that are whole are salvaged, and a person is told. A full disk is waited for.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/alerts.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "greylist/table.hpp"

namespace greymx::greylist {

struct BdbSettings {
  std::string directory;  // made if absent; see bdb.hpp for what is in it
  Rules rules;
  Caps caps;
  std::size_t cache = 256UL << 20;  // at most; grows as it is used
  std::chrono::milliseconds reopen_after{3000};
};

// Fails only for what an admin must mend: the directory cannot be made, or another process uses it. A store that
// cannot be read now is opened in the background. `clock` and the rest must outlive the store.
Result<std::unique_ptr<Store>> open_bdb_store(const BdbSettings& settings, const Clock& clock, Log& log,
                                              Alerts& alerts);

}  // namespace greymx::greylist

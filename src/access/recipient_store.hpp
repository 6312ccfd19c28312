// What is remembered of recipients, on disk: address (Mailbox::key(), or "@domain" for a primary that takes everybody)
// -> was it taken, when we learnt that, and from whom.
//
// Thread: one, which may block. A store that fails closes itself and is opened again a minute later; until then it
// tells nothing and takes nothing.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/alerts.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "greylist/bdb.hpp"

namespace greymx::access {

struct Remembered {
  bool good = false;
  std::int64_t at = 0;        // seconds since 1970; 0 = never heard of
  std::uint64_t primary = 0;  // that said so: a hash of its hosts; 0 = was not noted
  bool operator==(const Remembered&) const = default;
};

class RecipientStore {
 public:
  using Records = std::vector<std::pair<std::string, Remembered>>;

  RecipientStore(std::string directory, const Clock& clock, Log& log, Alerts& alerts);
  std::optional<Remembered> get(const std::string& key);  // absent: the store fails; who knows?
  void put(const Records& records);
  // Erases of the next thousand records those that `expired` names; true at the end of a round.
  bool expire(const std::function<bool(const std::string& key, const Remembered&)>& expired);
  void flush();
  std::size_t size() const { return size_; }  // as of the last round, and what came since

 private:
  bool ready();  // opens it if it is time to try again
  Result<> prove(bdb::Environment& environment);
  template <class Work>
  bool work(Work work);

  std::string directory_;
  const Clock& clock_;
  Log& log_;
  Alerts& alerts_;
  std::unique_ptr<bdb::Environment> environment_;
  std::optional<bdb::Database> database_;  // valid while the environment is
  SteadyTime try_again_{};
  std::string next_;         // where the next slice of expire() begins
  std::size_t counted_ = 0;  // in this round
  std::size_t size_ = 0;
};

}  // namespace greymx::access

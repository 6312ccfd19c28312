// All files that [access] and the domains name, as one immutable value, and who rereads them.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "access/access_file.hpp"
#include "access/recipient_list.hpp"
#include "base/alerts.hpp"
#include "base/clock.hpp"
#include "base/files.hpp"
#include "base/log.hpp"

namespace greymx::access {

// Who wants files read: nobody (they have changed), a signal (a certificate's renewal may send it), the admin.
enum class Reload : std::uint8_t { none, signal, command };

class Tables {
 public:
  struct Loaded {
    std::shared_ptr<const Tables> tables;      // null: a file is bad and there is no earlier version of it
    std::vector<config::Diagnostic> errors;    // each such file keeps its earlier version
    std::vector<config::Diagnostic> warnings;  // of lines that were left out of what was read
  };
  // Reads what has changed since `previous`. A list of recipients that is empty or more than 20 % shorter than the one
  // before, in an earlier run of the daemon too, is only believed if the admin asked for it; without an earlier version
  // it counts as no list. Blocks on the disk, seconds for large lists; never on a network thread.
  static Loaded load(const config::Config& config, const std::shared_ptr<const Tables>& previous = {},
                     Reload reload = Reload::none);

  const AccessFile* file(const std::string& path) const;                // null if `path` is empty
  const RecipientList* recipients(const config::Domain& domain) const;  // null: the domain has none
  std::map<std::string, FileStamp> stamps() const;                      // of every file as it was when read
  std::vector<std::string> held_back() const;  // lists that are not believed, and why: for alerts
  // Kept in paths.state, where load() finds it after a restart: how long each list was when it was last believed.
  static std::string sizes_file(const config::Config& config) { return config.state_path + "/list-sizes"; }
  std::string sizes() const;

 private:
  struct Piece {  // an access file or a list
    std::string path;
    FileStamp stamp;
    std::shared_ptr<const AccessFile> file;
    std::shared_ptr<const RecipientList> list;
    std::size_t size = 0;   // of the list that was believed last
    bool trouble = false;   // the content is of an earlier state: to be read again when the admin asks
    std::string held_back;  // why a list is not believed
  };
  std::map<std::string, Piece> pieces_;  // access files by path, lists by domain and path
};

// Rereads files once they have changed and then been still for 5 s: an editor or export may still be writing. Looks
// every second on a thread of its own, where it also reads.
class TableWatcher {
 public:
  using Adopt = std::function<void(std::shared_ptr<const Tables>)>;  // called on the watcher's or reload()'s thread

  TableWatcher(config::ConfigPtr config, std::shared_ptr<const Tables> tables, const Clock& clock, Log& log,
               Alerts& alerts, Adopt adopt);
  ~TableWatcher();
  void start();
  void tick();  // one look; what the thread does every second
  // Reads what changed and what was wrong. Adopts and watches the result unless `tables` is null. Blocks.
  Tables::Loaded reload(config::ConfigPtr config, Reload reload);

 private:
  void look(SteadyTime now);
  void tell(const Tables::Loaded& loaded);
  void keep_sizes();
  void alert(SteadyTime now);

  const std::string sizes_file_;  // where the daemon started: a new paths.state needs a restart
  std::mutex mutex_;              // all below
  config::ConfigPtr config_;
  std::shared_ptr<const Tables> tables_;
  std::shared_ptr<const Tables> kept_;  // those whose sizes were written
  std::map<std::string, FileStamp> seen_;
  SteadyTime changed_{};
  bool dirty_ = false;
  SteadyTime next_alert_{};
  const Clock& clock_;
  Log& log_;
  Alerts& alerts_;
  Adopt adopt_;
  std::condition_variable_any wake_;
  std::jthread thread_;
};

}  // namespace greymx::access

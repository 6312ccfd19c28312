#include "access/tables.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include "base/files.hpp"

namespace greymx::access {

namespace {

constexpr std::chrono::seconds stillness{5};
constexpr std::chrono::hours alert_interval{1};

std::string name_of(const config::Domain& domain) {
  return (domain.wildcard ? "*." : "") + domain.name;
}

std::string list_key(const config::Domain& domain) {
  return name_of(domain) + " " + domain.recipients;
}

std::vector<std::string> access_paths(const config::Config& config) {
  std::vector<std::string> paths;
  for (const std::string* path :
       {&config.access.clients, &config.access.helo, &config.access.senders, &config.access.recipients}) {
    if (!path->empty()) paths.push_back(*path);
  }
  return paths;
}

std::string half_an_export(const std::string& path, const config::Domain& domain, std::size_t before, std::size_t now) {
  return fmt::format(
      "{}: {} recipients of {}, {} before: this looks like half an export and is not adopted; if it is "
      "right, run 'greymx reload'",
      path, now, name_of(domain), before);
}

}  // namespace

Stamp Stamp::of(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return {};
  return {status.st_mtim.tv_sec * 1'000'000'000LL + status.st_mtim.tv_nsec, static_cast<std::uint64_t>(status.st_size),
          status.st_ino};
}

// The earlier piece if the file is as it was then, else a new one; `read` sets what is wrong with it, and the earlier
// content stays.
template <class T, class Read>
Tables::Piece<T> Tables::refresh(const Pieces<T>* previous, const std::string& key, const std::string& path, bool again,
                                 Read read) {
  const Stamp stamp = Stamp::of(path);
  Piece<T> earlier;
  if (previous != nullptr && previous->contains(key)) earlier = previous->at(key);
  if (earlier.stamp == stamp && stamp != Stamp{} && (!again || earlier.trouble.empty())) return earlier;
  Piece<T> piece;
  piece.stamp = stamp;
  piece.content = read(earlier.content.get(), piece.trouble);
  if (!piece.trouble.empty()) piece.content = earlier.content;
  return piece;
}

Tables::Loaded Tables::load(const config::Config& config, const std::shared_ptr<const Tables>& previous,
                            bool explicit_reload) {
  Loaded loaded;
  const auto tables = std::make_shared<Tables>();
  bool complete = true;
  const auto problem = [&](const std::string& path, const std::string& text) {
    loaded.errors.push_back({path, 1, 1, text});
    return text;
  };
  for (const std::string& path : access_paths(config)) {
    const auto read = [&](const AccessFile*, std::string& trouble) -> std::shared_ptr<const AccessFile> {
      const auto text = read_file(path);
      if (!text) return trouble = problem(path, text.error().text), nullptr;
      const std::size_t errors = loaded.errors.size();
      auto file = AccessFile::parse(*text, path, loaded.errors);
      if (loaded.errors.size() > errors) trouble = "errors";
      return file;
    };
    Piece<AccessFile>& piece = tables->files_[path];
    piece = refresh(previous ? &previous->files_ : nullptr, path, path, explicit_reload, read);
    complete = complete && piece.content != nullptr;
  }
  for (const config::Domain& domain : config.domains) {
    const std::string& path = domain.recipients;
    if (path.empty()) continue;
    bool readable = true;
    const auto read = [&](const RecipientList* old, std::string& trouble) -> std::shared_ptr<const RecipientList> {
      auto list = RecipientList::read(path, domain);
      readable = list.has_value();
      if (!list) return trouble = problem(path, list.error().text), nullptr;
      const std::size_t before = old != nullptr ? old->size() : 0;
      const std::size_t now = (*list)->size();
      const bool believed = explicit_reload || (now > 0 && now * 5 >= before * 4);
      if (!believed) trouble = half_an_export(path, domain, before, now);
      return *list;
    };
    const std::string key = list_key(domain);
    Piece<RecipientList>& piece = tables->lists_[key];
    piece = refresh(previous ? &previous->lists_ : nullptr, key, path, explicit_reload, read);
    complete = complete && (readable || piece.content != nullptr);
    tables->list_paths_[key] = path;
  }
  if (complete) loaded.tables = tables;
  return loaded;
}

const AccessFile* Tables::file(const std::string& path) const {
  const auto it = files_.find(path);
  return it == files_.end() ? nullptr : it->second.content.get();
}

const RecipientList* Tables::recipients(const config::Domain& domain) const {
  if (domain.recipients.empty()) return nullptr;
  const auto it = lists_.find(list_key(domain));
  return it == lists_.end() ? nullptr : it->second.content.get();
}

std::map<std::string, Stamp> Tables::stamps() const {
  std::map<std::string, Stamp> stamps;
  for (const auto& [path, piece] : files_) stamps[path] = piece.stamp;
  for (const auto& [key, piece] : lists_) stamps[list_paths_.at(key)] = piece.stamp;
  return stamps;
}

std::vector<std::string> Tables::held_back() const {
  std::vector<std::string> texts;
  for (const auto& [key, piece] : lists_) {
    if (!piece.trouble.empty()) texts.push_back(piece.trouble);
  }
  return texts;
}

TableWatcher::TableWatcher(config::ConfigPtr config, std::shared_ptr<const Tables> tables, const Clock& clock, Log& log,
                           Alerts& alerts, Adopt adopt)
    : config_(std::move(config)),
      tables_(std::move(tables)),
      seen_(tables_->stamps()),
      clock_(clock),
      log_(log),
      alerts_(alerts),
      adopt_(std::move(adopt)) {}

TableWatcher::~TableWatcher() {
  thread_ = {};  // asks it to stop and joins before the rest goes
}

void TableWatcher::start() {
  thread_ = std::jthread([this](const std::stop_token& stop) {
    std::mutex sleeping;
    std::unique_lock lock(sleeping);
    while (!stop.stop_requested()) {
      tick();
      wake_.wait_for(lock, stop, std::chrono::seconds(1), [] { return false; });
    }
  });
}

void TableWatcher::tick() {
  const std::scoped_lock lock(mutex_);
  const SteadyTime now = clock_.steady();
  look(now);
  if (dirty_ && now - changed_ >= stillness) {
    dirty_ = false;
    const Tables::Loaded loaded = Tables::load(*config_, tables_);
    tell(loaded);
    if (loaded.tables) adopt_(tables_ = loaded.tables);
  }
  alert(now);
}

void TableWatcher::look(SteadyTime now) {
  for (auto& [path, stamp] : seen_) {
    const Stamp current = Stamp::of(path);
    if (current == stamp) continue;
    stamp = current;
    changed_ = now;
    dirty_ = true;
  }
}

Tables::Loaded TableWatcher::reload(config::ConfigPtr config) {
  const std::scoped_lock lock(mutex_);
  Tables::Loaded loaded = Tables::load(*config, tables_, true);
  tell(loaded);
  if (!loaded.tables) return loaded;
  config_ = std::move(config);
  tables_ = loaded.tables;
  seen_ = tables_->stamps();
  dirty_ = false;
  adopt_(tables_);
  return loaded;
}

void TableWatcher::tell(const Tables::Loaded& loaded) {
  for (const config::Diagnostic& error : loaded.errors) log_.error("master", error.to_string());
  if (!loaded.errors.empty() && loaded.tables) log_.warning("master", "files with errors are used as they were before");
  if (loaded.tables && loaded.tables->held_back() != tables_->held_back()) next_alert_ = {};
}

void TableWatcher::alert(SteadyTime now) {
  if (now < next_alert_) return;
  next_alert_ = now + alert_interval;
  for (const std::string& text : tables_->held_back()) alerts_.raise("a list of recipients is not adopted", text);
}

}  // namespace greymx::access

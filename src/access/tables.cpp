#include "access/tables.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

namespace greymx::access {

namespace {

constexpr std::chrono::seconds stillness{5};
constexpr std::chrono::hours alert_interval{1};

// Two entries may share a file and take different addresses from it.
std::string list_key(const config::Domain& domain) {
  return domain.shown_name() + " " + domain.recipients;
}

std::string recipients_key(const config::Domain& domain) {
  return fmt::format("domains.\"{}\".recipients", domain.shown_name());
}

// By the keys that name them.
std::vector<std::pair<std::string, std::string>> access_paths(const config::Access& access) {
  std::vector<std::pair<std::string, std::string>> paths{{"access.clients", access.clients},
                                                         {"access.helo", access.helo},
                                                         {"access.senders", access.senders},
                                                         {"access.recipients", access.recipients}};
  std::erase_if(paths, [](const auto& path) { return path.second.empty(); });
  return paths;
}

std::string half_an_export(const config::Domain& domain, std::size_t before, std::size_t now, bool has_list) {
  const std::string name = domain.shown_name();
  std::string text = fmt::format(
      "{}: {} recipients of {}, {} before: this looks like half an export and is not adopted; if it is right, run "
      "'greymx reload'",
      domain.recipients, now, name, before);
  if (!has_list) text += "; until then " + name + " counts as one without a list";
  return text;
}

// One file may serve many domains, but what relay.conf does not have may be misspelt.
std::optional<config::Diagnostic> about_others(const config::Config& config, const std::string& path,
                                               const RecipientList::Others& others) {
  RecipientList::Skipped all;
  for (const auto& [name, skipped] : others) {
    if (config.find_domain(name) != nullptr) continue;
    all.first_line = all.lines == 0 ? skipped.first_line : std::min(all.first_line, skipped.first_line);
    all.lines += skipped.lines;
  }
  if (all.lines == 0) return std::nullopt;
  return config::Diagnostic{path, all.first_line, 1,
                            fmt::format("not an address of a domain in relay.conf: left out ({} line{} in all)",
                                        all.lines, all.lines == 1 ? "" : "s")};
}

// "SIZE KEY" a line.
std::map<std::string, std::size_t> read_sizes(const std::string& path) {
  std::map<std::string, std::size_t> sizes;
  std::istringstream lines(read_file(path).value_or(""));
  std::size_t size = 0;
  for (std::string key; lines >> size && lines.get() == ' ' && std::getline(lines, key);) sizes[key] = size;
  return sizes;
}

}  // namespace

Tables::Loaded Tables::load(const config::Config& config, const std::shared_ptr<const Tables>& previous,
                            Reload reload) {
  Loaded loaded;
  const auto tables = std::make_shared<Tables>();
  bool usable = true;
  const auto sizes = previous ? std::map<std::string, std::size_t>() : read_sizes(sizes_file(config));
  // Starts from the earlier piece; `read` replaces its content, or says no and leaves it.
  const auto refresh = [&](const std::string& key, const std::string& path, const auto& read) {
    Piece& piece = tables->pieces_[key];
    if (previous && previous->pieces_.contains(key)) piece = previous->pieces_.at(key);
    if (const auto known = sizes.find(key); known != sizes.end()) piece.size = known->second;
    const FileStamp stamp = FileStamp::of(path);
    const bool again = reload != Reload::none && piece.trouble;
    if (stamp == FileStamp{} || stamp != piece.stamp || again) {
      piece.path = path;
      piece.stamp = stamp;
      piece.held_back.clear();
      piece.trouble = !read(piece);
    }
    usable = usable && (piece.file || piece.list || !piece.held_back.empty());
  };
  const auto unreadable = [&](const std::string& key, const Error& error) {
    loaded.errors.push_back({{}, 0, 0, key + ": " + error.text});
    return false;
  };
  for (const auto& [key, path] : access_paths(config.access)) {
    refresh(path, path, [&](Piece& piece) {
      const auto text = read_file(path);
      if (!text) return unreadable(key, text.error());
      const std::size_t errors = loaded.errors.size();
      auto file = AccessFile::parse(*text, path, loaded.errors);
      const bool good = loaded.errors.size() == errors;
      if (good) piece.file = std::move(file);
      return good;
    });
  }
  for (const config::Domain& domain : config.domains) {
    if (domain.recipients.empty()) continue;
    refresh(list_key(domain), domain.recipients, [&](Piece& piece) {
      RecipientList::Others others;
      auto list = RecipientList::read(domain.recipients, domain, &others);
      if (!list) return unreadable(recipients_key(domain), list.error());
      auto warning = about_others(config, domain.recipients, others);
      const bool told =
          std::ranges::any_of(loaded.warnings, [&](const auto& w) { return w.file == domain.recipients; });
      if (warning && !told) loaded.warnings.push_back(std::move(*warning));
      const std::size_t before = piece.size, now = (*list)->size();
      const bool same = piece.list && now == before;  // an empty one, too, that the admin had adopted
      const bool believed = reload == Reload::command || same || (now > 0 && now * 5 >= before * 4);
      if (believed) {
        piece.list = std::move(*list);
        piece.size = now;
      } else {
        piece.held_back = half_an_export(domain, before, now, piece.list != nullptr);
      }
      return believed;
    });
  }
  if (usable) loaded.tables = tables;
  return loaded;
}

const AccessFile* Tables::file(const std::string& path) const {
  const auto it = pieces_.find(path);
  return it == pieces_.end() ? nullptr : it->second.file.get();
}

const RecipientList* Tables::recipients(const config::Domain& domain) const {
  const auto it = pieces_.find(list_key(domain));
  return it == pieces_.end() ? nullptr : it->second.list.get();
}

std::map<std::string, FileStamp> Tables::stamps() const {
  std::map<std::string, FileStamp> stamps;
  for (const auto& [key, piece] : pieces_) stamps[piece.path] = piece.stamp;
  return stamps;
}

std::vector<std::string> Tables::held_back() const {
  std::vector<std::string> texts;
  for (const auto& [key, piece] : pieces_) {
    if (!piece.held_back.empty()) texts.push_back(piece.held_back);
  }
  return texts;
}

std::string Tables::sizes() const {
  std::string text;
  for (const auto& [key, piece] : pieces_) {
    if (piece.size > 0) text += fmt::format("{} {}\n", piece.size, key);
  }
  return text;
}

TableWatcher::TableWatcher(config::ConfigPtr config, std::shared_ptr<const Tables> tables, const Clock& clock, Log& log,
                           Alerts& alerts, Adopt adopt)
    : sizes_file_(Tables::sizes_file(*config)),
      config_(std::move(config)),
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
  keep_sizes();
  alert(now);
}

void TableWatcher::look(SteadyTime now) {
  for (auto& [path, stamp] : seen_) {
    const FileStamp current = FileStamp::of(path);
    if (current == stamp) continue;
    stamp = current;
    changed_ = now;
    dirty_ = true;
  }
}

Tables::Loaded TableWatcher::reload(config::ConfigPtr config, Reload reload) {
  const std::scoped_lock lock(mutex_);
  Tables::Loaded loaded = Tables::load(*config, tables_, reload);
  tell(loaded);
  if (!loaded.tables) return loaded;
  config_ = std::move(config);
  tables_ = loaded.tables;
  seen_ = tables_->stamps();
  dirty_ = false;
  keep_sizes();
  return loaded;
}

void TableWatcher::tell(const Tables::Loaded& loaded) {
  for (const config::Diagnostic& error : loaded.errors) log_.error("master", error.to_string());
  for (const config::Diagnostic& warning : loaded.warnings) log_.warning("master", warning.to_string());
  if (!loaded.errors.empty() && loaded.tables) log_.warning("master", "files with errors are used as they were before");
  if (loaded.tables && loaded.tables->held_back() != tables_->held_back()) next_alert_ = {};
}

void TableWatcher::keep_sizes() {
  if (kept_ == tables_) return;
  const bool same = kept_ && kept_->sizes() == tables_->sizes();
  kept_ = tables_;
  if (same) return;
  if (const auto written = replace_file(sizes_file_, tables_->sizes()); !written)
    log_.warning("master", "the lengths of the lists of recipients are not kept: " + written.error().text);
}

void TableWatcher::alert(SteadyTime now) {
  if (now < next_alert_) return;
  next_alert_ = now + alert_interval;
  for (const std::string& text : tables_->held_back()) alerts_.raise("a list of recipients is not adopted", text);
}

}  // namespace greymx::access

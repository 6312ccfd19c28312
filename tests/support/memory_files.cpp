#include "support/memory_files.hpp"

#include <algorithm>
#include <cerrno>

namespace greymx::test {

namespace {

constexpr std::uint64_t sector = 512;

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

class MemoryFiles::OpenFile final : public File {
 public:
  OpenFile(MemoryFiles& owner, std::string path, std::shared_ptr<Node> node, bool writable, bool locked)
      : owner_(owner),
        path_(std::move(path)),
        node_(std::move(node)),
        writable_(writable),
        locked_(locked),
        generation_(owner.generation_) {}

  ~OpenFile() override {
    const std::scoped_lock lock(owner_.mutex_);
    if (locked_ && generation_ == owner_.generation_) owner_.locked_.erase(path_);
  }

  Result<std::size_t> read(std::uint64_t offset, std::span<char> into) override {
    const std::scoped_lock lock(owner_.mutex_);
    if (auto ready = check("read", false); !ready) return std::unexpected(ready.error());
    if (offset >= node_->live.size()) return 0;
    return node_->live.copy(into.data(), into.size(), offset);
  }

  Result<> write(std::uint64_t offset, std::span<const char> bytes) override {
    const std::scoped_lock lock(owner_.mutex_);
    const bool due = owner_.fail_at_ == owner_.operations_ + 1 && !owner_.dead_;
    const bool torn = due && owner_.fault_ == Fault::torn && generation_ == owner_.generation_;
    if (auto ready = check("write", true); !ready) {
      if (torn) change({0, offset, std::string(bytes.begin(), bytes.begin() + bytes.size() / 2), {}});
      return ready;
    }
    if (!fits(offset + bytes.size())) return fail_errno(ENOSPC, "write " + path_);
    change({0, offset, std::string(bytes.begin(), bytes.end()), {}});
    return {};
  }

  Result<> sync() override {
    const std::scoped_lock lock(owner_.mutex_);
    const Result<> ready = check("sync", false);
    if (ready) {
      for (const Change& made : node_->unsynced) apply(node_->durable, made);
    }
    node_->unsynced.clear();  // also after a failure: the pages count as clean
    return ready;
  }

  Result<> allocate(std::uint64_t size) override {
    const std::scoped_lock lock(owner_.mutex_);
    if (auto ready = check("allocate", true); !ready) return ready;
    if (!fits(size)) return fail_errno(ENOSPC, "allocate " + path_);
    if (size > node_->live.size()) change({0, 0, {}, size});
    return {};
  }

  Result<> truncate(std::uint64_t size) override {
    const std::scoped_lock lock(owner_.mutex_);
    if (auto ready = check("truncate", true); !ready) return ready;
    change({0, 0, {}, size});
    return {};
  }

  Result<std::uint64_t> size() override {
    const std::scoped_lock lock(owner_.mutex_);
    if (auto ready = check("size", false); !ready) return std::unexpected(ready.error());
    return node_->live.size();
  }

  Result<> close() override {
    const std::scoped_lock lock(owner_.mutex_);
    return check("close", false);
  }

 private:
  Result<> check(const std::string& name, bool writes) {
    if (auto ready = owner_.faulty(name, path_); !ready) return ready;
    if (generation_ != owner_.generation_) return fail_errno(EIO, name + " after the crash " + path_);
    if (writes && !writable_) return fail_errno(EBADF, name + " " + path_);
    return {};
  }

  bool fits(std::uint64_t size) const {
    const std::uint64_t now = node_->live.size();
    return size <= now || owner_.used() + (size - now) <= owner_.capacity_;
  }

  void change(Change made) {
    made.number = ++owner_.changes_;
    apply(node_->live, made);
    node_->unsynced.push_back(std::move(made));
  }

  MemoryFiles& owner_;
  std::string path_;
  std::shared_ptr<Node> node_;
  bool writable_;
  bool locked_;
  std::uint64_t generation_;
};

MemoryFiles::MemoryFiles() = default;
MemoryFiles::~MemoryFiles() = default;

void MemoryFiles::fail_at(std::uint64_t n, Fault fault, bool dead) {
  const std::scoped_lock lock(mutex_);
  fail_at_ = operations_ + n;
  fault_ = fault;
  stays_dead_ = dead;
}

void MemoryFiles::heal() {
  const std::scoped_lock lock(mutex_);
  fail_at_ = 0;
  dead_ = false;
}

std::uint64_t MemoryFiles::operations() const {
  const std::scoped_lock lock(mutex_);
  return operations_;
}

std::uint64_t MemoryFiles::count(const std::string& name) const {
  const std::scoped_lock lock(mutex_);
  const auto it = counts_.find(name);
  return it == counts_.end() ? 0 : it->second;
}

void MemoryFiles::set_capacity(std::uint64_t bytes) {
  const std::scoped_lock lock(mutex_);
  capacity_ = bytes;
}

void MemoryFiles::apply(std::string& content, const Change& change) {
  if (change.size) {
    content.resize(*change.size);
    return;
  }
  if (content.size() < change.offset + change.bytes.size()) content.resize(change.offset + change.bytes.size());
  content.replace(change.offset, change.bytes.size(), change.bytes);
}

void MemoryFiles::name(Entries& entries, const Renaming& renaming) {
  for (const auto& [path, node] : renaming.names) {
    if (node) {
      entries[path] = node;
    } else {
      entries.erase(path);
    }
  }
}

std::vector<std::pair<MemoryFiles::Node*, MemoryFiles::Change>> MemoryFiles::unsynced() const {
  std::set<Node*> nodes;
  for (const Entries* entries : {&live_, &durable_}) {
    for (const auto& [path, node] : *entries) nodes.insert(node.get());
  }
  std::vector<std::pair<Node*, Change>> changes;
  for (Node* node : nodes) {
    for (const Change& change : node->unsynced) changes.emplace_back(node, change);
  }
  std::sort(changes.begin(), changes.end(),
            [](const auto& a, const auto& b) { return a.second.number < b.second.number; });
  return changes;
}

std::uint64_t MemoryFiles::unsynced_bytes() const {
  const std::scoped_lock lock(mutex_);
  std::uint64_t bytes = 0;
  for (const auto& [node, change] : unsynced()) bytes += change.bytes.size();
  return bytes;
}

std::size_t MemoryFiles::unsynced_entries() const {
  const std::scoped_lock lock(mutex_);
  return unsynced_entries_.size();
}

void MemoryFiles::crash(const Crash& what) {
  const std::scoped_lock lock(mutex_);
  if (what.random_sectors) {
    keep_sectors(*what.random_sectors);
  } else {
    keep_prefix(what.keep_bytes);
  }
  const std::size_t entries = std::min(what.keep_entries, unsynced_entries_.size());
  for (std::size_t i = 0; i < entries; ++i) name(durable_, unsynced_entries_[i]);
  unsynced_entries_.clear();
  live_ = durable_;
  for (const auto& [path, node] : live_) {
    node->live = node->durable;
    node->unsynced.clear();
  }
  locked_.clear();
  ++generation_;
  fail_at_ = 0;
  dead_ = false;
}

void MemoryFiles::keep_prefix(std::uint64_t bytes) {
  for (auto& [node, change] : unsynced()) {
    if (bytes == 0) break;
    Change kept = change;
    kept.bytes.resize(std::min<std::uint64_t>(bytes, kept.bytes.size()));
    bytes -= kept.bytes.size();
    apply(node->durable, kept);
  }
}

void MemoryFiles::keep_sectors(unsigned seed) {
  std::mt19937 random(seed);
  for (auto& [node, change] : unsynced()) {
    if (change.size && random() % 2 == 0) apply(node->durable, change);
    for (std::uint64_t done = 0; done < change.bytes.size();) {
      const std::uint64_t offset = change.offset + done;
      const std::uint64_t length = std::min(sector - offset % sector, change.bytes.size() - done);
      if (random() % 2 == 0) apply(node->durable, {0, offset, change.bytes.substr(done, length), {}});
      done += length;
    }
  }
}

std::unique_ptr<MemoryFiles> MemoryFiles::clone() const {
  const std::scoped_lock lock(mutex_);
  auto copy = std::make_unique<MemoryFiles>();
  std::map<Node*, std::shared_ptr<Node>> nodes;
  const auto twin = [&](const std::shared_ptr<Node>& node) -> std::shared_ptr<Node> {
    if (!node) return nullptr;
    std::shared_ptr<Node>& made = nodes[node.get()];
    if (!made) made = std::make_shared<Node>(*node);
    return made;
  };
  for (const auto& [path, node] : live_) copy->live_[path] = twin(node);
  for (const auto& [path, node] : durable_) copy->durable_[path] = twin(node);
  for (const Renaming& renaming : unsynced_entries_) {
    Renaming& made = copy->unsynced_entries_.emplace_back();
    for (const auto& [path, node] : renaming.names) made.names.emplace_back(path, twin(node));
  }
  copy->directories_ = directories_;
  copy->changes_ = changes_;
  copy->capacity_ = capacity_;
  return copy;
}

std::optional<std::string> MemoryFiles::content(const std::string& path) const {
  const std::scoped_lock lock(mutex_);
  const auto it = live_.find(path);
  if (it == live_.end()) return std::nullopt;
  return it->second->live;
}

void MemoryFiles::put(const std::string& path, std::string content) {
  const std::scoped_lock lock(mutex_);
  for (std::string folder = parent_of(path); directories_.insert(folder).second;) folder = parent_of(folder);
  const auto node = std::make_shared<Node>(Node{content, content, {}});
  live_[path] = node;
  durable_[path] = node;
}

Result<> MemoryFiles::faulty(const std::string& name, const std::string& path) {
  ++operations_;
  ++counts_[name];
  if (operations_ == fail_at_) dead_ = stays_dead_;
  if (!dead_ && operations_ != fail_at_) return {};
  return fail_errno(fault_ == Fault::no_space ? ENOSPC : EIO, name + " " + path);
}

void MemoryFiles::enter(Renaming renaming) {
  name(live_, renaming);
  unsynced_entries_.push_back(std::move(renaming));
}

std::uint64_t MemoryFiles::used() const {
  std::uint64_t bytes = 0;
  for (const auto& [path, node] : live_) bytes += node->live.size();
  return bytes;
}

Result<std::unique_ptr<File>> MemoryFiles::open(const std::string& path, OpenMode mode) {
  const std::scoped_lock lock(mutex_);
  if (auto ready = faulty("open", path); !ready) return std::unexpected(ready.error());
  const auto it = live_.find(path);
  if (mode == OpenMode::create) {
    if (it != live_.end()) return fail_errno(EEXIST, "open " + path);
    if (!directories_.contains(parent_of(path))) return fail_errno(ENOENT, "open " + path);
    const auto node = std::make_shared<Node>();
    enter({{{path, node}}});
    return std::make_unique<OpenFile>(*this, path, node, true, false);
  }
  if (it == live_.end()) return fail_errno(ENOENT, "open " + path);
  return std::make_unique<OpenFile>(*this, path, it->second, mode == OpenMode::write, false);
}

Result<> MemoryFiles::make_directory(const std::string& path) {
  const std::scoped_lock lock(mutex_);
  if (auto ready = faulty("make_directory", path); !ready) return ready;
  for (std::string folder = path; directories_.insert(folder).second;) folder = parent_of(folder);
  return {};
}

Result<> MemoryFiles::rename(const std::string& from, const std::string& to) {
  const std::scoped_lock lock(mutex_);
  if (auto ready = faulty("rename", from); !ready) return ready;
  const auto it = live_.find(from);
  if (it == live_.end() || !directories_.contains(parent_of(to))) return fail_errno(ENOENT, "rename " + from);
  enter({{{to, it->second}, {from, nullptr}}});
  return {};
}

Result<> MemoryFiles::remove(const std::string& path) {
  const std::scoped_lock lock(mutex_);
  if (auto ready = faulty("remove", path); !ready) return ready;
  if (!live_.contains(path)) return fail_errno(ENOENT, "remove " + path);
  enter({{{path, nullptr}}});
  return {};
}

Result<> MemoryFiles::sync_directory(const std::string& path) {
  const std::scoped_lock lock(mutex_);
  if (auto ready = faulty("sync_directory", path); !ready) return ready;
  if (!directories_.contains(path)) return fail_errno(ENOENT, "sync_directory " + path);
  const auto inside = [&](const auto& entry) { return parent_of(entry.first) == path; };
  std::erase_if(unsynced_entries_, [&](const Renaming& renaming) {
    const bool here = std::any_of(renaming.names.begin(), renaming.names.end(), inside);
    if (here) name(durable_, renaming);
    return here;
  });
  return {};
}

Result<std::vector<std::string>> MemoryFiles::list(const std::string& directory) {
  const std::scoped_lock lock(mutex_);
  if (auto ready = faulty("list", directory); !ready) return std::unexpected(ready.error());
  if (!directories_.contains(directory)) return fail_errno(ENOENT, "list " + directory);
  std::set<std::string> names;
  const auto add = [&](const std::string& path) {
    if (path != directory && parent_of(path) == directory) names.insert(path.substr(path.rfind('/') + 1));
  };
  for (const auto& [path, node] : live_) add(path);
  for (const std::string& path : directories_) add(path);
  return std::vector<std::string>(names.begin(), names.end());
}

Result<std::uint64_t> MemoryFiles::free_bytes(const std::string& path) {
  const std::scoped_lock lock(mutex_);
  if (auto ready = faulty("free_bytes", path); !ready) return std::unexpected(ready.error());
  return capacity_ - std::min(capacity_, used());
}

Result<std::unique_ptr<File>> MemoryFiles::lock(const std::string& path) {
  const std::scoped_lock guard(mutex_);
  if (auto ready = faulty("lock", path); !ready) return std::unexpected(ready.error());
  if (!directories_.contains(parent_of(path))) return fail_errno(ENOENT, "lock " + path);
  if (!locked_.insert(path).second) return fail(ErrorKind::not_found, path + " is locked by another process");
  if (!live_.contains(path)) enter({{{path, std::make_shared<Node>()}}});
  return std::make_unique<OpenFile>(*this, path, live_[path], true, true);
}

}  // namespace greymx::test

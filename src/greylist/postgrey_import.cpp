#include "greylist/postgrey_import.hpp"

#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/mailbox.hpp"
#include "greylist/bdb.hpp"

namespace greymx::greylist {

namespace {

namespace fs = std::filesystem;

constexpr Stamp future_tolerance = 86400;

// "1800000000,1800000301", of old with a third field.
std::optional<std::pair<Stamp, Stamp>> two_numbers(std::string_view value) {
  std::pair<Stamp, Stamp> numbers;
  const char* end = value.data() + value.size();
  const auto first = std::from_chars(value.data(), end, numbers.first);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != ',') return std::nullopt;
  const auto second = std::from_chars(first.ptr + 1, end, numbers.second);
  if (second.ec != std::errc() || (second.ptr != end && *second.ptr != ',')) return std::nullopt;
  if (numbers.first < 0 || numbers.second < 0) return std::nullopt;
  return numbers;
}

bool is_hash(std::string_view key) {
  return key.size() == 40 && key.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

struct ClientAndRest {
  IpAddress client;
  std::string_view rest;  // after the '/' that ends the client
};

// A leading address in any notation, perhaps with "/24", up to the next '/' or the end.
std::optional<ClientAndRest> split_client(std::string_view key) {
  std::size_t end = std::min(key.find('/'), key.size());
  const auto client = IpAddress::parse(key.substr(0, end));
  if (!client) return std::nullopt;
  const std::size_t digits = key.find_first_not_of("0123456789", std::min(end + 1, key.size()));
  const std::size_t length_end = std::min(digits, key.size());
  const bool length = end < key.size() && length_end > end + 1 && length_end <= end + 4 &&
                      (length_end == key.size() || key[length_end] == '/');
  if (length) end = length_end;
  return ClientAndRest{*client, key.substr(std::min(end + 1, key.size()))};
}

class TemporaryCopy {
 public:
  ~TemporaryCopy() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  // Databases before logs: changes made meanwhile are in the logs then, and recovery applies them.
  Result<> make(const std::string& directory) {
    std::string name = fs::temp_directory_path() / "greymx-import.XXXXXX";
    if (mkdtemp(name.data()) == nullptr) return fail_errno(errno, "make " + name);
    path_ = name;
    std::error_code error;
    fs::create_directory(path_ / "db", error);
    const auto copy = [&](bool (*wanted)(const std::string&)) {
      for (const auto& entry : fs::directory_iterator(directory, error)) {
        const std::string file = entry.path().filename();
        if (!error && wanted(file)) fs::copy_file(entry.path(), path_ / "db" / file, error);
      }
    };
    if (!error) copy([](const std::string& file) { return file == "postgrey.db" || file == "postgrey_clients.db"; });
    if (!error) copy([](const std::string& file) { return file.starts_with("log."); });
    if (!error && fs::exists(path_ / "db/postgrey.db")) return {};
    return fail(ErrorKind::not_found,
                fmt::format("cannot copy postgrey's database from {}: {}; name the directory that postgrey's --dbdir "
                            "names, as a user who may read it",
                            directory, error ? error.message() : "there is no postgrey.db"));
  }
  std::string base() const { return path_; }

 private:
  fs::path path_;
};

using Visitor = std::function<void(std::string_view key, std::string_view value)>;

Result<> read_environment(const std::string& base, const Visitor& triplet, const Visitor& client) {
  auto environment = bdb::Environment::open({.base = base, .catastrophic = true});
  if (!environment) return std::unexpected(environment.error());
  auto transaction = (*environment)->begin();
  if (!transaction) return std::unexpected(transaction.error());
  for (const auto& [name, visit] : {std::pair("postgrey.db", &triplet), std::pair("postgrey_clients.db", &client)}) {
    if (!fs::exists(base + "/db/" + name)) continue;
    auto database = (*environment)->database(name);
    if (!database) return std::unexpected(database.error());
    auto scanned = database->scan(*transaction, {}, [&](std::string_view key, std::string_view value) {
      (*visit)(key, value);
      return true;
    });
    if (!scanned) return scanned;
  }
  return {};
}

}  // namespace

Result<Stored> convert_triplet(std::string_view key, std::string_view value, const ImportRules& rules) {
  const auto skip = [](const char* reason) { return fail(ErrorKind::invalid, reason); };
  const auto times = two_numbers(value);
  if (!times) return skip("value does not parse");
  const auto [first, last] = *times;
  if (std::max(first, last) > rules.now + future_tolerance) return skip("in the future");
  Record record{.passed = last - first >= rules.delay, .imported = true, .tries = 1, .first = first, .last = last};
  if (record.passed) {
    record.passes = 1;
    record.passed_at = last;
  }
  if (record.passed ? rules.rules.expired(record, rules.now) : rules.now - first > rules.rules.retry_window) {
    return skip("expired");
  }
  if (is_hash(key)) return Stored{fmt::format("sha1/{}", key), record};
  const auto parts = split_client(key);
  if (!parts || parts->rest.find('/') == std::string_view::npos) return skip("key does not parse");
  record.client = parts->client;
  // The network in our form stands before "//" in the key of a mail from nobody to nobody.
  std::string ours = plain_key(
      {.client = parts->client, .client_name = {}, .sender = {}, .recipient = {}, .helo = {}, .spf_domain = {}},
      rules.keys);
  ours.pop_back();
  return Stored{bounded_key(ours.append(to_lower(parts->rest))), record};
}

Result<Stored> convert_client(std::string_view key, std::string_view value, const ImportRules& rules) {
  const auto skip = [](const char* reason) { return fail(ErrorKind::invalid, reason); };
  const auto numbers = two_numbers(value);
  if (!numbers) return skip("value does not parse");
  const auto [count, last] = *numbers;
  if (last > rules.now + future_tolerance) return skip("in the future");
  Record record{.passed = true, .imported = true, .first = last, .last = last};
  record.passes = static_cast<std::uint32_t>(std::min<Stamp>(count, UINT32_MAX));
  if (count >= rules.auto_whitelist) record.passes = std::max(record.passes, rules.rules.auto_whitelist);
  if (rules.rules.expired(record, rules.now)) return skip("expired");
  if (is_hash(key)) return Stored{fmt::format("awl/sha1/{}", key), record};
  const auto parts = split_client(key);
  if (!parts || !parts->rest.empty()) return skip("key does not parse");
  record.client = parts->client;
  return Stored{client_key(parts->client), record};
}

Result<ImportReport> read_postgrey(const std::string& directory, const ImportRules& rules,
                                   const std::function<void(Stored)>& sink) {
  TemporaryCopy copy;
  if (auto made = copy.make(directory); !made) return std::unexpected(made.error());
  ImportReport report;
  std::vector<Stored> found;
  const auto visit = [&](auto convert) {
    return [&, convert](std::string_view key, std::string_view value) {
      ++report.read;
      auto converted = convert(key, value, rules);
      if (converted) {
        found.push_back(std::move(*converted));
      } else {
        ++report.skipped[converted.error().text];
      }
    };
  };
  const Visitor triplet = visit(convert_triplet), client = visit(convert_client);
  if (auto read = read_environment(copy.base(), triplet, client); !read) {
    report = {};
    found.clear();
    report.remark = "read page by page, because the environment could not be recovered: " + read.error().text;
    // Of postgrey_clients.db there may be none: automatic whitelisting can be off.
    auto salvaged = bdb::salvage(copy.base() + "/db/postgrey.db", triplet, bdb::Pages::plain);
    if (!salvaged) return std::unexpected(salvaged.error());
    static_cast<void>(bdb::salvage(copy.base() + "/db/postgrey_clients.db", client, bdb::Pages::plain));
  }
  report.imported = found.size();
  for (Stored& stored : found) sink(std::move(stored));
  return report;
}

}  // namespace greymx::greylist

#include "greylist/operate.hpp"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "base/mailbox.hpp"
#include "greylist/store.hpp"
#include "greylist/whitelist.hpp"

namespace greymx::greylist::operate {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t slice = 500;
constexpr std::size_t most_domains = 100'000;  // that a report counts
constexpr std::size_t most_networks = 1'000'000;
constexpr std::size_t most_entries = 10'000;    // pass and expect
constexpr std::uint64_t enough_to_propose = 5;  // triplets that all came back
constexpr std::array<std::uint32_t, 14> within{10,   30,   60,   120,  180,   300,   600,
                                               1200, 1800, 3600, 7200, 14400, 43200, 172800};

Stamp now_of(Greylister& greylister) {
  return std::chrono::floor<std::chrono::seconds>(greylister.now()).time_since_epoch().count();
}

std::string line_of(const Json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

// Calls `visit` for every record, in slices; it returns text for the sink, or nothing.
Task<Result<>> walk(Greylister& greylister, std::function<std::string(const Stored&)> visit, Sink sink) {
  for (std::string after;;) {
    auto some = co_await greylister.store().scan(after, slice);
    if (!some) co_return std::unexpected(some.error());
    if (some->empty()) co_return Result<>{};
    std::string lines;
    for (const Stored& stored : *some) lines += visit(stored);
    after = some->back().key;
    if (lines.empty()) continue;
    const bool more = co_await sink(std::move(lines));
    if (!more) co_return Result<>{};
  }
}

Json triplet_json(const char* type, const Stored& stored, const Rules& rules) {
  const KeyParts parts = split_key(stored.key);
  return {{"type", type},
          {"client", parts.client},
          {"sender", parts.sender},
          {"recipient", parts.recipient},
          {"first", stored.record.first},
          {"last", stored.record.last},
          {"passes_from", stored.record.first + rules.delay},
          {"tries", stored.record.tries}};
}

Json entry_json(Kind kind, const Stored& stored) {
  Json json{{"type", kind == Kind::pass ? "pass" : "expect"},
            {"subject", split_key(stored.key).client},
            {"since", stored.record.first}};
  if (stored.record.last != 0) json["until"] = stored.record.last;
  if (!stored.record.note.empty()) json["comment"] = stored.record.note;
  return json;
}

// A triplet that has not passed, by the name that people know it by.
bool is_waiting(Kind kind, const Record& record) {
  return is_triplet(kind) && !is_pool(kind) && !record.passed;
}
bool is_over(const Record& record, Stamp now, const Rules& rules) {
  return now - record.first > rules.retry_window;
}

struct Domain {
  std::uint64_t passed = 0, waiting = 0;
  unsigned most = 1;             // networks that one record names
  std::set<IpAddress> networks;  // of the clients that were the last
};

struct Report {
  std::map<std::string, Domain, std::less<>> domains;  // of confirmed client names
  std::array<std::uint64_t, within.size()> retries{};
  std::uint64_t later = 0;
  std::size_t networks = 0;  // of all domains

  void add(Kind kind, const Stored& stored) {
    if (kind == Kind::plain && stored.record.retry_after > 0) {
      const auto bucket = std::lower_bound(within.begin(), within.end(), stored.record.retry_after) - within.begin();
      ++(bucket == static_cast<std::ptrdiff_t>(within.size()) ? later : retries[static_cast<std::size_t>(bucket)]);
    }
    if (kind != Kind::ptr) return;
    const std::string name(split_key(stored.key).client);
    if (domains.size() >= most_domains && !domains.contains(name)) return;
    Domain& domain = domains[name];
    ++(stored.record.passed ? domain.passed : domain.waiting);
    domain.most = std::max<unsigned>(domain.most, stored.record.networks);
    if (networks < most_networks) {
      networks += domain.networks.insert(counted_network(stored.record.client).address).second ? 1 : 0;
    }
  }
  std::string lines() const {
    Json counts = Json::array();
    for (std::size_t i = 0; i < within.size(); ++i) counts.push_back({{"seconds", within[i]}, {"count", retries[i]}});
    std::string text = line_of({{"type", "first_retries"}, {"within", counts}, {"later", later}});
    for (const auto& [name, domain] : domains) {
      if (domain.passed < enough_to_propose || domain.waiting > 0) continue;
      const std::size_t known = std::max<std::size_t>(domain.most, domain.networks.size());
      text += line_of({{"type", "proposal"}, {"subject", name}, {"passed", domain.passed}, {"networks", known}});
    }
    return text;
  }
};

Task<Result<>> put_entry(Greylister& greylister, std::string key, std::chrono::seconds duration, std::string note) {
  const Stamp now = now_of(greylister);
  key = bounded_key(std::move(key));
  // Entries that have ended, and one of the same name, make room.
  std::vector<std::string> ended;
  std::size_t others = 0;
  for (const Stored& entry : *greylister.store().manual()) {
    if (entry.record.last != 0 && entry.record.last <= now) {
      ended.push_back(entry.key);
    } else if (entry.key != key) {
      ++others;
    }
  }
  if (others >= most_entries) co_return fail(ErrorKind::invalid, "there are too many entries; forget some first");
  Record record{.first = now, .note = printable(note, max_note)};
  if (duration.count() > 0) record.last = now + duration.count();
  std::vector<Stored> records{{std::move(key), std::move(record)}};
  const auto erased = co_await greylister.store().erase(std::move(ended));
  if (!erased) co_return std::unexpected(erased.error());
  const auto merged = co_await greylister.store().merge(std::move(records));
  co_return merged;
}

// The one spelling of a domain or mail address, for which logs' "<a@b>", final dots and U-labels are taken, too.
std::string canonical(std::string_view given) {
  given = without_brackets(given);
  const Mailbox mailbox = Mailbox::split(given);
  return mailbox.domain.empty() ? domain_key(given) : mailbox.key();
}

// What a subject means for records: a network, a domain, or an address.
struct Subject {
  std::string text;  // a network has one spelling, whatever was given
  std::optional<Network> network;

  static Result<Subject> parse(std::string_view given) {
    Subject subject{canonical(given), {}};
    const bool address = subject.text.find('@') != std::string::npos;
    Whitelist list(address ? Whitelist::Of::addresses : Whitelist::Of::clients);
    const bool regexp = given.starts_with('/');
    if (regexp || given.empty() || !list.add(subject.text)) {
      return fail(ErrorKind::invalid,
                  fmt::format("\"{}\" is no client address, network, domain or mail address", given));
    }
    if (address) return subject;
    subject.network = Whitelist::network_of(subject.text).value_or(std::nullopt);
    if (const auto& network = subject.network) {
      const bool host = network->prefix == network->address.bits();
      subject.text = host ? network->address.to_string() : network->to_string();
    }
    return subject;
  }

  bool matches(const Stored& stored) const {
    const Kind kind = kind_of(stored.key);
    const KeyParts parts = split_key(stored.key);
    if (kind == Kind::pass || kind == Kind::expect) return parts.client == text;
    if (network) {
      const bool known = stored.record.client != IpAddress();
      return known && network->contains(stored.record.client);
    }
    const std::string sender = canonical(parts.sender), recipient = canonical(parts.recipient);  // keys hold U-labels
    if (text.find('@') != std::string::npos) return sender == text || recipient == text;
    const auto in_domain = [&](std::string_view address) { return is_in_domain(Mailbox::split(address).domain, text); };
    return parts.client == text || in_domain(sender) || in_domain(recipient);
  }
};

Result<std::string> expect_key(std::string_view recipient) {
  const Mailbox mailbox = Mailbox::split(without_brackets(recipient));
  const bool regexp = recipient.starts_with('/') && recipient.ends_with('/');
  if (mailbox.local.empty() || mailbox.domain.empty() || regexp || recipient.find_first_of(" \t") != recipient.npos) {
    return fail(ErrorKind::invalid, fmt::format("\"{}\" is no mail address", printable(recipient, 100)));
  }
  return "expect/" + mailbox.key();
}

Result<std::string> pass_key(std::string_view subject) {
  auto parsed = Subject::parse(subject);
  if (!parsed) return std::unexpected(parsed.error());
  return "pass/" + parsed->text;
}

Result<Stored> parse_line(std::string_view line, Stamp now) {
  const auto skip = [](const char* reason) { return fail(ErrorKind::invalid, reason); };
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) return skip("not a JSON object");
  const auto number = [&](const char* name, auto& into) {
    const auto found = json.find(name);
    if (found == json.end()) return true;
    if (!found->is_number_integer() || *found < 0) return false;
    found->get_to(into);
    return true;
  };
  const auto text = [&](const char* name) {
    const auto found = json.find(name);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  Stored stored{text("key"), {}};
  Record& record = stored.record;
  record.passed = json.value("passed", Json(false)) == true;
  record.imported = json.value("imported", Json(false)) == true;
  const bool numbers = number("networks", record.networks) && number("tries", record.tries) &&
                       number("passes", record.passes) && number("first", record.first) &&
                       number("last", record.last) && number("passed_at", record.passed_at) &&
                       number("retry_after", record.retry_after);
  record.client = IpAddress::parse(text("client")).value_or(IpAddress());
  record.note = printable(text("comment"), max_note);
  const Kind kind = kind_of(stored.key);
  const bool manual = kind >= Kind::pass;
  if (stored.key.find('/') == std::string::npos || stored.key.size() > max_key) return skip("no valid \"key\"");
  if (!numbers) return skip("a number that is none");
  if (manual) {
    const std::string_view subject = split_key(stored.key).client;
    auto key = kind == Kind::pass ? pass_key(subject) : expect_key(subject);
    if (!key) return skip("no valid \"key\"");
    stored.key = std::move(*key);
  }
  if (!manual && std::max(record.first, record.last) > now + 86400) return skip("in the future");
  return stored;
}

}  // namespace

Task<Result<>> list(Greylister& greylister, Sink sink) {
  const Stamp now = now_of(greylister);
  const Rules rules = rules_of(greylister.config()->greylist);
  auto visit = [now, rules](const Stored& stored) -> std::string {
    const Kind kind = kind_of(stored.key);
    const bool ended = kind >= Kind::pass && stored.record.last != 0 && stored.record.last <= now;
    if (kind >= Kind::pass) return ended ? "" : line_of(entry_json(kind, stored));
    const bool open = is_waiting(kind, stored.record) && !is_over(stored.record, now, rules);
    return open ? line_of(triplet_json("waiting", stored, rules)) : "";
  };
  return walk(greylister, std::move(visit), std::move(sink));
}

Task<Result<>> stats(Greylister& greylister, Sink sink) {
  const Totals totals = greylister.store().totals();
  Json json{{"waiting", totals.waiting},
            {"passed", totals.passed},
            {"clients", totals.clients},
            {"records", totals.records()},
            {"hashed", totals.hashed},
            {"never_returned", totals.never_returned},
            {"entries", greylister.store().manual()->size()}};
  const std::string trouble = greylister.store().trouble();
  if (!trouble.empty()) json["trouble"] = trouble;
  co_await sink(line_of(json));
  co_return Result<>{};
}

Task<Result<>> report(Greylister& greylister, Sink sink) {
  const Stamp now = now_of(greylister);
  const Rules rules = rules_of(greylister.config()->greylist);
  auto sums = std::make_shared<Report>();
  auto visit = [now, rules, sums](const Stored& stored) -> std::string {
    const Kind kind = kind_of(stored.key);
    sums->add(kind, stored);
    const bool gone = is_waiting(kind, stored.record) && is_over(stored.record, now, rules);
    return gone ? line_of(triplet_json("never_returned", stored, rules)) : "";
  };
  const auto walked = co_await walk(greylister, std::move(visit), sink);
  if (walked) co_await sink(sums->lines());
  co_return walked;
}

Task<Result<>> pass(Greylister& greylister, std::string subject, std::chrono::seconds duration, std::string comment) {
  auto key = pass_key(subject);
  if (!key) co_return std::unexpected(key.error());
  const auto put = co_await put_entry(greylister, std::move(*key), duration, std::move(comment));
  co_return put;
}

Task<Result<>> expect(Greylister& greylister, std::string recipient, std::chrono::seconds duration) {
  auto key = expect_key(recipient);
  if (!key) co_return std::unexpected(key.error());
  if (duration.count() <= 0) co_return fail(ErrorKind::invalid, "expect needs a time, such as 15m");
  const auto put = co_await put_entry(greylister, std::move(*key), duration, {});
  co_return put;
}

Task<Forgotten> forget(Greylister& greylister, std::string subject) {
  const auto parsed = Subject::parse(subject);
  if (!parsed) co_return Forgotten{0, std::unexpected(parsed.error())};
  std::size_t count = 0;
  for (std::string after;;) {
    const auto some = co_await greylister.store().scan(after, slice);
    if (!some) co_return Forgotten{count, std::unexpected(some.error())};
    if (some->empty()) co_return Forgotten{count, {}};
    after = some->back().key;
    std::vector<std::string> keys;
    for (const Stored& stored : *some) {
      if (parsed->matches(stored)) keys.push_back(stored.key);
    }
    if (keys.empty()) continue;
    const auto erased = co_await greylister.store().erase(std::move(keys));
    if (!erased) co_return Forgotten{count, std::unexpected(erased.error())};
    count += *erased;
  }
}

std::string export_line(const Stored& stored) {
  const Record& record = stored.record;
  Json json{{"key", stored.key}, {"passed", record.passed}, {"first", record.first}, {"last", record.last}};
  const auto add = [&](const char* name, auto value) {
    if (value != decltype(value){}) json[name] = value;
  };
  add("imported", record.imported);
  add("tries", record.tries);
  add("passes", record.passes);
  add("passed_at", record.passed_at);
  add("retry_after", record.retry_after);
  if (record.networks != 1) json["networks"] = record.networks;
  if (record.client != IpAddress()) json["client"] = record.client.to_string();
  add("comment", record.note);
  return line_of(json);
}

Task<Result<>> export_all(Greylister& greylister, Sink sink) {
  return walk(greylister, export_line, sink);
}

Task<Result<ImportReport>> import_lines(Greylister& greylister, std::string lines) {
  ImportReport report;
  const Stamp now = now_of(greylister);
  std::string_view rest = lines;
  while (!rest.empty()) {
    std::vector<Stored> records;
    while (!rest.empty() && records.size() < slice) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(line.size() + 1, rest.size()));
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      ++report.read;
      auto parsed = parse_line(line, now);
      if (parsed) {
        records.push_back(std::move(*parsed));
      } else {
        ++report.skipped[parsed.error().text];
      }
    }
    report.imported += records.size();
    const auto merged = co_await greylister.store().merge(std::move(records));
    if (!merged) co_return std::unexpected(merged.error());
  }
  co_return report;
}

}  // namespace greymx::greylist::operate

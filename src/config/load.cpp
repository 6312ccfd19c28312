#include "config/load.hpp"

#include <netdb.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <tuple>

#include "base/files.hpp"
#include "base/mailbox.hpp"
#include "config/check.hpp"
#include "config/reader.hpp"
#include "config/recover.hpp"

namespace greymx::config {

namespace {

constexpr std::size_t file_limit = 4UL << 20;

std::string last_part(std::string_view key) {
  return std::string(key.substr(key.rfind('.') + 1));
}

// The loader's state: what is read so far and what is wrong with it.
class Loader {
 public:
  Loader(const std::string& path, Report& report)
      : report_(report), folder_(std::filesystem::path(path).parent_path()) {}

  void read(const toml::table& root) {
    for (const auto& [name, node] : root) {
      if (name == "domains") {
        read_domains(name, node);
      } else {
        read_entry("", name, node);
      }
    }
    default_whitelists();
  }

  Config config;

 private:
  Scope scope(std::string key) const { return {report_, folder_, std::move(key)}; }

  // A key of Config, or a table of them; "dnsbl" holds arrays of tables besides.
  void read_entry(const std::string& prefix, const toml::key& name, const toml::node& node) {
    const std::string full = prefix + std::string(name.str());
    if (full == "dnsbl.lists") return read_lists(name, node, list_keys(), config.dnsbl.lists);
    if (full == "dnsbl.domain_lists") return read_lists(name, node, domain_list_keys(), config.dnsbl.domain_lists);
    for (const Key& key : config_keys()) {
      if (key.name != full) continue;
      report_.positions[full] = node.source().begin;
      return key.read(scope(full), node, &config);
    }
    if (!is_section(full)) return unknown(prefix, name, full);
    const toml::table* table = node.as_table();
    if (table == nullptr) return scope(full).expected(node, "a table", fmt::format("[{}]", full));
    for (const auto& [inner, value] : *table) read_entry(full + ".", inner, value);
  }

  static bool is_section(const std::string& name) {
    const auto& keys = config_keys();
    return std::any_of(keys.begin(), keys.end(), [&](const Key& key) { return key.name.starts_with(name + "."); });
  }

  void unknown(const std::string& prefix, const toml::key& name, const std::string& full) {
    const bool of_a_list = std::ranges::any_of(list_keys(), [&](const Key& key) { return key.name == name.str(); });
    if (prefix == "dnsbl." && of_a_list) return unknown_key(name, full, "[[dnsbl.lists]]", {});
    std::vector<std::string> here = {"domains"};
    for (const Key& key : config_keys()) {
      here.push_back(key.name);
      here.push_back(key.name.substr(0, key.name.find('.')));
    }
    here.insert(here.end(), {"dnsbl.lists", "dnsbl.domain_lists"});
    // First among the keys beside it, then anywhere by its last word.
    std::vector<std::string> siblings;
    for (const std::string& key : here) {
      const bool sibling = key.starts_with(prefix) && key.find('.', prefix.size()) == std::string::npos;
      if (sibling) siblings.push_back(key.substr(prefix.size()));
    }
    std::string hint = nearest(name.str(), siblings);
    if (hint.empty()) {
      const auto elsewhere =
          std::find_if(here.begin(), here.end(), [&](const std::string& key) { return last_part(key) == name.str(); });
      if (elsewhere != here.end()) hint = *elsewhere;
    }
    unknown_key(name, full, hint, siblings);
  }

  void unknown_key(const toml::key& name, const std::string& full, const std::string& hint,
                   std::vector<std::string> known) {
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    const std::string advice = hint.empty() ? fmt::format("known here are {}", fmt::join(known, ", "))
                                            : fmt::format("did you mean \"{}\"?", hint);
    report_.error(name.source().begin, fmt::format("{}: unknown key; {}", printable(full, 100), advice));
  }

  // The keys of one domain or list.
  void read_object(const std::string& prefix, const toml::table& table, const std::vector<Key>& keys, void* object) {
    std::vector<std::string> known;
    for (const Key& key : keys) known.push_back(key.name);
    for (const auto& [name, node] : table) {
      const std::string full = prefix + "." + std::string(name.str());
      const auto key =
          std::find_if(keys.begin(), keys.end(), [&](const Key& candidate) { return candidate.name == name.str(); });
      if (key == keys.end()) {
        unknown_key(name, full, nearest(name.str(), known), known);
      } else {
        key->read(scope(full), node, object);
      }
    }
  }

  void read_domains(const toml::key& name, const toml::node& node) {
    const toml::table* table = node.as_table();
    if (table == nullptr || !table->empty()) report_.positions["domains"] = name.source().begin;
    if (table == nullptr) return scope("domains").expected(node, "a table", "[domains.\"example.com\"]");
    // toml++ sorts by name; what counts is the order in the file.
    std::vector<std::pair<const toml::key*, const toml::node*>> entries;
    for (const auto& [key, value] : *table) entries.emplace_back(&key, &value);
    const auto place = [](const auto& entry) {
      const Position& begin = entry.first->source().begin;
      return std::pair(begin.line, begin.column);
    };
    std::sort(entries.begin(), entries.end(), [&](const auto& a, const auto& b) { return place(a) < place(b); });
    for (const auto& [key, value] : entries) read_domain(*key, *value);
  }

  // The domain that was meant: TOML reads [domains.mx.example.com] as a table within a table within a table.
  static std::string without_quotes(const toml::key& key, const toml::table& table) {
    std::string name(key.str());
    const toml::table* inner = &table;
    const bool quoted = name.find('.') != name.npos;
    while (!quoted && inner->size() == 1 && inner->begin()->second.is_table()) {
      name += "." + std::string(inner->begin()->first.str());
      inner = inner->begin()->second.as_table();
    }
    return name;
  }

  void read_domain(const toml::key& key, const toml::node& node) {
    const std::string full = "domains." + in_quotes(key.str());
    const Position where = key.source().begin;
    const toml::table* table = node.as_table();
    if (table == nullptr) return scope(full).expected(node, "a table", "[domains.\"example.com\"]");
    if (const std::string joined = without_quotes(key, *table); joined != key.str()) {
      return report_.error(where,
                           fmt::format("{}: the dots of a domain need quotes: [domains.{}]", full, in_quotes(joined)));
    }
    Domain domain;
    std::string_view name = key.str();
    if (name.starts_with("*.")) {
      domain.wildcard = true;
      name.remove_prefix(2);
    }
    const auto canonical = canonical_domain(name);
    if (!canonical || IpAddress::parse(*canonical)) {
      return report_.error(where, fmt::format("{}: not a domain name; write for example [domains.\"example.com\"], or "
                                              "\"*.example.com\" for its subdomains",
                                              full));
    }
    domain.name = *canonical;
    const auto same = [&](const Domain& other) {
      return other.name == domain.name && other.wildcard == domain.wildcard;
    };
    if (std::any_of(config.domains.begin(), config.domains.end(), same)) {
      report_.error(where, fmt::format("{}: this domain stands here twice; keep one of them", full));
    }
    read_object(full, *table, domain_keys(), &domain);
    if (domain.tls == TlsLevel::none && !domain.fingerprint.empty()) {
      report_.error(table->get("fingerprint")->source().begin,
                    full + ".fingerprint: tls = \"none\" looks at no certificate; leave tls out, or this");
    }
    config.domains.push_back(std::move(domain));
  }

  void read_lists(const toml::key& name, const toml::node& node, const std::vector<Key>& keys,
                  std::vector<DnsblList>& into) {
    const std::string full = "dnsbl." + std::string(name.str());
    const toml::array* array = node.as_array();
    if (array == nullptr) return scope(full).expected(node, "a list of tables", fmt::format("[[{}]]", full));
    for (const toml::node& element : *array) {
      const toml::table* table = element.as_table();
      if (table == nullptr) {
        scope(full).expected(element, "a table", "{ zone = \"zen.spamhaus.org\" }");
        continue;
      }
      DnsblList list;
      read_object(full, *table, keys, &list);
      if (!table->contains("zone"))
        scope(full).wrong(element, "zone is missing; write for example zone = \"zen.spamhaus.org\"");
      const auto same = [&](const DnsblList& other) { return other.zone == list.zone && !list.zone.empty(); };
      if (std::any_of(into.begin(), into.end(), same)) {
        scope(full).wrong(element, fmt::format("zone {} stands here twice; keep one of them", in_quotes(list.zone)));
      }
      into.push_back(std::move(list));
    }
  }

  // The default files may be absent, also where they are written out; others that were named may not. A default beside
  // a named one counts if it is there.
  void default_whitelists() {
    Greylist& greylist = config.greylist;
    const auto names_others = [&](const char* name, const std::vector<std::string>& paths) {
      return report_.positions.contains(fmt::format("greylist.{}", name)) &&
             paths != std::vector<std::string>{resolve(folder_, name)};
    };
    const bool clients = names_others("whitelist_clients", greylist.whitelist_clients);
    const bool recipients = names_others("whitelist_recipients", greylist.whitelist_recipients);
    greylist.whitelists_are_default = !clients && !recipients;
    const auto fill = [&](bool named, const char* name, std::vector<std::string>& into) {
      if (named) return;
      const std::string path = resolve(folder_, name);
      std::error_code ignored;
      into.clear();
      if (greylist.whitelists_are_default || std::filesystem::exists(path, ignored)) into = {path};
    };
    fill(clients, "whitelist_clients", greylist.whitelist_clients);
    fill(recipients, "whitelist_recipients", greylist.whitelist_recipients);
  }

  Report& report_;
  std::string folder_;
};

// What config_keys() says, read as if it stood in a file.
const Config& defaults() {
  static const Config config = [] {
    Config made;
    Report report("defaults");
    const std::string folder = "/";
    for (const Key& key : config_keys()) {
      if (key.default_text.empty()) continue;
      const toml::parse_result document = toml::parse("value = " + key.default_text);
      key.read({report, folder, key.name}, *document.table().get("value"), &made);
    }
    return made;
  }();
  return config;
}

// The system's full name; empty if it has none. May ask the resolver.
std::string system_hostname() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0) return {};
  if (is_hostname(name, 2)) return to_lower(name);
  addrinfo hints{};
  hints.ai_flags = AI_CANONNAME;
  addrinfo* found = nullptr;
  if (::getaddrinfo(name, nullptr, &hints, &found) != 0) return {};
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> guard(found, ::freeaddrinfo);
  const std::string canonical = found->ai_canonname == nullptr ? "" : found->ai_canonname;
  return is_hostname(canonical, 2) && !IpAddress::parse(canonical) ? to_lower(canonical) : std::string();
}

void default_hostname(Config& config, Report& report) {
  config.hostname = system_hostname();
  if (!config.hostname.empty()) return;
  report.error({1, 1},
               "hostname: missing, and this system has no full name; write for example hostname = \"mx2.example.net\"");
}

// A tool that asks the daemon needs no more than this of the file. What TOML made no sense of may have said it.
bool knows_control(std::string_view text, bool whole, const Report& report) {
  if (report.bad.contains("listen.control")) return false;
  return whole || report.positions.contains("listen.control") || text.find("control") == text.npos;
}

}  // namespace

std::string Diagnostic::to_string() const {
  if (file.empty()) return text;
  if (line == 0) return fmt::format("{}: {}", file, text);
  return fmt::format("{}:{}:{}: {}", file, line, column, text);
}

Loaded parse(std::string_view text, const std::string& path) {
  Report report(path);
  const std::string absolute = std::filesystem::absolute(path).lexically_normal();
  Loader loader(absolute, report);
  loader.config = defaults();
  loader.config.file = absolute;
  const Recovered document = parse_toml(std::string(text), report);
  if (document.table) loader.read(*document.table);
  if (document.whole) {
    check(loader.config, report);
    const bool named = report.positions.contains("hostname");
    if (!named && report.errors.empty()) default_hostname(loader.config, report);
    loader.config.log.hostname = loader.config.hostname;
  }
  std::sort(report.errors.begin(), report.errors.end(), [](const Diagnostic& a, const Diagnostic& b) {
    return std::tie(a.line, a.column, a.text) < std::tie(b.line, b.column, b.text);
  });
  Loaded loaded{nullptr, std::move(report.errors), std::move(report.warnings), {}, {}};
  if (knows_control(text, document.whole, report)) loaded.control = loader.config.listen.control;
  report.positions.try_emplace("", Position{1, 1});
  for (const auto& [name, where] : report.positions) loaded.places[name] = {path, where.line, where.column, {}};
  if (loaded.errors.empty()) loaded.config = std::make_shared<const Config>(std::move(loader.config));
  return loaded;
}

Loaded load(const std::string& path) {
  const auto text = read_file(path, file_limit);
  if (text) return parse(*text, path);
  const bool absent = text.error().kind == ErrorKind::not_found;
  const std::string what =
      absent ? "not found; name the configuration with -c FILE" : "cannot be read (" + text.error().text + ")";
  return {nullptr, {{path, 0, 0, what}}, {}, {}, {}};
}

Diagnostic Loaded::about(std::string text) const {
  std::string key = text.substr(0, text.find_first_of(": "));
  const bool global = std::ranges::find(config_keys(), key, &Key::name) != config_keys().end();
  const auto of_domain = places.lower_bound(key + " /");
  if (!global && (of_domain == places.end() || !of_domain->first.starts_with(key + " /"))) key.clear();
  const std::string words = ' ' + text;
  const auto named = std::ranges::find_if(places, [&](const auto& place) {
    const std::string& name = place.first;  // "KEY /PATH"
    const auto path = name.find(" /");
    if (path == name.npos || (!key.empty() && name.substr(0, path) != key)) return false;
    return words.find(name.substr(path) + ':') != words.npos || words.find(name.substr(path) + ' ') != words.npos;
  });
  const auto place = named != places.end() ? named : places.find(key);
  Diagnostic result = place != places.end() ? place->second : places.at("");
  result.text = std::move(text);
  return result;
}

std::vector<std::string> needs_restart(const Config& running, const Config& wanted) {
  std::vector<std::string> changed;
  for (const Key& key : config_keys()) {
    if (key.restart && !key.equal(&running, &wanted)) changed.push_back(key.name);
  }
  return changed;
}

}  // namespace greymx::config

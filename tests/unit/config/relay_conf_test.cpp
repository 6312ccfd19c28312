// conf/relay.conf is the whole of it: every key, no other, and the defaults.
#include <map>

#include "base/files.hpp"
#include "config/reader.hpp"
#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::config;

namespace {

const std::string path = SOURCE_ROOT "/conf/relay.conf";

// Keys and the text of their values, "domains.*.primary" -> "[\"mx1.example.com\"]".
std::map<std::string, std::string> keys_in_file() {
  const auto text = read_file(path);
  REQUIRE(text);
  std::map<std::string, std::string> found;
  std::string section;
  std::size_t begin = 0;
  while (begin < text->size()) {
    const std::size_t end = std::min(text->find('\n', begin), text->size());
    std::string line = text->substr(begin, end - begin);
    begin = end + 1;
    if (line.empty() || line[0] == '#') continue;
    if (line[0] == '[') {
      section = line.substr(line.find_first_not_of('['), line.find(']') - line.find_first_not_of('[')) + ".";
      if (section.starts_with("domains.")) section = "domains.*.";
      continue;
    }
    const std::size_t equals = line.find(" = ");
    REQUIRE(equals != std::string::npos);
    std::string value = line.substr(equals + 3);
    value.resize(std::min(value.find("  #"), value.size()));
    value.resize(value.find_last_not_of(' ') + 1);
    CHECK(found.emplace(section + line.substr(0, equals), value).second);
  }
  return found;
}

// As keys_in_file() names them.
std::map<std::string, std::string> defaults() {
  std::map<std::string, std::string> all;
  const auto add = [&](const std::string& prefix, const std::vector<Key>& rows) {
    for (const Key& row : rows) all.emplace(prefix + row.name, row.default_text);
  };
  add("", config_keys());
  add("domains.*.", domain_keys());
  add("dnsbl.lists.", list_keys());
  add("dnsbl.domain_lists.", domain_list_keys());
  return all;
}

}  // namespace

TEST_CASE("conf/relay.conf has no mistake and no warning") {
  const Loaded loaded = load(path);
  for (const Diagnostic& error : loaded.errors) UNSCOPED_INFO(error.to_string());
  CHECK(loaded.config);
  CHECK(loaded.warnings.empty());
}

TEST_CASE("conf/relay.conf names every key and nothing else") {
  std::map<std::string, std::string> found = keys_in_file();
  for (const auto& [name, text] : defaults()) {
    INFO(name);
    CHECK(found.erase(name) == 1);
  }
  for (const auto& [name, value] : found) {
    INFO(name);
    CHECK(false);
  }
}

TEST_CASE("conf/relay.conf shows the defaults, where a default makes an example") {
  const std::map<std::string, std::string> examples = {{"hostname", "\"mx2.example.net\""},
                                                       {"domains.*.primary", "[\"mx1.example.com\"]"},
                                                       {"dnsbl.lists.zone", "\"zen.spamhaus.org\""},
                                                       {"dnsbl.lists.replies", "[\"127.0.0.[2..11]\"]"},
                                                       {"dnsbl.domain_lists.zone", "\"dbl.spamhaus.org\""}};
  const std::map<std::string, std::string> found = keys_in_file();
  for (const auto& [name, text] : defaults()) {
    const auto example = examples.find(name);
    INFO(name);
    CHECK(found.at(name) == (example == examples.end() ? text : example->second));
  }
}

TEST_CASE("conf/demo.conf has no mistake") {
  const Loaded loaded = load(SOURCE_ROOT "/conf/demo.conf");
  for (const Diagnostic& error : loaded.errors) UNSCOPED_INFO(error.to_string());
  CHECK(loaded.config);
}

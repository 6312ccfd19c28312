// From TOML nodes to values, with a diagnostic for each that does not fit. A reader knows the type it reads, what it
// allows, and an example of it; it leaves the target alone if the node is wrong. For schema.cpp and load.cpp.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <map>
#include <set>

#include "base/clock.hpp"
#include "config/load.hpp"
#include "config/toml.hpp"
#include "config/values.hpp"

namespace greymx::config {

using Position = toml::source_position;

// Collects what is wrong, and remembers where each key and path stands and which keys are wrong, for checks of several
// together and of files.
class Report {
 public:
  explicit Report(std::string file) : file_(std::move(file)) {}
  void error(Position where, std::string text) { errors.push_back({file_, where.line, where.column, std::move(text)}); }
  void warning(Position where, std::string text) {
    warnings.push_back({file_, where.line, where.column, std::move(text)});
  }
  std::vector<Diagnostic> errors;
  std::vector<Diagnostic> warnings;
  std::map<std::string, Position> positions;
  std::set<std::string> bad;

 private:
  std::string file_;
};

// What a reader needs to know beside the node.
struct Scope {
  Report& report;
  const std::string& folder;  // where relative paths start
  std::string key;            // "limits.connections"

  void wrong(const toml::node& node, std::string_view text) const;  // "KEY: text"
  // "KEY: expected WHAT, such as EXAMPLE, found the integer 3"
  void expected(const toml::node& node, std::string_view what, std::string_view example) const;
};

std::string describe(const toml::node& node);  // "the string "x"", "a table"
std::string in_quotes(std::string_view text);  // in quotes, printable
std::string resolve(const std::string& folder, const std::string& path);

// The text of a string node without control characters.
std::optional<std::string> read_text(const Scope& scope, const toml::node& node, std::string_view what,
                                     std::string_view example);

struct Boolean {
  void operator()(const Scope& scope, const toml::node& node, bool& into) const;
};

struct Integer {
  std::int64_t min;
  std::int64_t max;
  std::optional<std::int64_t> read(const Scope& scope, const toml::node& node) const;
  template <class T>
  void operator()(const Scope& scope, const toml::node& node, T& into) const {
    if (const auto value = read(scope, node)) into = static_cast<T>(*value);
  }
};

// A string that `parse` understands.
template <class T>
struct Word {
  const char* what;     // "a rate"
  const char* example;  // "60/1m"
  std::optional<T> (*parse)(std::string_view);
  std::optional<T> read(const Scope& scope, const toml::node& node) const {
    const auto text = read_text(scope, node, what, in_quotes(example));
    if (!text) return std::nullopt;
    auto value = parse(*text);
    if (!value)
      scope.wrong(node, fmt::format("{} is not {}; write for example {}", in_quotes(*text), what, in_quotes(example)));
    return value;
  }
  void operator()(const Scope& scope, const toml::node& node, T& into) const {
    if (auto value = read(scope, node)) into = std::move(*value);
  }
};

// A duration or a size with its bounds.
template <class T>
struct Measure {
  T min;
  T max;
  const char* unit;  // the one that is added to a number that came without
  Word<T> word;
  std::string (*text)(T);
  void operator()(const Scope& scope, const toml::node& node, T& into) const {
    if (const auto* number = node.as_integer(); number != nullptr && number->get() >= 0) {
      return scope.expected(node, std::string(word.what) + " with its unit",
                            fmt::format("\"{}{}\"", number->get(), unit));
    }
    const auto value = word.read(scope, node);
    if (!value) return;
    if (*value < min || *value > max) {
      return scope.wrong(
          node, fmt::format("{} is out of range; allowed are {} to {}", node.as_string()->get(), text(min), text(max)));
    }
    into = *value;
  }
};

inline Measure<Seconds> duration(Seconds min, Seconds max) {
  return {min, max, "s", {"a duration", "1h30m", parse_duration}, human_duration};
}
inline Measure<std::uint64_t> size(std::uint64_t min, std::uint64_t max) {
  return {min, max, "B", {"a size", "50MiB", parse_size}, size_text};
}

template <class T>
struct Choice {
  std::vector<std::pair<std::string, T>> choices;
  std::string list() const {
    std::string text;
    for (const auto& [name, value] : choices) text += (text.empty() ? "" : " | ") + in_quotes(name);
    return text;
  }
  void operator()(const Scope& scope, const toml::node& node, T& into) const {
    const auto text = read_text(scope, node, "one of " + list(), in_quotes(choices.front().first));
    if (!text) return;
    std::vector<std::string> names;
    for (const auto& [name, value] : choices) {
      if (name == *text) into = value;
      names.push_back(name);
    }
    if (std::find(names.begin(), names.end(), *text) != names.end()) return;
    const std::string meant = nearest(*text, names);
    scope.wrong(node, fmt::format("{} is not one of {}{}", in_quotes(*text), list(),
                                  meant.empty() ? "" : "; did you mean " + in_quotes(meant) + "?"));
  }
};

// A path, made absolute from the file's folder; empty stays empty if it may be.
struct Path {
  bool optional = false;
  const char* example = "\"/var/lib/greymx\"";
  void operator()(const Scope& scope, const toml::node& node, std::string& into) const;
};

template <class Item>
struct ListOf {
  Item item;
  const char* example;  // "[\"::1\"]"
  template <class T>
  void operator()(const Scope& scope, const toml::node& node, std::vector<T>& into) const {
    const toml::array* array = node.as_array();
    if (array == nullptr) return scope.expected(node, "a list", example);
    into.clear();
    for (const toml::node& element : *array) item(scope, element, into.emplace_back());
  }
};

// One row of the table of keys; `object` is the struct that has the field.
struct Key {
  std::string name;
  std::string default_text;  // as TOML
  bool restart = false;      // a change needs a restart
  std::function<void(const Scope&, const toml::node&, void* object)> read;
  std::function<bool(const void* a, const void* b)> equal;
};

const std::vector<Key>& config_keys();       // of Config: "limits.connections"
const std::vector<Key>& domain_keys();       // of Domain: "primary"
const std::vector<Key>& list_keys();         // of DnsblList
const std::vector<Key>& domain_list_keys();  // and "check"

}  // namespace greymx::config

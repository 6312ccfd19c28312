// relay.conf -> Config: TOML 1.0 through toml++, checked against one table of keys (config/schema).
//
// All mistakes are found at once, each with line, column, what is wrong and what would be right (unknown keys name
// the nearest known one). Relative paths start at the file's own folder. Blocking; call at start-up, on reload, in -t.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.hpp"

namespace greymx::config {

struct Diagnostic {
  std::string file;
  std::size_t line = 0;
  std::size_t column = 0;
  std::string text;
  std::string to_string() const;  // "FILE:LINE:COLUMN: text"
};

struct Loaded {
  ConfigPtr config;  // null if there is any error
  std::vector<Diagnostic> errors;
  std::vector<Diagnostic> warnings;
  std::string control;                       // listen.control, of a file with errors too; empty where it cannot be told
  std::map<std::string, Diagnostic> places;  // without text: where "user" and "tls.key /PATH" stand in the file
  // For what a look at the system shows: at a path that `text` names, of the key it begins with if that is one, else
  // at this key, else at the file's begin.
  Diagnostic about(std::string text) const;
};

Loaded load(const std::string& path);
Loaded parse(std::string_view text, const std::string& path);  // `path` for messages and relative names

// What changed between two configs that only a restart can bring into effect ("listen.smtp", "paths.queue", …).
std::vector<std::string> needs_restart(const Config& running, const Config& wanted);

}  // namespace greymx::config

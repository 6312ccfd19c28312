#include "config/recover.hpp"

#include <algorithm>

#include "base/mailbox.hpp"

namespace greymx::config {

namespace {

constexpr std::size_t most_errors = 20;

struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;  // at the line's end, before its '\n'
};

Span line_span(const std::string& text, std::size_t line) {
  std::size_t begin = 0;
  for (; line > 1 && begin < text.size(); --line) begin = std::min(text.find('\n', begin), text.size() - 1) + 1;
  return {begin, std::min(text.find('\n', begin), text.size())};
}

bool begins_table(std::string_view line) {
  const std::size_t first = line.find_first_not_of(" \t");
  return first != std::string_view::npos && line[first] == '[';
}

// Replaces the line by spaces, and if it begins a table, all lines of that table: they would land in another one.
// False if there was nothing to replace.
bool blank(std::string& text, std::size_t line) {
  Span span = line_span(text, line);
  const bool table = begins_table(std::string_view(text).substr(span.begin, span.end - span.begin));
  const std::size_t begin = span.begin;
  while (table && span.end < text.size()) {
    const Span next = {span.end + 1, std::min(text.find('\n', span.end + 1), text.size())};
    if (begins_table(std::string_view(text).substr(next.begin, next.end - next.begin))) break;
    span.end = next.end;
  }
  bool any = false;
  for (std::size_t i = begin; i < span.end; ++i) {
    if (text[i] == ' ' || text[i] == '\n' || text[i] == '\r') continue;
    text[i] = ' ';
    any = true;
  }
  return any;
}

// What a table's header names, as the line has it; empty if it is none.
std::string_view header_name(std::string_view line) {
  const std::size_t begin = begins_table(line) ? line.find_first_not_of(" \t[") : std::string_view::npos;
  char quote = 0;
  for (std::size_t i = begin; i < line.size(); ++i) {
    const char c = line[i];
    if (quote == 0 && c == ']') return line.substr(begin, i - begin);
    if (quote == 0 && (c == '"' || c == '\'')) {
      quote = c;
    } else if (quote == '"' && c == '\\') {
      ++i;
    } else if (c == quote) {
      quote = 0;
    }
  }
  return {};
}

// toml++ says twice what a quoted name begins with: "b.b.test". It may also speak of a header above this line.
std::string with_header(std::string_view description, std::string_view line) {
  std::string text(description);
  std::string_view name = header_name(line);
  const std::size_t quote = name.find_first_of("\"'");
  const std::size_t begin = text.find('\'') + 1, end = text.rfind('\'');
  if (!description.starts_with("Error while parsing table header: cannot redefine") || quote == name.npos) return text;
  if (begin > end || !description.substr(begin, end - begin).ends_with(name.substr(quote + 1))) return text;
  name = name.substr(0, name.find_last_not_of(" \t") + 1);
  return text.replace(begin, end - begin, name);
}

// toml++ says what it expected; for the commonest slips it does not say what would be right.
std::string explain(std::string_view description) {
  static constexpr std::pair<std::string_view, std::string_view> hints[] = {
      {"could not determine value type", "; texts need quotes"},
      {"integer: expected", "; durations, sizes and addresses need quotes, for example \"5m\""},
      {"floating-point: expected", "; durations, sizes and addresses need quotes, for example \"5m\""},
      {"boolean: expected", "; write true or false, other words need quotes"},
      {"string: unescaped control", "; is the closing quote missing?"},
      {"string: control", "; is the closing quote missing?"},
      {"cannot redefine", "; it stands here twice"},
      {"invalid utf-8", "; the file must be UTF-8"},
  };
  static constexpr std::string_view prefix = "Error while parsing ";
  std::string text =
      "TOML: " + printable(description.starts_with(prefix) ? description.substr(prefix.size()) : description, 200);
  for (const auto& [part, hint] : hints) {
    if (description.find(part) == std::string_view::npos) continue;
    text += hint;
    break;
  }
  return text;
}

}  // namespace

Recovered parse_toml(std::string text, Report& report) {
  std::size_t last = 0;
  while (report.errors.size() < most_errors) {
    toml::parse_result result = toml::parse(text);
    if (result) return {std::move(result).table(), report.errors.empty()};
    const Position where = result.error().source().begin;
    // The line after one that was left out may only look wrong because of that.
    const Span span = line_span(text, where.line);
    const bool follows = last != 0 && where.line == last + 1;
    if (follows && toml::parse(std::string_view(text).substr(span.begin, span.end - span.begin))) break;
    const std::string_view line = std::string_view(text).substr(span.begin, span.end - span.begin);
    report.error(where, explain(with_header(result.error().description(), line)));
    if (!blank(text, where.line)) break;
    last = where.line;
  }
  return {};
}

}  // namespace greymx::config

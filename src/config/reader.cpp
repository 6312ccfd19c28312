#include "config/reader.hpp"

#include <filesystem>

#include "base/mailbox.hpp"

namespace greymx::config {

void Scope::wrong(const toml::node& node, std::string_view text) const {
  report.error(node.source().begin, fmt::format("{}: {}", key, text));
  report.bad.insert(key);
}

void Scope::expected(const toml::node& node, std::string_view what, std::string_view example) const {
  wrong(node, fmt::format("expected {}, such as {}, found {}", what, example, describe(node)));
}

std::string in_quotes(std::string_view text) {
  return '"' + printable(text, 100) + '"';
}

std::string describe(const toml::node& node) {
  if (const auto* text = node.as_string()) return "the string " + in_quotes(text->get());
  if (const auto* number = node.as_integer()) return fmt::format("the integer {}", number->get());
  if (const auto* number = node.as_floating_point()) return fmt::format("the number {}", number->get());
  if (const auto* truth = node.as_boolean()) return fmt::format("the boolean {}", truth->get());
  if (node.is_array()) return "a list";
  if (node.is_table()) return "a table";
  return "a date or time";
}

std::string resolve(const std::string& folder, const std::string& path) {
  if (path.empty()) return path;
  return (std::filesystem::path(folder) / path).lexically_normal();
}

std::optional<std::string> read_text(const Scope& scope, const toml::node& node, std::string_view what,
                                     std::string_view example) {
  const auto* text = node.as_string();
  if (text == nullptr) {
    scope.expected(node, what, example);
    return std::nullopt;
  }
  const std::string& value = text->get();
  if (value.size() > 4096 ||
      std::any_of(value.begin(), value.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; })) {
    scope.wrong(node, "control characters and texts above 4096 bytes are not allowed");
    return std::nullopt;
  }
  return value;
}

void Boolean::operator()(const Scope& scope, const toml::node& node, bool& into) const {
  const auto* value = node.as_boolean();
  if (value == nullptr) return scope.expected(node, "a boolean", "true");
  into = value->get();
}

std::optional<std::int64_t> Integer::read(const Scope& scope, const toml::node& node) const {
  const auto* value = node.as_integer();
  if (value == nullptr) {
    scope.expected(node, "a whole number", std::to_string(max < 100 ? max : std::max<std::int64_t>(min, 100)));
  } else if (value->get() < min || value->get() > max) {
    scope.wrong(node, fmt::format("{} is out of range; allowed are {} to {}", value->get(), min, max));
  } else {
    return value->get();
  }
  return std::nullopt;
}

void Path::operator()(const Scope& scope, const toml::node& node, std::string& into) const {
  const auto text = read_text(scope, node, "a path", example);
  if (!text) return;
  if (text->empty() && !optional)
    return scope.wrong(node, fmt::format("must not be empty; write for example {}", example));
  into = resolve(scope.folder, *text);
  if (!into.empty()) scope.report.positions[scope.key + " " + into] = node.source().begin;
}

}  // namespace greymx::config

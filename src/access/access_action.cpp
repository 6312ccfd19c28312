#include "access/access_file.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace greymx::access {

namespace {

constexpr std::string_view blank = " \t";
constexpr std::string_view digits = "0123456789";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(blank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(blank) - begin + 1);
}

std::string_view take_word(std::string_view& text) {
  const std::size_t end = std::min(text.find_first_of(blank), text.size());
  const std::string_view word = text.substr(0, end);
  text = trimmed(text.substr(end));
  return word;
}

// "5.7.1": RFC 3463 2, at most three digits a part.
bool is_enhanced(std::string_view word) {
  if (word.size() < 5 || std::string_view("245").find(word[0]) == std::string_view::npos || word[1] != '.')
    return false;
  const std::size_t dot = word.find('.', 2);
  if (dot == std::string_view::npos) return false;
  for (const std::string_view part : {word.substr(2, dot - 2), word.substr(dot + 1)}) {
    if (part.empty() || part.size() > 3 || part.find_first_not_of(digits) != std::string_view::npos) return false;
  }
  return true;
}

constexpr std::string_view denied = "Access denied";

// RFC 2034: the class of the enhanced code is that of the reply, whatever the file says.
void set_reply(Rule& rule, Action action, int code, std::string_view text, std::string_view otherwise = denied) {
  rule.action = action;
  rule.code = code;
  rule.enhanced = code < 500 ? "4.7.1" : "5.7.1";
  std::string_view rest = text;
  const std::string_view first = take_word(rest);
  if (is_enhanced(first)) {
    rule.enhanced = rule.enhanced.substr(0, 1) + std::string(first.substr(1));
    text = rest;
  }
  rule.text = printable(text.empty() ? otherwise : text);
}

bool is_header(std::string_view text) {
  const std::size_t colon = text.find(':');
  if (colon == 0 || colon == std::string_view::npos || printable(text, text.size()) != text) return false;
  return text.substr(0, colon).find_first_of(blank) == std::string_view::npos && is_ascii(text.substr(0, colon));
}

struct Answering {
  std::string_view word;
  Action action;
  int code;
  std::string_view text;  // where the file has none
};
constexpr Answering answering[] = {
    {"reject", Action::reply, 554, denied},
    {"defer", Action::reply, 450, denied},
    {"defer_if_permit", Action::defer_if_permit, 450, "Service unavailable"},
};

struct Plain {
  std::string_view word;
  Action action;
};
constexpr Plain plain[] = {
    {"ok", Action::ok},       {"relay", Action::ok},        {"permit", Action::ok},
    {"dunno", Action::dunno}, {"warn", Action::warn},       {"info", Action::info},
    {"hold", Action::hold},   {"discard", Action::discard}, {"prepend", Action::prepend},
};

struct Refused {
  std::string_view word;
  std::string_view remedy;
};
constexpr Refused refused[] = {
    {"REDIRECT", "mail is passed on to the recipients it has; redirect it at the primary"},
    {"BCC", "mail is passed on to the recipients it has; copy it at the primary"},
    {"FILTER", "mail goes to the primary only; filter it there"},
    {"DELAY", "use HOLD, and 'greymx release' later"},
    {"DEFER_IF_REJECT", "use DEFER, or DUNNO"},
};

}  // namespace

std::optional<std::string> parse_action(std::string_view words, Rule& rule) {
  std::string spaced(words);
  std::ranges::replace(spaced, '\t', ' ');  // tables are aligned with tabs, replies have none
  std::string_view text = spaced;
  const std::string word = to_lower(take_word(text));
  const bool number = !word.empty() && word.find_first_not_of(digits) == std::string::npos;
  if (word.empty()) return "an action is missing after the pattern, such as OK or REJECT";
  if (number && word.size() == 3 && (word[0] == '4' || word[0] == '5')) {
    // Postfix takes a bare number for OK (time stamps of pop-before-smtp); nobody who writes 550 means that.
    if (text.empty()) return fmt::format("{} needs a text, such as '{} Access denied'", word, word);
    set_reply(rule, Action::reply, std::stoi(word), text);
    return {};
  }
  for (const Answering& known : answering) {
    if (word != known.word) continue;
    return set_reply(rule, known.action, known.code, text, known.text), std::nullopt;
  }
  rule.text = printable(text);
  if (number && text.empty()) return rule.action = Action::ok, std::nullopt;
  if (number) return fmt::format("{} is no reply code: right are 4NN and 5NN, such as '550 Access denied'", word);
  for (const Plain& known : plain) {
    if (word != known.word) continue;
    rule.action = known.action;
    if (known.action == Action::prepend && !is_header(text)) {
      return "PREPEND needs a header, such as 'PREPEND X-Seen: yes'";
    }
    if (known.action == Action::prepend && !is_ascii(text)) {
      return "PREPEND needs a header in ASCII: most mail may have no other characters there";
    }
    return {};
  }
  for (const Refused& known : refused) {
    if (equals_ignoring_case(word, known.word)) return fmt::format("{} is not done here: {}", known.word, known.remedy);
  }
  return fmt::format(
      "unknown action '{}': right are OK, REJECT, DEFER, DEFER_IF_PERMIT, DUNNO, WARN, INFO, HOLD, DISCARD, PREPEND "
      "and a reply such as '550 No such user' (restrictions are keys of [access] in relay.conf)",
      printable(take_word(words), 40));
}

}  // namespace greymx::access

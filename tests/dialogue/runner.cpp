#include "dialogue/runner.hpp"

#include <fmt/format.h>

#include <charconv>
#include <fstream>
#include <regex>

#include "dialogue/stack.hpp"
#include "support/catch.hpp"
#include "support/late_series.hpp"

namespace greymx::test {

namespace {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

bool matches(std::string_view text, std::string_view pattern) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return text == pattern;
  if (text.substr(0, star) != pattern.substr(0, star)) return false;
  const std::string_view rest = pattern.substr(star + 1);
  for (std::size_t at = star; at <= text.size(); ++at) {
    if (matches(text.substr(at), rest)) return true;
  }
  return false;
}

bool is_codes_only(const std::string& pattern) {
  static const std::regex codes("[0-9]{3}( [0-9]\\.[0-9]+\\.[0-9]+)?");
  return std::regex_match(pattern, codes);
}

std::string unescape(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{') {  // {text*N}
      const std::size_t star = text.find('*', i);
      const std::size_t end = text.find('}', i);
      if (star < end && end != std::string_view::npos) {
        const std::string piece = unescape(text.substr(i + 1, star - i - 1));
        for (int n = std::stoi(std::string(text.substr(star + 1, end - star - 1))); n > 0; --n) result += piece;
        i = end;
        continue;
      }
    }
    if (text[i] != '\\' || i + 1 == text.size()) {
      result += text[i];
      continue;
    }
    switch (text[++i]) {
      case 'r':
        result += '\r';
        break;
      case 'n':
        result += '\n';
        break;
      case 't':
        result += '\t';
        break;
      case '0':
        result += '\0';
        break;
      case 'x':
        result += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
        i += 2;
        break;
      default:
        result += text[i];
    }
  }
  return result;
}

std::chrono::seconds parse_time(std::string_view text) {
  std::chrono::seconds total{0};
  while (!text.empty()) {
    long value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (error != std::errc() || text.empty()) throw Failure("no time");
    const long unit = text[0] == 's' ? 1 : text[0] == 'm' ? 60 : text[0] == 'h' ? 3600 : text[0] == 'd' ? 86400 : 0;
    if (unit == 0) throw Failure("no time");
    total += std::chrono::seconds(value * unit);
    text.remove_prefix(1);
  }
  return total;
}

std::string next_word(std::string& text) {
  const std::size_t end = std::min(text.find(' '), text.size());
  const std::string word = text.substr(0, end);
  text.erase(0, text.find_first_not_of(' ', end));
  return word;
}

// "from=<a@example.org> to=<b@example.com> proto=ESMTP …", the rest only where it is not the default.
std::string describe(const queue::Message& message) {
  const Envelope& envelope = message.envelope;
  std::string text = fmt::format("from=<{}>", envelope.reverse_path);
  for (const EnvelopeRecipient& recipient : envelope.recipients) {
    text += fmt::format(" to=<{}>", recipient.address);
    if (!recipient.original_recipient.empty()) text += " orcpt=" + recipient.original_recipient;
    if (recipient.notify.never) text += " notify=never";
    if (recipient.notify.success) text += " notify=success";
    if (recipient.notify.failure) text += " notify=failure";
    if (recipient.notify.delay) text += " notify=delay";
  }
  text += fmt::format(" proto={} helo=<{}> client={}", envelope.protocol, envelope.helo, envelope.client.to_string());
  if (envelope.body == BodyType::eight_bit_mime) text += " body=8bitmime";
  if (envelope.smtputf8) text += " smtputf8";
  if (envelope.ret == DsnReturn::full) text += " ret=full";
  if (envelope.ret == DsnReturn::headers) text += " ret=hdrs";
  if (!envelope.envid.empty()) text += " envid=" + envelope.envid;
  if (!envelope.tls.empty()) text += " tls=" + envelope.tls;
  if (envelope.authorised == Authorised::spf) text += " authorised=spf";
  if (envelope.authorised == Authorised::client_name) text += " authorised=client_name";
  if (envelope.hold) text += " hold";
  return text;
}

class Dialogue {
 public:
  void perform(std::string line) {
    const std::string word = next_word(line);
    if (word.empty() || word[0] == '#') return;
    static const std::map<std::string, void (Dialogue::*)(std::string)> instructions = {
        {"config", &Dialogue::config},   {"file", &Dialogue::file},        {"tls", &Dialogue::tls},
        {"disk", &Dialogue::disk},       {"dns", &Dialogue::dns},          {"delay", &Dialogue::delay},
        {"primary", &Dialogue::primary}, {"client", &Dialogue::client},    {"C:", &Dialogue::say_line},
        {"C>", &Dialogue::say_bytes},    {"S:", &Dialogue::expect_reply},  {"closed", &Dialogue::closed},
        {"close", &Dialogue::close},     {"clock", &Dialogue::clock},      {"queue", &Dialogue::queue},
        {"content", &Dialogue::content}, {"log", &Dialogue::log},          {"nolog", &Dialogue::nolog},
        {"alert", &Dialogue::alert},     {"shutdown", &Dialogue::shutdown}};
    const auto found = instructions.find(word);
    if (found == instructions.end()) throw Failure("unknown instruction " + word);
    (this->*found->second)(std::move(line));
  }
  // Of a connection, or of the file.
  void end() {
    const std::string unread = stack_ ? stack_->unread() : std::string();
    if (!unread.empty()) throw Failure("replies that nobody expected: " + unread);
    const std::string late = stack_ ? late_series(stack_->metrics, "greymx_rejects_total") : std::string();
    if (!late.empty()) throw Failure("not in the table of metrics from the start: " + late);
  }
  std::string log_text() { return stack_ ? stack_->log.text() : std::string(); }

 private:
  Stack& stack() {
    if (!stack_) stack_ = std::make_unique<Stack>(settings_, files_, tls_, disk_);
    return *stack_;
  }
  Stack& connected() {
    if (!connected_) client("192.0.2.10 mail.example.org");
    return stack();
  }
  void before_all() const {
    if (stack_) throw Failure("comes too late: everything is built already");
  }

  void config(std::string line) {
    before_all();
    const std::size_t equals = line.find('=');
    if (equals == std::string::npos) throw Failure("no value");
    std::string key = line.substr(0, equals);
    key.erase(key.find_last_not_of(' ') + 1);
    settings_[key] = line.substr(equals + 1);
  }
  void file(std::string line) {
    before_all();
    const std::string name = next_word(line);
    files_[name] += line + "\n";
  }
  void tls(std::string) {
    before_all();
    tls_ = true;
  }
  void disk(std::string line) {
    if (line == "broken") return stack().break_disk();
    disk_ = std::stoull(line);
    if (stack_) stack_->resize_disk(disk_);
  }
  void dns(std::string line) { stack().resolver.add(line); }
  void delay(std::string line) {
    const std::string name = next_word(line);
    stack().delay(name, parse_time(line));
  }
  void primary(std::string line) {
    FakePrimaries& primaries = stack().primaries;
    const std::string what = next_word(line);
    if (what == "up" || what == "down") {
      primaries.up = what == "up";
    } else if (what == "size") {
      primaries.sizes["example.com"] = std::stoull(line);
    } else if (what == "address") {
      primaries.addresses.insert(line);
    } else if (what == "takes" || what == "refuses") {
      primaries.answers[line] = what == "takes" ? access::Callout::accepted : access::Callout::refused;
    } else {
      throw Failure("unknown word " + what);
    }
  }
  void client(std::string line) {
    const std::string address = next_word(line);
    const auto ip = IpAddress::parse(address);
    if (!ip) throw Failure("no address");
    if (!line.empty()) {
      const std::string zone = ip->is_v4() ? ".in-addr.arpa" : ".ip6.arpa";
      stack().resolver.add(fmt::format("{}{} PTR {}\n{} {} {}", ip->reversed_labels(), zone, line, line,
                                       ip->is_v4() ? "A" : "AAAA", address));
    }
    end();
    stack().connect({*ip, 4321});
    connected_ = true;
  }
  void say_line(std::string line) { connected().send(unescape(line) + "\r\n"); }
  void say_bytes(std::string line) { connected().send(unescape(line)); }
  void closed(std::string) {
    if (!connected().hung_up()) throw Failure("the server did not hang up, or said more");
  }
  void close(std::string) {
    end();
    connected().disconnect();
  }
  void shutdown(std::string) { connected().shut_down(); }
  void clock(std::string line) {
    if (!line.starts_with('+')) throw Failure("no +TIME");
    stack().advance(parse_time(line.substr(1)));
  }

  void expect_reply(std::string pattern) {
    std::string line;
    do {
      const auto received = connected().receive();
      if (!received) throw Failure("expected: " + pattern + "\n     got: nothing");
      line = *received;
    } while (pattern.size() > 3 && pattern[3] == ' ' && line.size() > 3 && line[3] == '-');
    const bool same = is_codes_only(pattern) ? line.starts_with(pattern) : matches(line, unescape(pattern));
    if (!same) throw Failure("expected: " + pattern + "\n     got: " + line);
  }
  void queue(std::string line) {
    const std::string count = next_word(line);
    const std::vector<queue::Message> messages = stack().queued();
    const std::string last = messages.empty() ? "" : describe(messages.back());
    if (std::to_string(messages.size()) != count || (!line.empty() && !matches(last, "*" + line + "*"))) {
      throw Failure(fmt::format("expected: {} {}\n     got: {} {}", count, line, messages.size(), last));
    }
  }
  void content(std::string pattern) {
    const std::vector<queue::Message> messages = stack().queued();
    const std::string text = messages.empty() ? "nothing" : stack().content(messages.back().id);
    if (!matches(text, unescape(pattern))) throw Failure("expected: " + pattern + "\n     got: " + text);
  }
  bool is_logged(const std::string& pattern) {
    const std::regex regex(pattern);
    for (const RecordingLog::Line& line : connected().log.lines()) {
      if (std::regex_search(line.text, regex)) return true;
    }
    return false;
  }
  void log(std::string pattern) {
    if (!is_logged(pattern)) throw Failure("not in the log: " + pattern);
  }
  void nolog(std::string pattern) {
    if (is_logged(pattern)) throw Failure("in the log: " + pattern);
  }
  void alert(std::string text) {
    if (!stack().alerts.contains(text)) throw Failure("no such alert");
  }

  std::map<std::string, std::string> settings_;
  std::map<std::string, std::string> files_;
  bool tls_ = false;
  std::uint64_t disk_ = 1ULL << 40;
  bool connected_ = false;
  std::unique_ptr<Stack> stack_;
};

}  // namespace

void run_dialogue(const std::string& path) {
  std::ifstream file(path);
  REQUIRE(file);
  Dialogue dialogue;
  std::string line;
  int number = 1;
  try {
    for (; std::getline(file, line); ++number) dialogue.perform(line);
    dialogue.end();
  } catch (const std::exception& error) {
    FAIL(path << ":" << number << ": " << line << "\n" << error.what() << "\n--- log\n" << dialogue.log_text());
  }
  SUCCEED();
}

}  // namespace greymx::test

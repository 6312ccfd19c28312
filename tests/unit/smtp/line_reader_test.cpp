#include "smtp/line_reader.hpp"

#include <string>
#include <vector>

#include "support/catch.hpp"

using greymx::smtp::LineReader;
using Status = LineReader::Status;

namespace {

// Feeds pieces as a session does: what was left over comes again with the next piece behind it.
std::vector<std::pair<Status, std::string>> read(const std::vector<std::string>& pieces, bool forbid_bare_lf = false) {
  LineReader reader(forbid_bare_lf);
  std::vector<std::pair<Status, std::string>> lines;
  std::string pending;
  for (const std::string& piece : pieces) {
    pending += piece;
    std::string_view input = pending;
    for (auto event = reader.next(input); event.status != Status::need_more; event = reader.next(input)) {
      lines.emplace_back(event.status, event.line);
    }
    pending = std::string(input);
    CHECK(pending.size() < LineReader::max_line);
  }
  return lines;
}

}  // namespace

TEST_CASE("CRLF ends a command line, a bare LF too unless it is forbidden, a bare CR never") {
  using Lines = std::vector<std::pair<Status, std::string>>;
  CHECK(read({"NOOP\r\nQU", "IT\r", "\nRS"}) == Lines{{Status::line, "NOOP"}, {Status::line, "QUIT"}});
  CHECK(read({"NOOP\nQU", "IT\n"}) == Lines{{Status::line, "NOOP"}, {Status::line, "QUIT"}});
  CHECK(read({"NOOP\n"}, true) == Lines{{Status::bare_lf, ""}});
  CHECK(read({"NOOP\r\n"}, true) == Lines{{Status::line, "NOOP"}});
  CHECK(read({"NOOP\rQUIT\r"}).empty());
  CHECK(read({"\r\n"}) == Lines{{Status::line, ""}});
}

TEST_CASE("bare CR and NUL spoil the whole line") {
  CHECK(read({"NOOP\rMAIL\r\n"}).at(0).first == Status::bare_cr);
  CHECK(read({"NOOP\r\r\n"}).at(0).first == Status::bare_cr);
  CHECK(read({std::string("NO\0OP\r\n", 7)}).at(0).first == Status::nul);
  CHECK(read({"NOOP\rMAIL\r\n"}).size() == 1);
}

TEST_CASE("a line of 2048 octets is read, a longer one skipped to its end and reported once") {
  const std::string longest(LineReader::max_line - 2, 'x');
  CHECK(read({longest + "\r\nNOOP\r\n"}).at(0).first == Status::line);
  CHECK(read({longest + "x\nNOOP\n"}).at(0).first == Status::line);
  CHECK(read({longest + "xx\nNOOP\n"}).at(0).first == Status::too_long);
  CHECK(read({longest, "xx", "\nNOOP\n"}, true).at(0).first == Status::bare_lf);
  for (const std::size_t excess : {1U, 2U, 3000U, 100000U}) {
    const std::string line = longest + std::string(excess, 'x') + "\r\nNOOP\r\n";
    for (const std::size_t step : {1U, 7U, 2047U, 2048U, 2049U, 200000U}) {
      std::vector<std::string> pieces;
      for (std::size_t at = 0; at < line.size(); at += step) pieces.push_back(line.substr(at, step));
      const auto lines = read(pieces);
      REQUIRE(lines.size() == 2);
      CHECK(lines[0].first == Status::too_long);
      CHECK(lines[1] == std::pair(Status::line, std::string("NOOP")));
    }
  }
}

#include "smtp/body_decoder.hpp"

#include <algorithm>

#include "base/mailbox.hpp"
#include "base/text.hpp"

namespace greymx::smtp {

namespace {

constexpr std::string_view blanks = " \t\r";
constexpr std::size_t max_header_line = 998;  // of which we remember the beginning

}  // namespace

void HeaderScan::feed(std::string_view bytes) {
  while (!done_ && !bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, end);
    line_.append(piece.substr(0, max_header_line - std::min(line_.size(), max_header_line)));
    if (end == std::string_view::npos) return;
    end_of_line();
    line_.clear();
    bytes.remove_prefix(end + 1);
  }
}

void HeaderScan::end_of_line() {
  const std::string_view line = trim(line_, blanks);
  const bool continuation = line_.starts_with(' ') || line_.starts_with('\t');
  const std::size_t colon = line.find(':');
  if (!continuation) {
    const std::string_view name = trim(line.substr(0, colon), blanks);
    // An empty line, or one that is no header field, begins the body.
    done_ = colon == std::string_view::npos || name.empty() || name.find_first_of(" \t") != std::string_view::npos;
    if (equals_ignoring_case(name, "Received")) ++received_;
    in_message_id_ = equals_ignoring_case(name, "Message-ID");
  }
  if (done_ || !in_message_id_ || !message_id_.empty()) return;
  message_id_ = printable(continuation ? line : trim(line.substr(colon + 1), blanks));
}

BodyDecoder::Status BodyDecoder::decode_data(std::string_view& input, std::string& out) {
  return decode(input, out, true);
}

void BodyDecoder::decode_chunk(std::string_view input, std::string& out) {
  decode(input, out, false);
}

void BodyDecoder::finish_chunks(std::string& out) {
  const std::size_t before = out.size();
  if (state_ == State::cr) {
    bare_cr_ = true;
    out += ' ';
    state_ = State::text;
  }
  if (state_ == State::text) out += "\r\n";
  state_ = State::line_start;
  count(std::string_view(out).substr(before));
}

void BodyDecoder::count(std::string_view added) {
  size_ += added.size();
  headers_.feed(added);
}

BodyDecoder::Status BodyDecoder::decode(std::string_view& input, std::string& out, bool dots) {
  const std::size_t before = out.size();
  Status status = Status::more;
  while (!input.empty() && status == Status::more) {
    if (state_ != State::cr && state_ != State::dot && state_ != State::dot_cr) take_lines(input, out, dots);
    if (input.empty()) break;
    status = step(input.front(), out, dots);
    input.remove_prefix(1);
  }
  count(std::string_view(out).substr(before));
  return status;
}

// The fast way: whole clean lines, and the beginning of one, up to the first byte that needs a thought.
void BodyDecoder::take_lines(std::string_view& input, std::string& out, bool dots) {
  std::size_t taken = 0;
  while (taken < input.size()) {
    if (dots && state_ == State::line_start && input[taken] == '.') break;
    const std::size_t lf = std::min(input.find('\n', taken), input.size());
    const std::string_view line = input.substr(taken, lf - taken);
    const std::size_t cr = std::min(line.find('\r'), line.size());
    if (cr > 0) state_ = State::text;
    taken += cr;
    if (cr + 1 != line.size() || lf == input.size()) break;  // not clean: step() looks at it
    taken += 2;
    state_ = State::line_start;
  }
  out.append(input.substr(0, taken));
  input.remove_prefix(taken);
}

BodyDecoder::Status BodyDecoder::step(char c, std::string& out, bool dots) {
  if (c == '\n') {
    if (state_ == State::dot_cr) {
      state_ = State::line_start;
      return Status::end;
    }
    bare_lf_ = bare_lf_ || state_ != State::cr;
    // Behind a bare LF a line has not begun for anybody who keeps to the standard: a dot there is content.
    state_ = state_ == State::cr ? State::line_start : State::bare_lf;
    out += "\r\n";
    return Status::more;
  }
  if (state_ == State::cr || state_ == State::dot_cr) {  // and this is not its LF
    bare_cr_ = true;
    out += ' ';
    state_ = State::text;
  }
  if (c == '\r') {
    state_ = state_ == State::dot ? State::dot_cr : State::cr;
  } else if (c == '.' && dots && state_ == State::line_start) {
    state_ = State::dot;
  } else {
    out += c;
    state_ = State::text;
  }
  return Status::more;
}

}  // namespace greymx::smtp

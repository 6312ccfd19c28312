#include "smtp/client_session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace greymx::smtp {

namespace {

// Commands in one write. Their replies must fit into socket buffers while we still write (RFC 2920 3.1).
constexpr std::size_t pipelined = 50;

// Does a reply grant what was asked? 2yz to DATA or 3yz to MAIL is a reply, but to something else.
bool fits(Stage stage, int code) {
  return stage == Stage::data ? code == 354 : code / 100 == 2;
}

}  // namespace

ClientSession::ClientSession(std::unique_ptr<Stream> stream, std::string our_name, ClientTimeouts timeouts)
    : stream_(std::move(stream)), our_name_(to_lower(our_name)), timeouts_(timeouts) {}

SteadyTime ClientSession::deadline(Stage stage) const {
  using Limits = ClientTimeouts;
  // connect, greeting, ehlo, starttls, handshake, reset, xforward, mail, rcpt, data, content, dot
  static constexpr std::array limits = {&Limits::ehlo, &Limits::greeting, &Limits::ehlo,  &Limits::ehlo,
                                        &Limits::tls,  &Limits::reset,    &Limits::mail,  &Limits::mail,
                                        &Limits::rcpt, &Limits::data,     &Limits::block, &Limits::dot};
  static_assert(limits.size() == static_cast<std::size_t>(Stage::dot) + 1);
  return std::chrono::steady_clock::now() + timeouts_.*limits.at(static_cast<std::size_t>(stage));
}

Answer ClientSession::broken(Stage stage, Answer::Kind kind, std::string detail) {
  broken_ = true;
  stream_->close();
  return {stage, kind, {}, printable(detail)};
}

// Under TLS what has come may carry no data, like a session ticket.
bool ClientSession::has_unasked() {
  if (begin_ != end_) return true;
  if (!stream_->has_pending()) return false;
  if (stream_->ssl() == nullptr) return true;
  begin_ = 0;
  end_ = stream_->read_now(buffer_).value_or(0);
  return end_ > 0;
}

// A reply that comes before its command answers nothing, and whatever follows would answer something else than it seems
// to. A goodbye (421) may come at any time, and in the middle of the content a refusal of it.
Answer ClientSession::judge_unasked(Answer answer) {
  if (answer.kind != Answer::Kind::reply) return answer;
  if (answer.stage == Stage::content && answer.reply.code >= 400) {
    broken_ = true;
    stream_->close();
    answer.stage = Stage::dot;
    return answer;
  }
  if (answer.reply.code == 421) return answer;
  return broken(answer.stage, Answer::Kind::garbage, "unexpected reply: " + answer.reply.text());
}

Task<std::optional<Answer>> ClientSession::read_unasked(Stage stage) {
  if (!has_unasked()) co_return std::nullopt;
  Answer answer = co_await read_reply(stage);
  co_return judge_unasked(std::move(answer));
}

Task<std::optional<Answer>> ClientSession::send(Stage stage, std::string bytes) {
  std::optional<Answer> unasked = co_await read_unasked(stage);
  if (unasked) co_return unasked;
  const Result<> written = co_await stream_->write(bytes, deadline(stage));
  if (written) co_return std::nullopt;
  if (stage == Stage::content) {  // a server that has seen enough says why, then hangs up
    Answer last = co_await read_reply(stage, std::chrono::steady_clock::now());
    if (last.kind == Answer::Kind::reply) co_return judge_unasked(std::move(last));
  }
  const bool late = written.error().kind == ErrorKind::timed_out;
  co_return broken(stage, late ? Answer::Kind::timed_out : Answer::Kind::lost, written.error().text);
}

// A whole reply if its bytes are here already: most are, when commands are pipelined.
std::optional<Answer> ClientSession::buffered_reply(Stage stage) {
  begin_ += parser_.feed({buffer_.data() + begin_, end_ - begin_});
  if (parser_.status() == ReplyParser::Status::more) return std::nullopt;
  if (parser_.status() == ReplyParser::Status::malformed) {
    return broken(stage, Answer::Kind::garbage, "malformed reply");
  }
  Answer answer{stage, Answer::Kind::reply, parser_.take(), {}};
  if (answer.reply.code == 421) broken_ = true;  // the server closes now (RFC 5321 3.8)
  if (answer.reply.code == 503) out_of_step_ = true;
  return answer;
}

Task<Answer> ClientSession::read_reply(Stage stage, SteadyTime until) {
  std::optional<Answer> answer = buffered_reply(stage);
  while (!answer) {
    const ReadEvent event = co_await stream_->read_some(buffer_, until);
    if (event.status == ReadStatus::timed_out) co_return broken(stage, Answer::Kind::timed_out, {});
    if (event.status != ReadStatus::data) co_return broken(stage, Answer::Kind::lost, event.error);
    begin_ = 0;
    end_ = event.bytes;
    answer = buffered_reply(stage);
  }
  co_return std::move(*answer);
}

Task<Answer> ClientSession::ask(Stage stage, std::string line) {
  std::string bytes = command(line);
  std::optional<Answer> trouble = co_await send(stage, std::move(bytes));
  if (trouble) co_return std::move(*trouble);
  Answer answer = co_await read_reply(stage);
  co_return answer;
}

bool ClientSession::is_us(std::string_view name) const {
  return equals_ignoring_case(name, our_name_);
}

Task<Answer> ClientSession::greet() {
  Answer answer = co_await read_reply(Stage::greeting);
  if (!answer.positive()) co_return answer;
  const std::string& text = answer.reply.lines.front();
  if (is_us(std::string_view(text).substr(0, text.find(' ')))) {
    co_return broken(Stage::greeting, Answer::Kind::loop, text);
  }
  answer = co_await hello();
  co_return answer;
}

Task<Answer> ClientSession::hello() {
  Answer answer = co_await ask(Stage::ehlo, "EHLO " + our_name_);
  const bool extended = answer.positive();
  if (answer.kind == Answer::Kind::reply && answer.reply.permanent()) {
    answer = co_await ask(Stage::ehlo, "HELO " + our_name_);
  }
  if (!answer.positive()) co_return answer;
  server_ = parse_capabilities(answer.reply);
  if (!extended)
    server_ = parse_capabilities({answer.reply.code, {}, {answer.reply.lines.front()}});  // HELO: a name, no more
  if (is_us(server_.name)) co_return broken(Stage::ehlo, Answer::Kind::loop, server_.name);
  co_return answer;
}

Task<Answer> ClientSession::start_tls(TlsClient& tls, std::string host) {
  Answer answer = co_await ask(Stage::starttls, "STARTTLS");
  if (!answer.positive()) co_return answer;
  // Bytes before the handshake would be taken for replies that came under its protection.
  if (begin_ != end_ || stream_->has_pending()) {
    co_return broken(Stage::handshake, Answer::Kind::garbage, "data after the reply to STARTTLS");
  }
  const Result<TlsInfo> info =
      co_await tls.handshake(*stream_, std::move(host), stream_->peer().port, deadline(Stage::handshake));
  if (!info) co_return broken(Stage::handshake, Answer::Kind::tls, info.error().text);
  tls_ = info->to_string();
  server_ = {};
  answer = co_await hello();
  co_return answer;
}

std::vector<ClientSession::Line> ClientSession::lines_of(const MailTransaction& transaction) const {
  const Envelope& envelope = *transaction.envelope;
  std::vector<Line> lines;
  if (open_transaction_) lines.push_back({Stage::reset, 0, command("RSET")});
  if (transaction.xforward) {
    for (std::string& line : xforward_commands(envelope, server_)) {
      lines.push_back({Stage::xforward, 0, std::move(line)});
    }
  }
  lines.push_back({Stage::mail, 0, mail_command(envelope, transaction.size, transaction.utf8, server_)});
  for (std::size_t i = 0; i < transaction.recipients.size(); ++i) {
    const EnvelopeRecipient& recipient = envelope.recipients[transaction.recipients[i]];
    lines.push_back({Stage::rcpt, i, rcpt_command(recipient, transaction.utf8, server_)});
  }
  if (!transaction.callout) lines.push_back({Stage::data, 0, command("DATA")});
  return lines;
}

// What the replies to one envelope add up to.
struct ClientSession::Progress {
  EnvelopeResult result;
  std::vector<bool> open;  // not refused yet
  bool mail_refused = false;
  bool taken = false;  // the server has a recipient, wanted or not
  std::size_t accepted = 0;

  explicit Progress(std::size_t recipients) : open(recipients, true) { result.answers.resize(recipients); }

  // Is the command still worth sending, going by the replies so far?
  bool wants(Stage stage) const {
    if (stage == Stage::rcpt) return !mail_refused;
    return stage != Stage::data || accepted > 0;
  }
  void end_open(const Answer& answer) {
    for (std::size_t i = 0; i < open.size(); ++i) {
      if (open[i]) result.answers[i] = answer;
      open[i] = false;
    }
    accepted = 0;
  }
  // The connection is no good any more. Out of step, it may be another's answer that a recipient got.
  void break_off(const Answer& answer) {
    if (answer.kind == Answer::Kind::garbage) open.assign(open.size(), true);
    end_open(answer);
    result.go = false;
  }
  void on(const Line& line, Answer answer) {
    if (answer.kind == Answer::Kind::reply && answer.reply.code != 421) result.replied = true;
    const bool expected = fits(line.stage, answer.reply.code);
    taken = taken || (line.stage == Stage::rcpt && expected);
    if (line.stage == Stage::mail && !expected) {
      mail_refused = true;
      end_open(answer);
    } else if (line.stage == Stage::rcpt && open[line.recipient]) {
      if (expected) ++accepted;
      open[line.recipient] = expected;
      result.answers[line.recipient] = std::move(answer);
    } else if (line.stage == Stage::data) {
      result.go = expected && accepted > 0;
      if (!expected) end_open(answer);
    }
  }
};

Task<EnvelopeResult> ClientSession::envelope(MailTransaction transaction) {
  Progress progress(transaction.recipients.size());
  const std::vector<Line> lines = lines_of(transaction);
  open_transaction_ = true;
  bool data_open = false;
  for (std::size_t next = 0; next < lines.size();) {
    if (!progress.wants(lines[next].stage)) {
      ++next;
      continue;
    }
    const std::size_t first = next;
    std::string group;
    do {
      group += lines[next++].text;
    } while (server_.pipelining && next < lines.size() && next - first < pipelined);
    std::optional<Answer> trouble = co_await send(lines[first].stage, std::move(group));
    for (std::size_t i = first; i < next && !trouble; ++i) {
      const Stage stage = lines[i].stage;
      const bool was_out_of_step = out_of_step_;
      Answer answer = co_await read_reply(stage);
      // 503 to what was pipelined after the refusal of what it needs is as it should be.
      if (!progress.wants(stage)) out_of_step_ = was_out_of_step;
      if (answer.kind == Answer::Kind::reply && answer.reply.code < 400 && !fits(stage, answer.reply.code)) {
        answer = broken(stage, Answer::Kind::garbage, "unexpected reply: " + answer.reply.text());
      }
      // It still has the recipients of the last transaction: as good as a connection that it has closed.
      if (stage == Stage::reset && answer.kind == Answer::Kind::reply && !answer.positive()) {
        answer = broken(stage, Answer::Kind::lost, "not reset: " + answer.reply.text());
      }
      if (broken_) trouble = answer;
      data_open = stage == Stage::data && answer.reply.code == 354;
      progress.on(lines[i], std::move(answer));
    }
    if (trouble) {
      progress.break_off(*trouble);
      co_return std::move(progress.result);
    }
  }
  if (progress.result.go) co_return std::move(progress.result);
  std::optional<Answer> trouble = co_await read_unasked(lines.back().stage);
  if (!trouble && data_open && progress.taken) {  // a dot would send its recipients an empty message
    broken_ = true;
    stream_->close();
  } else if (!trouble && data_open) {
    // DATA was pipelined and wanted although nobody is left: an empty message to no one (RFC 2920 3.1).
    trouble = co_await send(Stage::dot, ".\r\n");
    if (!trouble) co_await read_reply(Stage::dot);
  }
  // What they were told before the server left (421) stands.
  if (trouble && trouble->kind == Answer::Kind::garbage) progress.break_off(*trouble);
  co_return std::move(progress.result);
}

Task<std::optional<Answer>> ClientSession::content(std::string bytes, bool last) {
  std::string encoded;
  encoder_.add(bytes, encoded);
  if (last) encoder_.finish(encoded);
  std::optional<Answer> trouble = co_await send(Stage::content, std::move(encoded));
  co_return trouble;
}

Task<Answer> ClientSession::finish() {
  Answer answer = co_await read_reply(Stage::dot);
  open_transaction_ = false;
  if (answer.kind == Answer::Kind::reply && answer.reply.code < 400 && !fits(Stage::dot, answer.reply.code)) {
    answer = broken(Stage::dot, Answer::Kind::garbage, "unexpected reply: " + answer.reply.text());
  }
  co_return answer;
}

Task<Answer> ClientSession::verify(std::string recipient) {
  Envelope envelope;
  const bool utf8 = !is_ascii(recipient);
  envelope.recipients.push_back({std::move(recipient), {}, {}});
  MailTransaction transaction{.envelope = &envelope, .recipients = {0}, .utf8 = utf8, .callout = true};
  EnvelopeResult result = co_await this->envelope(std::move(transaction));
  co_return std::move(result.answers.front());
}

bool ClientSession::usable() {
  return !broken_ && !out_of_step_ && begin_ == end_ && !stream_->has_pending();
}

Task<> ClientSession::quit() {
  if (broken_) co_return;
  const SteadyTime end = std::chrono::steady_clock::now() + timeouts_.quit;
  const std::string line = command("QUIT");
  const Result<> written = co_await stream_->write(line, end);
  if (written) co_await stream_->read_some(buffer_, end);
  broken_ = true;
  stream_->close();
}

}  // namespace greymx::smtp

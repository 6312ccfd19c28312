// Our side of one SMTP connection to a server: greeting, EHLO, STARTTLS, transactions, callouts (RFC 5321, 2920, 3207).
//
// Every step ends in an Answer: what the server said, or how the connection failed. Nothing here decides what that
// means for a message; relay/outcome does. A session that is not usable() any more is only good for destroying.
//
// Thread: the stream's executor; one call at a time. A hostile server costs bounded memory and, by the timeouts of
// RFC 5321 4.5.3.2, bounded time.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mail.hpp"
#include "smtp/client_commands.hpp"
#include "smtp/client_reply.hpp"
#include "smtp/stream.hpp"
#include "smtp/tls_client.hpp"

namespace greymx::smtp {

enum class Stage : std::uint8_t {
  connect,
  greeting,
  ehlo,
  starttls,
  handshake,
  reset,
  xforward,
  mail,
  rcpt,
  data,
  content,
  dot
};

struct Answer {
  enum class Kind : std::uint8_t {
    reply,  // `reply` holds what the server said
    lost,   // the connection ended or failed
    timed_out,
    garbage,  // not SMTP, or no fitting reply
    tls,      // the handshake or the certificate failed
    loop,     // the server calls itself by our name
  };
  Stage stage = Stage::connect;
  Kind kind = Kind::lost;
  ServerReply reply;
  std::string detail;  // other kinds: for the log, printable()

  bool positive() const { return kind == Kind::reply && reply.positive(); }
};

struct ClientTimeouts {
  using Limit = std::chrono::milliseconds;
  Limit greeting = std::chrono::minutes(5);
  Limit ehlo = std::chrono::minutes(5);
  Limit tls = std::chrono::minutes(2);
  Limit mail = std::chrono::minutes(5);
  Limit rcpt = std::chrono::minutes(5);
  Limit data = std::chrono::minutes(2);
  Limit block = std::chrono::minutes(3);  // each write of content
  Limit dot = std::chrono::minutes(10);
  Limit reset = std::chrono::seconds(20);
  Limit quit = std::chrono::seconds(5);

  static ClientTimeouts all(Limit limit) {
    return {limit, limit, limit, limit, limit, limit, limit, limit, limit, limit};
  }
};

// One message to some of its recipients.
struct MailTransaction {
  const Envelope* envelope = nullptr;   // outlives the transaction
  std::vector<std::size_t> recipients;  // indices into the envelope's
  std::uint64_t size = 0;
  bool utf8 = false;      // needs SMTPUTF8
  bool xforward = false;  // tell who the client was, if the server wants to know
  bool callout = false;   // stop before DATA
};

// How far the envelope came: one Answer a recipient, in the transaction's order. With `go` content is wanted for those
// whose answer is positive; without it each answer is final.
struct EnvelopeResult {
  std::vector<Answer> answers;
  bool go = false;
  // Any reply came but that it closes now (421) or does not reset: a connection that was kept open was still good.
  bool replied = false;
};

class ClientSession {
 public:
  // `our_name`: for EHLO, and to find out that we talk to ourselves.
  ClientSession(std::unique_ptr<Stream> stream, std::string our_name, ClientTimeouts timeouts = {});

  // Waits for the greeting, then EHLO, or HELO if that is refused. The answer of the last step.
  Task<Answer> greet();
  // STARTTLS, handshake, EHLO again (what was said before does not count: RFC 3207 4.2).
  Task<Answer> start_tls(TlsClient& tls, std::string host);
  const Capabilities& server() const { return server_; }
  std::string tls() const { return tls_; }  // "TLSv1.3 with cipher …", empty = plain
  Endpoint peer() const { return stream_->peer(); }

  Task<EnvelopeResult> envelope(MailTransaction transaction);
  // Any number of pieces; the last one takes the dot with it. An answer: it failed, and the dot was not sent. One to
  // the dot is what the server said before the end.
  Task<std::optional<Answer>> content(std::string bytes, bool last);
  Task<Answer> finish();  // the reply to the dot. Lost or timed out: nobody knows whether it was taken (RFC 1047)
  // MAIL FROM:<> and RCPT TO, then nothing: would the server take it? The answer of the step that decided.
  Task<Answer> verify(std::string recipient);

  // Idle and, as far as we can see, still open and in step.
  bool usable();
  Task<> quit();

 private:
  struct Line {
    Stage stage = Stage::mail;
    std::size_t recipient = 0;  // rcpt only: position in the transaction
    std::string text;
  };
  struct Progress;
  Task<Answer> ask(Stage stage, std::string line);
  Task<Answer> hello();
  Task<std::optional<Answer>> send(Stage stage, std::string bytes);
  bool has_unasked();
  Task<std::optional<Answer>> read_unasked(Stage stage);
  Answer judge_unasked(Answer answer);
  Task<Answer> read_reply(Stage stage, SteadyTime until);
  Task<Answer> read_reply(Stage stage) { return read_reply(stage, deadline(stage)); }
  std::optional<Answer> buffered_reply(Stage stage);
  Answer broken(Stage stage, Answer::Kind kind, std::string detail);
  bool is_us(std::string_view name) const;
  SteadyTime deadline(Stage stage) const;
  std::vector<Line> lines_of(const MailTransaction& transaction) const;

  std::unique_ptr<Stream> stream_;
  std::string our_name_;
  ClientTimeouts timeouts_;
  Capabilities server_;
  std::string tls_;
  bool broken_ = false;
  bool out_of_step_ = false;       // by the server's word: this transaction may end, no other one begins
  bool open_transaction_ = false;  // RSET before the next one
  ReplyParser parser_;
  ContentEncoder encoder_;
  std::array<char, 4096> buffer_;
  std::size_t begin_ = 0, end_ = 0;  // what of buffer_ is not parsed yet
};

}  // namespace greymx::smtp

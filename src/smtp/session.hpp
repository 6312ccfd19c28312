// The protocol state of one SMTP connection: what is legal when, what is said to it, what is logged. No sockets, no
// waiting: on_line() answers at once or names the effect (a question to Admission, content to read …) that the server
// session has to perform, and the result comes back through one of the other on_…() functions.
//
// Two objects: the Session (client, TLS, HELO, counters) lasts as long as the connection, the Transaction from MAIL to
// the end of data; RSET destroys it. Replies gather in output() until they are sent, a pipelined group's at once.
//
// Thread: the connection's. `config`, the intake and the rest must outlive it.
// Spec: RFC 5321, 2920 (PIPELINING), 3030 (CHUNKING), 3207 (STARTTLS), 3461 (DSN), 6531 (SMTPUTF8), 1985 (ETRN).
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "config/config.hpp"
#include "smtp/body_decoder.hpp"
#include "smtp/command.hpp"
#include "smtp/envelope_memory.hpp"
#include "smtp/line_reader.hpp"
#include "smtp/ports.hpp"
#include "smtp/reply.hpp"

namespace greymx::smtp {

enum class State : std::uint8_t { start = 1, greeted = 2, mail = 4, rcpt = 8, chunks = 16 };  // bits for the table

enum class Effect : std::uint8_t {
  none,       // answered
  recipient,  // ask Admission::recipient about pending_recipient(), then on_recipient()
  data,       // ask Admission::data, then on_data()
  chunk,      // BDAT: see chunk()
  start_tls,  // handshake, then on_tls()
  xclient,    // see xclient(), then begin() again
  etrn,       // ask Admission::etrn about etrn_node(), then answer()
  close,      // send output() and hang up
};

struct Transaction {
  explicit Transaction(Intake& intake) : memory(intake.recipient_bytes) {}

  Envelope envelope;
  std::size_t recipient_bytes = 0;          // addresses and ORCPTs of the envelope
  EnvelopeMemory memory;                    // of its recipients
  std::vector<std::string> headers;         // from verdicts
  std::uint64_t primary_size = UINT64_MAX;  // the least SIZE of the primaries: of the message with our header lines
  std::uint64_t trace_size = 0;             // of those lines
  std::uint32_t attempts = 0;               // RCPT commands
  bool discard = false;
  std::unique_ptr<Body> body;  // from the first recipient on; gone once the content is refused
  BodyDecoder decoder;
  std::string content;           // of chunks: decoded and not yet stored
  std::optional<Reply> failure;  // why the content, or the rest of it, is read and dropped
  std::string failed_check;
  bool failure_told = false;
};

struct Chunk {
  std::uint64_t size = 0;
  bool last = false;
  bool first = false;            // ask Admission::data before reading it
  std::optional<Reply> refusal;  // out of order: read it, drop it, say this
  bool answered = false;         // refused by Admission::data
};

class Session {
 public:
  Session(const config::Config& config, Intake& intake, const Clock& clock, Log& log, Metrics& metrics,
          std::string instance);

  // At the beginning and after XCLIENT: everything but TLS and counters starts anew. No greeting yet.
  void begin(Client client, Admission& admission);
  void allow_xclient() { xclient_allowed_ = true; }
  void offer_tls() { tls_offered_ = true; }
  void note_early_talker() { facts_.early_talker = true; }
  void note_improper_pipelining();
  void set_client_name(std::string name) { facts_.client.name = std::move(name); }
  void announce();  // the first line of the log about a client: that it has come
  void greet();

  // One command line; `more_follows`: bytes behind it have already come.
  Effect on_line(std::string_view line, bool more_follows);
  Effect on_bad_line(LineReader::Status status);
  bool on_recipient(Verdict verdict);  // false: an access file says 421 or 521, hang up (access(5))
  // True: content may come. For DATA 354 is said; for a first BDAT nothing yet.
  bool on_data(Verdict verdict);
  void on_tls(const std::string& info);
  void on_xclient(const XclientCommand& command);

  // The header lines that go before the content: those of verdicts, then Received.
  std::string trace_headers();
  // After an error of the intake, or when the content has grown: true if what was decoded is still wanted.
  bool still_wanted();
  void on_write_error(const Error& error);
  void on_chunk();  // a chunk has been read, and it was not the last of a message that is still wanted
  // The content is complete. False: it was refused, the transaction is over. Else seal() and commit, or only
  // on_commit() if it is to be discarded.
  bool on_end_of_content();
  Envelope seal(Authorised authorised);
  void on_commit(const Result<>& result);

  void answer(const Reply& reply, bool counts_as_error = true);
  void answer(const ReplyText& text, std::string_view argument = {});
  bool too_many_errors() const { return errors_ >= config_.limits.errors; }

  std::string& output() { return output_; }
  const Facts& facts() const { return facts_; }
  State state() const { return state_; }
  Transaction* transaction() { return transaction_.get(); }
  const Mailbox& pending_recipient() const { return pending_.path.mailbox; }
  const Chunk& chunk() const { return chunk_; }
  const XclientCommand& xclient() const { return xclient_; }
  const std::string& etrn_node() const { return etrn_node_; }
  std::string client();                              // for the log, after announce()
  std::string_view where() const { return where_; }  // "RCPT": the last command, for "lost connection after"
  std::string summary() const;                       // "ehlo=1 mail=1 rcpt=0/1 commands=2/3"
  std::uint64_t max_message_size() const;            // what EHLO offers

 private:
  Effect dispatch(Verb verb, std::string_view arguments);
  void hello(Verb verb, std::string_view name);
  void list_extensions();
  void mail(std::string_view arguments);
  Effect rcpt(std::string_view arguments);
  Effect bdat(std::string_view arguments);
  Effect etrn(std::string_view argument);
  Effect xclient(std::string_view arguments);
  Effect start_tls();
  const ReplyText& out_of_order(Verb verb) const;
  std::uint64_t max_size_for(const std::string& domain) const;
  std::uint64_t at_most_ours(std::uint64_t limit) const;
  std::string protocol() const;  // for Received: "ESMTPS", "UTF8SMTP" …
  std::string message_id() const;
  void take(Verdict& verdict);
  void drop_content(Reply reply, std::string_view check);
  void tell_failure(std::string_view where);
  void log_verdict(std::string_view where, const Verdict& verdict, std::string_view recipient);
  void log_action(std::string_view label, std::string_view where, std::string_view text, std::string_view recipient);
  void refuse(std::string_view where, const Reply& reply, std::string_view check, std::string_view recipient = {},
              bool counts_as_error = true);
  void refuse_syntax(const Reply& reply, std::string_view arguments);
  void refuse_surplus(const std::string& recipient);
  bool is_surplus(std::size_t bytes) const;
  void add_recipient(const std::string& address);
  void count_junk();
  void end_transaction();

  struct Count {
    std::uint32_t ok = 0;
    std::uint32_t total = 0;
  };

  const config::Config& config_;
  Intake& intake_;
  const Clock& clock_;
  Log& log_;
  Metrics& metrics_;
  std::string instance_;
  Admission* admission_ = nullptr;
  Facts facts_;
  std::string tls_;
  State state_ = State::start;
  std::unique_ptr<Transaction> transaction_;  // null between messages: idle sessions are many
  std::string output_;
  Verb verb_ = Verb::unknown;  // of the command being answered
  std::string_view where_ = "CONNECT";
  std::array<Count, verb_count> counts_{};
  std::uint32_t errors_ = 0;
  std::uint32_t junk_ = 0;
  std::uint32_t put_off_ = 0;  // recipients refused for now
  std::uint32_t transactions_ = 0;
  bool xclient_allowed_ = false;
  bool tls_offered_ = false;
  bool connect_logged_ = false;
  RcptCommand pending_;
  Chunk chunk_;
  XclientCommand xclient_;
  std::string etrn_node_;
};

}  // namespace greymx::smtp

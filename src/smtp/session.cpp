#include "smtp/session.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace greymx::smtp {

namespace {

constexpr std::uint32_t free_junk = 100;
constexpr std::size_t max_logged = 256;
constexpr std::uint64_t trace_reserve = 1024;  // for the header lines to come, while their length is not known

constexpr std::uint8_t in(std::initializer_list<State> states) {
  std::uint8_t bits = 0;
  for (const State state : states) bits = static_cast<std::uint8_t>(bits | static_cast<std::uint8_t>(state));
  return bits;
}
constexpr std::uint8_t any = in({State::start, State::greeted, State::mail, State::rcpt, State::chunks});
constexpr std::uint8_t idle = in({State::start, State::greeted});

// The order rules as data.
struct CommandRule {
  Verb verb;
  std::uint8_t legal;  // states, or-ed
  bool group_last;     // nothing may be pipelined behind it (RFC 2920 3.1)
  bool before_tls;     // allowed under tls.inbound = "encrypt" in the clear (RFC 3207 4)
  bool takes_argument;
  bool junk;  // free only so often: does nothing for mail
};

// clang-format off
constexpr std::array<CommandRule, verb_count - 1> rules = {{
    // verb          legal in                            last   before TLS argument junk
    {Verb::helo,     any,                                true,  true,  true,  true},
    {Verb::ehlo,     any,                                true,  true,  true,  true},
    {Verb::xclient,  idle,                               true,  true,  true,  false},
    {Verb::starttls, idle,                               true,  true,  false, false},
    {Verb::auth,     any,                                true,  false, true,  false},
    {Verb::mail,     in({State::greeted}),               false, false, true,  false},
    {Verb::rcpt,     in({State::mail, State::rcpt}),     false, false, true,  false},
    {Verb::data,     in({State::rcpt}),                  true,  false, false, false},
    {Verb::bdat,     in({State::rcpt, State::chunks}),   false, false, true,  false},
    {Verb::rset,     any,                                false, false, false, true},
    {Verb::noop,     any,                                true,  true,  true,  true},
    {Verb::vrfy,     any,                                true,  false, true,  true},
    {Verb::expn,     any,                                true,  false, true,  true},
    {Verb::help,     any,                                false, false, true,  true},
    {Verb::etrn,     in({State::greeted}),               true,  false, true,  true},
    {Verb::quit,     any,                                true,  true,  true,  false},
}};
// clang-format on

constexpr bool rules_are_in_order() {
  for (std::size_t i = 0; i < rules.size(); ++i) {
    if (static_cast<std::size_t>(rules[i].verb) != i) return false;
  }
  return true;
}
static_assert(rules_are_in_order());

}  // namespace

Session::Session(const config::Config& config, Intake& intake, const Clock& clock, Log& log, Metrics& metrics,
                 std::string instance)
    : config_(config), intake_(intake), clock_(clock), log_(log), metrics_(metrics), instance_(std::move(instance)) {}

void Session::begin(Client client, Admission& admission) {
  end_transaction();
  admission_ = &admission;
  facts_.client = std::move(client);
  facts_.helo.clear();
  facts_.protocol = "SMTP";
  facts_.early_talker = false;
  facts_.improper_pipelining = false;
  state_ = State::start;
}

void Session::greet() {
  append_reply(output_, Reply{220, "", config_.hostname + " " + config_.smtp.banner});
}

// --- commands --------------------------------------------------------------------------------------------------------

Effect Session::on_line(std::string_view line, bool more_follows) {
  const Command command = parse_command(line);
  verb_ = command.verb;
  where_ = to_string(verb_);
  ++counts_[static_cast<std::size_t>(verb_)].total;
  if (verb_ == Verb::unknown) {
    if (!is_foreign_protocol(line)) {
      answer(replies::unknown_command);
      return Effect::none;
    }
    log_.warning("smtpd", fmt::format("non-SMTP command from {}: {}", client(), printable(line, 100)));
    answer(replies::not_smtp);
    return Effect::close;
  }
  const CommandRule& rule = rules[static_cast<std::size_t>(verb_)];
  const bool may_pipeline = verb_ == Verb::bdat || (facts_.protocol == "ESMTP" && !rule.group_last);
  if (more_follows && !may_pipeline) note_improper_pipelining();
  if (rule.junk) count_junk();
  if (verb_ == Verb::bdat) return bdat(command.arguments);
  if (config_.tls.inbound == config::TlsLevel::encrypt && !facts_.tls && !rule.before_tls) {
    answer(replies::must_start_tls);
  } else if (!rule.takes_argument && !command.arguments.empty()) {
    answer(replies::takes_no_argument, to_string(verb_));
  } else if ((rule.legal & static_cast<std::uint8_t>(state_)) == 0) {
    answer(out_of_order(verb_));
  } else {
    return dispatch(verb_, command.arguments);
  }
  return Effect::none;
}

Effect Session::dispatch(Verb verb, std::string_view arguments) {
  switch (verb) {
    case Verb::helo:
    case Verb::ehlo:
      hello(verb, arguments);
      break;
    case Verb::xclient:
      return xclient(arguments);
    case Verb::starttls:
      return start_tls();
    case Verb::auth:
      answer(replies::no_authentication);
      break;
    case Verb::mail:
      mail(arguments);
      break;
    case Verb::rcpt:
      return rcpt(arguments);
    case Verb::data:
      return Effect::data;
    case Verb::rset:
      end_transaction();
      answer(replies::ok);
      break;
    case Verb::noop:
      answer(replies::ok);
      break;
    case Verb::vrfy:
      answer(arguments.empty() ? replies::vrfy_syntax : replies::vrfy);
      break;
    case Verb::help:
      answer(replies::help);
      break;
    case Verb::etrn:
      return etrn(arguments);
    case Verb::quit:
      answer(replies::bye);
      return Effect::close;
    default:
      answer(replies::not_implemented);
  }
  return Effect::none;
}

const ReplyText& Session::out_of_order(Verb verb) const {
  switch (verb) {
    case Verb::mail:
      return state_ == State::start ? replies::helo_first : replies::nested_mail;
    case Verb::rcpt:
      return state_ == State::chunks ? replies::rcpt_after_bdat : replies::need_mail;
    case Verb::etrn:
      return state_ == State::start ? replies::etrn_helo_first : replies::etrn_in_transaction;
    case Verb::data:
    case Verb::bdat:
      if (state_ == State::chunks) return replies::data_after_bdat;
      return transaction_ && transaction_->attempts > 0 ? replies::no_valid_recipients : replies::need_rcpt;
    default:
      return replies::in_transaction;
  }
}

Effect Session::on_bad_line(LineReader::Status status) {
  verb_ = Verb::unknown;
  where_ = to_string(verb_);
  ++counts_[static_cast<std::size_t>(verb_)].total;
  switch (status) {
    case LineReader::Status::bare_lf:
      log_.info("smtpd", "bare <LF> in a command from " + client());
      answer(replies::bad_command_bytes, "bare <LF>");
      return Effect::close;
    case LineReader::Status::bare_cr:
      answer(replies::bad_command_bytes, "bare <CR>");
      break;
    case LineReader::Status::nul:
      answer(replies::bad_command_bytes, "<NUL>");
      break;
    default:
      answer(replies::command_too_long);
  }
  return Effect::none;
}

void Session::hello(Verb verb, std::string_view name) {
  if (name.empty()) return answer(replies::helo_syntax, to_string(verb));
  end_transaction();
  facts_.helo = name;
  facts_.protocol = verb == Verb::ehlo ? "ESMTP" : "SMTP";
  state_ = State::greeted;
  if (verb == Verb::helo) return answer(replies::helo);
  list_extensions();
  ++counts_[static_cast<std::size_t>(verb)].ok;
}

void Session::list_extensions() {
  output_ += concat({"250-", config_.hostname, "\r\n250-PIPELINING\r\n250-SIZE ", std::to_string(max_message_size()),
                     "\r\n250-VRFY\r\n250-ETRN\r\n", tls_offered_ && !facts_.tls ? "250-STARTTLS\r\n" : "",
                     xclient_allowed_ ? "250-XCLIENT NAME ADDR PORT PROTO HELO\r\n" : "",
                     "250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n"});
}

// Ours, or what the primary of `domain` last offered, without what we add, if that is less: a larger message would only
// bounce.
std::uint64_t Session::max_size_for(const std::string& domain) const {
  return at_most_ours(admission_->size_limit(domain));
}

std::uint64_t Session::max_message_size() const {
  return at_most_ours(admission_->largest_size_limit());
}

std::uint64_t Session::at_most_ours(std::uint64_t limit) const {
  if (limit == 0) return config_.limits.message_size;
  const std::uint64_t left = limit > trace_reserve ? limit - trace_reserve : 1;  // "SIZE 0" would be no limit
  return std::min(left, config_.limits.message_size);
}

Effect Session::bdat(std::string_view arguments) {
  const auto command = parse_bdat(arguments);
  if (!command) {  // how much of what follows is content, nobody knows
    answer(replies::bdat_syntax);
    return Effect::close;
  }
  chunk_ = {command->size, command->last, state_ == State::rcpt, {}};
  const CommandRule& rule = rules[static_cast<std::size_t>(Verb::bdat)];
  if (config_.tls.inbound == config::TlsLevel::encrypt && !facts_.tls) {
    chunk_.refusal = make_reply(replies::must_start_tls);
  } else if ((rule.legal & static_cast<std::uint8_t>(state_)) == 0) {
    chunk_.refusal = make_reply(out_of_order(Verb::bdat));
  }
  return Effect::chunk;
}

Effect Session::etrn(std::string_view argument) {
  if (argument.empty()) {
    answer(replies::etrn_no_argument);
  } else if (!is_etrn_node(argument)) {
    answer(replies::etrn_syntax);
  } else {
    etrn_node_ = argument;
    return Effect::etrn;
  }
  return Effect::none;
}

Effect Session::xclient(std::string_view arguments) {
  if (!xclient_allowed_) {
    answer(replies::xclient_denied);
    return Effect::none;
  }
  auto command = parse_xclient(arguments);
  if (!command) {
    answer(command.error());
    return Effect::none;
  }
  xclient_ = std::move(*command);
  return Effect::xclient;
}

Effect Session::start_tls() {
  if (facts_.tls) {
    answer(replies::tls_active);
  } else if (config_.tls.inbound == config::TlsLevel::none || config_.tls.certificate.empty()) {
    answer(replies::not_implemented);
  } else if (!tls_offered_) {
    answer(replies::tls_unavailable);
  } else {
    return Effect::start_tls;
  }
  return Effect::none;
}

// RFC 3207 4.2: what was said in the clear is forgotten.
void Session::on_tls(const std::string& info) {
  tls_ = info;
  facts_.tls = true;
  facts_.helo.clear();
  facts_.protocol = "SMTP";
  state_ = State::start;
  log_.info("smtpd", fmt::format("Anonymous TLS connection established from {}: {}", client(), info));
  ++counts_[static_cast<std::size_t>(Verb::starttls)].ok;
}

void Session::on_xclient(const XclientCommand& command) {
  if (command.protocol) facts_.protocol = *command.protocol;
  if (command.helo && !command.helo->empty()) {
    facts_.helo = *command.helo;
    state_ = State::greeted;
  }
  greet();
  ++counts_[static_cast<std::size_t>(Verb::xclient)].ok;
}

// --- answers, logs ---------------------------------------------------------------------------------------------------

void Session::announce() {
  if (!std::exchange(connect_logged_, true)) log_.info("smtpd", "connect from " + facts_.client.to_string());
}

std::string Session::client() {
  announce();
  return facts_.client.to_string();
}

void Session::answer(const Reply& reply, bool counts_as_error) {
  append_reply(output_, reply, facts_.smtputf8);
  if (reply.code < 400) ++counts_[static_cast<std::size_t>(verb_)].ok;
  if (reply.permanent() && counts_as_error) ++errors_;
}

void Session::answer(const ReplyText& text, std::string_view argument) {
  answer(make_reply(text, config_.hostname, argument));
}

void Session::count_junk() {
  if (++junk_ > free_junk) ++errors_;
}

void Session::note_improper_pipelining() {
  if (!facts_.improper_pipelining) {
    log_.info("smtpd", fmt::format("improper command pipelining after {} from {}", where_, client()));
  }
  facts_.improper_pipelining = true;
}

void Session::refuse_syntax(const Reply& reply, std::string_view arguments) {
  if (reply.enhanced == "5.1.7" || reply.enhanced == "5.1.3") {
    log_.warning("smtpd", fmt::format("Illegal address syntax from {} in {} command: {}", client(), where_,
                                      printable(arguments, max_logged)));
  }
  answer(reply);
}

void Session::refuse(std::string_view where, const Reply& reply, std::string_view check, std::string_view recipient,
                     bool counts_as_error) {
  metrics_.count("rejects_total", {{"check", check}, {"code", std::to_string(reply.code)}});
  log_action("reject", where, reply.to_string(), recipient);
  answer(reply, counts_as_error);
}

void Session::log_verdict(std::string_view where, const Verdict& verdict, std::string_view recipient) {
  for (const Reply& warning : verdict.warnings) log_action("reject_warning", where, warning.to_string(), recipient);
  for (const Remark& remark : verdict.remarks) log_action(remark.label, where, remark.text, recipient);
  for (const std::string& note : verdict.notes) log_.info("greylist", note);
}

void Session::log_action(std::string_view label, std::string_view where, std::string_view text,
                         std::string_view recipient) {
  const bool to_one = !recipient.empty();
  log_.write(Level::info, "smtpd", facts_.queue_id.empty() ? "NOQUEUE" : facts_.queue_id,
             concat({label, ": ", where, " from ", client(), ": ", text, "; from=<",
                     printable(facts_.sender.to_string(), max_logged), to_one ? "> to=<" : "",
                     printable(recipient, max_logged), "> proto=", facts_.protocol, " helo=<",
                     printable(facts_.helo, max_logged), ">"}));
}

void Session::take(Verdict& verdict) {
  std::move(verdict.headers.begin(), verdict.headers.end(), std::back_inserter(transaction_->headers));
  transaction_->discard = transaction_->discard || verdict.discard;
  transaction_->envelope.hold = transaction_->envelope.hold || verdict.hold;
}

void Session::end_transaction() {
  transaction_.reset();
  facts_.sender = {};
  facts_.declared_size = 0;
  facts_.smtputf8 = false;
  facts_.instance.clear();
  facts_.queue_id.clear();
  if (state_ != State::start) state_ = State::greeted;
}

std::string Session::summary() const {
  std::string result;
  Count all;
  const auto show = [](const Count& count) {
    const std::string total = std::to_string(count.total);
    return count.ok == count.total ? total : std::to_string(count.ok) + "/" + total;
  };
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i].total == 0) continue;
    result += to_lower(to_string(static_cast<Verb>(i))) + "=" + show(counts_[i]) + " ";
    all.ok += counts_[i].ok;
    all.total += counts_[i].total;
  }
  return result + (all.total == 0 ? "commands=0/0" : "commands=" + show(all));  // as Postfix writes it
}

}  // namespace greymx::smtp

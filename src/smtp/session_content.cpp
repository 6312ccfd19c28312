// The second half of a transaction: from Admission's last word to the answer behind the content.
#include "base/text.hpp"
#include "smtp/session.hpp"

namespace greymx::smtp {

namespace {

constexpr unsigned max_hops = 50;  // with our own Received line; the last guard against loops (RFC 5321 6.3)

// HELO names in the Received line: whoever reads it must not take them for anything else.
std::string harmless(std::string_view helo) {
  std::string result(helo.substr(0, 255));
  for (char& c : result) {
    if (!is_alnum(c) && std::string_view(".-_:[]").find(c) == std::string_view::npos) c = '?';
  }
  return result;
}

}  // namespace

bool Session::on_data(Verdict verdict) {
  const std::string& first = transaction_->envelope.recipients.front().address;
  log_verdict("DATA", verdict, first);
  if (verdict.reply) {
    refuse("DATA", *verdict.reply, verdict.check, first, verdict.counts_as_error);
    count_junk();               // the transaction stays, and DATA may come again
    if (verb_ == Verb::bdat) {  // its bytes are still to come
      drop_content(*verdict.reply, verdict.check);
      transaction_->failure_told = chunk_.answered = true;
    }
  } else {
    take(verdict);
    if (verb_ == Verb::data) append_reply(output_, make_reply(replies::send_data));
  }
  if (verb_ == Verb::bdat) state_ = State::chunks;
  return !verdict.reply.has_value();
}

// RFC 5321 4.4, RFC 3848, RFC 6531 4.3; "for" only where it tells nobody of other recipients (7.2).
std::string Session::trace_headers() {
  std::string result;
  for (const std::string& header : transaction_->headers) {
    result += (facts_.smtputf8 ? header : to_ascii(header)) + "\r\n";  // an access file may repeat what a client said
  }
  const std::string literal = facts_.client.address.to_literal();
  result += concat({"Received: from ", harmless(facts_.helo), " (", facts_.client.name, " ", literal, ")\r\n"});
  if (facts_.tls) result += concat({"\t(using ", tls_, ")\r\n"});
  result += concat({"\tby ", config_.hostname, " (greymx) with ", protocol(), " id ", facts_.queue_id});
  if (transaction_->envelope.recipients.size() == 1) {
    result += concat({"\r\n\tfor <", transaction_->envelope.recipients.front().address, ">"});
  }
  result += concat({"; ", rfc5322_date(clock_.now()), "\r\n"});
  transaction_->trace_size = result.size();
  return result;
}

std::string Session::protocol() const {
  if (facts_.smtputf8) return facts_.tls ? "UTF8SMTPS" : "UTF8SMTP";
  return facts_.tls && facts_.protocol == "ESMTP" ? "ESMTPS" : facts_.protocol;
}

bool Session::still_wanted() {
  const Transaction& transaction = *transaction_;
  const std::uint64_t size = transaction.decoder.size();
  const bool too_big = size > config_.limits.message_size || size + transaction.trace_size > transaction.primary_size;
  if (!transaction.failure && too_big) {
    drop_content(make_reply(replies::too_big), "message_size");
  }
  return !transaction.failure;
}

void Session::drop_content(Reply reply, std::string_view check) {
  transaction_->failure = std::move(reply);
  transaction_->failed_check = check;
  transaction_->body.reset();
}

void Session::on_write_error(const Error& error) {
  log_.write(Level::warning, "smtpd", facts_.queue_id, "queue file write error: " + printable(error.text));
  const bool full = error.kind == ErrorKind::no_space;
  drop_content(make_reply(full ? replies::no_space : replies::write_error), full ? "min_free_space" : "write_error");
}

void Session::on_chunk() {
  if (chunk_.refusal) return answer(*chunk_.refusal);
  if (!still_wanted()) {
    if (!chunk_.answered) tell_failure("BDAT");
    if (chunk_.last) end_transaction();
  } else {
    answer(replies::chunk_ok, std::to_string(chunk_.size));
  }
}

// Once with the reason; what the client had pipelined behind it is told that it comes after that (RFC 3030 2).
void Session::tell_failure(std::string_view where) {
  Transaction& transaction = *transaction_;
  if (std::exchange(transaction.failure_told, true)) {
    return answer(replies::chunk_after_error, std::to_string(chunk_.size));
  }
  refuse(where, *transaction.failure, transaction.failed_check, transaction.envelope.recipients.front().address);
}

bool Session::on_end_of_content() {
  where_ = "END-OF-MESSAGE";
  const BodyDecoder& content = transaction_->decoder;
  if (still_wanted()) {
    if (content.bare_lf() && config_.smtp.reject_bare_lf) {
      drop_content(make_reply(replies::bare_lf, config_.hostname), "bare_lf");
    } else if (content.bare_cr() && config_.smtp.reject_bare_lf) {
      drop_content(make_reply(replies::bare_cr, config_.hostname), "bare_lf");
    } else if (content.received() >= max_hops) {
      drop_content(make_reply(replies::too_many_hops), "hops");
    }
  }
  if (transaction_->failure) {
    tell_failure(where_);
    end_transaction();
    return false;
  }
  log_.write(Level::info, "cleanup", facts_.queue_id, "message-id=" + message_id());
  return true;
}

std::string Session::message_id() const {
  const std::string& id = transaction_->decoder.message_id();
  return id.empty() ? "<>" : id;
}

Envelope Session::seal(Authorised authorised) {
  Envelope envelope = std::move(transaction_->envelope);
  envelope.client = facts_.client;
  envelope.helo = facts_.helo;
  envelope.protocol = protocol();
  envelope.tls = tls_;
  envelope.authorised = authorised;
  envelope.message_id = transaction_->decoder.message_id();
  return envelope;
}

void Session::on_commit(const Result<>& result) {
  const std::string id = facts_.queue_id;
  if (result) {
    metrics_.count("messages_accepted_total");
    junk_ = 0;
    answer(replies::queued, id);
  } else {
    on_write_error(result.error());
    answer(*transaction_->failure);
  }
  end_transaction();
}

}  // namespace greymx::smtp

// The first half of a transaction: MAIL and RCPT, until the envelope is complete.
#include <algorithm>

#include "smtp/session.hpp"

namespace greymx::smtp {

namespace {

// An envelope's recipients may fill so much each on average, and always together what a thousand may.
constexpr std::size_t bytes_per_recipient = 256;
constexpr std::size_t always_allowed = 1000 * bytes_per_recipient;
// Refused recipients that are free, in a message at least, and in a session of those put off: a sender goes through its
// list.
constexpr std::size_t overshoot = 1000;

// The recipient that has been accepted already: the same local part, letter for letter, in the same domain.
EnvelopeRecipient* find_recipient(std::vector<EnvelopeRecipient>& recipients, const Mailbox& mailbox,
                                  const std::string& address) {
  const std::size_t local = mailbox.local.size();
  const auto found = std::ranges::find_if(recipients, [&](const EnvelopeRecipient& recipient) {
    const std::string_view other = recipient.address;
    return other.size() == address.size() && other.starts_with(mailbox.local) &&
           equals_ignoring_case(other.substr(local), std::string_view(address).substr(local));
  });
  return found == recipients.end() ? nullptr : &*found;
}

// What either wants to be told. Without NOTIFY that is failure and delay (RFC 3461 4.1).
DsnNotify merge(const DsnNotify& a, const DsnNotify& b) {
  if (a == b || b.never) return a;
  if (a.never) return b;
  const bool standard = !a.given() || !b.given();
  return {false, a.success || b.success, standard || a.failure || b.failure, standard || a.delay || b.delay};
}

}  // namespace

void Session::mail(std::string_view arguments) {
  auto command = parse_mail(arguments);
  if (!command) return refuse_syntax(command.error(), arguments);
  facts_.sender = std::move(command->path.mailbox);
  facts_.declared_size = command->size;
  facts_.smtputf8 = command->smtputf8;
  if (command->size > max_message_size()) {
    refuse("MAIL", make_reply(replies::size_limit), "message_size");
    return end_transaction();
  }
  if (!intake_.has_room(command->size)) {
    refuse("MAIL", make_reply(replies::no_space), "min_free_space");
    count_junk();
    return end_transaction();
  }
  facts_.instance = concat({instance_, ".", std::to_string(++transactions_)});
  transaction_ = std::make_unique<Transaction>(intake_);
  Envelope& envelope = transaction_->envelope;
  envelope.reverse_path = facts_.sender.to_string();
  envelope.body = command->body;
  envelope.smtputf8 = command->smtputf8;
  envelope.ret = command->ret;
  envelope.envid = std::move(command->envid);
  state_ = State::mail;
  admission_->mail(facts_);
  answer(replies::mail_ok);
}

Effect Session::rcpt(std::string_view arguments) {
  auto command = parse_rcpt(arguments, facts_.smtputf8);
  const std::string recipient = command ? command->path.mailbox.to_string() : std::string();
  if (!command) {
    refuse_syntax(command.error(), arguments);
  } else if (++transaction_->attempts; is_surplus(recipient.size() + command->original_recipient.size())) {
    refuse_surplus(recipient);
  } else if (command->path.source_route) {
    refuse("RCPT", make_reply(replies::relay_denied, {}, recipient), "relay_control", recipient);
  } else if (facts_.declared_size > max_size_for(command->path.mailbox.domain)) {
    refuse("RCPT", make_reply(replies::size_limit), "message_size", recipient);
  } else {
    pending_ = std::move(*command);
    return Effect::recipient;
  }
  return Effect::none;
}

// Would a recipient of so many bytes be more than one message may have, or than fits beside all others?
bool Session::is_surplus(std::size_t bytes) const {
  const std::size_t limit = config_.limits.recipients_per_message;
  const std::size_t allowed = std::max(always_allowed, limit * bytes_per_recipient);
  return transaction_->attempts > limit || transaction_->recipient_bytes + bytes > allowed ||
         !transaction_->memory.has_room(sizeof(EnvelopeRecipient) + bytes, config_.limits);
}

// Not an error: what is left over comes in a second message. But a client that does not stop is not logged for ever.
void Session::refuse_surplus(const std::string& recipient) {
  const Reply reply = make_reply(replies::too_many_recipients);
  const std::size_t limit = config_.limits.recipients_per_message;
  if (transaction_->attempts <= limit + std::max(limit, overshoot)) {
    return refuse("RCPT", reply, "recipients_per_message", recipient);
  }
  count_junk();
  answer(reply);
}

bool Session::on_recipient(Verdict verdict) {
  const std::string address = pending_.path.mailbox.to_string();
  log_verdict("RCPT", verdict, address);
  if (verdict.reply) {
    refuse("RCPT", *verdict.reply, verdict.check, address, verdict.counts_as_error);
    if (!verdict.reply->permanent() && ++put_off_ > overshoot) count_junk();  // each is logged
    return verdict.reply->code != 421 && verdict.reply->code != 521;
  }
  Transaction& transaction = *transaction_;
  if (!transaction.body) {
    transaction.body = intake_.begin();
    facts_.queue_id = transaction.body->id().to_string();
    log_.write(Level::info, "smtpd", facts_.queue_id, "client=" + client());
  }
  take(verdict);
  const std::uint64_t limit = admission_->size_limit(pending_.path.mailbox.domain);
  if (limit > 0) transaction.primary_size = std::min(transaction.primary_size, limit);
  add_recipient(address);
  state_ = State::rcpt;
  answer(replies::rcpt_ok);
  return true;
}

void Session::add_recipient(const std::string& address) {
  std::vector<EnvelopeRecipient>& recipients = transaction_->envelope.recipients;
  if (EnvelopeRecipient* const known = find_recipient(recipients, pending_.path.mailbox, address)) {
    known->notify = merge(known->notify, pending_.notify);
    return;
  }
  const std::size_t bytes = address.size() + pending_.original_recipient.size();
  transaction_->recipient_bytes += bytes;
  transaction_->memory.add(sizeof(EnvelopeRecipient) + bytes);
  recipients.push_back({address, std::move(pending_.original_recipient), pending_.notify});
}

}  // namespace greymx::smtp

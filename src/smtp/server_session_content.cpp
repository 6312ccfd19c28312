// The content of messages on its way from the client to the intake.
#include <fmt/format.h>

#include <algorithm>

#include "smtp/server_session.hpp"

namespace greymx::smtp {

using namespace std::chrono_literals;

namespace {

constexpr auto rate_window = 60s;
constexpr auto longest_silence = 30s;     // of one wait, towards the rate: longer ones are data_timeout's business
constexpr std::size_t store_size = 8192;  // so much content is handed on at once

}  // namespace

// For content: also watches that it moves.
Task<bool> ServerSession::read_content() {
  const bool sent = co_await flush();
  if (!sent) co_return false;
  const SteadyTime begin = parts_.clock.steady();
  const bool got = co_await read(begin + config_->limits.data_timeout);
  if (!got) co_return false;
  if (!too_slow(begin, input_.view().size())) co_return true;
  co_await hang_up(replies::too_slow);
  co_return false;
}

// After a wait that began at `since` and brought so many bytes: is the rate below data_rate_min, and the window over?
bool ServerSession::too_slow(SteadyTime since, std::size_t bytes) {
  received_ += bytes;
  waited_ += std::min<std::chrono::steady_clock::duration>(parts_.clock.steady() - since, longest_silence);
  if (waited_ < rate_window) return false;
  const config::Rate& wanted = config_->limits.data_rate_min;
  const double seconds = std::chrono::duration<double>(waited_).count();
  const bool slow = static_cast<double>(received_) / seconds * static_cast<double>(wanted.period.count()) <
                    static_cast<double>(wanted.count);
  if (slow) parts_.log.info("smtpd", fmt::format("data too slow after {}", place()));
  waited_ = {};
  received_ = 0;
  return slow;
}

Task<bool> ServerSession::ask_data() {
  Facts facts = session_.facts();
  std::vector<Mailbox> recipients;
  for (const EnvelopeRecipient& recipient : session_.transaction()->envelope.recipients) {
    recipients.push_back(Mailbox::split(recipient.address));
  }
  Verdict verdict = co_await admission_->data(std::move(facts), std::move(recipients));
  waited_ = {};
  received_ = 0;
  co_return session_.on_data(std::move(verdict));
}

// False: the connection is gone, and with it the message.
Task<bool> ServerSession::receive_data() {
  const bool welcome = co_await ask_data();
  if (!welcome) co_return true;
  in_content_ = true;
  Transaction& transaction = *session_.transaction();
  std::uint64_t dropped = 0;
  std::string content = session_.trace_headers();
  content.reserve(store_size);
  for (auto status = BodyDecoder::Status::more; status == BodyDecoder::Status::more;) {
    if (input_.empty()) {
      const bool got = co_await read_content();
      if (!got) co_return false;
    }
    if (transaction.failure) dropped += input_.view().size();
    std::string_view rest = input_.view();
    status = transaction.decoder.decode_data(rest, content);
    input_.drop_to(rest);
    if (status == BodyDecoder::Status::end || content.size() >= store_size) co_await store(content);
    if (status == BodyDecoder::Status::more && dropped > config_->limits.message_size) {
      session_.on_end_of_content();  // nobody takes so much only to drop it
      co_await flush();
      co_return false;
    }
  }
  in_content_ = false;
  co_await finish();
  co_return true;
}

// Small chunks are gathered before they are stored. Who sends one that nobody wants is no better than an idle client,
// and has no longer for it than for a command.
Task<bool> ServerSession::receive_chunk() {
  const Chunk chunk = session_.chunk();
  bool wanted = !chunk.refusal;
  if (wanted && chunk.first) {
    wanted = co_await ask_data();
    if (wanted) session_.transaction()->content = session_.trace_headers();
  }
  in_content_ = true;
  for (std::uint64_t left = chunk.size; left > 0;) {
    if (left > config_->limits.message_size && (!wanted || session_.transaction()->failure)) {
      session_.on_chunk();  // nobody takes so much only to drop it
      co_await flush();
      co_return false;
    }
    if (input_.empty()) {
      Task<bool> more = wanted ? read_content() : more_input();
      const bool got = co_await std::move(more);
      if (!got) co_return false;
    }
    const std::string_view view = input_.view();
    const std::string_view piece = view.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(left, view.size())));
    if (wanted) session_.transaction()->decoder.decode_chunk(piece, session_.transaction()->content);
    input_.drop_to(view.substr(piece.size()));
    left -= piece.size();
    if (wanted && session_.transaction()->content.size() >= store_size) co_await store(session_.transaction()->content);
  }
  in_content_ = false;
  if (!wanted || !chunk.last) {
    session_.on_chunk();
    co_return true;
  }
  Transaction& transaction = *session_.transaction();
  transaction.decoder.finish_chunks(transaction.content);
  co_await store(transaction.content);
  co_await finish();
  co_return true;
}

Task<> ServerSession::store(std::string& content) {
  Transaction& transaction = *session_.transaction();
  if (session_.still_wanted() && !transaction.discard && !content.empty()) {
    const Result<> written = co_await transaction.body->write(content);
    if (!written) session_.on_write_error(written.error());
  }
  content.clear();
}

// The instant of commitment: when commit() has returned, the message is on disk and ours, and 250 is said. If we die
// before, the client has no answer and sends it again; if we die between, it does too, and the message comes twice
// (RFC 5321 6.1, RFC 1047). After any 4yz or 5yz the body is gone and is never delivered (RFC 5321 4.2.5).
Task<> ServerSession::finish() {
  const bool wanted = session_.on_end_of_content();
  if (!wanted) co_return;
  Result<> result;
  if (!session_.transaction()->discard) {
    Facts facts = session_.facts();
    const Authorised authorised = co_await admission_->authorised(std::move(facts));
    Envelope envelope = session_.seal(authorised);
    result = co_await session_.transaction()->body->commit(std::move(envelope));
  }
  session_.on_commit(result);
}

}  // namespace greymx::smtp

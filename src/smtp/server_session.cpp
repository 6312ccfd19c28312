#include "smtp/server_session.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "smtp/proxy_header.hpp"

namespace greymx::smtp {

using namespace std::chrono_literals;

namespace {

constexpr auto proxy_header_timeout = 5s;  // it comes in the connection's first packet
constexpr auto farewell_timeout = 10s;
constexpr auto handshake_timeout = 60s;
constexpr auto longest_answering = 30s;  // that keeps a session from being shed
constexpr auto pause_length = 1s;        // of a client that waits for what it is to say next
constexpr auto longest_hold = 5s;  // of replies while the rest of their group is decided; clients wait for minutes
constexpr std::size_t output_limit = 16384;
constexpr std::size_t kept_output = 512;  // bytes of memory that an idle session may keep for replies

}  // namespace

ServerSession::ServerSession(ServerParts parts, config::ConfigPtr config, std::unique_ptr<Stream> stream,
                             std::unique_ptr<Connections::Ticket> ticket, bool proxy_protocol)
    : parts_(parts),
      config_(std::move(config)),
      stream_(std::move(stream)),
      ticket_(std::move(ticket)),
      proxy_protocol_(proxy_protocol),
      session_(*config_, parts.intake, parts.clock, parts.log, parts.metrics, std::to_string(ticket_->number())) {}

ServerSession::~ServerSession() {
  if (!begun_) return;
  look_for_name();
  parts_.log.info("smtpd", concat({"disconnect from ", session_.client(), " ", session_.summary()}));
}

Task<> ServerSession::run() {
  bool going = co_await open();
  while (going) {
    std::string_view rest = input_.view();
    const LineReader::Event event = lines_.next(rest);
    if (event.status == LineReader::Status::need_more) {
      input_.drop_to(rest);
      going = co_await more_input();
      last_input_ = parts_.clock.steady();
      continue;
    }
    command_deadline_.reset();
    look_for_name();
    Effect effect = Effect::none;
    if (event.status == LineReader::Status::line) {
      effect = session_.on_line(event.line, !rest.empty());
    } else {
      effect = session_.on_bad_line(event.status);
    }
    input_.drop_to(rest);
    if (effect != Effect::none) going = co_await perform(effect);
    if (going && leaving_ != nullptr && session_.state() != State::chunks) {
      co_await hang_up(*leaving_);
      going = false;
    }
    if (going && session_.too_many_errors()) {
      parts_.log.info("smtpd", fmt::format("too many errors after {} from {}", session_.where(), session_.client()));
      co_await hang_up(replies::too_many_errors);
      going = false;
    }
    if (going && session_.output().size() > output_limit) going = co_await flush();
  }
  stream_->close();
}

// --- beginning -------------------------------------------------------------------------------------------------------

Client ServerSession::make_client(const Endpoint& endpoint) const {
  const bool trusted = contains(config_->access.trusted_networks, endpoint.address);
  return {endpoint.address, endpoint.port, "unknown", trusted};
}

bool ServerSession::speaks_for_others(const IpAddress& address) const {
  // Behind a balancer that sends PROXY headers everything else comes from strangers.
  return !proxy_protocol_ && contains(config_->access.proxy_networks, address);
}

Task<bool> ServerSession::open() {
  Endpoint peer = stream_->peer();
  if (proxy_protocol_) {
    const auto named = co_await read_proxy_header(peer);
    if (!named) co_return false;
    peer = *named;
  }
  if (speaks_for_others(peer.address)) session_.allow_xclient();
  if (config_->tls.inbound != config::TlsLevel::none && parts_.tls.context()) session_.offer_tls();
  Client client = make_client(peer);
  const bool welcome = co_await identify(client);
  if (!welcome) co_return false;
  admit(std::move(client));
  if (config_->access.early_talker_wait > 0s) {
    ticket_->idle(parts_.clock.steady());
    const ReadStatus status = co_await stream_->wait_readable(in(config_->access.early_talker_wait));
    ticket_->busy();
    if (status == ReadStatus::failed) co_return false;
  }
  if (!input_.empty() || stream_->has_pending()) session_.note_early_talker();
  session_.greet();
  co_return true;
}

// The client that the header names, or the peer itself if it names none; nullopt: this is no proxy of ours.
Task<std::optional<Endpoint>> ServerSession::read_proxy_header(Endpoint peer) {
  if (!contains(config_->access.proxy_networks, peer.address)) {
    parts_.log.warning("smtpd", fmt::format("connection from {} to a PROXY protocol listener refused: not in "
                                            "access.proxy_networks",
                                            peer.address.to_string()));
    co_return std::nullopt;
  }
  const SteadyTime deadline = in(proxy_header_timeout);
  for (;;) {
    const ProxyHeader header = parse_proxy_header(input_.view());
    if (header.status == ProxyHeader::Status::complete) {
      input_.drop_to(input_.view().substr(header.size));
      co_return header.client.value_or(peer);
    }
    bool more = header.status == ProxyHeader::Status::need_more;
    if (more) {
      const ReadEvent event = co_await stream_->read_some(input_.space(), deadline);
      input_.filled(event.bytes);
      more = event.status == ReadStatus::data;
    }
    if (!more) {
      parts_.log.warning("smtpd", "no valid PROXY protocol header from " + peer.address.to_string());
      co_return std::nullopt;
    }
  }
}

// At the beginning, and when XCLIENT has named somebody else. False: over a limit, and told so. A proxy that names no
// client connects for itself: a balancer that looks whether we live.
Task<bool> ServerSession::identify(Client client) {
  const bool itself = client.address == stream_->peer().address;
  const bool exempt = client.trusted || (itself && contains(config_->access.proxy_networks, client.address));
  const auto exceeded = ticket_->identify(client.address, exempt, config_->limits);
  if (!exceeded) co_return true;
  parts_.log.warning("smtpd", fmt::format("{} limit exceeded from {} for service smtp", *exceeded, client.to_string()));
  std::string address = client.address.to_string();
  co_await hang_up(replies::too_many_connections, std::move(address));
  co_return false;
}

void ServerSession::admit(Client client) {
  admission_ = parts_.policy.admit(client);
  session_.begin(std::move(client), *admission_);
  begun_ = true;
  answering_since_ = parts_.clock.steady();
}

// Only for what decides by it, so that a slow name server of the client holds up nothing else, and this no longer than
// the slowest lookup.
Task<> ServerSession::learn_name() {
  if (named_) co_return;
  std::string name = co_await admission_->client_name();
  take_name(std::move(name));
}

// The log has it as soon as it is known.
void ServerSession::look_for_name() {
  if (named_) return;
  std::optional<std::string> name = admission_->known_client_name();
  if (name) take_name(std::move(*name));
}

void ServerSession::take_name(std::string name) {
  named_ = true;
  session_.set_client_name(std::move(name));
  session_.announce();
}

Task<bool> ServerSession::take_over_client() {
  const XclientCommand command = session_.xclient();
  session_.announce();
  Client client = session_.facts().client;
  if (command.address) {
    client = make_client({*command.address, 0});
    named_ = false;
  }
  client.port = command.port.value_or(client.port);
  if (command.name) {
    client.name = command.name->empty() ? "unknown" : *command.name;
    named_ = true;
  }
  if (command.address) {
    const bool welcome = co_await identify(client);
    if (!welcome) co_return false;
  }
  admit(std::move(client));
  session_.on_xclient(command);
  co_return true;
}

// --- reading and writing ---------------------------------------------------------------------------------------------

// The next command, or the rest of its line.
Task<bool> ServerSession::more_input() {
  if (!flush_now()) {
    const bool sent = co_await flush();
    if (!sent) co_return false;
  }
  if (!command_deadline_) command_deadline_ = in(config_->limits.command_timeout);
  bool readable = !input_.empty();  // the rest may have come
  const SteadyTime begin = parts_.clock.steady();
  for (;;) {
    if (leaving_ != nullptr) {
      co_await hang_up(*leaving_);
      co_return false;
    }
    const std::optional<std::size_t> bytes =
        readable ? stream_->read_now(input_.space()) : std::optional<std::size_t>(0);
    if (!bytes) {
      const bool got = co_await read(*command_deadline_);
      co_return got;
    }
    input_.filled(*bytes);
    if (*bytes > 0) {
      const bool dawdles = session_.state() == State::chunks && too_slow(begin, *bytes);
      if (!dawdles) co_return true;
      co_await hang_up(replies::too_slow);
      co_return false;
    }
    rest();
    const SteadyTime asleep = parts_.clock.steady();
    const ReadStatus status = co_await stream_->wait_readable(*command_deadline_);
    ticket_->busy();
    const auto pause = parts_.clock.steady() - asleep;
    if (pause >= pause_length) answering_since_ += pause;
    readable = status == ReadStatus::data;
    if (readable || (status == ReadStatus::timed_out && leaving_ != nullptr)) continue;
    co_await lose(status);
    co_return false;
  }
}

// Before a wait that may be long: gives up what memory it can, and may be shed. Idle since the wait for this command
// began: a byte of it now and then is no work.
void ServerSession::rest() {
  if (input_.empty()) input_.release();
  if (session_.output().capacity() > kept_output) session_.output() = std::string();
  ticket_->idle(*command_deadline_ - config_->limits.command_timeout);
}

Task<bool> ServerSession::read(SteadyTime deadline) {
  const ReadEvent event = co_await stream_->read_some(input_.space(), deadline);
  input_.filled(event.bytes);
  if (event.status == ReadStatus::data) co_return true;
  co_await lose(event.status);
  co_return false;
}

std::string ServerSession::place() {
  std::string where(session_.where());
  const Transaction* transaction = session_.transaction();
  if (in_content_ && transaction != nullptr) where += fmt::format(" ({} bytes)", transaction->decoder.size());
  return where + " from " + session_.client();
}

void ServerSession::log_loss(bool timeout) {
  look_for_name();
  parts_.log.info("smtpd", fmt::format("{} after {}", timeout ? "timeout" : "lost connection", place()));
}

Task<> ServerSession::lose(ReadStatus status) {
  const bool timeout = status == ReadStatus::timed_out;
  log_loss(timeout);
  if (timeout) co_await hang_up(replies::timed_out);
}

// Nearly always all of it goes at once. False: flush() has to.
bool ServerSession::flush_now(bool last) {
  std::string& output = session_.output();
  output.erase(0, stream_->write_now(output, last));
  return output.empty();
}

Task<bool> ServerSession::flush() {
  if (flush_now()) co_return true;
  std::string& output = session_.output();
  ticket_->idle(parts_.clock.steady());  // who does not read its replies may be shed
  const Result<> written = co_await stream_->write(output, in(config_->limits.command_timeout));
  ticket_->busy();
  if (!in_content_) limit_answering(Effect::none);
  output.clear();
  if (written) co_return true;
  log_loss(written.error().kind == ErrorKind::timed_out);
  co_return false;
}

Task<> ServerSession::hang_up(ReplyText text, std::string argument) {
  std::string& output = session_.output();
  append_reply(output, make_reply(text, config_->hostname, argument));
  co_await stream_->write(output, in(farewell_timeout));
  output.clear();
}

void ServerSession::leave(const ReplyText& why) {
  leaving_ = &why;
  stream_->wake();
}

// --- effects ---------------------------------------------------------------------------------------------------------

// A client that always has more commands to be answered slowly holds its place, but is no better than an idle one.
void ServerSession::limit_answering(Effect effect) {
  if (effect == Effect::data || effect == Effect::chunk) {
    ticket_->busy();
  } else if (parts_.clock.steady() - answering_since_ >= longest_answering) {
    ticket_->idle(answering_since_);
  }
}

Task<bool> ServerSession::perform(Effect effect) {
  bool going = true;
  limit_answering(effect);
  if (!session_.output().empty() && parts_.clock.steady() >= last_input_ + longest_hold) {
    going = co_await flush();
    if (!going) co_return false;
    last_input_ = parts_.clock.steady();
  }
  switch (effect) {
    case Effect::none:
      break;
    case Effect::recipient: {
      co_await learn_name();
      Facts facts = session_.facts();
      Mailbox recipient = session_.pending_recipient();
      Verdict verdict = co_await admission_->recipient(std::move(facts), std::move(recipient));
      going = session_.on_recipient(std::move(verdict));
      if (!going) co_await flush();
      break;
    }
    case Effect::data:
      if (stream_->has_pending()) session_.note_improper_pipelining();
      going = co_await receive_data();
      answering_since_ = parts_.clock.steady();
      break;
    case Effect::chunk:
      going = co_await receive_chunk();
      answering_since_ = parts_.clock.steady();
      break;
    case Effect::start_tls:
      going = co_await start_tls();
      break;
    case Effect::xclient:
      going = co_await take_over_client();
      break;
    case Effect::etrn: {
      Facts facts = session_.facts();
      std::string node = session_.etrn_node();
      const Reply reply = co_await admission_->etrn(std::move(facts), std::move(node));
      session_.answer(reply);
      break;
    }
    case Effect::close:
      if (!flush_now(true)) co_await flush();
      going = false;
  }
  co_return going;
}

Task<bool> ServerSession::start_tls() {
  if (!input_.empty() || stream_->has_pending()) {  // an attacker's plain text before the handshake (CVE-2011-0411)
    parts_.log.warning("smtpd", "data sent behind STARTTLS, in the clear, by " + session_.client());
    co_await hang_up(replies::out_of_sync);
    co_return false;
  }
  const std::shared_ptr<SSL_CTX> context = parts_.tls.context();
  if (!context) {
    session_.answer(replies::tls_unavailable);
    co_return true;
  }
  append_reply(session_.output(), make_reply(replies::start_tls));
  const bool sent = co_await flush();
  if (!sent) co_return false;
  const auto patience = std::min<std::chrono::seconds>(config_->limits.command_timeout, handshake_timeout);
  ticket_->idle(parts_.clock.steady());
  const Result<TlsInfo> info = co_await stream_->start_tls_server(context.get(), in(patience));
  ticket_->busy();
  look_for_name();
  if (!info) {
    const std::string why = leaving_ != nullptr ? "told to leave" : info.error().text;
    parts_.log.info("smtpd", fmt::format("SSL_accept error from {}: {}", session_.client(), why));
    co_return false;
  }
  parts_.metrics.count("tls_sessions_total", {{"direction", "in"}, {"version", info->protocol}});
  session_.on_tls(info->to_string());
  co_return true;
}

}  // namespace greymx::smtp

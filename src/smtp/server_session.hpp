// One SMTP connection from accept to close: reads, lets the Session act, performs its effects, writes.
//
// Replies of a pipelined group leave in one write, when nothing more can be answered without reading, or before they
// have waited long. While a session waits for its client's next command it holds no buffer, unless a part of it has
// come. Between commands it may be told to leave (421), and in a TLS handshake (without a word: there is no channel for
// it); content on its way is always finished.
//
// Thread: the stream's executor. Everything in ServerParts must outlive it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/async.hpp"
#include "base/clock.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "config/config.hpp"
#include "smtp/input_buffer.hpp"
#include "smtp/limits.hpp"
#include "smtp/line_reader.hpp"
#include "smtp/ports.hpp"
#include "smtp/session.hpp"
#include "smtp/stream.hpp"
#include "smtp/tls_server.hpp"

namespace greymx::smtp {

struct ServerParts {
  Policy& policy;  // of this thread
  Intake& intake;
  const TlsServer& tls;
  const Clock& clock;
  Log& log;
  Metrics& metrics;
  std::shared_ptr<SpareBuffers> buffers = std::make_shared<SpareBuffers>();
};

class ServerSession {
 public:
  // `config` stays this session's, whatever is reloaded.
  ServerSession(ServerParts parts, config::ConfigPtr config, std::unique_ptr<Stream> stream,
                std::unique_ptr<Connections::Ticket> ticket, bool proxy_protocol);
  ~ServerSession();  // logs the end
  ServerSession(const ServerSession&) = delete;
  ServerSession& operator=(const ServerSession&) = delete;

  Task<> run();
  // Ends it with 421 before the next command, or while it waits for one or for the rest of it.
  void shut_down() { leave(replies::shutting_down); }
  void shed() { leave(replies::shed); }

 private:
  // Those that return bool: false means that the session is over, and all is said.
  Task<bool> open();
  Task<std::optional<Endpoint>> read_proxy_header(Endpoint peer);
  Task<bool> identify(Client client);
  void admit(Client client);
  Task<> learn_name();
  void look_for_name();
  void take_name(std::string name);
  void log_loss(bool timeout);
  Task<bool> take_over_client();
  Task<bool> more_input();
  void rest();
  Task<bool> read(SteadyTime deadline);
  Task<bool> read_content();
  bool too_slow(SteadyTime since, std::size_t bytes);
  void limit_answering(Effect effect);
  Task<bool> perform(Effect effect);
  Task<bool> ask_data();  // false: content is not welcome
  Task<bool> receive_data();
  Task<bool> receive_chunk();
  Task<> store(std::string& content);
  Task<> finish();
  Task<bool> start_tls();
  bool flush_now(bool last = false);  // `last`: the connection ends with it
  Task<bool> flush();
  Task<> lose(ReadStatus status);
  Task<> hang_up(ReplyText text, std::string argument = {});
  void leave(const ReplyText& why);
  bool speaks_for_others(const IpAddress& address) const;
  Client make_client(const Endpoint& endpoint) const;
  std::string place();  // "DATA (100 bytes) from NAME[IP]"
  SteadyTime in(std::chrono::seconds timeout) const { return parts_.clock.steady() + timeout; }

  ServerParts parts_;
  config::ConfigPtr config_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Connections::Ticket> ticket_;
  bool proxy_protocol_;
  Session session_;
  std::unique_ptr<Admission> admission_;
  InputBuffer input_{parts_.buffers};
  LineReader lines_{config_->smtp.reject_bare_lf};
  bool begun_ = false;  // the client has been admitted
  bool named_ = false;  // and its name is known
  bool in_content_ = false;
  std::optional<SteadyTime> command_deadline_;
  SteadyTime last_input_{};       // or when replies were sent since
  SteadyTime answering_since_{};  // the client's last content; its pauses since then do not count
  const ReplyText* leaving_ = nullptr;
  // How fast content comes: time spent waiting for it (and for the next chunk), and what came, since the last look.
  std::chrono::steady_clock::duration waited_{};
  std::uint64_t received_ = 0;
};

}  // namespace greymx::smtp

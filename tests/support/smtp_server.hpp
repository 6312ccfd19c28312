// A server session in one thread, with ports that the test scripts and a connection in memory.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "smtp/server_session.hpp"
#include "support/fake_clock.hpp"
#include "support/pipe_stream.hpp"
#include "support/recording_alerts.hpp"
#include "support/recording_log.hpp"

namespace greymx::test {

// Keeps what was committed.
class FakeIntake final : public smtp::Intake {
 public:
  struct Message {
    Envelope envelope;
    std::string content;
  };
  explicit FakeIntake(const Clock& clock) : clock_(clock) {}

  bool has_room(std::uint64_t) const override { return room; }
  std::unique_ptr<smtp::Body> begin() override;

  std::vector<Message> messages;
  bool room = true;
  std::size_t open = 0;  // bodies begun and not gone
  std::size_t writes = 0;
  Result<> write_result;
  Result<> commit_result;

 private:
  class Body;
  const Clock& clock_;
  QueueIdSource ids_;
};

// Says what the test says; everything passes by default.
class FakePolicy final : public smtp::Policy {
 public:
  std::unique_ptr<smtp::Admission> admit(const Client& client) override;
  void refuse_recipients(const Reply& reply, const std::string& check) {  // whoever they are
    recipient = [reply, check](const Facts&, const Mailbox&) {
      Verdict verdict;
      verdict.reply = reply;
      verdict.check = check;
      return verdict;
    };
  }

  std::string name = "mail.example.org";
  bool name_is_late = false;  // who wants it has to wait for it
  std::function<Verdict(const Facts&, const Mailbox&)> recipient;
  std::function<Verdict(const Facts&)> data;
  std::function<Reply(const Facts&, const std::string&)> etrn;
  std::map<std::string, std::uint64_t> sizes;  // by domain
  std::vector<Client> admitted;
  std::vector<Facts> asked;  // of each RCPT and DATA that was asked about

 private:
  class Admission;
};

// mx2.example.net for example.com, all else as by default.
config::Config server_config();

class ServerRig {
 public:
  explicit ServerRig(config::Config settings = server_config(), std::string client = "192.0.2.10:4321",
                     bool proxy_protocol = false);
  ~ServerRig();

  void start();                        // before it, change the config and the ports
  std::string say(std::string bytes);  // sends, lets the session run until it waits, returns what it answered
  std::string line(const std::string& command) { return say(command + "\r\n"); }
  std::string advance(std::chrono::seconds by);  // moves time; what was said because of it
  void pump();
  bool ended() const { return gate_.size() == 0; }

  FakeClock clock;
  config::Config settings;
  RecordingLog log;
  Metrics metrics;
  RecordingAlerts alerts;
  FakeIntake intake{clock};
  FakePolicy policy;
  smtp::TlsServer tls{clock, log, metrics, alerts};
  smtp::Connections connections{clock, metrics};
  std::unique_ptr<PipeStream> client;
  PipeStream* server = nullptr;                 // dies with the session
  smtp::Connections::Ticket* ticket = nullptr;  // so does this
  std::shared_ptr<smtp::ServerSession> session;

 private:
  Endpoint client_;
  bool proxy_protocol_;
  asio::io_context io_{1};
  Gate gate_{io_.get_executor()};
};

}  // namespace greymx::test

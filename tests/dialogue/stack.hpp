// greymx's receiving side in one thread, with nothing real around it: session, checks, greylist and spool are the
// daemon's own; time, DNS, the disk, the connection and the primary are the test's.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "access/access.hpp"
#include "access/recipient_memory.hpp"
#include "access/tables.hpp"
#include "dnsbl/health.hpp"
#include "greylist/greylister.hpp"
#include "queue/spool.hpp"
#include "smtp/server_session.hpp"
#include "support/fake_clock.hpp"
#include "support/memory_files.hpp"
#include "support/pipe_stream.hpp"
#include "support/recording_alerts.hpp"
#include "support/recording_log.hpp"
#include "support/scripted_resolver.hpp"
#include "support/temp_dir.hpp"

namespace greymx::test {

// The primary, as the checks and the session see it.
class FakePrimaries final : public access::Primaries {
 public:
  bool is_up(const std::string&) const override { return up; }
  bool is_down(const std::string&) const override { return !up; }
  bool is_primary_address(const IpAddress& ip) const override { return addresses.contains(ip.to_string()); }
  std::string hosts(const std::string&) const override { return "mx1.example.com:25"; }
  std::uint64_t size_limit(const std::string& domain) const;
  std::uint64_t largest_size_limit() const;
  Task<Answer> call(std::string address, SteadyTime deadline) override;

  bool up = true;
  bool several_domains = false;  // only example.com's limit is ever known
  std::set<std::string> addresses;
  std::map<std::string, std::uint64_t> sizes;      // by domain
  std::map<std::string, access::Callout> answers;  // by address; others: inconclusive
};

class Stack {
 public:
  // `settings`: keys and values as in relay.conf, over defaults that make example.com ours and ask no questions.
  // Relative file names are those of `files`. Throws std::runtime_error if the config is bad.
  Stack(const std::map<std::string, std::string>& settings, const std::map<std::string, std::string>& files, bool tls,
        std::uint64_t disk);
  ~Stack();

  void connect(const Endpoint& client);  // after the former connection has ended
  void disconnect();
  void send(const std::string& bytes);
  // The next line of the server, without its end; nullopt: it hung up, or said nothing for 20 s.
  std::optional<std::string> receive();
  bool hung_up();        // within 20 s
  std::string unread();  // what the server has said since
  void advance(std::chrono::microseconds by);
  void resize_disk(std::uint64_t bytes);
  void break_disk() { disk_.fail_at(1, Fault::io_error, true); }
  void shut_down();
  void delay(const std::string& name, std::chrono::seconds by) { resolver.delay(name, by, clock_); }

  std::vector<queue::Message> queued();
  std::string content(QueueId id);

  RecordingLog log;
  ScriptedResolver resolver;
  FakePrimaries primaries;
  Metrics metrics;
  RecordingAlerts alerts;

 private:
  class Policy;
  class Intake;
  void settle();  // runs what can run
  template <class Condition>
  bool wait_for(Condition condition);

  TempDir directory_;
  FakeClock clock_;
  asio::io_context io_{1};
  config::ConfigPtr config_;
  MemoryFiles disk_;
  std::unique_ptr<queue::Spool> spool_;
  std::unique_ptr<greylist::Greylister> greylister_;
  std::unique_ptr<access::RecipientMemory> memory_;
  std::shared_ptr<dnsbl::Health> health_;
  std::shared_ptr<dnsbl::Lists> lists_;
  std::unique_ptr<access::Pipeline> pipeline_;
  std::unique_ptr<Policy> policy_;
  std::unique_ptr<Intake> intake_;
  std::unique_ptr<smtp::TlsServer> tls_;
  std::unique_ptr<smtp::Connections> connections_;
  std::unique_ptr<PipeStream> client_;
  std::shared_ptr<smtp::ServerSession> session_;
  PipeStream* server_ = nullptr;  // dies with the session
  std::string received_;
  Gate gate_{io_.get_executor()};
};

}  // namespace greymx::test

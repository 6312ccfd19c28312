// A mail server on loopback, in the test's own io_context, that answers as told and keeps what it took byte for byte.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/async.hpp"
#include "smtp/stream.hpp"

namespace greymx::test {

// Where a dialogue stands when the server answers: before the greeting, after a command, in the middle of the content
// (its first bytes have come), after the dot.
enum class Step : std::uint8_t { greeting, ehlo, helo, starttls, xforward, mail, rcpt, data, content, dot, rset, quit };
std::string_view to_string(Step step);

struct Act {
  enum class Kind : std::uint8_t {
    reply,             // `text`, then goes on as if it had been its own
    reply_then_close,  // 421s
    close,
    hang,             // says nothing more until the client leaves
    garbage,          // what is no SMTP
    endless,          // a line without end
    half,             // the first bytes of a reply, then nothing
    take_then_close,  // at the dot: keeps the message, but does not say so
  };
  Kind kind = Kind::reply;
  std::string text;
};

class FakePrimary {
 public:
  struct Transaction {
    std::string helo;
    std::vector<std::string> xforward;
    std::string mail;  // the command lines
    std::vector<std::string> rcpt;
    std::string content;  // without the dots that were added
    bool tls = false;
  };

  // Listens on a free port of `address` until down(); up() listens there again.
  explicit FakePrimary(asio::io_context& io, std::string address = "127.0.0.1", std::string name = "fake.example");
  ~FakePrimary();
  FakePrimary(const FakePrimary&) = delete;
  FakePrimary& operator=(const FakePrimary&) = delete;

  Endpoint endpoint() const { return endpoint_; }
  void down();  // connections end, new ones are refused
  void up();

  std::vector<std::string> extensions = {"PIPELINING", "SIZE 10485760", "8BITMIME", "SMTPUTF8", "DSN"};
  SSL_CTX* tls = nullptr;  // set: STARTTLS is offered
  // Asked first at every step, with the command line; nothing = as a good server would.
  std::function<std::optional<Act>(Step, const std::string&)> script;
  // The next `times` times.
  void misbehave(Step step, Act act, unsigned times = 1);

  std::vector<Transaction> transactions;
  std::vector<std::string> lines;    // all commands
  std::vector<std::string> refused;  // commands answered by 4yz or 5yz
  unsigned connections = 0;
  unsigned open = 0;                               // connections now
  unsigned most_open = 0;                          // at once
  std::size_t count(std::string_view part) const;  // of commands that contain it

 private:
  struct Session;
  Task<> accept_all();
  Task<> serve(std::unique_ptr<smtp::Stream> stream);
  Task<bool> answer(Session& session, Step step, std::string line);
  Task<bool> content(Session& session);
  std::optional<Act> planned(Step step, const std::string& line);

  asio::io_context& io_;
  std::string name_;
  Endpoint endpoint_;
  std::optional<asio::ip::tcp::acceptor> acceptor_;
  std::vector<std::pair<Step, Act>> plan_;
  std::vector<smtp::Stream*> streams_;
  Gate gate_;
};

}  // namespace greymx::test

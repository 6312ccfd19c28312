#include "support/fake_primary.hpp"

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>

#include "base/sockets.hpp"

namespace greymx::test {

namespace {

using asio::ip::tcp;
constexpr auto as_value = asio::as_tuple(asio::use_awaitable);
constexpr std::array<std::pair<Step, const char*>, 12> names = {{{Step::greeting, "greeting"},
                                                                 {Step::ehlo, "EHLO"},
                                                                 {Step::helo, "HELO"},
                                                                 {Step::starttls, "STARTTLS"},
                                                                 {Step::xforward, "XFORWARD"},
                                                                 {Step::mail, "MAIL"},
                                                                 {Step::rcpt, "RCPT"},
                                                                 {Step::data, "DATA"},
                                                                 {Step::content, "content"},
                                                                 {Step::dot, "dot"},
                                                                 {Step::rset, "RSET"},
                                                                 {Step::quit, "QUIT"}}};

SteadyTime soon() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(60);
}

}  // namespace

std::string_view to_string(Step step) {
  return std::find_if(names.begin(), names.end(), [step](const auto& name) { return name.first == step; })->second;
}

struct FakePrimary::Session {
  std::unique_ptr<smtp::Stream> stream;
  std::string buffer;
  Transaction transaction;

  Task<bool> more() {
    std::array<char, 8192> bytes;
    const smtp::ReadEvent event = co_await stream->read_some(bytes, soon());
    if (event.status == smtp::ReadStatus::data) buffer.append(bytes.data(), event.bytes);
    co_return event.status == smtp::ReadStatus::data;
  }
  Task<std::optional<std::string>> line() {
    while (buffer.find("\r\n") == std::string::npos) {
      const bool ok = co_await more();
      if (!ok) co_return std::nullopt;
    }
    std::string text = buffer.substr(0, buffer.find("\r\n"));
    buffer.erase(0, text.size() + 2);
    co_return text;
  }
  Task<bool> say(std::string text) {
    const Result<> written = co_await stream->write(text, soon());
    co_return written.has_value();
  }
  Task<> hang() {
    for (bool ok = true; ok; ok = co_await more()) buffer.clear();
  }
};

FakePrimary::FakePrimary(asio::io_context& io, std::string address, std::string name)
    : io_(io), name_(std::move(name)), endpoint_{*IpAddress::parse(address), 0}, gate_(io.get_executor()) {
  up();
}

FakePrimary::~FakePrimary() {
  down();
  gate_.cancel();
  io_.restart();
  while (gate_.size() > 0 && io_.run_one() > 0) {
  }
}

void FakePrimary::up() {
  tcp::endpoint at(asio::ip::address_v4(endpoint_.address.v4_value()), endpoint_.port);
  acceptor_.emplace(io_, at, true);
  acceptor_->set_option(tcp::no_delay(true));  // of all that it accepts: replies to a pipeline go out one by one
  endpoint_.port = acceptor_->local_endpoint().port();
  gate_.spawn("accept", accept_all());
}

void FakePrimary::down() {
  if (acceptor_) acceptor_->close();
  for (smtp::Stream* stream : streams_) stream->close();
}

void FakePrimary::misbehave(Step step, Act act, unsigned times) {
  plan_.insert(plan_.end(), times, {step, act});
}

std::size_t FakePrimary::count(std::string_view part) const {
  return static_cast<std::size_t>(std::count_if(
      lines.begin(), lines.end(), [part](const std::string& line) { return line.find(part) != std::string::npos; }));
}

Task<> FakePrimary::accept_all() {
  for (;;) {
    tcp::endpoint peer;
    auto [error, socket] = co_await acceptor_->async_accept(peer, as_value);
    if (error) co_return;
    ++connections;
    gate_.spawn("session", serve(smtp::make_stream(std::move(socket), from_asio(peer))));
  }
}

std::optional<Act> FakePrimary::planned(Step step, const std::string& line) {
  std::optional<Act> act = script ? script(step, line) : std::nullopt;
  const auto next = std::find_if(plan_.begin(), plan_.end(), [step](const auto& p) { return p.first == step; });
  if (!act && next != plan_.end()) {
    act = next->second;
    plan_.erase(next);
  }
  return act;
}

// False: the connection is over.
Task<bool> FakePrimary::answer(Session& session, Step step, std::string line) {
  Transaction& transaction = session.transaction;
  std::optional<Act> act = planned(step, line);
  std::string text = "250 2.0.0 Ok\r\n";
  if (step == Step::greeting) text = "220 " + name_ + " ESMTP\r\n";
  if (step == Step::ehlo) {
    text = "250-" + name_ + "\r\n";
    for (const std::string& extension : extensions) text += "250-" + extension + "\r\n";
    if (tls != nullptr && !transaction.tls) text += "250-STARTTLS\r\n";
    text += "250 ENHANCEDSTATUSCODES\r\n";
  }
  if (step == Step::data) {
    text = transaction.rcpt.empty() ? "554 5.5.1 Error: no valid recipients\r\n" : "354 go on\r\n";
  }
  if (step == Step::starttls) text = "220 2.0.0 Ready\r\n";
  if (step == Step::quit) text = "221 2.0.0 Bye\r\n";
  if (step == Step::rcpt && transaction.mail.empty()) text = "503 5.5.1 Error: need MAIL command\r\n";
  if (act) {
    using Kind = Act::Kind;
    if (act->kind == Kind::take_then_close) transactions.push_back(transaction);
    if (act->kind == Kind::close || act->kind == Kind::take_then_close) co_return false;
    if (act->kind == Kind::garbage) text = "\x01\x02 what?\r\n";
    if (act->kind == Kind::endless) text = std::string(200'000, 'x');
    if (act->kind == Kind::half) text = "25";
    if (act->kind == Kind::reply || act->kind == Kind::reply_then_close) text = act->text + "\r\n";
    if (act->kind != Kind::reply) {
      if (act->kind != Kind::hang) co_await session.say(text);
      if (act->kind != Kind::reply_then_close) co_await session.hang();
      co_return false;
    }
  }
  const bool good = text[0] == '2' || text[0] == '3';
  if (!good) refused.push_back(line);
  if (good && (step == Step::ehlo || step == Step::helo)) transaction.helo = line;
  if (good && step == Step::xforward) transaction.xforward.push_back(line);
  if (good && step == Step::mail) transaction.mail = line;
  if (good && step == Step::rcpt) transaction.rcpt.push_back(line);
  if (good && step == Step::dot) transactions.push_back(transaction);
  if (step == Step::dot || (step == Step::rset && good)) {
    transaction = Transaction{
        .helo = transaction.helo, .xforward = {}, .mail = {}, .rcpt = {}, .content = {}, .tls = transaction.tls};
  }
  const bool said = co_await session.say(text);
  if (said && good && step == Step::starttls) {
    const auto info = co_await session.stream->start_tls_server(tls, soon());
    session.transaction = {};
    session.transaction.tls = true;
    co_return info.has_value();
  }
  co_return said&& step != Step::quit && !(step == Step::greeting && !good);
}

Task<bool> FakePrimary::content(Session& session) {
  const bool some = co_await session.more();
  if (!some) co_return false;
  if (const std::optional<Act> act = planned(Step::content, "")) {
    if (act->kind == Act::Kind::hang) co_await session.hang();
    if (act->kind == Act::Kind::reply_then_close) co_await session.say(act->text + "\r\n");
    co_return false;
  }
  for (;;) {
    const std::optional<std::string> line = co_await session.line();
    if (!line) co_return false;
    if (*line == ".") break;
    session.transaction.content += line->substr(line->starts_with('.') ? 1 : 0) + "\r\n";
  }
  const bool open_still = co_await answer(session, Step::dot, ".");
  co_return open_still;
}

Task<> FakePrimary::serve(std::unique_ptr<smtp::Stream> stream) {
  Session session;
  session.stream = std::move(stream);
  streams_.push_back(session.stream.get());
  most_open = std::max(most_open, ++open);
  bool go_on = co_await answer(session, Step::greeting, "");
  while (go_on) {
    const std::optional<std::string> line = co_await session.line();
    if (!line) break;
    lines.push_back(*line);
    const std::string verb = line->substr(0, line->find(' '));
    const auto known = std::find_if(names.begin(), names.end(), [&](const auto& name) { return name.second == verb; });
    if (known == names.end()) {
      go_on = co_await session.say("500 5.5.2 what?\r\n");
      continue;
    }
    const std::size_t refusals = refused.size();
    go_on = co_await answer(session, known->first, *line);
    if (go_on && known->first == Step::data && refused.size() == refusals) go_on = co_await content(session);
  }
  --open;
  std::erase(streams_, session.stream.get());
}

}  // namespace greymx::test

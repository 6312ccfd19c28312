// A client session against a hostile server: greeting, EHLO, a transaction with content, a callout, QUIT. The first
// byte is the size of reads, the rest is all that the server says before it closes, a reply a command or, for some
// sizes, at once. Whatever it says, the session ends, every recipient has an answer, content is sent only if it was
// asked for, and no line that we send carries two.
#include <array>
#include <boost/asio/detached.hpp>
#include <cstdlib>

#include "smtp/client_session.hpp"
#include "support/fake_clock.hpp"
#include "support/pipe_stream.hpp"
#include "support/run.hpp"

using namespace greymx;
using namespace greymx::smtp;

namespace {

void require(bool what) {
  if (!what) std::abort();
}

Envelope make_envelope() {
  Envelope envelope;
  envelope.reverse_path = "a@sender.example";
  envelope.recipients = {{"b@example.com", {}, {}}, {"c@example.com", "rfc822;c@example.com", {.success = true}}};
  envelope.client.name = "client.example";
  envelope.helo = "helo.example";
  return envelope;
}

Task<> talk(ClientSession& session) {
  const Answer greeting = co_await session.greet();
  if (!greeting.positive()) co_return;
  const Envelope envelope = make_envelope();
  MailTransaction transaction;
  transaction.envelope = &envelope;
  transaction.recipients = {0, 1};
  transaction.size = 20;
  transaction.xforward = true;
  const EnvelopeResult result = co_await session.envelope(std::move(transaction));
  require(result.answers.size() == 2);
  if (result.go) {
    require(result.answers[0].positive() || result.answers[1].positive());
    const std::optional<Answer> trouble = co_await session.content(".\r\nSubject: x\r\n\r\nbody\r\n", true);
    if (trouble) co_return;
    const Answer end = co_await session.finish();
    require(end.stage == Stage::dot);
  } else {
    require(!result.answers[0].positive() && !result.answers[1].positive());
  }
  if (!session.usable()) co_return;
  const Answer answer = co_await session.verify("d@example.com");
  require(answer.kind != Answer::Kind::reply || answer.reply.code >= 200);
  co_await session.quit();
}

Task<> serve(test::PipeStream& stream, std::string said, bool at_once, std::string& heard) {
  for (std::size_t done = 0; !said.empty();) {
    ReplyParser parser;
    const std::size_t size = parser.feed(said);
    const bool go = parser.status() == ReplyParser::Status::complete && parser.take().code == 354;
    const bool content = go && std::string_view(heard).substr(0, done).ends_with("DATA\r\n");
    stream.put(at_once ? said : said.substr(0, size));
    said.erase(0, at_once ? said.size() : size);
    const std::string_view end = content ? "\n.\r\n" : "\n";
    const std::size_t from = content ? done - 1 : done;
    while (!said.empty() && heard.find(end, from) == std::string::npos) {
      std::array<char, 512> bytes;
      const ReadEvent event = co_await stream.read_some(bytes, SteadyTime::max());
      if (event.status != ReadStatus::data) co_return;
      heard.append(bytes.data(), event.bytes);
    }
    done = heard.find(end, from) + end.size();
  }
  stream.finish();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  asio::io_context io{1};
  test::FakeClock clock;
  clock.set_steady({});  // no deadline passes
  auto [ours, theirs] = test::PipeStream::make(io.get_executor(), clock);
  ours->set_max_read(1U + data[0]);
  std::string heard;
  std::string all(reinterpret_cast<const char*>(data) + 1, size - 1);
  asio::co_spawn(io, serve(*theirs, std::move(all), data[0] % 8 == 3, heard), asio::detached);
  {
    ClientSession session(std::move(ours), "mx2.example.net");
    test::run(io, talk(session));
  }
  io.restart();
  io.poll();
  const std::string said = heard + theirs->take();
  for (std::size_t i = 0; i < said.size(); ++i) {
    require(said[i] != '\n' || (i > 0 && said[i - 1] == '\r'));
    require(said[i] != '\r' || (i + 1 < said.size() && said[i + 1] == '\n'));
  }
  return 0;
}

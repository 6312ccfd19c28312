// Commands that read the queue, running or not.
#include <algorithm>
#include <map>

#include "admin/commands.hpp"
#include "admin/walk.hpp"
#include "queue/content.hpp"

namespace greymx::admin {

using queue::Content;
using queue::Message;

namespace {

Task<Result<std::unique_ptr<Content>>> load_content(queue::Spool& spool, QueueId id) {
  auto loaded = co_await spool.load(id, 64 << 10);
  if (!loaded) co_return std::unexpected(loaded.error());
  if (loaded->rest) co_return std::move(loaded->rest);
  co_return queue::make_content(std::move(loaded->content));
}

Task<Result<std::unique_ptr<Content>>> open_content(queue::SpoolReader& reader, QueueId id) {
  co_return reader.content(id);
}

// Without a daemon nobody keeps sums: they are read from the messages.
std::vector<queue::DomainSummary> sum_domains(queue::SpoolReader& reader) {
  std::map<std::string, queue::DomainSummary> sums;
  for (const QueueId id : reader.ids()) {
    const auto message = reader.peek(id);
    if (!message) continue;
    std::map<std::string, bool> domains;  // of this message; true: something pending
    for (std::size_t i = 0; i < message->state.recipients.size(); ++i) {
      const auto status = message->state.recipients[i].status;
      if (status == queue::RecipientStatus::done) continue;
      domains[queue::schedule_domain(message->envelope.recipients[i].address)] |=
          status == queue::RecipientStatus::pending && !message->state.held;
    }
    for (const auto& [domain, pending] : domains) {
      queue::DomainSummary& sum = sums[domain];
      sum.domain = domain;
      if (sum.messages++ == 0) sum.oldest = id.time();
      sum.bytes += message->size;
      sum.held += pending ? 0 : 1;
    }
  }
  std::vector<queue::DomainSummary> all;
  for (auto& [domain, sum] : sums) all.push_back(std::move(sum));
  return all;
}

// Sends a message's content piece by piece; false: nobody reads any more.
Task<Result<bool>> send_content(Content& content, asio::thread_pool& pool, Sink& sink) {
  std::vector<char> buffer(48 << 10);
  bool heard = true;
  for (std::uint64_t offset = 0; heard && offset < content.size();) {
    auto read = [&] { return content.read(offset, buffer); };
    const Result<std::size_t> got = co_await offload(pool, read);
    if (!got) co_return fail(ErrorKind::permanent, got.error().text);  // a part of it is out, gone or not
    if (*got == 0) {
      co_return fail(ErrorKind::permanent, "it ends early: the spool is damaged, see greymx spool verify");
    }
    offset += *got;
    std::string line = reply::data(std::span(buffer).first(*got));
    heard = co_await sink.send(std::move(line));
  }
  co_return heard;
}

Task<bool> send_file(std::string name, std::string content, Sink& sink) {
  std::string lines = reply::file(name);
  if (!content.empty()) lines += reply::data(content);
  co_return co_await sink.send(std::move(lines));
}

Task<Ending> list(Walk& walk, const Request& request, const QueueSource& source, WallTime now, asio::thread_pool& pool,
                  Sink& sink) {
  Mailq mailq(request.json, source.primaries.value_or(Primaries()), source.config->queue, now);
  auto next = [&] {
    std::string text;
    for (const Message& message : walk.page()) {
      text += mailq.add(message, source.active(message.id));
    }
    return text;
  };
  while (!walk.done()) {
    const std::string text = co_await offload(pool, next);
    const bool heard = co_await sink.send(reply::text(text));
    if (!heard) co_return Ending{};
  }
  co_await sink.send(reply::text(mailq.end(source.count() == 0)));
  co_return walk.ending();
}

Task<Ending> shape(Walk& walk, const Request& request, const QueueSource& source, WallTime now, asio::thread_pool& pool,
                   Sink& sink) {
  Shape shape;
  auto next = [&] {
    for (const Message& message : walk.page()) shape.add(message, *source.config, now);
  };
  while (!walk.done()) {
    co_await offload(pool, next);
    const bool heard = co_await sink.send(reply::progress(walk.looked_at(), walk.total()));
    if (!heard) co_return Ending{};
  }
  std::string text;
  if (request.json) {
    for (const Json& row : shape.objects()) text += dump(row) + "\n";
  } else {
    text = shape.text();
  }
  co_await sink.send(reply::text(text));
  co_return walk.ending();
}

std::string envelope_text(const Message& message) {
  return envelope_json(message).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

// The content is opened before a file is named: one that cannot be had leaves nothing behind.
Task<Result<bool>> write_message(const Message& message, bool exporting, const QueueSource& source,
                                 asio::thread_pool& pool, Sink& sink) {
  const auto content = co_await source.content(message.id);
  if (!content) co_return std::unexpected(content.error());
  bool heard = true;
  if (exporting) {
    const std::string id = message.id.to_string();
    heard = co_await send_file(id + ".json", envelope_text(message), sink);
    if (heard) {
      heard = co_await send_file(id + ".eml", {}, sink);
    }
  }
  if (!heard) co_return false;
  co_return co_await send_content(**content, pool, sink);
}

Task<Ending> write_out(Walk& walk, const Request& request, const QueueSource& source, asio::thread_pool& pool,
                       Sink& sink) {
  const bool exporting = request.command == "export";
  const bool envelope = !exporting && !request.arg("envelope").empty();
  auto next = [&] { return walk.page(); };
  while (!walk.done()) {
    const std::vector<Message> page = co_await offload(pool, next);
    for (const Message& message : page) {
      Result<bool> heard = false;
      if (envelope) {
        heard = co_await sink.send(reply::text(envelope_text(message)));
      } else {
        heard = co_await write_message(message, exporting, source, pool, sink);
      }
      if (!heard) {
        walk.trouble(message.id, heard.error());
      } else if (!*heard) {
        co_return Ending{};
      }
    }
    if (!exporting) continue;
    const bool heard = co_await sink.send(reply::progress(walk.looked_at(), walk.total()));
    if (!heard) co_return Ending{};
  }
  Ending ending = walk.ending();
  co_return ending.exit == 0 && !walk.matched() ? failed("no message matches") : std::move(ending);
}

Task<Ending> domains(const Request& request, const QueueSource& source, WallTime now, asio::thread_pool& pool,
                     Sink& sink) {
  auto read = [&] { return source.domains(); };
  const std::vector<queue::DomainSummary> queued = co_await offload(pool, read);
  const bool asked = source.primaries.has_value();
  std::vector<DomainLine> lines =
      join_domains(asked ? *source.primaries : configured_primaries(*source.config), queued);
  const std::set<std::string> ours = our_domains(*source.config);
  for (DomainLine& line : lines) {
    line.configured = ours.contains(line.domain);
    line.asked = asked;
  }
  std::string text;
  if (request.json) {
    for (const DomainLine& line : lines) text += dump(domain_json(line, now)) + "\n";
  } else {
    text = domains_text(lines, now, Style{request.color});
  }
  co_await sink.send(reply::text(text));
  co_return Ending{};
}

}  // namespace

QueueSource source_of(queue::Spool& spool, std::vector<relay::PrimaryStatus> primaries, config::ConfigPtr config) {
  QueueSource source;
  source.ids = [&spool](QueueId after, std::size_t limit) { return spool.ids(after, limit); };
  source.newest = [&spool] { return spool.newest(); };
  source.count = [&spool] { return spool.totals().messages; };
  source.peek = [&spool](QueueId id) { return spool.peek(id); };
  source.active = [&spool](QueueId id) { return spool.active(id); };
  source.content = [&spool](QueueId id) { return load_content(spool, id); };
  source.domains = [&spool] { return spool.domains(); };
  source.primaries = Primaries(std::move(primaries), *config);
  source.config = std::move(config);
  return source;
}

QueueSource source_of(queue::SpoolReader& reader, config::ConfigPtr config) {
  const auto ids = std::make_shared<const std::vector<QueueId>>(reader.ids());
  QueueSource source;
  source.ids = [ids](QueueId after, std::size_t limit) {
    const auto begin = std::ranges::upper_bound(*ids, after);
    return std::vector(begin, begin + std::min<std::ptrdiff_t>(static_cast<std::ptrdiff_t>(limit), ids->end() - begin));
  };
  source.newest = [ids] { return ids->empty() ? QueueId{} : ids->back(); };
  source.count = [ids] { return ids->size(); };
  source.peek = [&reader](QueueId id) { return reader.peek(id); };
  source.active = [](QueueId) { return false; };
  source.content = [&reader](QueueId id) { return open_content(reader, id); };
  source.domains = [&reader] { return sum_domains(reader); };
  source.config = std::move(config);
  return source;
}

bool is_reading(const std::string& command) {
  static constexpr std::array commands{"mailq", "shape", "domains", "cat", "export"};
  return std::ranges::find(commands, command) != commands.end();
}

Task<Ending> read_queue(Request request, QueueSource source, WallTime now, asio::thread_pool& pool, Sink& sink) {
  const std::string& command = request.command;
  if (command == "domains") {
    co_return co_await domains(request, source, now, pool, sink);
  }
  Walk walk(source, request.select, now);
  if (command == "mailq") {
    co_return co_await list(walk, request, source, now, pool, sink);
  }
  if (command == "shape") {
    co_return co_await shape(walk, request, source, now, pool, sink);
  }
  if (request.select.empty()) co_return Ending{2, "which messages? give queue IDs"};
  co_return co_await write_out(walk, request, source, pool, sink);
}

}  // namespace greymx::admin

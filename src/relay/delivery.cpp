#include "relay/delivery.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "relay/settlement.hpp"

namespace greymx::relay {

namespace {

using queue::RecipientStatus;

constexpr std::uint64_t whole_up_to = 256UL << 10;
constexpr std::size_t piece = 128UL << 10;
constexpr unsigned hosts_a_message = 2;  // tried in one attempt
constexpr std::size_t hosts_asked = 10;  // …with those that do not offer what it needs
constexpr auto pause = std::chrono::seconds(1);

SteadyTime now() {
  return std::chrono::steady_clock::now();
}

// Reads it in pieces. One that cannot be read is found out when it is sent.
bool has_ascii_header(queue::Content& content) {
  std::string bytes = "\r\n";  // before an empty line without a header
  for (std::uint64_t offset = 0; offset < content.size();) {
    std::string next(piece, '\0');
    const std::size_t count = content.read(offset, next).value_or(0);
    if (count == 0) return true;
    offset += count;
    bytes += next.substr(0, count);
    const std::size_t end = bytes.find("\r\n\r\n");
    if (!is_ascii(std::string_view(bytes).substr(0, end))) return false;
    if (end != std::string::npos) return true;
    bytes.erase(0, bytes.size() - 3);
  }
  return true;
}

bool any_delivered(const std::vector<Fate>& fates) {
  return std::any_of(fates.begin(), fates.end(),
                     [](const Fate& fate) { return fate.outcome.result == Outcome::Result::delivered; });
}

// What another host may still better, or, where some were taken and these were too many, this one at once.
std::vector<Fate> take_open(std::vector<Fate>& fates, bool some) {
  const auto open = std::partition(fates.begin(), fates.end(), [some](const Fate& fate) {
    return !fate.outcome.next_host && !(some && fate.too_many);
  });
  std::vector<Fate> result(std::make_move_iterator(open), std::make_move_iterator(fates.end()));
  fates.erase(open, fates.end());
  return result;
}

bool puts_mail_off(const std::vector<smtp::Answer>& answers) {
  return std::ranges::any_of(answers, [](const smtp::Answer& answer) {
    const bool transient = answer.reply.code / 100 == 4 || answer.reply.code == 503;
    return answer.stage == smtp::Stage::mail && answer.kind == smtp::Answer::Kind::reply && transient;
  });
}

bool all_unable(const std::vector<Fate>& fates) {
  return std::all_of(fates.begin(), fates.end(), [](const Fate& fate) { return fate.unable; });
}

// Every host was asked, and none offers what these need.
void give_up(std::vector<Fate>& fates) {
  for (Fate& fate : fates) {
    fate.outcome.result = Outcome::Result::failed;
    fate.outcome.dsn = "5.6.7";
    fate.refused_early = true;
  }
}

class Worker {
 public:
  Worker(Parts& parts, Destination& destination) : parts_(parts), destination_(destination) {}
  Task<> run();

 private:
  Task<std::unique_ptr<Job>> next_job();
  Task<bool> needs_utf8(const Job& job);
  std::unique_ptr<Job> make_job(Taken taken, queue::Loaded loaded) const;
  std::vector<Fate> stray(const Job& job);
  bool withdrawn(const Job& job) const;
  Task<bool> deliver(Job& job);
  Task<std::vector<Fate>> attempt(Job& job, bool& stale);
  std::optional<Fate> impossible(const Job& job, std::size_t recipient) const;
  Task<std::optional<Outcome>> send_content(const Job& job);
  Task<smtp::Answer> finish();
  void drop_next();
  void put_away_connection() { destination_.give_back(std::move(connection_)); }

  Parts& parts_;
  Destination& destination_;
  std::unique_ptr<Connection> connection_;
  std::unique_ptr<Job> next_;                               // loaded while a reply was awaited
  std::shared_ptr<bool> alive_ = std::make_shared<bool>();  // a timer may fire when this is gone
};

Task<> Worker::run() {
  std::unique_ptr<Job> job = co_await next_job();
  while (job) {
    const bool served = co_await deliver(*job);
    job.reset();
    if (!served) {
      drop_next();
      // Up, and yet no connection serves us: whoever comes next would meet the same trouble at once.
      if (destination_.wants_worker()) co_await sleep_for(pause);
      co_return;
    }
    if (!destination_.wants_worker()) break;
    job = std::move(next_);
    if (job && withdrawn(*job)) job.reset();
    if (!job) job = co_await next_job();
  }
  put_away_connection();
}

Task<std::unique_ptr<Job>> Worker::next_job() {
  for (;;) {
    std::optional<Taken> taken = destination_.take();
    if (!taken) co_return nullptr;
    const QueueId id = taken->id();
    Result<queue::Loaded> loaded = co_await parts_.spool.load(id, whole_up_to);
    if (!loaded) {
      if (loaded.error().kind == ErrorKind::not_found) continue;  // deleted meanwhile
      parts_.log.error("qmgr", fmt::format("{}: cannot be read: {}", id.to_string(), loaded.error().text));
      (void)parts_.spool.make_due(id, parts_.clock.now() + parts_.config->queue.retry_max);
      continue;
    }
    std::unique_ptr<Job> job = make_job(std::move(*taken), std::move(*loaded));
    if (job->recipients.empty()) continue;
    if (destination_.own() || job->envelope().origin == Origin::report) {
      const bool utf8 = co_await needs_utf8(*job);
      job->utf8 = utf8;
      co_return job;
    }
    std::vector<Fate> fates = stray(*job);
    co_await settle(parts_, destination_, *job, std::move(fates));
  }
}

void Worker::drop_next() {
  if (std::exchange(next_, nullptr)) destination_.untake();
}

// …or a reload sends it elsewhere.
bool Worker::withdrawn(const Job& job) const {
  return taken_back(parts_.spool, job.taken.id()) || !destination_.is_for(job.taken.domain());
}

std::unique_ptr<Job> Worker::make_job(Taken taken, queue::Loaded loaded) const {
  std::unique_ptr<Job> job(new Job{std::move(taken), std::move(loaded), {}, now(), {}, {}, false});
  const queue::Message& message = job->loaded.message;
  for (std::size_t i = 0; i < message.envelope.recipients.size(); ++i) {
    if (message.state.recipients[i].status == RecipientStatus::pending &&
        queue::schedule_domain(message.envelope.recipients[i].address) == job->taken.domain()) {
      job->recipients.push_back(i);
    }
  }
  job->connecting = job->sending = now();
  return job;
}

// SMTPUTF8 is asked of a server only for what it says, not since the client said so: for all recipients by what is
// found here, else for those with such an address.
Task<bool> Worker::needs_utf8(const Job& job) {
  const Envelope& envelope = job.envelope();
  if (!envelope.smtputf8) co_return false;
  if (!is_ascii(envelope.reverse_path)) co_return true;
  if (!job.loaded.rest) co_return !is_ascii(header_of(job.loaded.content));
  auto look = [&content = *job.loaded.rest] { return has_ascii_header(content); };
  const bool ascii = co_await offload(parts_.disk, std::move(look));
  co_return !ascii;
}

// A client's mail for a domain that relay.conf names no more: never relayed to where DNS says.
std::vector<Fate> Worker::stray(const Job& job) {
  const std::string domain = printable(job.taken.domain());
  WallTime& told = parts_.stray_told[domain];
  if (parts_.clock.now() >= told + Parts::again_after) {
    told = parts_.clock.now();
    parts_.alerts.raise("mail for " + domain + " has nowhere to go",
                        "It was accepted when relay.conf still named the domain. Name it again, or delete the mail.");
  }
  std::vector<Fate> fates;
  for (const std::size_t index : job.recipients) {
    Outcome outcome{Outcome::Result::deferred, "4.3.5", domain + " is not in relay.conf any more", {}, false};
    fates.push_back({.index = index, .outcome = std::move(outcome)});
  }
  return fates;
}

// False: no connection, and the message is as it was; or new ones break again and again.
Task<bool> Worker::deliver(Job& job) {
  std::vector<Endpoint> asked;
  std::vector<Fate> open;
  bool useless = false;  // the connection had last broke and had delivered nothing
  bool able = true;      // the host asked last offers what any of the open ones needs
  for (unsigned hosts = 0; hosts < hosts_a_message && asked.size() < hosts_asked;) {
    job.connecting = now();
    if (!connection_) {
      Connected connected = co_await destination_.acquire(asked);
      connection_ = std::move(connected.connection);
      job.sending = now();
      if (!connection_ && open.empty()) {
        if (destination_.own()) co_return false;
        for (const std::size_t index : job.recipients) open.push_back({.index = index, .outcome = connected.trouble});
        break;
      }
      if (!connection_) {
        if (hosts == 0 && !able && !connected.others) give_up(open);
        break;
      }
    }
    if (withdrawn(job)) break;  // while the connection was opened
    job.sending = now();
    asked.push_back(connection_->host.endpoint);
    bool stale = false;
    std::vector<Fate> fates = co_await attempt(job, stale);
    const bool broken = connection_ && !connection_->session->usable();
    const bool fresh = connection_ && connection_->messages <= 1;
    if (broken || stale) connection_.reset();
    if (stale) {
      asked.pop_back();
      continue;
    }
    const bool some = any_delivered(fates);
    if (connection_ && some) connection_->served = true;
    if (broken && !some) destination_.useless(asked.back());
    open = take_open(fates, some);
    able = !all_unable(open);
    useless = broken && fresh && !some;
    if (broken) destination_.trouble();
    if (!fates.empty()) co_await settle(parts_, destination_, job, std::move(fates));
    if (open.empty()) break;
    job.recipients.clear();
    for (const Fate& fate : open) job.recipients.push_back(fate.index);
    if (some) {  // the rest is for the same host
      asked.pop_back();
      continue;
    }
    if (able) ++hosts;
    put_away_connection();
  }
  if (!open.empty()) co_await settle(parts_, destination_, job, std::move(open));
  if (connection_ && connection_->messages >= parts_.config->delivery.messages_per_connection) put_away_connection();
  co_return !useless || !destination_.broke_again();
}

// What the server cannot take, by its own word.
std::optional<Fate> Worker::impossible(const Job& job, std::size_t recipient) const {
  const smtp::Capabilities& server = connection_->session->server();
  const std::uint64_t size = job.loaded.message.size;
  const bool too_large = server.size_limit > 0 && size > server.size_limit;
  const bool lacks_utf8 = !server.smtputf8 && (job.utf8 || !is_ascii(job.envelope().recipients[recipient].address));
  if (!too_large && !lacks_utf8) return std::nullopt;
  const Host& host = connection_->host;
  Fate fate{.index = recipient, .remote = host.remote()};
  if (too_large) {
    fate.outcome.result = Outcome::Result::failed;
    fate.refused_early = true;
    fate.outcome.dsn = "5.3.4";
    fate.outcome.reason =
        fmt::format("message size {} exceeds size limit {} of server {}", size, server.size_limit, host.label());
  } else {
    fate.unable = true;  // until every host was asked
    fate.outcome.dsn = "4.6.7";
    fate.outcome.reason = host.lacks("SMTPUTF8");
    fate.outcome.next_host = true;
  }
  return fate;
}

Task<std::vector<Fate>> Worker::attempt(Job& job, bool& stale) {
  smtp::ClientSession& session = *connection_->session;
  const Host host = connection_->host;
  std::vector<Fate> fates;
  std::vector<std::size_t> recipients;  // that it can take
  bool utf8 = job.utf8;
  for (const std::size_t index : job.recipients) {
    if (std::optional<Fate> fate = impossible(job, index)) {
      fates.push_back(std::move(*fate));
    } else {
      recipients.push_back(index);
      utf8 = utf8 || !is_ascii(job.envelope().recipients[index].address);
    }
  }
  if (recipients.empty()) co_return fates;
  const bool for_client = job.envelope().origin == Origin::smtp;
  smtp::MailTransaction transaction{.envelope = &job.envelope(),
                                    .recipients = recipients,
                                    .size = job.loaded.message.size,
                                    .utf8 = utf8,
                                    .xforward = for_client && destination_.settings().xforward};
  smtp::EnvelopeResult result = co_await session.envelope(std::move(transaction));
  if (result.replied) destination_.heard();
  // It may have closed the connection meanwhile, or take only so many messages over one.
  stale = connection_->kept && (!result.replied || (connection_->served && puts_mail_off(result.answers)));
  connection_->kept = true;
  ++connection_->messages;
  const bool server_reports = session.server().dsn;
  std::optional<Outcome> end;  // of those whose content was wanted
  if (result.go) {
    end = co_await send_content(job);
    if (!end) {
      // The reply takes a while: time to load the next message.
      if (!next_ && destination_.wants_worker()) next_ = co_await next_job();
      const smtp::Answer answer = co_await finish();
      if (answer.kind == smtp::Answer::Kind::reply) destination_.heard();
      end = judge(answer, host);
    }
  }
  for (std::size_t i = 0; i < recipients.size(); ++i) {
    const smtp::Answer& answer = result.answers[i];
    Fate fate{.index = recipients[i], .remote = host.remote(), .server_reports = server_reports};
    fate.outcome = end && answer.positive() ? *end : judge(answer, host);
    fate.refused_early = refused_early(answer);
    fate.too_many = too_many_recipients(answer);
    fate.no_recipient = refuses_recipient(answer);
    fates.push_back(std::move(fate));
  }
  co_return fates;
}

// The reply to the dot. The next message does not wait for one that takes its time.
Task<smtp::Answer> Worker::finish() {
  asio::steady_timer patience(parts_.executor, pause);
  patience.async_wait([this, alive = std::weak_ptr{alive_}](const boost::system::error_code& error) {
    if (!error && !alive.expired()) drop_next();
  });
  const smtp::Answer answer = co_await connection_->session->finish();
  co_return answer;
}

Task<std::optional<Outcome>> Worker::send_content(const Job& job) {
  smtp::ClientSession& session = *connection_->session;
  const Host host = connection_->host;
  std::optional<smtp::Answer> trouble;
  if (!job.loaded.rest) trouble = co_await session.content(job.loaded.content, true);
  const std::uint64_t size = job.loaded.rest ? job.loaded.rest->size() : 0;
  for (std::uint64_t offset = 0; offset < size && !trouble;) {
    auto read = [&content = *job.loaded.rest, offset] {
      std::string bytes(piece, '\0');
      const Result<std::size_t> count = content.read(offset, bytes);
      bytes.resize(count.value_or(0));
      return bytes;
    };
    std::string bytes = co_await offload(parts_.disk, std::move(read));
    if (bytes.empty()) {
      connection_.reset();  // without the dot the server forgets what it got (RFC 5321 4.1.1.4)
      co_return Outcome{Outcome::Result::deferred, "4.3.0", "message cannot be read from the queue", {}, false};
    }
    offset += bytes.size();
    trouble = co_await session.content(std::move(bytes), offset >= size);
  }
  if (trouble) co_return judge(*trouble, host);
  co_return std::nullopt;
}

}  // namespace

Task<> deliver_due(Parts& parts, Destination& destination) {
  Worker worker(parts, destination);
  co_await worker.run();
}

}  // namespace greymx::relay

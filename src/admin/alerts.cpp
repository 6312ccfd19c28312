#include "admin/alerts.hpp"

#include <fmt/format.h>

#include <ranges>
#include <utility>

#include "base/bounded.hpp"
#include "base/mailbox.hpp"

namespace greymx::admin {

namespace {
constexpr std::size_t max_subjects = 256;
constexpr auto quiet = std::chrono::hours(1);

// CRLF line ends, broken at blanks near column 76; no line beyond RFC 5322's 998 octets.
std::string wrapped(std::string_view text) {
  std::string lines;
  std::size_t column = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::size_t word = std::min(text.find_first_of(" \n", i + 1), text.size()) - i;
    if (text[i] == '\n' || (text[i] == ' ' && column + word > 76) || column > 900) {
      lines += "\r\n";
      column = 0;
      if (text[i] == '\n' || text[i] == ' ') continue;
    }
    lines += text[i];
    ++column;
  }
  return lines;
}

}  // namespace

std::string compose_alert(const std::string& hostname, const std::string& to, std::string_view subject,
                          std::string_view text, unsigned times, WallTime now) {
  std::string mail = fmt::format(
      "Date: {}\r\nFrom: MAILER-DAEMON@{} (greymx)\r\nTo: {}\r\nSubject: [greymx {}] {}\r\n"
      "Message-ID: <{}.alert@{}>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
      "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{}\r\n",
      rfc5322_date(now), hostname, to, hostname, printable(subject, 200), now.time_since_epoch().count(), hostname,
      wrapped(text));
  if (times > 1) mail += fmt::format("\r\nThis has come up {} times since the last mail about it.\r\n", times);
  return mail + fmt::format(
                    "\r\nOn {}, `greymx status`, `greymx domains` and `greymx check` tell more. There will be\r\n"
                    "no further mail on this subject within an hour.\r\n",
                    hostname);
}

struct MailAlerts::Impl : std::enable_shared_from_this<Impl> {
  struct Subject {
    std::optional<WallTime> mailed;
    unsigned times = 0;  // since then
    std::string text;
  };

  Impl(asio::any_io_executor run_on, const Clock& c, Log& l, Metrics& m, History& h)
      : executor(run_on),
        clock(c),
        log(l),
        metrics(m),
        history(h),
        wakes(run_on),
        gate(run_on,
             [this](const std::string& name, const std::string& what) { log.error("master", name + ": " + what); }) {}

  void note(const std::string& subject, std::string text) {
    Subject* known = subjects.find(subject);
    if (known == nullptr) known = &subjects.insert(subject, {});
    ++known->times;
    known->text = std::move(text);
    mail(subject, *known);
  }

  void mail(const std::string& subject, Subject& state) {
    const WallTime now = clock.now();
    const bool too_soon = state.mailed && now >= *state.mailed && now - *state.mailed < quiet;
    if (!send || to.empty() || too_soon || state.times == 0) return;
    state.mailed = now;
    gate.spawn("alert", submit(send, subject, state.text, std::exchange(state.times, 0)));
  }

  Task<> submit(Send queue, std::string subject, std::string text, unsigned times) {
    const WallTime now = clock.now();
    const std::vector<std::string> recipients = to;
    bool any = recipients.empty();
    for (const std::string& recipient : recipients) {
      std::string mail = compose_alert(hostname, recipient, subject, text, times, now);
      const Result<QueueId> queued = co_await queue(recipient, std::move(mail));
      any |= queued.has_value();
      if (!queued)
        log.warning("master", "alert mail to " + printable(recipient) + " not queued: " + queued.error().text);
    }
    Subject* state = subjects.find(subject);
    if (any || state == nullptr) co_return;
    state->mailed.reset();
    state->times += times;
  }

  Task<> keep_mailing(std::chrono::milliseconds look) {
    while (send) {
      mail_waiting();
      co_await wakes.wait(std::chrono::steady_clock::now() + look);
    }
  }

  void mail_waiting() {
    std::vector<std::string> waiting;  // the least recently raised last; looking one up makes it the first
    for (const auto& [subject, state] : subjects) {
      if (state.times != 0) waiting.push_back(subject);
    }
    for (const std::string& subject : waiting | std::views::reverse) mail(subject, *subjects.find(subject));
  }

  asio::any_io_executor executor;
  const Clock& clock;
  Log& log;
  Metrics& metrics;
  History& history;
  std::string hostname;
  std::vector<std::string> to;
  Send send;  // none before connect() and after stop()
  Event wakes;
  LruMap<std::string, Subject> subjects{max_subjects};
  Gate gate;
};

MailAlerts::MailAlerts(asio::any_io_executor executor, const Clock& clock, Log& log, Metrics& metrics, History& history)
    : impl_(std::make_shared<Impl>(executor, clock, log, metrics, history)) {}

MailAlerts::~MailAlerts() = default;

void MailAlerts::raise(std::string_view subject, std::string_view text) {
  impl_->log.warning("master", fmt::format("alert: {}: {}", printable(subject, 200), printable(text)));
  impl_->metrics.count("alerts_total");
  impl_->history.event(impl_->clock.now(), fmt::format("{}: {}", printable(subject, 200), printable(text)));
  auto note = [impl = impl_, key = std::string(subject.substr(0, 200)), what = std::string(text.substr(0, 4000))] {
    impl->note(key, what);
  };
  asio::post(impl_->executor, std::move(note));
}

void MailAlerts::configure(std::string hostname, std::vector<std::string> to) {
  auto set = [impl = impl_, hostname = std::move(hostname), to = std::move(to)]() mutable {
    impl->hostname = std::move(hostname);
    impl->to = std::move(to);
  };
  asio::post(impl_->executor, std::move(set));
}

void MailAlerts::connect(Send send, std::chrono::milliseconds look) {
  auto set = [impl = impl_, send = std::move(send), look]() mutable {
    impl->send = std::move(send);
    impl->gate.spawn("alerts", impl->keep_mailing(look));
  };
  asio::post(impl_->executor, std::move(set));
}

Task<> MailAlerts::stop() {
  impl_->send = {};
  impl_->wakes.notify_all();
  co_await impl_->gate.close();
}

}  // namespace greymx::admin

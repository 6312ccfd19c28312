#include "daemon/daemon.hpp"

#include <systemd/sd-daemon.h>

#include <boost/asio/signal_set.hpp>
#include <csignal>

#include <fmt/format.h>

#include "daemon/parts.hpp"

namespace greymx::daemon {

namespace {

// What arrived by such a clock would be too old as soon as it is set right.
constexpr WallTime earliest = std::chrono::sys_days(std::chrono::year(2026) / 1 / 1);

void mask_signals(int how) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGHUP);
  sigaddset(&signals, SIGUSR1);
  pthread_sigmask(how, &signals, nullptr);
}

}  // namespace

void hold_signals() {
  mask_signals(SIG_BLOCK);
}

Daemon::Daemon(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Daemon::~Daemon() = default;

Result<std::unique_ptr<Daemon>> Daemon::start(config::ConfigPtr config, std::optional<Account> identity,
                                              TargetLog& log) {
  auto parts = std::make_unique<Parts>(std::move(config), log);
  if (const WallTime now = parts->clock.now(); now < earliest) {
    return fail(ErrorKind::invalid, "the system clock says " + iso8601(now) + ": set it, or wait until NTP has");
  }
  if (auto bound = parts->bind(identity); !bound) return std::unexpected(bound.error());
  if (identity) {
    if (auto dropped = drop_privileges(*identity); !dropped) return std::unexpected(dropped.error());
  }
  if (auto opened = parts->open(); !opened) return std::unexpected(opened.error());
  parts->begin();
  return std::unique_ptr<Daemon>(new Daemon(std::move(parts)));
}

void Daemon::run() {
  // The loop of this thread serves signals alone.
  asio::io_context io{1};
  asio::signal_set signals(io, SIGTERM, SIGINT, SIGHUP);
  signals.add(SIGUSR1);
  mask_signals(SIG_UNBLOCK);
  std::function<void()> wait = [&] {
    signals.async_wait([&](const boost::system::error_code& error, int number) {
      if (error) return;
      if (number == SIGTERM || number == SIGINT) return;  // the loop ends
      if (number == SIGUSR1) parts_->relay->flush();
      if (number == SIGHUP) {
        sd_notify(0, "RELOADING=1");
        (void)parts_->reload(access::Reload::signal);  // it logs what is wrong
        sd_notify(0, "READY=1");
      }
      wait();
    });
  };
  wait();
  sd_notify(0, fmt::format("READY=1\nSTATUS=relaying for {} domains", parts_->config()->domains.size()).c_str());
  parts_->log.info(
      "master", fmt::format("daemon started -- version {}, configuration {}", GREYMX_VERSION, parts_->config()->file));
  io.run();
  sd_notify(0, "STOPPING=1");
  parts_->log.info("master", "terminating: finishing what is in flight");
  parts_->stop();
  parts_->log.info("master", "terminated");
  parts_->log.flush();
}

}  // namespace greymx::daemon

// The spool alone, on a real disk.
//
//   spool commit DIRECTORY COROUTINES SECONDS SIZE   coroutines of one thread commit in a loop: messages a second
//   spool cycle DIRECTORY COROUTINES SECONDS SIZE    the same, and each message is delivered at once: a steady state
//   spool fill DIRECTORY MESSAGES SIZE DAYS          leaves that many queued, which came evenly over the last DAYS
//   spool start DIRECTORY                            opens it: seconds, messages, memory of the whole process
#include <sys/resource.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "queue/spool.hpp"

namespace {

using namespace greymx;
using namespace greymx::queue;

class StderrLog final : public Log {
 public:
  void write(Level level, std::string_view program, std::string_view id, std::string_view text) override {
    if (level < Level::warning) return;
    std::fprintf(stderr, "%.*s: %.*s %.*s\n", static_cast<int>(program.size()), program.data(),
                 static_cast<int>(id.size()), id.data(), static_cast<int>(text.size()), text.data());
  }
};

class StderrAlerts final : public Alerts {
 public:
  void raise(std::string_view subject, std::string_view) override {
    std::fprintf(stderr, "alert: %.*s\n", static_cast<int>(subject.size()), subject.data());
  }
};

// The system's, told to be late.
class LateClock final : public Clock {
 public:
  WallTime now() const override { return system_.now() - late.load(); }
  SteadyTime steady() const override { return system_.steady(); }
  std::atomic<std::chrono::seconds> late{};

 private:
  SystemClock system_;
};

struct Parts {
  std::unique_ptr<Files> files = system_files();
  LateClock clock;
  StderrLog log;
  StderrAlerts alerts;
  Metrics metrics;
  std::unique_ptr<Spool> spool;

  explicit Parts(const std::string& directory) {
    SpoolSettings settings;
    settings.path = directory;
    auto opened = Spool::open(settings, *files, clock, log, metrics, alerts);
    if (!opened) {
      std::fprintf(stderr, "%s\n", opened.error().text.c_str());
      std::exit(1);
    }
    spool = std::move(*opened);
  }
};

struct Load {
  Spool& spool;
  std::size_t size;
  bool deliver;
  std::uint64_t left;
  SteadyTime deadline;
  LateClock& clock;
  double late_by = 0;  // seconds for each message that is left
  std::uint64_t committed = 0;
};

Envelope envelope() {
  Envelope made;
  made.reverse_path = "sender@example.org";
  made.recipients.push_back({"user@example.com", {}, {}});
  made.client.name = "mail.example.org";
  made.helo = "mail.example.org";
  made.protocol = "ESMTP";
  made.message_id = "<20261123160103.1234@mail.example.org>";
  return made;
}

Task<> commit_in_a_loop(Load& load) {
  while (load.left > 0 && std::chrono::steady_clock::now() < load.deadline) {
    --load.left;
    load.clock.late = std::chrono::seconds(std::llround(load.late_by * static_cast<double>(load.left)));
    const auto incoming = load.spool.begin();
    std::vector<char> content(load.size, 'x');
    const Result<> written = co_await incoming->write(std::move(content));
    if (!written) break;
    const Result<> committed = co_await incoming->commit(envelope());
    if (!committed) break;
    ++load.committed;
    if (!load.deliver) continue;
    RecipientState done;
    done.status = RecipientStatus::done;
    load.spool.update(incoming->id(), {{0, done}});
  }
}

double run(Load& load, std::size_t coroutines) {
  asio::io_context io{1};
  for (std::size_t i = 0; i < coroutines; ++i) {
    asio::co_spawn(io, commit_in_a_loop(load), [](std::exception_ptr thrown) {
      if (thrown) std::rethrow_exception(thrown);
    });
  }
  const auto begin = std::chrono::steady_clock::now();
  io.run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double resident_megabytes(const char* key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key)) return std::strtod(line.c_str() + line.find(':') + 1, nullptr) / 1024;
  }
  return 0;
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 2 ? argv[1] : "";
  const auto number = [&](int i) { return argc > i ? std::strtoul(argv[i], nullptr, 10) : 0; };
  const auto begin = std::chrono::steady_clock::now();
  if (mode == "commit" || mode == "cycle") {
    Parts parts(argv[2]);
    const SteadyTime deadline = std::chrono::steady_clock::now() + std::chrono::seconds(number(4));
    Load load{*parts.spool, number(5), mode == "cycle", UINT64_MAX, deadline, parts.clock};
    const double seconds = run(load, number(3));
    const double rate = static_cast<double>(load.committed) / seconds;
    std::printf("%lu coroutines: %.0f messages/s, %.1f us CPU a message, %.0f MB peak\n", number(3), rate,
                cpu_seconds() * 1e6 / static_cast<double>(load.committed), resident_megabytes("VmHWM"));
  } else if (mode == "fill") {
    Parts parts(argv[2]);
    Load load{*parts.spool, number(4), false, number(3), SteadyTime::max(), parts.clock};
    load.late_by = static_cast<double>(number(5)) * 86400 / static_cast<double>(number(3));
    const double seconds = run(load, 256);
    std::printf("%lu messages in %.1f s\n", load.committed, seconds);
  } else if (mode == "start") {
    Parts parts(argv[2]);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    std::printf("%lu messages, open after %.2f s, %.0f MB resident, %.0f MB at most\n", parts.spool->totals().messages,
                took.count(), resident_megabytes("VmRSS"), resident_megabytes("VmHWM"));
  } else {
    std::fprintf(stderr,
                 "usage: spool commit|cycle DIRECTORY COROUTINES SECONDS SIZE\n"
                 "       spool fill DIRECTORY MESSAGES SIZE DAYS\n       spool start DIRECTORY\n");
    return 2;
  }
}

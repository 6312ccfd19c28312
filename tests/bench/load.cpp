// A lean SMTP load generator: N connections over epoll, one thread, no allocation a message.
//
//   load PORT single|reused|pipelined|reject CONNECTIONS MESSAGES SIZE [SOURCES]
//
// single: a session a message. reused: one session a connection. pipelined: reused, MAIL RCPT DATA in one write.
// reject: EHLO MAIL RCPT QUIT, whatever RCPT answers. SOURCES: connect from 127.1.x.y, that many different ones.
// Prints one JSON object: messages, seconds, rate, cpu_seconds, refused (RCPT or DATA not taken), lost (connections).
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace {

enum class Mode { single, reused, pipelined, reject };
enum class Step { greeting, ehlo, mail, rcpt, data, envelope, content, quit };

struct Connection {
  int fd = -1;
  Step step = Step::greeting;
  int replies_wanted = 1;  // in the pipelined envelope
  bool refused = false;
  std::string in;
  std::string out;
};

struct Load {
  int port = 0;
  Mode mode = Mode::single;
  std::size_t connections = 1;
  std::size_t messages = 1;
  std::size_t sources = 0;
  std::string content;
  int epoll = -1;
  std::size_t started = 0, done = 0, refused = 0, lost = 0, opened = 0;
  std::vector<Connection> all;
};

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

void open_connection(Load& load, Connection& c) {
  c = Connection{};
  c.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (c.fd < 0) die("socket");
  const int one = 1;
  setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (load.sources > 0) {
    const std::size_t n = load.opened++ % load.sources;
    sockaddr_in from{};
    from.sin_family = AF_INET;
    from.sin_addr.s_addr = htonl(0x7f010000U + static_cast<std::uint32_t>(n / 250 * 256 + n % 250 + 1));
    setsockopt(c.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(c.fd, reinterpret_cast<sockaddr*>(&from), sizeof from) != 0) die("bind");
  }
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(load.port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(c.fd, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0 && errno != EINPROGRESS) die("connect");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = &c;
  if (epoll_ctl(load.epoll, EPOLL_CTL_ADD, c.fd, &event) != 0) die("epoll_ctl");
}

void flush(Load& load, Connection& c) {
  while (!c.out.empty()) {
    const ssize_t n = send(c.fd, c.out.data(), c.out.size(), MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EAGAIN) break;
      return;  // the read side notices
    }
    c.out.erase(0, static_cast<std::size_t>(n));
  }
  epoll_event event{};
  event.events = EPOLLIN | (c.out.empty() ? 0U : static_cast<unsigned>(EPOLLOUT));
  event.data.ptr = &c;
  epoll_ctl(load.epoll, EPOLL_CTL_MOD, c.fd, &event);
}

void say(Load& load, Connection& c, std::string_view text, Step next, int replies = 1) {
  c.out += text;
  c.step = next;
  c.replies_wanted = replies;
  flush(load, c);
}

constexpr std::string_view mail = "MAIL FROM:<bench@sender.test>\r\n";
constexpr std::string_view rcpt = "RCPT TO:<user@example.com>\r\n";

void next_message(Load& load, Connection& c) {
  if (load.started >= load.messages) return say(load, c, "QUIT\r\n", Step::quit);
  ++load.started;
  c.refused = false;
  if (load.mode == Mode::pipelined) {
    say(load, c, std::string(mail) + std::string(rcpt) + "DATA\r\n", Step::envelope, 3);
  } else {
    say(load, c, mail, Step::mail);
  }
}

void reply(Load& load, Connection& c, int code) {
  switch (c.step) {
    case Step::greeting:
      return say(load, c, "EHLO bench.sender.test\r\n", Step::ehlo);
    case Step::ehlo:
      return next_message(load, c);
    case Step::mail:
      return say(load, c, rcpt, Step::rcpt);
    case Step::rcpt:
      if (load.mode == Mode::reject) {
        ++load.done;
        load.refused += code >= 400;
        return say(load, c, "QUIT\r\n", Step::quit);
      }
      if (code >= 400) {
        ++load.done, ++load.refused;
        return say(load, c, "QUIT\r\n", Step::quit);
      }
      return say(load, c, "DATA\r\n", Step::data);
    case Step::envelope:
      c.refused |= code >= 400;
      if (--c.replies_wanted > 0) return;
      [[fallthrough]];
    case Step::data:
      if (code != 354) {
        ++load.done, ++load.refused;
        return say(load, c, "QUIT\r\n", Step::quit);
      }
      return say(load, c, load.content, Step::content);
    case Step::content:
      ++load.done;
      load.refused += code != 250;
      if (load.mode == Mode::single) return say(load, c, "QUIT\r\n", Step::quit);
      return next_message(load, c);
    case Step::quit:
      return;
  }
}

void closed(Load& load, Connection& c) {
  if (c.step != Step::quit) {
    ++load.lost;
    if (c.step >= Step::mail && c.step <= Step::content) --load.started;  // try it again
  }
  close(c.fd);
  c.fd = -1;
  if (load.started < load.messages && load.lost < 1000) open_connection(load, c);
}

void readable(Load& load, Connection& c) {
  char buffer[16384];
  const ssize_t n = recv(c.fd, buffer, sizeof buffer, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) return closed(load, c);
  c.in.append(buffer, static_cast<std::size_t>(n));
  std::size_t begin = 0;
  for (std::size_t end; (end = c.in.find('\n', begin)) != std::string::npos; begin = end + 1) {
    if (end - begin >= 4 && c.in[begin + 3] == ' ') reply(load, c, std::atoi(c.in.c_str() + begin));
  }
  c.in.erase(0, begin);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fprintf(stderr, "usage: load PORT single|reused|pipelined|reject CONNECTIONS MESSAGES SIZE [SOURCES]\n");
    return 2;
  }
  Load load;
  load.port = std::atoi(argv[1]);
  const std::string_view mode = argv[2];
  load.mode = mode == "single"      ? Mode::single
              : mode == "reused"    ? Mode::reused
              : mode == "pipelined" ? Mode::pipelined
                                    : Mode::reject;
  load.connections = std::strtoul(argv[3], nullptr, 10);
  load.messages = std::strtoul(argv[4], nullptr, 10);
  const std::size_t size = std::strtoul(argv[5], nullptr, 10);
  load.sources = argc > 6 ? std::strtoul(argv[6], nullptr, 10) : 0;
  load.content =
      "From: bench@sender.test\r\nTo: user@example.com\r\nSubject: load\r\nMessage-ID: <load@sender.test>\r\n\r\n";
  while (load.content.size() + 5 < size) load.content += std::string(std::min<std::size_t>(70, size), 'x') + "\r\n";
  load.content += ".\r\n";

  load.epoll = epoll_create1(0);
  load.all.resize(std::min(load.connections, load.messages));
  const auto begin = std::chrono::steady_clock::now();
  for (Connection& c : load.all) open_connection(load, c);
  std::vector<epoll_event> events(256);
  std::size_t open = load.all.size();
  while (open > 0) {
    const int n = epoll_wait(load.epoll, events.data(), static_cast<int>(events.size()), 30000);
    if (n == 0) break;  // a server that says nothing for half a minute
    for (int i = 0; i < n; ++i) {
      auto& c = *static_cast<Connection*>(events[static_cast<std::size_t>(i)].data.ptr);
      if ((events[static_cast<std::size_t>(i)].events & EPOLLOUT) != 0) flush(load, c);
      if ((events[static_cast<std::size_t>(i)].events & ~static_cast<unsigned>(EPOLLOUT)) != 0) readable(load, c);
      if (c.fd < 0) --open;
    }
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double cpu = static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                     static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  std::printf(
      "{\"messages\": %zu, \"seconds\": %.3f, \"rate\": %.0f, \"cpu_seconds\": %.3f, \"refused\": %zu, \"lost\": "
      "%zu}\n",
      load.done, seconds, static_cast<double>(load.done) / seconds, cpu, load.refused, load.lost);
  return load.done == load.messages ? 0 : 1;
}

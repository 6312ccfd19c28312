// A lean client for policy servers, and the echo server that shows what the machine itself allows.
//
//   policy_load load PORT CONNECTIONS SECONDS [KNOWN]   asks over CONNECTIONS connections, each one question at a time;
//                                                       of 100 questions KNOWN are one known triplet, the others new
//   policy_load echo PORT                               answers every request with "action=DUNNO" and no thought
// load prints one JSON line: decisions, seconds, rate, p50, p99 and max in microseconds, answers by kind.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return address;
}

void no_delay(int fd) {
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

void watch(int epoll, int fd) {
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
}

void send_all(int fd, std::string_view text) {
  if (write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) die("write");
}

// The attributes that Postfix 3.7 sends, in its order.
std::string question(std::uint64_t number, bool known) {
  const std::uint64_t n = known ? 0 : number;
  char text[1024];
  const int size = std::snprintf(
      text, sizeof text,
      "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=%u.%u.%u.7\n"
      "client_name=unknown\nclient_port=40000\nreverse_client_name=unknown\nserver_address=127.0.0.1\nserver_port=25\n"
      "helo_name=mail.example.org\nsender=s%c%c%c@example.org\nrecipient=user@example.com\nrecipient_count=0\n"
      "queue_id=\ninstance=%llx.0.0.0\nsize=1234\netrn_domain=\nstress=\nsasl_method=\nsasl_username=\nsasl_sender=\n"
      "ccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint=\nencryption_protocol=\n"
      "encryption_cipher=\nencryption_keysize=0\npolicy_context=\ncompatibility_level=3.6\nmail_version=3.7.11\n\n",
      static_cast<unsigned>(11 + n / 65536 % 80), static_cast<unsigned>(n / 256 % 256), static_cast<unsigned>(n % 256),
      static_cast<char>('a' + n / 5'242'880 % 26), static_cast<char>('a' + n / 136'314'880 % 26), 'x',
      static_cast<unsigned long long>(number));
  return {text, static_cast<std::size_t>(size)};
}

struct Connection {
  std::string answer;
  Clock::time_point asked;
};

void load(int port, int connections, double seconds, unsigned known) {
  const int epoll = epoll_create1(0);
  std::map<int, Connection> open;
  std::vector<float> latencies;
  std::map<std::string, std::uint64_t> kinds;
  // Every run begins somewhere else, so that new triplets are new.
  std::uint64_t number = static_cast<std::uint64_t>(Clock::now().time_since_epoch().count()) % 4'000'000'000;
  const auto ask = [&](int fd) {
    open[fd].answer.clear();
    open[fd].asked = Clock::now();
    ++number;
    send_all(fd, question(number, number % 100 < known));
  };
  for (int i = 0; i < connections; ++i) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_in address = loopback(port);
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) die("connect");
    no_delay(fd);
    watch(epoll, fd);
    open[fd];
  }
  const auto begin = Clock::now();
  for (auto& [fd, connection] : open) ask(fd);
  std::vector<epoll_event> events(static_cast<std::size_t>(connections));
  while (Clock::now() - begin < std::chrono::duration<double>(seconds)) {
    const int ready = epoll_wait(epoll, events.data(), connections, 1000);
    for (int i = 0; i < ready; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      char buffer[1024];
      const ssize_t got = read(fd, buffer, sizeof buffer);
      if (got <= 0) die("the server hung up");
      Connection& connection = open[fd];
      connection.answer.append(buffer, static_cast<std::size_t>(got));
      if (!connection.answer.ends_with("\n\n")) continue;
      latencies.push_back(std::chrono::duration<float, std::micro>(Clock::now() - connection.asked).count());
      ++kinds[connection.answer.substr(7, connection.answer.find_first_of(" \n") - 7)];
      ask(fd);
    }
  }
  const double took = std::chrono::duration<double>(Clock::now() - begin).count();
  std::sort(latencies.begin(), latencies.end());
  const auto at = [&](double share) {
    return latencies.empty()
               ? 0.0
               : static_cast<double>(
                     latencies[static_cast<std::size_t>(share * static_cast<double>(latencies.size() - 1))]);
  };
  std::printf("{\"decisions\":%zu,\"seconds\":%.2f,\"rate\":%.0f,\"p50_us\":%.0f,\"p99_us\":%.0f,\"max_us\":%.0f",
              latencies.size(), took, static_cast<double>(latencies.size()) / took, at(0.5), at(0.99), at(1));
  for (const auto& [kind, count] : kinds)
    std::printf(",\"%s\":%llu", kind.c_str(), static_cast<unsigned long long>(count));
  std::printf("}\n");
}

[[noreturn]] void echo(int port) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0), one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  const sockaddr_in address = loopback(port);
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) die("bind");
  if (listen(listener, 128) != 0) die("listen");
  watch(epoll, listener);
  for (;;) {
    epoll_event events[64];
    const int ready = epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < ready; ++i) {
      const int fd = events[i].data.fd;
      char buffer[4096];
      if (fd == listener) {
        const int client = accept(listener, nullptr, nullptr);
        no_delay(client);
        watch(epoll, client);
      } else if (const ssize_t got = read(fd, buffer, sizeof buffer); got <= 0) {
        close(fd);
      } else if (std::string_view(buffer, static_cast<std::size_t>(got)).ends_with("\n\n")) {
        send_all(fd, "action=DUNNO\n\n");
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "echo") == 0) echo(std::atoi(argv[2]));
  if (argc < 5 || std::strcmp(argv[1], "load") != 0) {
    std::fprintf(stderr, "usage: policy_load load PORT CONNECTIONS SECONDS [KNOWN] | echo PORT\n");
    return 2;
  }
  load(std::atoi(argv[2]), std::atoi(argv[3]), std::atof(argv[4]),
       argc > 5 ? static_cast<unsigned>(std::atoi(argv[5])) : 50);
}

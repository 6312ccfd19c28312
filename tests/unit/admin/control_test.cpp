#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/local/stream_protocol.hpp>
#include <csignal>
#include <filesystem>
#include <future>
#include <thread>

#include "admin/client.hpp"
#include "admin/control.hpp"
#include "fakes.hpp"
#include "support/catch.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;
using namespace greymx::admin;

namespace {

// A server on a thread of its own, stopped at the end.
struct Server : test::FakeDaemon {
  test::TempDir directory;
  std::string path = directory / "control";
  std::unique_ptr<ControlServer> control;
  std::thread thread;

  Server() {
    auto opened = ControlServer::open(io.get_executor(), path);
    REQUIRE(opened);
    control = std::move(*opened);
    control->start(services);
    thread = std::thread([this] { io.run(); });
  }
  ~Server() {
    std::promise<void> stopped;
    asio::co_spawn(io, control->stop(), [&](std::exception_ptr) { stopped.set_value(); });
    stopped.get_future().wait();
    thread.join();
  }

  int connect() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    const int descriptor = ::socket(AF_UNIX, SOCK_STREAM, 0);
    REQUIRE(::connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    return descriptor;
  }
  // Sends bytes as they are and returns all that comes until the server closes.
  std::string raw(std::string_view bytes) const {
    const int descriptor = connect();
    for (std::string_view rest = bytes; !rest.empty();) {
      const ssize_t sent = ::send(descriptor, rest.data(), std::min<std::size_t>(rest.size(), 4096), MSG_NOSIGNAL);
      if (sent < 0) break;
      rest.remove_prefix(static_cast<std::size_t>(sent));
    }
    std::string reply(1 << 16, '\0'), all;
    for (ssize_t got; (got = ::recv(descriptor, reply.data(), reply.size(), 0)) > 0;)
      all.append(reply, 0, static_cast<std::size_t>(got));
    ::close(descriptor);
    return all;
  }
};

// A tool's standard output, read back.
struct Output {
  std::FILE* file = std::tmpfile();
  ~Output() { std::fclose(file); }
  std::string text() const {
    std::rewind(file);
    std::string all(1 << 20, '\0');
    all.resize(std::fread(all.data(), 1, all.size(), file));
    return all;
  }
};

Request request(std::string command) {
  Request request;
  request.command = std::move(command);
  return request;
}

}  // namespace

TEST_CASE("the tool asks, the daemon answers") {
  Server server;
  server.spool.put(test::message(test::id_at(1795448000), "a@example.org", {"b@example.com"}), "x");
  Output output;
  Printer printer(output.file, false);
  const Talk talk = admin::talk(server.path, request("mailq"), printer);
  CHECK(talk.contact == Contact::answered);
  CHECK(talk.ending.exit == 0);
  CHECK(output.text().find("a@example.org") != std::string::npos);
  CHECK(output.text().ends_with("-- 0 Kbytes in 1 Request.\n"));
}

TEST_CASE("what the daemon says about failure reaches the tool") {
  Server server;
  Output output;
  Printer printer(output.file, false);
  const Talk talk = admin::talk(server.path, request("delete"), printer);
  CHECK(talk.ending.exit == 2);
  CHECK(talk.ending.error.find("which messages?") != std::string::npos);
  CHECK(output.text().empty());
}

TEST_CASE("the socket is for its owner and group only") {
  Server server;
  struct stat found{};
  REQUIRE(stat(server.path.c_str(), &found) == 0);
  CHECK((found.st_mode & 0777) == 0660);
}

TEST_CASE("a socket left behind is replaced, one that answers is not") {
  Server server;
  asio::io_context io;
  const auto second = ControlServer::open(io.get_executor(), server.path);
  REQUIRE_FALSE(second);
  CHECK(second.error().text.find("another process") != std::string::npos);
  const std::string stale = server.directory / "stale";
  {
    asio::local::stream_protocol::acceptor left(io, asio::local::stream_protocol::endpoint(stale));
  }
  CHECK(ControlServer::open(io.get_executor(), stale));
  CHECK_FALSE(ControlServer::open(io.get_executor(), std::string(200, 'x')));
  CHECK_FALSE(ControlServer::open(io.get_executor(), server.directory / "no/such/directory"));
}

TEST_CASE("nonsense is answered with what was wrong, in the protocol") {
  Server server;
  CHECK(server.raw("hello\n") == "{\"exit\":2,\"error\":\"the request is not understood: no JSON object\"}\n");
  CHECK(server.raw("{\"command\":\"frobnicate\"}\n").find("does not know") != std::string::npos);
  CHECK(server.raw("{\"command\":\"mailq\"}\n{\"command\":\"delete\"}\n").find("Mail queue is empty") !=
        std::string::npos);
}

TEST_CASE("a request beyond the limit ends the connection, and others go on") {
  Server server;
  const std::string reply = server.raw(std::string(max_request + 10, ' '));
  CHECK((reply.empty() || reply.find("too large") != std::string::npos));
  CHECK(server.raw("{\"command\":\"mailq\"}\n").find("Mail queue is empty") != std::string::npos);
}

TEST_CASE("an import whose lines do not come whole has failed") {
  Server server;
  const std::string reply =
      server.raw("{\"command\":\"greylist import\"}\nnonsense\n" + std::string(max_request + 10, 'x'));
  CHECK(reply.find("{\"exit\":1,\"error\":\"a line is cut short or too long; imported so far: 0\"}") != reply.npos);
}

TEST_CASE("connections beyond the limit are closed at once") {
  Server server;
  std::vector<int> idle;
  for (int i = 0; i < 40; ++i) idle.push_back(server.connect());
  CHECK(server.raw("{\"command\":\"mailq\"}\n").empty());
  for (const int descriptor : idle) ::close(descriptor);
  std::string reply;
  for (int i = 0; i < 1000 && reply.empty(); ++i) reply = server.raw("{\"command\":\"mailq\"}\n");
  CHECK(reply.find("Mail queue is empty") != std::string::npos);
}

TEST_CASE("nobody there is told apart from no answer") {
  const test::TempDir directory;
  Output output;
  Printer printer(output.file, false);
  CHECK(admin::talk(directory / "control", request("mailq"), printer).contact == Contact::absent);
  CHECK(admin::talk(directory / std::string(200, 'x'), request("mailq"), printer).contact == Contact::absent);
}

TEST_CASE("export writes new files into its directory and nowhere else") {
  const test::TempDir directory;
  Output output;
  {
    Printer printer(output.file, false, directory.path());
    for (const std::string& line : {reply::file("A.json"), reply::data(std::string("{}\n")), reply::file("A.eml"),
                                    reply::data(std::string("mail")), reply::end({})}) {
      CHECK(printer.line(line));
    }
    CHECK(printer.messages() == 1);
    CHECK(printer.ending()->exit == 0);
    CHECK_FALSE(printer.line(reply::file("A.eml")));  // never overwrites
    const Ending ending = printer.finish({});
    CHECK(ending.exit == 1);
    CHECK(ending.error == directory / "A.eml: File exists; choose another directory");
  }
  CHECK(std::filesystem::file_size(directory / "A.eml") == 4);
  for (const char* name : {"../evil.eml", ".hidden", "a/b.eml", "/etc/x.eml"}) {
    Printer printer(output.file, false, directory.path());
    CAPTURE(name);
    CHECK_FALSE(printer.line(reply::file(name)));
  }
  CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 2);
}

TEST_CASE("a printer that is not heard any more says so") {
  std::FILE* full = std::fopen("/dev/full", "w");
  Printer printer(full, false);
  CHECK_FALSE(printer.line(reply::text("x")));
  CHECK(printer.finish({}).error == "standard output: No space left on device");
  CHECK(printer.finish({2, "wrong usage"}).error == "wrong usage");
  std::fclose(full);
}

TEST_CASE("bytes that are lost when the last file is closed make it fail") {
  Output output;
  const test::TempDir directory;
  Printer printer(output.file, false, directory.path());
  CHECK(printer.line(reply::file("A.eml")));
  CHECK(printer.line(reply::data(std::string("mail"))));  // waits in the buffer
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{2, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const Ending ending = printer.finish({});
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_DFL);
  CHECK(ending.error == directory / "A.eml: File too large");
}

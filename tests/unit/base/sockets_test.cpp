#include "base/sockets.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include "support/catch.hpp"
#include "support/recording_log.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;

namespace {

struct Fixture {
  asio::io_context io{1};
  test::RecordingLog log;
  auto tcp(const std::string& endpoint) {
    return listen_tcp(io.get_executor(), *Endpoint::parse(endpoint), "listen.some", log);
  }
  auto unix_socket(const std::string& path) { return listen_unix(io.get_executor(), path, "listen.some", 0660); }
};

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE_METHOD(Fixture, "all addresses of both families can have the same port") {
  const auto v6 = tcp("[::]:0");
  REQUIRE(v6);
  if (!*v6) return;  // no IPv6 here
  const std::uint16_t port = from_asio((*v6)->local_endpoint()).port;
  CHECK(tcp("0.0.0.0:" + std::to_string(port)));
}

TEST_CASE_METHOD(Fixture, "a port that is taken is an error that names setting, address and remedy") {
  const auto first = tcp("127.0.0.1:0");
  REQUIRE(first);
  const Endpoint taken = from_asio((*first)->local_endpoint());
  const auto second = tcp(taken.to_string());
  REQUIRE_FALSE(second);
  CHECK(has(second.error().text, "listen.some: cannot listen on " + taken.to_string()));
  CHECK(has(second.error().text, "stop it, or change listen.some"));
}

TEST_CASE_METHOD(Fixture, "an address that the host does not have is an error") {
  CHECK_FALSE(tcp("192.0.2.1:0"));
}

TEST_CASE_METHOD(Fixture, "a Unix socket left behind is replaced, one that answers and what is no socket are not") {
  const test::TempDir dir;
  {
    const auto left = unix_socket(dir / "socket");
    REQUIRE(left);
    const auto second = unix_socket(dir / "socket");
    REQUIRE_FALSE(second);
    CHECK(has(second.error().text, "another process does"));
  }
  struct stat status{};
  REQUIRE(unix_socket(dir / "socket"));
  REQUIRE(::stat((dir / "socket").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0660);
  CHECK_FALSE(unix_socket(dir.path()));
  CHECK_FALSE(unix_socket(std::string(200, 'x')));
}

TEST_CASE_METHOD(Fixture, "root gives a Unix socket away, with the rights it shall have and no others") {
  if (geteuid() != 0) return;
  const test::TempDir dir;
  const mode_t usual = umask(0027);
  const std::string directory = GENERATE("root's", "the owner's", "everybody's");
  if (directory == "the owner's") REQUIRE(chown(dir.path().c_str(), 12, 34) == 0);
  if (directory == "everybody's") REQUIRE(chmod(dir.path().c_str(), 01777) == 0);
  for (const uid_t before : {56U, 12U, 12U}) {  // each is left behind
    const auto socket = bind_unix(io.get_executor(), dir / "socket", "listen.some", 0666, Account{before, 34});
    INFO(directory);
    CHECK(geteuid() == 0);
    CHECK(getegid() == 0);
    REQUIRE(socket);
  }
  CHECK(umask(usual) == 0027);
  struct stat status{};
  REQUIRE(::stat((dir / "socket").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0666);
  CHECK(status.st_uid == 12);
  CHECK(status.st_gid == 34);
}

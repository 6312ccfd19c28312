#include "greylist/whitelist.hpp"

#include <filesystem>

#include "base/files.hpp"
#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::greylist;

namespace {

IpAddress ip(std::string_view text) {
  return IpAddress::parse(text).value();
}

struct Parsed {
  Whitelist list;
  std::vector<std::string> problems;
};
Parsed parse(Whitelist::Of of, std::string_view text) {
  Parsed parsed{Whitelist(of), {}};
  parsed.list.add_file(text, "list", parsed.problems);
  REQUIRE(parsed.list.compile().has_value());
  return parsed;
}
bool client(const Parsed& parsed, std::string_view address, std::string_view name = "unknown") {
  return parsed.list.has_client(ip(address), name);
}

struct Directory {
  Directory() : path(std::filesystem::temp_directory_path() / ("whitelist." + std::to_string(getpid()))) {
    std::filesystem::create_directory(path);
  }
  ~Directory() { std::filesystem::remove_all(path); }
  std::string file(const std::string& name) const { return path / name; }
  std::filesystem::path path;
};

}  // namespace

TEST_CASE("a client is whitelisted by address, network and leading octets") {
  const Parsed parsed = parse(Whitelist::Of::clients,
                              "192.0.2.1\n198.51.100.77/24\n203.0.113\n10.1\n2001:db8:1::/48\n::1\n"
                              "2001:DB8:0:0:0:0:0:7  # any notation\n");
  CHECK(parsed.problems.empty());
  CHECK(client(parsed, "192.0.2.1"));
  CHECK_FALSE(client(parsed, "192.0.2.2"));
  CHECK(client(parsed, "198.51.100.1"));  // host bits do not matter
  CHECK(client(parsed, "203.0.113.255"));
  CHECK_FALSE(client(parsed, "203.0.114.0"));
  CHECK(client(parsed, "10.1.255.255"));  // a /16, where postgrey made it a /24
  CHECK_FALSE(client(parsed, "10.2.0.0"));
  CHECK(client(parsed, "2001:db8:1:ffff::1"));
  CHECK(client(parsed, "2001:db8::7"));
  CHECK(client(parsed, "::1"));
}

TEST_CASE("a byte order mark and a final dot are no part of an entry") {
  const Parsed parsed = parse(Whitelist::Of::clients, "\xef\xbb\xbfmx.example.net\nsender.test.\n");
  CHECK(parsed.problems.empty());
  CHECK(client(parsed, "192.0.2.1", "mx.example.net"));
  CHECK(client(parsed, "192.0.2.1", "a.sender.test"));
}

TEST_CASE("an IPv6 network never matches an IPv4 client") {
  const Parsed parsed = parse(Whitelist::Of::clients, "::/0\n");
  CHECK(client(parsed, "2001:db8::1"));
  CHECK_FALSE(client(parsed, "192.0.2.1"));
  CHECK(client(parse(Whitelist::Of::clients, "::ffff:192.0.2.0/120"), "192.0.2.9"));
}

TEST_CASE("a client is whitelisted by its name and the domains above it") {
  const Parsed parsed = parse(Whitelist::Of::clients, "Example.com\na\nunknown\n");
  CHECK(client(parsed, "192.0.2.1", "example.com"));
  CHECK(client(parsed, "192.0.2.1", "MX.sub.example.COM"));
  CHECK_FALSE(client(parsed, "192.0.2.1", "badexample.com"));
  CHECK(client(parsed, "192.0.2.1", "host.a"));
  CHECK(client(parsed, "192.0.2.1", "unknown"));
}

TEST_CASE("a regular expression is searched in the client's name, never its address") {
  const Parsed parsed = parse(Whitelist::Of::clients, "/^mail\\d+\\.Example\\.com$/\n/a#b|x\\/y/ # both\n/192/\n");
  CHECK(parsed.problems.empty());
  CHECK(client(parsed, "192.0.2.1", "MAIL12.example.com"));
  CHECK_FALSE(client(parsed, "192.0.2.1", "mail.example.com"));
  CHECK(client(parsed, "198.51.100.1", "a#b"));
  CHECK(client(parsed, "198.51.100.1", "x/y"));
  CHECK_FALSE(client(parsed, "192.0.2.1", "host.example.org"));
}

TEST_CASE("lines that make no sense are reported with their place and left out") {
  const Parsed parsed = parse(Whitelist::Of::clients,
                              "# comment\n\n  \t\r\ntwo words\n300.1.2.3\n192.0.2.0/33\n2001:db8::/129\n/(?=x)y/\n"
                              "/\\1/\n.example.org\nok.example.org\r\n1.2.3/8\n/unclosed");
  REQUIRE(parsed.problems.size() == 9);
  CHECK(parsed.problems[0] == "list:4: one entry a line, without blanks inside");
  CHECK(parsed.problems[1].starts_with("list:5: \"300.1.2.3\" is no address or network"));
  CHECK(parsed.problems[4].starts_with("list:8: /(?=x)y/ does not compile: "));
  CHECK(parsed.problems[4].ends_with("(look-around and back-references are not supported)"));
  CHECK(parsed.problems[6].starts_with("list:10: \".example.org\" is no address"));
  CHECK(parsed.problems[8].starts_with("list:13: "));
  CHECK(client(parsed, "192.0.2.1", "ok.example.org"));
}

TEST_CASE("recipients are whitelisted by address, user, domain and regular expression") {
  const Parsed parsed =
      parse(Whitelist::Of::addresses,
            "bob@example.com\npostmaster@\nexample.org\n@example.net\n/^list-.*@lists\\./\nx+y@a.b\n");
  const std::vector<std::pair<std::string, bool>> rows{
      {"Bob@Example.COM", true},
      {"bob+ext@example.com", true},
      {"bob+a+b@example.com", true},
      {"bob+@example.com", false},
      {"bob@sub.example.com", false},
      {"bobby@example.com", false},
      {"postmaster@anywhere", true},
      {"postmaster+x@anywhere", true},
      {"Postmaster", true},
      {"someone@example.org", true},
      {"someone@sub.example.org", true},
      {"someone@notexample.org", false},
      {"someone@example.net", true},
      {"someone@sub.example.net", true},
      {"list-7@lists.example", true},
      {"x+y@a.b", true},
      {"x+y+z@a.b", true},
      {"x@a.b", false},
      {"", false},
      {"@", false},
      {"bob", false},
  };
  CHECK(parsed.problems.empty());
  for (const auto& [address, expected] : rows) {
    CAPTURE(address);
    CHECK(parsed.list.has_address(address) == expected);
  }
}

TEST_CASE("an address of pluses costs no more than any other") {
  const Parsed parsed = parse(Whitelist::Of::addresses, "bob@example.com\n");
  CHECK_FALSE(parsed.list.has_address(std::string(100'000, '+') + "@example.com"));
}

TEST_CASE("files are read with their .local, absent ones only if they may be") {
  const Directory directory;
  std::vector<std::string> problems;
  const std::string name = directory.file("clients");
  const auto absent = load_whitelist(Whitelist::Of::clients, {name}, false, problems);
  REQUIRE_FALSE(absent.has_value());
  CHECK(absent.error().text.find(name) != std::string::npos);
  CHECK(load_whitelist(Whitelist::Of::clients, {name}, true, problems).has_value());
  REQUIRE(replace_file(name, "example.com\nbad line\n").has_value());
  REQUIRE(replace_file(name + ".local", "example.org\n").has_value());
  const auto list = load_whitelist(Whitelist::Of::clients, {name}, false, problems);
  REQUIRE(list.has_value());
  CHECK(list->has_client(ip("192.0.2.1"), "a.example.com"));
  CHECK(list->has_client(ip("192.0.2.1"), "a.example.org"));
  CHECK(problems == std::vector<std::string>{name + ":2: one entry a line, without blanks inside"});
  CHECK(load_whitelist(Whitelist::Of::clients, {directory.file("other.local")}, false, problems).has_value());
}

TEST_CASE("regular expressions that are too large together make the whole list unusable") {
  const Directory directory;
  std::vector<std::string> problems;
  std::string text;
  for (int i = 0; i < 700; ++i) text += "/x" + std::to_string(i) + "[a-z.]{1000}[0-9]{900}/\n";
  const std::string name = directory.file("clients");
  REQUIRE(replace_file(name, text).has_value());
  const auto list = load_whitelist(Whitelist::Of::clients, {name}, false, problems);
  REQUIRE_FALSE(list.has_value());
  CHECK(list.error().text == name + ": its regular expressions are too large together");
  Whitelist never_compiled(Whitelist::Of::addresses);
  REQUIRE(never_compiled.add("/bob/").has_value());
  CHECK_FALSE(never_compiled.has_address("bob@example.com"));
}

TEST_CASE("the lists that ship have no line that makes no sense") {
  std::vector<std::string> problems;
  const std::string conf = CONF_DIRECTORY;
  const auto clients = load_whitelist(Whitelist::Of::clients, {conf + "/whitelist_clients"}, false, problems);
  const auto recipients = load_whitelist(Whitelist::Of::addresses, {conf + "/whitelist_recipients"}, false, problems);
  REQUIRE(clients.has_value());
  REQUIRE(recipients.has_value());
  CHECK(problems.empty());
  CHECK(clients->has_client(ip("192.0.2.1"), "mail-wm1-f42.google.com"));
  CHECK_FALSE(clients->has_client(ip("192.0.2.1"), "unknown"));
  CHECK(recipients->has_address("postmaster@example.com"));
}

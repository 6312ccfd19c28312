#include "access/access_file.hpp"

#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::access;

namespace {

std::shared_ptr<const AccessFile> parse(std::string_view text) {
  std::vector<config::Diagnostic> errors;
  auto file = AccessFile::parse(text, "/etc/access", errors);
  for (const auto& error : errors) UNSCOPED_INFO(error.line << ": " << error.text);
  REQUIRE(errors.empty());
  return file;
}

config::Diagnostic error_of(std::string_view text) {
  std::vector<config::Diagnostic> errors;
  AccessFile::parse(text, "/etc/access", errors);
  REQUIRE(errors.size() == 1);
  CHECK(errors[0].file == "/etc/access");
  return errors[0];
}

std::size_t line_of(const std::optional<Rule>& rule) {
  return rule ? rule->line : 0;
}

std::size_t mailbox(std::string_view file, std::string_view address) {
  return line_of(parse(file)->find_mailbox(Mailbox::split(address)));
}

std::size_t client(std::string_view file, const std::string& name, std::string_view address) {
  return line_of(parse(file)->find_client(name, *IpAddress::parse(address)));
}

Rule rule_of(const std::string& action) {
  const auto rule = parse("x@example.com " + action)->find_mailbox(Mailbox::split("x@example.com"));
  REQUIRE(rule);
  return *rule;
}

}  // namespace

TEST_CASE("an action becomes a rule, its enhanced code has the reply's class") {
  struct Case {
    const char* written;
    Action action;
    int code;
    const char* enhanced;
    const char* text;
  };
  const Case cases[] = {
      {"OK", Action::ok, 0, "", ""},
      {"ok but why", Action::ok, 0, "", "but why"},
      {"RELAY", Action::ok, 0, "", ""},
      {"permit", Action::ok, 0, "", ""},
      {"1795449663", Action::ok, 0, "", ""},
      {"DUNNO", Action::dunno, 0, "", ""},
      {"REJECT", Action::reply, 554, "5.7.1", "Access denied"},
      {"reject go away", Action::reply, 554, "5.7.1", "go away"},
      {"REJECT 5.1.6 moved", Action::reply, 554, "5.1.6", "moved"},
      {"REJECT 4.1.6 moved", Action::reply, 554, "5.1.6", "moved"},
      {"REJECT 5.1.6", Action::reply, 554, "5.1.6", "Access denied"},
      {"REJECT\tgone\tsee web", Action::reply, 554, "5.7.1", "gone see web"},
      {"DEFER", Action::reply, 450, "4.7.1", "Access denied"},
      {"DEFER 5.3.3 full", Action::reply, 450, "4.3.3", "full"},
      {"DEFER_IF_PERMIT", Action::defer_if_permit, 450, "4.7.1", "Service unavailable"},
      {"DEFER_IF_PERMIT 4.3.0 later", Action::defer_if_permit, 450, "4.3.0", "later"},
      {"550 No such user", Action::reply, 550, "5.7.1", "No such user"},
      {"550 5.1.1 No such user", Action::reply, 550, "5.1.1", "No such user"},
      {"421 4.3.2 come back", Action::reply, 421, "4.3.2", "come back"},
      {"450 5.2.2222 x", Action::reply, 450, "4.7.1", "5.2.2222 x"},
      {"WARN look here", Action::warn, 0, "", "look here"},
      {"INFO look here", Action::info, 0, "", "look here"},
      {"HOLD", Action::hold, 0, "", ""},
      {"DISCARD spam", Action::discard, 0, "", "spam"},
      {"PREPEND X-Seen: yes", Action::prepend, 0, "", "X-Seen: yes"},
  };
  for (const Case& c : cases) {
    INFO(c.written);
    const Rule rule = rule_of(c.written);
    CHECK(rule.action == c.action);
    CHECK(rule.code == c.code);
    CHECK(rule.enhanced == c.enhanced);
    CHECK(rule.text == c.text);
  }
}

TEST_CASE("what is not done here is an error with its line and what would be right") {
  struct Case {
    const char* line;
    const char* message;
  };
  const Case cases[] = {
      {"a@b.example REDIRECT c@d.example", "REDIRECT is not done here"},
      {"a@b.example FILTER smtp:x", "FILTER is not done here"},
      {"a@b.example BCC c@d.example", "BCC is not done here"},
      {"a@b.example DEFER_IF_REJECT", "DEFER_IF_REJECT is not done here"},
      {"a@b.example reject_unknown_client_hostname", "unknown action 'reject_unknown_client_hostname': right are OK"},
      {"a@b.example", "an action is missing"},
      {"a@b.example 550", "550 needs a text"},
      {"a@b.example 5550 Access denied", "5550 is no reply code: right are 4NN and 5NN"},
      {"a@b.example 200 Welcome", "200 is no reply code"},
      {"a@b.example PREPEND nonsense", "PREPEND needs a header"},
      {"a@b.example PREPEND X Y: z", "PREPEND needs a header"},
      {"a@b.example PREPEND X-Seen: früher", "PREPEND needs a header in ASCII"},
      {"if /x/", "if and endif are not done here"},
      {"192.0.2.1/24 OK", "'192.0.2.1/24' is no network"},
      {"192.0.2.0/33 OK", "is no network"},
      {"!example.com OK", "'example.com' is no network"},
      {"bü..cher.example OK", "'bü..cher.example' is no domain"},
      {".-bücher.example OK", "'.-bücher.example' is no domain"},
      {"*.bücher.example OK", "'*.bücher.example' is no domain"},
      {"joe@bü..cher.example OK", "'joe@bü..cher.example' is no domain"},
      {"b\xFCro.example OK", "'b?ro.example' is no domain"},
      {"! OK", "a pattern is missing after '!'"},
      {"/x OK", "needs a closing '/'"},
      {"|^joe@| OK", "'|^joe@|' looks like a regular expression: write it between slashes"},
      {"%joe%i OK", "looks like a regular expression"},
      {"/(/ OK", "is not understood"},
      {"/(?=x)/ OK", "lookaround and backreferences do not exist here"},
      {"/x/q OK", "unknown flag 'q'"},
      {"/x/ REJECT $1", "'$' in the text names no group"},
      {"/(x)/ REJECT $x", "'$' in the text names no group"},
      {"!/(x)/ REJECT $1", "an expression after '!' has no groups"},
      {"  OK", "continues the one before"},
  };
  for (const Case& c : cases) {
    INFO(c.line);
    const auto error = error_of("# comment\n\n" + std::string(c.line) + "\n");
    CHECK(error.line == 3);
    CHECK(error.text.find(c.message) != std::string::npos);
    INFO(error.text);
  }
}

TEST_CASE("comments, empty lines, continuation lines and CRLF are read as Postfix reads them") {
  const auto file = parse(
      "# first\r\n"
      "\r\n"
      "a@example.com\r\n"
      "\tREJECT\r\n"
      "  # a comment does not end the line\r\n"
      "   5.1.6   moved\r\n"
      "b@example.com OK");
  const auto rule = file->find_mailbox(Mailbox::split("a@example.com"));
  REQUIRE(rule);
  CHECK(rule->line == 3);
  CHECK(rule->enhanced == "5.1.6");
  CHECK(rule->text == "moved");
  CHECK(line_of(file->find_mailbox(Mailbox::split("b@example.com"))) == 7);
}

TEST_CASE("mail addresses are found by full address, domain, parents, then user@") {
  const std::string_view file =
      "\xEF\xBB\xBFuser@sub.example.com OK\n"  // 1
      "sub.example.com OK\n"                   // 2
      ".example.com OK\n"                      // 3
      "example.com OK\n"                       // 4
      "com OK\n"                               // 5
      "user@ OK\n"                             // 6
      "<> OK\n"                                // 7
      "\"a b\"@example.org OK\n"               // 8
      "\"jo\"@example.org OK\n";               // 9
  CHECK(mailbox(file, "user@sub.example.com") == 1);
  CHECK(mailbox(file, "USER@Sub.Example.COM.") == 1);
  CHECK(mailbox(file, "other@sub.example.com") == 2);
  CHECK(mailbox(file, "user@x.sub.example.com") == 2);
  CHECK(mailbox(file, "user@other.example.com") == 3);
  CHECK(mailbox(file, "user@example.com") == 4);
  CHECK(mailbox(file, "user@y.com") == 5);
  CHECK(mailbox(file, "user@example.org") == 6);
  CHECK(mailbox(file, "other@example.org") == 0);
  CHECK(mailbox(file, "") == 7);
  CHECK(mailbox(file, "\"a b\"@example.org") == 8);
  CHECK(mailbox(file, "jo@example.org") == 9);
  CHECK(mailbox("müller@bücher.example OK", "müller@xn--bcher-kva.example") == 1);
  CHECK(mailbox("bücher.example OK", "x@xn--bcher-kva.example") == 1);
  CHECK(mailbox(".bücher.example OK", "x@sub.xn--bcher-kva.example") == 1);
  CHECK(mailbox(".BÜCHER.example OK", "x@sub.bücher.example") == 1);
  CHECK(mailbox(".bücher.example OK", "x@bücher.example") == 0);
}

TEST_CASE("user@ is found whatever the case of its ASCII letters and with needless quotes") {
  CHECK(mailbox("Joe@ OK", "jOE@example.com") == 1);
  CHECK(mailbox("Jörg@ OK", "jörg@example.com") == 1);
  CHECK(mailbox("jörg@ OK", "JöRG@example.com") == 1);
  CHECK(mailbox("jörg@ OK", "JÖRG@example.com") == 0);
  CHECK(mailbox("Jörg@example.com OK", "jörg@example.com") == 1);
  CHECK(mailbox("\"jo\"@ OK", "jo@example.com") == 1);
  CHECK(mailbox("\"A b\"@ OK", "\"a B\"@example.com") == 1);
}

TEST_CASE("clients are found by name, parents, address, octets, then networks, then regular expressions") {
  const std::string_view file =
      "/^mail/ OK\n"          // 1
      "192.0.0.0/16 OK\n"     // 2
      "192.0.2.0/24 OK\n"     // 3
      "192.0 OK\n"            // 4
      "192.0.2.7 OK\n"        // 5
      "example.com OK\n"      // 6
      "mx.example.com OK\n"   // 7
      "unknown OK\n"          // 8
      "2001:db8:1 OK\n"       // 9
      "2001:db8:2::/48 OK\n"  // 10
      "2001:DB8::5 OK\n";     // 11
  CHECK(client(file, "mx.example.com", "192.0.2.7") == 7);
  CHECK(client(file, "mail.example.com", "192.0.2.7") == 6);
  CHECK(client(file, "mail.example.org", "192.0.2.7") == 5);
  CHECK(client(file, "mail.example.org", "192.0.2.8") == 4);
  CHECK(client("192.0.0.0/16 OK\n192.0.2.0/24 OK", "x.example", "192.0.2.8") == 1);
  CHECK(client("192.0.2.0/24 OK\n192.0.0.0/16 OK", "x.example", "192.0.2.8") == 1);
  CHECK(client(file, "mail.example.org", "198.51.100.1") == 1);
  CHECK(client(file, "unknown", "198.51.100.1") == 8);
  CHECK(client(file, "x.example", "198.51.100.1") == 0);
  CHECK(client(file, "x.example", "2001:db8:1:2::3") == 9);
  CHECK(client(file, "x.example", "2001:db8:2:2::3") == 10);
  CHECK(client(file, "x.example", "2001:db8::5") == 11);
  CHECK(client("/^192\\.0\\.2\\./ OK", "x.example", "192.0.2.1") == 1);
}

TEST_CASE("a client's address may be written in brackets") {
  CHECK(client("[192.0.2.1] OK", "unknown", "192.0.2.1") == 1);
  CHECK(client("[192.0.2.1] OK", "unknown", "192.0.2.2") == 0);
  CHECK(client("[2001:DB8:3:0::1] OK", "unknown", "2001:db8:3::1") == 1);
  CHECK(client("192.0.2 OK\n[192.0.2.1] REJECT", "unknown", "192.0.2.1") == 2);
  CHECK(client("192.0.2.1 OK\n[192.0.2.1] REJECT", "unknown", "192.0.2.1") == 1);
  CHECK(client("[192.0.2.1] REJECT\n192.0.2.1 OK", "unknown", "192.0.2.1") == 1);
}

TEST_CASE("octets are not matched inside numbers, names not inside labels") {
  CHECK(client("19 OK\n192.0.2.1 OK", "x.example", "192.0.2.12") == 0);
  CHECK(client("ample.com OK", "example.com", "192.0.2.1") == 0);
  CHECK(client("2.1 OK", "unknown", "192.0.2.1") == 0);
}

TEST_CASE("a negated network or expression matches what lies outside") {
  CHECK(client("!192.0.2.0/24 REJECT", "unknown", "198.51.100.1") == 1);
  CHECK(client("!192.0.2.0/24 REJECT", "unknown", "192.0.2.1") == 0);
  CHECK(client("192.0.2.0/24 DUNNO\n!192.0.2.7 REJECT", "unknown", "192.0.2.1") == 1);
  CHECK(client("!192.0.2.0/24 REJECT\n!192.0.2.7 REJECT", "unknown", "2001:db8::1") == 0);
  CHECK(client("!2001:db8::/32 OK", "unknown", "192.0.2.1") == 0);
  CHECK(client("!2001:db8::/32 OK", "unknown", "2001:db9::1") == 1);
  CHECK(mailbox("!/@example\\.com$/ REJECT", "a@example.org") == 1);
  CHECK(mailbox("!/@example\\.com$/ REJECT", "a@example.com") == 0);
  CHECK(client("[2001:db8::]/32 OK", "unknown", "2001:db8::1") == 1);
}

TEST_CASE("regular expressions ignore case unless told, in file order") {
  CHECK(mailbox("/USER/ OK", "user@example.com") == 1);
  CHECK(mailbox("/USER/i OK", "user@example.com") == 0);
  CHECK(mailbox("/user/i OK\n/./ OK", "USER@Example.Com") == 1);  // addresses are folded
  CHECK(mailbox("/example/A OK", "user@example.com") == 0);
  CHECK(mailbox("/a\\/b/ OK", "a/b@example.com") == 1);
  CHECK(mailbox("/^<>$/ OK", "") == 1);
  CHECK(mailbox("/a b/ OK", "\"a b\"@example.com") == 1);
  CHECK(mailbox("user@example.com DUNNO\n/user/ REJECT", "user@example.com") == 1);
}

TEST_CASE("a reply may quote what a regular expression matched") {
  const auto file = parse("/^(.*)@(.*)$/ REJECT $1 is not at ${2}, not for $$5 \\1");
  const auto rule = file->find_mailbox(Mailbox::split("joe@example.com"));
  REQUIRE(rule);
  CHECK(rule->text == "joe is not at example.com, not for $5 \\1");
}

TEST_CASE("of two equal keys the first counts") {
  CHECK(mailbox("a@example.com OK\nA@Example.com REJECT", "a@example.com") == 1);
}

TEST_CASE("HELO names are found with their parents, literals as written") {
  const auto file = parse("example.com REJECT\n[192.0.2.1] REJECT\nlocalhost REJECT\n");
  CHECK(line_of(file->find_name("mx.Example.com.")) == 1);
  CHECK(line_of(file->find_name("[192.0.2.1]")) == 2);
  CHECK(line_of(file->find_name("localhost")) == 3);
  CHECK(line_of(file->find_name("x..y")) == 0);
  CHECK(line_of(file->find_name("192.0.2.1")) == 0);
}

TEST_CASE("a recipients file as it is found beside Postfix works unchanged") {
  const auto file = parse(
      "# recipients of bluebird\n"
      "joe@bluebird.example\tOK\n"
      "info@bluebird.example     OK\n"
      "bluebird.example          REJECT User unknown\n");
  CHECK(file->find_mailbox(Mailbox::split("joe@bluebird.example"))->action == Action::ok);
  const auto other = file->find_mailbox(Mailbox::split("other@bluebird.example"));
  CHECK(other->code == 554);
  CHECK(other->text == "User unknown");
}

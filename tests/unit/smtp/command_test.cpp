#include "smtp/command.hpp"

#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::smtp;

namespace {

// "local|domain", with "route " before it if there was one; "-" if it is no path.
std::string path(std::string_view text) {
  const auto parsed = parse_path(text);
  if (!parsed) return "-";
  return (parsed->source_route ? "route " : "") + parsed->mailbox.local + "|" + parsed->mailbox.domain;
}

std::string mail(std::string_view arguments) {
  const auto command = parse_mail(arguments);
  return command ? "ok" : command.error().to_string();
}

std::string rcpt(std::string_view arguments, bool smtputf8 = false) {
  const auto command = parse_rcpt(arguments, smtputf8);
  return command ? "ok" : command.error().to_string();
}

}  // namespace

TEST_CASE("verbs are found in any case, arguments lose their surrounding spaces") {
  CHECK(parse_command("mail FROM:<a@b>").verb == Verb::mail);
  CHECK(parse_command("MAIL   FROM:<a@b>  ").arguments == "FROM:<a@b>");
  CHECK(parse_command("QUIT").verb == Verb::quit);
  CHECK(parse_command("quit ").arguments.empty());
  CHECK(parse_command("QUITX").verb == Verb::unknown);
  CHECK(parse_command("UNKNOWN").verb == Verb::unknown);
  CHECK(parse_command("").verb == Verb::unknown);
  CHECK(to_string(Verb::starttls) == "STARTTLS");
}

TEST_CASE("HTTP and header lines are another protocol") {
  CHECK(is_foreign_protocol("GET / HTTP/1.1"));
  CHECK(is_foreign_protocol("POST /x HTTP/1.0"));
  CHECK(is_foreign_protocol("CONNECT mx:25 HTTP/1.1"));
  CHECK(is_foreign_protocol("Host: mx2.example.net"));
  CHECK(is_foreign_protocol("Subject: x"));
  CHECK_FALSE(is_foreign_protocol("MAIL FROM:<a@b>"));
  CHECK_FALSE(is_foreign_protocol("GETX"));
  CHECK_FALSE(is_foreign_protocol(":"));
  CHECK_FALSE(is_foreign_protocol(""));
}

TEST_CASE("paths as RFC 5321 writes them") {
  CHECK(path("<>") == "|");
  CHECK(path("<user@example.com>") == "user|example.com");
  CHECK(path("<User.Name+tag@Example.COM>") == "User.Name+tag|Example.COM");
  CHECK(path("<Postmaster>") == "Postmaster|");
  CHECK(path("<\"a b\"@example.com>") == "\"a b\"|example.com");
  CHECK(path("<\"a@b\"@example.com>") == "\"a@b\"|example.com");
  CHECK(path("<\"a\\\"b>\"@example.com>") == "\"a\\\"b>\"|example.com");
  CHECK(path("<a@[192.0.2.1]>") == "a|[192.0.2.1]");
  CHECK(path("<a@[IPv6:2001:db8::1]>") == "a|[IPv6:2001:db8::1]");
  CHECK(path("<a!b%c@example.com>") == "a!b%c|example.com");
  CHECK(path("<a@localhost>") == "a|localhost");
  std::string_view rest = "<a@b.c> SIZE=1";
  CHECK(parse_path(rest));
  CHECK(rest == " SIZE=1");
}

TEST_CASE("what real senders send outside the grammar is taken too") {
  CHECK(path("<a..b.@example.com>") == "a..b.|example.com");
  CHECK(path("<a@under_score.example.com>") == "a|under_score.example.com");
  CHECK(path("<a@example.com.>") == "a|example.com");
  CHECK(path("<" + std::string(200, 'v') + "@example.com>") == std::string(200, 'v') + "|example.com");
}

TEST_CASE("source routes are seen and dropped") {
  CHECK(path("<@a.example,@b.example:user@example.com>") == "route user|example.com");
  CHECK(path("<@a.example:user@example.com>") == "route user|example.com");
  CHECK(path("<@[192.0.2.1]:user@example.com>") == "route user|example.com");
  CHECK(path("<@a.example:>") == "-");
  CHECK(path("<@a.example>") == "-");
  CHECK(path("<@a.example,user@example.com>") == "-");
  CHECK(path("<@:user@example.com>") == "-");
  CHECK(path("<@") == "-");
}

TEST_CASE("what is no path is refused") {
  for (const std::string_view text : {"",
                                      "<",
                                      "user@example.com",
                                      "<user@example.com",
                                      "<user@>",
                                      "<@example.com>",
                                      "<user@example.com>x",
                                      "<a b@example.com>",
                                      "<a@b@example.com>",
                                      "<a@exa mple.com>",
                                      "<a@example..com>",
                                      "<a@.com>",
                                      "<a@-x.com>",
                                      "<a@[192.0.2.256]>",
                                      "<a@[2001:db8::1]>",
                                      "<a@[IPv6:192.0.2.1]>",
                                      "<a@[x]>",
                                      "<a@[]>",
                                      "<a@[>",
                                      "<\"a@example.com>",
                                      "<\"\\",
                                      "<\"a\"b@example.com>",
                                      "<a@example.com,b>",
                                      "<a;b@example.com>",
                                      "<a@b\x01.com>",
                                      "< a@example.com>",
                                      "<a@example.com >",
                                      "<a@\xc3.com>",
                                      "<\xc3(@example.com>",
                                      "<\xff@example.com>"}) {
    CAPTURE(text);
    CHECK(path(text) == "-");
  }
  CHECK(path("<" + std::string(250, 'v') + "@example.com>") == "-");
  CHECK(path("<a@" + std::string(64, 'x') + ".com>") == "-");
}

TEST_CASE("MAIL parameters") {
  const auto all = parse_mail("FROM:<a@example.org> SIZE=1000 BODY=8BITMIME RET=HDRS ENVID=QQ314159");
  REQUIRE(all);
  CHECK(all->size == 1000);
  CHECK(all->body == BodyType::eight_bit_mime);
  CHECK(all->ret == DsnReturn::headers);
  CHECK(all->envid == "QQ314159");
  CHECK_FALSE(all->smtputf8);
  CHECK(mail("FROM:<a@example.org> body=7bit smtputf8 ret=full") == "ok");
  CHECK(mail("from: <a@example.org>") == "ok");
  CHECK(mail("FROM:<>") == "ok");
  CHECK(mail("FROM:a@example.org") == "501 5.5.4 Syntax: MAIL FROM:<address>");
  CHECK(mail("") == "501 5.5.4 Syntax: MAIL FROM:<address>");
  CHECK(mail("TO:<a@example.org>") == "501 5.5.4 Syntax: MAIL FROM:<address>");
  CHECK(mail("FROM:<a@@example.org>") == "501 5.1.7 Bad sender address syntax");
  CHECK(mail("FROM:<a@example.org>SIZE=1") == "501 5.1.7 Bad sender address syntax");
  CHECK(mail("FROM:<a@example.org> SIZE=x") == "501 5.5.4 Bad message size syntax");
  CHECK(mail("FROM:<a@example.org> SIZE") == "501 5.5.4 Bad message size syntax");
  CHECK(mail("FROM:<a@example.org> SIZE=-1") == "501 5.5.4 Bad message size syntax");
  CHECK(mail("FROM:<a@example.org> SIZE=999999999999999999999") == "501 5.5.4 Bad message size syntax");
  CHECK(parse_mail("FROM:<a@example.org> SIZE=99999999999999999999")->size == 18446744073709551615U);
  CHECK(mail("FROM:<a@example.org> SIZE=1 SIZE=2") == "501 5.5.4 Bad SIZE parameter syntax");
  CHECK(mail("FROM:<a@example.org> BODY=BINARYMIME") == "555 5.5.4 Unsupported option: BODY=BINARYMIME");
  CHECK(mail("FROM:<a@example.org> RET=SOME") == "501 5.5.4 Bad RET parameter syntax");
  CHECK(mail("FROM:<a@example.org> ENVID=a+4") == "501 5.5.4 Bad ENVID parameter syntax");
  CHECK(mail("FROM:<a@example.org> ENVID=a+0D") == "501 5.5.4 Bad ENVID parameter syntax");
  CHECK(mail("FROM:<a@example.org> ENVID=" + std::string(101, 'x')) == "501 5.5.4 Bad ENVID parameter syntax");
  CHECK(mail("FROM:<a@example.org> SMTPUTF8=1") == "501 5.5.4 Bad SMTPUTF8 parameter syntax");
  CHECK(mail("FROM:<a@example.org> AUTH=<>") == "555 5.5.4 Unsupported option: AUTH=<>");
}

TEST_CASE("addresses beyond ASCII need SMTPUTF8") {
  CHECK(mail("FROM:<j\u00f6rg@example.org>") == "553 5.6.7 Must declare SMTPUTF8 to send unicode address");
  CHECK(mail("FROM:<a@b\u00fccher.example>") == "553 5.6.7 Must declare SMTPUTF8 to send unicode address");
  CHECK(mail("FROM:<j\u00f6rg@b\u00fccher.example> SMTPUTF8") == "ok");
  CHECK(rcpt("TO:<j\u00f6rg@example.com>") == "553 5.6.7 Must declare SMTPUTF8 to send unicode address");
  CHECK(rcpt("TO:<j\u00f6rg@example.com>", true) == "ok");
  CHECK(mail("FROM:<j\xc3@example.org> SMTPUTF8") == "501 5.1.7 Bad sender address syntax");
}

TEST_CASE("RCPT parameters") {
  const auto all = parse_rcpt("TO:<b@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bx@example.com", false);
  REQUIRE(all);
  CHECK(all->notify == DsnNotify{false, true, false, true});
  CHECK(all->original_recipient == "rfc822;b+2Bx@example.com");
  CHECK(parse_rcpt("TO:<b@example.com> notify=never", false)->notify.never);
  CHECK_FALSE(parse_rcpt("TO:<b@example.com>", false)->notify.given());
  CHECK(rcpt("TO:<>") == "501 5.1.3 Bad recipient address syntax");
  CHECK(rcpt("TO:<b@>") == "501 5.1.3 Bad recipient address syntax");
  CHECK(rcpt("TO:b@example.com") == "501 5.5.4 Syntax: RCPT TO:<address>");
  CHECK(rcpt("TO:<b@example.com> NOTIFY=NEVER,DELAY") == "501 5.5.4 Bad NOTIFY parameter syntax");
  CHECK(rcpt("TO:<b@example.com> NOTIFY=") == "501 5.5.4 Bad NOTIFY parameter syntax");
  CHECK(rcpt("TO:<b@example.com> NOTIFY=DELAY,") == "501 5.5.4 Bad NOTIFY parameter syntax");
  CHECK(rcpt("TO:<b@example.com> NOTIFY=SOMETIMES") == "501 5.5.4 Bad NOTIFY parameter syntax");
  CHECK(rcpt("TO:<b@example.com> ORCPT=b@example.com") == "501 5.5.4 Bad ORCPT parameter syntax");
  CHECK(rcpt("TO:<b@example.com> ORCPT=;x") == "501 5.5.4 Bad ORCPT parameter syntax");
  CHECK(rcpt("TO:<b@example.com> ORCPT=rfc822;") == "501 5.5.4 Bad ORCPT parameter syntax");
  CHECK(rcpt("TO:<b@example.com> ORCPT=rfc822;a=b") == "501 5.5.4 Bad ORCPT parameter syntax");
  CHECK(rcpt("TO:<b@example.com> ORCPT=rfc822;" + std::string(500, 'x')) == "501 5.5.4 Bad ORCPT parameter syntax");
  CHECK(rcpt("TO:<b@example.com> ORCPT=utf-8;j\u00f6rg@example.com", true) == "ok");
  CHECK(rcpt("TO:<b@example.com> ORCPT=utf-8;j\u00f6rg@example.com") == "501 5.5.4 Bad ORCPT parameter syntax");
  CHECK(rcpt("TO:<b@example.com> SIZE=1") == "555 5.5.4 Unsupported option: SIZE=1");
}

TEST_CASE("BDAT sizes") {
  CHECK(parse_bdat("0")->size == 0);
  CHECK(parse_bdat("86 LAST")->last);
  CHECK(parse_bdat("86 last")->size == 86);
  CHECK_FALSE(parse_bdat("86")->last);
  for (const std::string_view text :
       {"", "x", "-1", "+1", "86 FIRST", "86 LAST x", "18446744073709551616", "0x10", "LAST"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_bdat(text));
  }
}

TEST_CASE("ETRN nodes") {
  CHECK(is_etrn_node("example.com"));
  CHECK(is_etrn_node("@example.com"));
  CHECK(is_etrn_node("#queue"));
  CHECK_FALSE(is_etrn_node("#"));
  CHECK_FALSE(is_etrn_node("@"));
  CHECK_FALSE(is_etrn_node("a b"));
  CHECK_FALSE(is_etrn_node("<x>"));
}

TEST_CASE("xtext and back") {
  CHECK(xtext("a+b=c d\xff") == "a+2Bb+3Dc+20d+FF");
  CHECK(decode_xtext("a+2Bb+3Dc+20d+FF") == "a+b=c d\xff");
  CHECK(decode_xtext("") == "");
  for (const char* bad : {"a b", "a=b", "a+", "a+2", "a+2G", "+-1", "\xff"}) {
    CAPTURE(bad);
    CHECK_FALSE(decode_xtext(bad));
  }
}

TEST_CASE("XCLIENT attributes in xtext") {
  const auto all =
      parse_xclient("NAME=Mail.Example.org ADDR=192.0.2.1 PORT=1234 HELO=mail+2Eexample PROTO=ESMTP LOGIN=x");
  REQUIRE(all);
  CHECK(all->name == "mail.example.org");
  CHECK(all->address == IpAddress::parse("192.0.2.1"));
  CHECK(all->port == 1234);
  CHECK(all->helo == "mail.example");
  CHECK(all->protocol == "ESMTP");
  CHECK(parse_xclient("ADDR=IPV6:2001:db8::1")->address == IpAddress::parse("2001:db8::1"));
  CHECK(parse_xclient("NAME=[UNAVAILABLE]")->name == "");
  CHECK(parse_xclient("NAME=[TEMPUNAVAIL] PORT=[UNAVAILABLE]")->port == 0);
  CHECK_FALSE(parse_xclient("ADDR=[UNAVAILABLE]"));
  CHECK_FALSE(parse_xclient("ADDR=192.0.2"));
  CHECK_FALSE(parse_xclient("PORT=65536"));
  CHECK_FALSE(parse_xclient("PROTO=HTTP"));
  CHECK_FALSE(parse_xclient("NAME=a b"));
  CHECK_FALSE(parse_xclient("NAME=a+0Ab"));
  CHECK_FALSE(parse_xclient("NAME"));
  CHECK(parse_xclient("").error().to_string() == "501 5.5.4 Syntax: XCLIENT attribute=value...");
  CHECK(parse_xclient("FOO=1").error().to_string() == "501 5.5.4 Bad XCLIENT attribute name: FOO");
}

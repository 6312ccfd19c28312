#include "admin/commands.hpp"

#include <db.h>

#include <fstream>
#include <sstream>

#include "admin/greylist_commands.hpp"
#include "fakes.hpp"
#include "support/catch.hpp"
#include "support/temp_dir.hpp"

using namespace greymx;
using namespace greymx::admin;
using greymx::test::id_at;
using greymx::test::message;

namespace {

// What the tool would print.
class Text final : public Sink {
 public:
  std::string text;
  std::map<std::string, std::string> files;
  std::size_t leave_after = ~std::size_t{0};  // sends, then nobody reads any more
  std::size_t sends = 0;

  Task<bool> send(std::string lines) override {
    ++sends;
    std::string* to = &text;
    for (std::size_t begin = 0, end; (end = lines.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const Json json = Json::parse(lines.substr(begin, end - begin));
      if (json.contains("file")) file_ = json["file"].get<std::string>();
      if (!file_.empty()) to = &files[file_];
      if (json.contains("text")) text += json["text"].get<std::string>();
      if (json.contains("data")) *to += decode_base64(json["data"].get<std::string>());
    }
    co_return sends < leave_after;
  }

 private:
  std::string file_;
};

class Lines final : public Source {
 public:
  std::vector<std::string> chunks;
  bool broken = false;  // after them
  Task<Result<std::string>> more() override {
    if (chunks.empty() && broken) co_return fail(ErrorKind::temporary, "nothing more came");
    if (chunks.empty()) co_return std::string();
    std::string next = std::move(chunks.front());
    chunks.erase(chunks.begin());
    co_return next;
  }
};

struct World : test::FakeDaemon {
  QueueId first = id_at(1795448000), second = id_at(1795448060), third = id_at(1795448120);
  Text sink;
  Lines source;

  World() {
    spool.put(message(first, "a@example.org", {"bob@example.com"}, 11), "From: a\r\n\r\nx");
    spool.put(message(second, "", {"eve@example.com"}, 9), "From: b\r\n");
    spool.put(message(third, "c@example.org", {"bob@other.test"}, 9), "From: c\r\n");
  }

  Ending run(std::string command, auto fill) {
    Request request;
    request.command = std::move(command);
    fill(request);
    sink = {};
    return test::run(io, run_command(std::move(request), services, source, sink, "uid 0"));
  }
  Ending run(std::string command) {
    return run(std::move(command), [](Request&) {});
  }
  Ending domains_without_daemon() {
    QueueSource offline;
    offline.config = config;
    offline.domains = [this] { return spool.domains(); };
    Request request;
    request.command = "domains";
    sink = {};
    return test::run(io, read_queue(request, offline, clock.now(), pool, sink));
  }
};

}  // namespace

TEST_CASE("mailq lists everything, oldest first, with what the daemon knows") {
  World world;
  world.spool.in_delivery = world.third;
  CHECK(world.run("mailq").exit == 0);
  const std::string& text = world.sink.text;
  CHECK(text.find(world.first.to_string() + " ") < text.find(world.second.to_string() + " "));
  CHECK(text.find(world.third.to_string() + "*") != std::string::npos);
  CHECK(text.find("(delivery temporarily suspended: connection refused)") != std::string::npos);
  CHECK(text.ends_with("-- 0 Kbytes in 3 Requests.\n"));
  world.run("mailq", [](Request& r) { r.json = true, r.select.domain = "other.test"; });
  CHECK(Json::parse(world.sink.text)["queue_id"] == world.third.to_string());
}

TEST_CASE("only an empty queue is called empty") {
  World world;
  const auto nobody = [](Request& r) { r.select.from = "nobody@example.org"; };
  CHECK(world.run("mailq", nobody).exit == 0);
  CHECK(world.sink.text == "-- 0 Kbytes in 0 Requests.\n");
  world.spool.messages.clear();
  CHECK(world.run("mailq").exit == 0);
  CHECK(world.sink.text == "Mail queue is empty\n");
}

TEST_CASE("a long listing goes page by page and stops when nobody reads any more") {
  World world;
  for (int i = 0; i < 3000; ++i) world.spool.put(message(id_at(1795448200 + i), "a@b.org", {"x@example.com"}), "x");
  CHECK(world.run("mailq").exit == 0);
  CHECK(world.sink.sends > 10);
  CHECK(world.sink.text.ends_with("in 3003 Requests.\n"));
  Request request;
  request.command = "mailq";
  world.sink = {};
  world.sink.leave_after = 1;
  CHECK(test::run(world.io, run_command(request, world.services, world.source, world.sink, "uid 0")).exit == 0);
  CHECK(world.sink.sends == 1);
}

TEST_CASE("what was asked for by ID and is not there makes it fail, the rest is done") {
  World world;
  const QueueId gone = id_at(1, 5);
  const Ending ending = world.run("delete", [&](Request& r) { r.select.ids = {gone, world.first}; });
  CHECK(ending.exit == 1);
  CHECK(ending.error == gone.to_string() + ": not in the queue");
  CHECK(world.sink.text == "Deleted: 1 message\n");
  CHECK_FALSE(world.spool.contains(world.first));
  CHECK(world.log.contains("postsuper: " + world.first.to_string() + ": removed"));
  CHECK(world.log.contains("postsuper: Deleted: 1 message (uid 0)"));
}

TEST_CASE("what was changed and cannot be written is not called done") {
  World world;
  world.spool.state.problem = "less than limits.min_free_space is free";
  CHECK(world.run("hold", [](Request& r) { r.select.all = true; }).exit == 0);
  world.spool.state.problem = "the spool cannot be written: no space";
  world.spool.state.unsaved = 1;
  const Ending ending = world.run("delete", [&](Request& r) { r.select.ids = {world.first}; });
  CHECK(ending.exit == 1);
  CHECK(ending.error == "not on disk yet, lost by a restart: the spool cannot be written: no space");
}

TEST_CASE("changes touch what is selected and nothing else") {
  World world;
  CHECK(world.run("hold", [](Request& r) { r.select.from = "<>"; }).exit == 0);
  CHECK(world.spool.messages[world.second].state.held);
  CHECK_FALSE(world.spool.messages[world.first].state.held);
  CHECK(world.run("release", [](Request& r) { r.select.all = true; }).exit == 0);
  CHECK(world.sink.text == "Released from hold: 1 message\n");
  CHECK_FALSE(world.spool.messages[world.second].state.held);
  CHECK(world.run("bounce", [](Request& r) { r.select.to = "bob@example.com"; }).exit == 0);
  CHECK(world.calls == std::vector<std::string>{"bounce " + world.first.to_string()});
  CHECK(world.run("delete", [](Request& r) { r.select.older = std::chrono::seconds(1795449663 - 1795448060); }).exit ==
        0);
  CHECK(world.spool.messages.size() == 1);
  CHECK(world.spool.contains(world.third));
}

TEST_CASE("what comes while messages are returned is not returned with them") {
  World world;
  const QueueId report{world.third.value + 1};
  world.on_bounce = [&] {
    world.spool.messages[report] = world.spool.messages[world.second];
    world.spool.messages[report].id = report;
  };
  CHECK(world.run("bounce", [](Request& r) { r.select.all = true; }).exit == 0);
  CHECK(world.calls.size() == 3);
  CHECK(world.sink.text.find("Bounced: 3 messages\n") != std::string::npos);
}

TEST_CASE("to do what narrows down and matches nothing has failed, with ALL too; ALL of an empty queue has not") {
  World world;
  for (const char* command : {"mailq", "shape", "export", "hold", "delete"}) {
    CAPTURE(command);
    const bool looks = command == std::string("mailq") || command == std::string("shape");
    const Ending ending = world.run(command, [](Request& r) { r.select.all = true, r.select.domain = "none.test"; });
    CHECK(ending.exit == (looks ? 0 : 1));
    CHECK(ending.error == (looks ? "" : "no message matches"));
  }
  world.spool.messages.clear();
  for (const char* command : {"mailq", "export", "shape", "delete"}) {
    CAPTURE(command);
    CHECK(world.run(command, [](Request& r) { r.select.all = true; }).exit == 0);
  }
}

TEST_CASE("a change without a selection is wrong usage, one that matches nothing has failed") {
  World world;
  for (const char* command : {"hold", "release", "delete", "requeue", "bounce"}) {
    CAPTURE(command);
    CHECK(world.run(command).exit == 2);
    CHECK(world.run(command, [](Request& r) { r.select.from = "nobody@example.org"; }).exit == 1);
  }
  CHECK(world.spool.messages.size() == 3);
}

TEST_CASE("requeue lifts holds and makes mail due now") {
  World world;
  queue::Message& mail = world.spool.messages[world.first];
  mail.state.recipients[0].status = queue::RecipientStatus::held;
  CHECK(world.run("requeue", [](Request& r) { r.select.to = "@example.com"; }).exit == 0);
  CHECK(mail.state.recipients[0].status == queue::RecipientStatus::pending);
  CHECK(mail.state.recipients[0].next_attempt == world.clock.now());
  CHECK(world.spool.messages[world.second].state.recipients[0].next_attempt == world.clock.now());
  CHECK(world.spool.messages[world.third].state.recipients[0].next_attempt == WallTime{});
}

TEST_CASE("held recipients go on although others of the message never waited") {
  World world;
  queue::Message mail = message(id_at(1795448300), "a@example.org", {"bob@example.com", "eve@example.com"});
  mail.state.recipients[1].status = queue::RecipientStatus::held;
  for (const char* command : {"requeue", "release"}) {
    CAPTURE(command);
    world.spool.put(mail, "x");
    CHECK(world.run(command, [&](Request& r) { r.select.ids = {mail.id}; }).exit == 0);
    CHECK(world.spool.messages[mail.id].state.recipients[1].status == queue::RecipientStatus::pending);
  }
  const Ending ending = world.run("release", [&](Request& r) { r.select.ids = {mail.id}; });
  CHECK(ending.exit == 1);
  CHECK(ending.error == "no held message matches");
}

TEST_CASE("flush: all, a domain, messages") {
  World world;
  CHECK(world.run("flush").exit == 0);
  CHECK(world.run("flush", [](Request& r) { r.args["domain"] = "EXAMPLE.com"; }).exit == 0);
  CHECK(world.run("flush", [](Request& r) { r.args["domain"] = "example.net"; }).exit == 1);
  const Ending ending = world.run("flush", [&](Request& r) { r.select.ids = {id_at(7), world.first}; });
  CHECK(ending.exit == 1);
  CHECK(ending.error == id_at(7).to_string() + ": not in the queue");
  CHECK(world.sink.text == "Trying " + world.first.to_string() + " now\n");
  CHECK(world.calls ==
        std::vector<std::string>{"flush", "flush example.com", "flush " + world.first.to_string() + " example.com"});
}

TEST_CASE("flush takes a domain that has mail, though nothing names it") {
  World world;
  CHECK(world.run("flush", [](Request& r) { r.args["domain"] = "Other.test"; }).exit == 0);
  CHECK(world.calls == std::vector<std::string>{"flush other.test"});
}

TEST_CASE("flush takes a wildcard as greymx domains names it") {
  World world;
  world.primaries.push_back(test::primary("*.example.org", relay::Health::up));
  CHECK(world.run("flush", [](Request& r) { r.args["domain"] = "*.Example.org"; }).exit == 0);
  CHECK(world.run("flush", [](Request& r) { r.args["domain"] = "sub.example.org"; }).exit == 0);
  CHECK(world.run("flush", [](Request& r) { r.args["domain"] = "example.org"; }).exit == 1);
  CHECK(world.run("flush", [](Request& r) { r.args["domain"] = "*.example.com"; }).exit == 1);
  CHECK(world.calls == std::vector<std::string>{"flush *.example.org", "flush sub.example.org"});
}

TEST_CASE("flush does not claim to try what is held, nor take a domain beside IDs") {
  World world;
  world.spool.messages[world.first].state.held = true;
  world.spool.messages[world.second].state.recipients[0].status = queue::RecipientStatus::held;
  const Ending ending =
      world.run("flush", [&](Request& r) { r.select.ids = {world.first, world.second, world.third}; });
  CHECK(ending.exit == 1);
  CHECK(ending.error.starts_with(world.first.to_string() + ", " + world.second.to_string() + ": held; "));
  CHECK(world.sink.text == "Trying " + world.third.to_string() + " now\n");
  CHECK(world.calls == std::vector<std::string>{"flush " + world.third.to_string() + " other.test"});
  const auto both = [&](Request& r) { r.select.ids = {world.third}, r.args["domain"] = "example.com"; };
  CHECK(world.run("flush", both).exit == 2);
  CHECK(world.calls.size() == 1);
}

TEST_CASE("cat gives a message's bytes, large ones in pieces") {
  World world;
  std::string large;
  for (int i = 0; i < 200000; ++i) large += static_cast<char>(i);
  world.spool.put(message(id_at(1795448300), "a@b.org", {"x@example.com"}, large.size()), large);
  CHECK(world.run("cat", [&](Request& r) { r.select.ids = {world.first}; }).exit == 0);
  CHECK(world.run("cat").exit == 2);
  Request request;
  request.command = "export";
  request.select.all = true;
  world.sink = {};
  CHECK(test::run(world.io, run_command(request, world.services, world.source, world.sink, "uid 0")).exit == 0);
  CHECK(world.sink.files.size() == 8);
  CHECK(world.sink.files[world.first.to_string() + ".eml"] == "From: a\r\n\r\nx");
  CHECK(world.sink.files[id_at(1795448300).to_string() + ".eml"] == large);
  CHECK(Json::parse(world.sink.files[world.second.to_string() + ".json"])["recipients"][0]["address"] ==
        "eve@example.com");
}

TEST_CASE("export and cat go on after a message that cannot be read") {
  World world;
  const auto everything = [](Request& r) { r.select.all = true; };
  world.spool.unreadable = {{world.first, ErrorKind::permanent}};
  Ending ending = world.run("export", everything);
  CHECK(ending.exit == 1);
  CHECK(ending.error == world.first.to_string() + " cannot be read: damaged");
  CHECK(world.sink.files.size() == 4);
  CHECK_FALSE(world.sink.files.contains(world.first.to_string() + ".json"));
  ending = world.run("cat", [&](Request& r) { r.select.ids = {world.first, world.second, world.third}; });
  CHECK(ending.exit == 1);
  CHECK(world.sink.text == "From: b\r\nFrom: c\r\n");
}

TEST_CASE("what leaves while all is exported is no trouble, what was asked for by ID is") {
  World world;
  world.spool.unreadable = {{world.first, ErrorKind::not_found}};
  CHECK(world.run("export", [](Request& r) { r.select.all = true; }).exit == 0);
  CHECK(world.sink.files.size() == 4);
  const Ending ending = world.run("export", [&](Request& r) { r.select.ids = {world.first, world.second}; });
  CHECK(ending.exit == 1);
  CHECK(ending.error == world.first.to_string() + ": not in the queue");
  CHECK(world.sink.files.size() == 2);
}

TEST_CASE("shape and domains are there as text and as JSON") {
  World world;
  CHECK(world.run("shape").exit == 0);
  CHECK(world.sink.text.find("TOTAL  3") != std::string::npos);
  CHECK(world.run("domains", [](Request& r) { r.json = true; }).exit == 0);
  const Json line = Json::parse(world.sink.text.substr(0, world.sink.text.find('\n')));
  CHECK(line["domain"] == "example.com");
  CHECK(line["state"] == "down");
  CHECK(line["queued"] == 2);
}

TEST_CASE("domains tells which are not in relay.conf, and without a daemon what is") {
  World world;
  world.config->domains.front().primary = {{"mx1.example.com", 25}};
  world.config->domains.emplace_back().name = "example.net";
  CHECK(world.run("domains").exit == 0);
  CHECK(world.sink.text.find("mx1.example.com:25\n") != std::string::npos);
  CHECK(world.sink.text.find("other.test                   unknown") != std::string::npos);
  CHECK(world.sink.text.find("not in relay.conf: kept, but for reports\n") != std::string::npos);

  world.domains_without_daemon();
  CHECK(world.sink.text.find("example.com                  unknown") != std::string::npos);
  CHECK(world.sink.text.find("mx1.example.com:25\n") != std::string::npos);
  CHECK(world.sink.text.find("example.net                  unknown") != std::string::npos);
}

TEST_CASE("mail for bare Postmaster is shown and selected as the first domain's") {
  World world;
  world.config->domains.emplace_back().name = "example.net";
  std::string name = "example.com";
  bool wildcard = false;
  SECTION("a domain") {}
  SECTION("a wildcard") {
    wildcard = world.config->domains.front().wildcard = true;
    world.primaries.front().domain = name = "*.example.com";
    world.spool.messages.erase(world.first);
    world.spool.messages.erase(world.second);
  }
  const QueueId id = id_at(1795448180);
  world.spool.put(message(id, "", {"Postmaster"}, 100), "x");
  const std::size_t mine = world.spool.messages.size() - 1;
  const auto listed = [&](auto fill) {
    world.run("mailq", fill);
    return world.sink.text.find(id.to_string()) != std::string::npos;
  };
  CHECK(listed([&](Request& r) { r.select.domain = name; }));
  CHECK(listed([&](Request& r) { r.select.domain = "example.com"; }));
  CHECK(listed([&](Request& r) { r.select.to = "@EXAMPLE.com"; }) == !wildcard);  // as for its subdomains
  CHECK(listed([&](Request& r) { r.select.to = "postmaster"; }));
  CHECK_FALSE(listed([](Request& r) { r.select.domain = "example.net"; }));
  CHECK_FALSE(listed([](Request& r) { r.select.from = "@example.com"; }));  // its sender is the null one
  world.run("mailq", [&](Request& r) { r.json = true, r.select.ids = {id}; });
  const Json shown = Json::parse(world.sink.text);
  CHECK(shown["primary_state"] == "down");
  CHECK(shown["recipients"][0]["delay_reason"] == "delivery temporarily suspended: connection refused");

  const auto count_of = [&](const std::string& command) {  // of the domain; none may have no name
    world.run(command, [](Request& r) { r.json = true; });
    std::map<std::string, Json> lines;
    std::istringstream text(world.sink.text);
    for (std::string line; std::getline(text, line);) lines[Json::parse(line)["domain"]] = Json::parse(line);
    CHECK_FALSE(lines.contains(""));
    return lines.at(name);
  };
  CHECK(count_of("domains")["queued"] == mine);
  CHECK(count_of("domains")["configured"] == true);
  CHECK(count_of("shape")["recipients_by_minutes"].dump().find(std::to_string(mine)) != std::string::npos);
  world.run("status", [](Request& r) { r.json = true; });
  CHECK(Json::parse(world.sink.text)["domains"][0]["queued"] == mine);

  world.domains_without_daemon();
  CHECK(world.sink.text.find("\n   ") == std::string::npos);
}

TEST_CASE("status tells the whole in words and in one object") {
  World world;
  world.history.event(test::at(1795449000), "primary of example.com is down");
  CHECK(world.run("status").exit == 0);
  for (const char* part : {"mx2.example.net", "accepting", "3 messages", "example.com: down", "bl.test: on",
                           "dead.test: off: no answer", "61 days left", "primary of example.com is down"}) {
    CAPTURE(part);
    CHECK(world.sink.text.find(part) != std::string::npos);
  }
  world.spool.state.accepting = false;
  world.spool.state.problem = "disk full";
  CHECK(world.run("status", [](Request& r) { r.json = true; }).exit == 0);
  const Json json = Json::parse(world.sink.text);
  CHECK(json["accepting"] == false);
  CHECK(json["problem"] == "disk full");
  CHECK(json["queue"]["messages"] == 3);
  CHECK(json["lists"][1]["state"] == "off");
  world.spool.state.accepting = true;
  world.spool.state.problem.clear();
  world.terminating = true;
  CHECK(world.run("status").exit == 0);
  CHECK(world.sink.text.find("mail         no longer accepted: greymxd is terminating\n") != std::string::npos);
  CHECK(world.run("status", [](Request& r) { r.json = true; }).exit == 0);
  const Json ending = Json::parse(world.sink.text);
  CHECK(ending["accepting"] == false);
  CHECK(ending["problem"] == "greymxd is terminating");
  REQUIRE(json["domains"].size() == 2);
  CHECK(json["domains"][0]["configured"] == true);
  CHECK(json["domains"][1]["configured"] == false);  // other.test
}

TEST_CASE("dnsbl shows what each list says and the score") {
  World world;
  CHECK(world.run("dnsbl", [](Request& r) { r.args["address"] = "192.0.2.1"; }).exit == 0);
  CHECK(world.sink.text.find("listed") != std::string::npos);
  CHECK(world.sink.text.find("spam seen") != std::string::npos);
  CHECK(world.sink.text.find("score 2, threshold 1: blocked") != std::string::npos);
  CHECK(world.run("dnsbl", [](Request& r) { r.args["address"] = "example.org"; }).exit == 2);
  CHECK(world.run("dnsbl", [](Request& r) { r.json = true, r.args["address"] = "192.0.2.1"; }).exit == 0);
  CHECK(Json::parse(world.sink.text.substr(0, world.sink.text.find('\n')))["answers"][0] == "127.0.0.2");
  world.config->dnsbl.lists.clear();
  CHECK(world.run("dnsbl", [](Request& r) { r.args["address"] = "192.0.2.1"; }).exit == 1);
}

TEST_CASE("explain runs the pipeline and prints every check and the reply") {
  World world;
  const auto fill = [](Request& r) {
    r.args = {{"client", "192.0.2.1"},
              {"helo", "h.example.org"},
              {"from", "<>"},
              {"to", "b@example.com"},
              {"name", "H.Example.ORG"}};
  };
  CHECK(world.run("explain", fill).exit == 0);
  CHECK(world.calls == std::vector<std::string>{"explain h.example.org[192.0.2.1] h.example.org <> <b@example.com>"});
  CHECK(world.sink.text.find("relay_control") < world.sink.text.find("dnsbl"));
  CHECK(world.sink.text.find("reply: 554 5.7.1 Service unavailable") != std::string::npos);
  CHECK(world.run("explain", [](Request& r) { r.args["client"] = "x"; }).exit == 2);
  const auto reply_to = [&](const std::string& from, const std::string& to) {
    world.sink.text.clear();
    world.run("explain", [&](Request& r) { r.args = {{"client", "192.0.2.1"}, {"from", from}, {"to", to}}; });
    return world.sink.text;
  };
  CHECK(reply_to("bad address", "b@example.com") == "reply: 501 5.1.7 Bad sender address syntax\n");
  CHECK(reply_to("", "<b@example.com> x") == "reply: 501 5.1.3 Bad recipient address syntax\n");
  CHECK(world.calls.size() == 1);
}

TEST_CASE("a reload that fails says why and that nothing changed") {
  World world;
  CHECK(world.run("reload").exit == 0);
  world.reload_result = fail(ErrorKind::invalid, "relay.conf:3:1: unknown key");
  const Ending ending = world.run("reload");
  CHECK(ending.exit == 1);
  CHECK(ending.error == "relay.conf:3:1: unknown key\nthe old configuration stays in force");
}

TEST_CASE("a reload that leaves something out or to a restart says so") {
  World world;
  world.reload_result->needs_restart = {"workers"};
  CHECK(world.run("reload").exit == 0);
  CHECK(world.sink.text.find("workers has changed: restart greymxd") != std::string::npos);
  world.reload_result->advice = "3 messages are in /old: stop greymxd, move /old to /new, start";
  CHECK(world.run("reload").exit == 0);
  CHECK(world.sink.text.find("3 messages are in /old: stop greymxd, move /old to /new, start\n") != std::string::npos);
  world.reload_result->warnings = {"/etc/list:2: no address"};
  CHECK(world.run("reload").exit == 0);
  CHECK(world.sink.text.ends_with("\nwarning: /etc/list:2: no address\n"));
  world.reload_result->problems = {"clients:3:1: no such action", "log.target: cannot open /no/log"};
  const Ending ending = world.run("reload");
  CHECK(ending.exit == 1);
  CHECK(ending.error == "clients:3:1: no such action\nlog.target: cannot open /no/log");
}

TEST_CASE("an unknown command is wrong usage") {
  World world;
  CHECK(world.run("frobnicate").exit == 2);
}

TEST_CASE("greylist pass, expect, list and forget steer the running greylist") {
  World world;
  CHECK(world
            .run("greylist pass",
                 [](Request& r) { r.args = {{"subject", "192.0.2.0/24"}, {"for", "30d"}, {"comment", "partner"}}; })
            .exit == 0);
  CHECK(world.sink.text == "192.0.2.0/24 passes for 30d\n");
  CHECK(world.log.contains("postsuper: greylist: 192.0.2.0/24 passes for 30d (uid 0)"));
  CHECK(
      world.run("greylist expect", [](Request& r) { r.args = {{"rcpt", "bob@example.com"}, {"time", "15m"}}; }).exit ==
      0);
  CHECK(world.log.contains("postsuper: greylist: mail to bob@example.com passes for 15m (uid 0)"));
  CHECK(world.run("greylist list").exit == 0);
  CHECK(world.sink.text.find("192.0.2.0/24") != std::string::npos);
  CHECK(world.sink.text.find("(partner)") != std::string::npos);
  CHECK(world.sink.text.find("bob@example.com") != std::string::npos);
  CHECK(world.run("greylist list", [](Request& r) { r.json = true; }).exit == 0);
  CHECK(Json::parse(world.sink.text.substr(0, world.sink.text.find('\n'))).contains("subject"));
  CHECK(world.run("greylist forget", [](Request& r) { r.args["subject"] = "192.0.2.0/24"; }).exit == 0);
  CHECK(world.sink.text == "1 record forgotten\n");
  CHECK(world.log.contains("postsuper: greylist: 1 record of 192.0.2.0/24 forgotten (uid 0)"));
  CHECK(world.run("greylist forget", [](Request& r) { r.args["subject"] = "192.0.2.0/24"; }).exit == 1);
  CHECK(world.run("greylist pass", [](Request& r) { r.args = {{"subject", "example.org"}, {"for", "soon"}}; }).exit ==
        2);
  CHECK(world.run("greylist pass", [](Request& r) { r.args = {{"subject", "example.org"}, {"for", ""}}; }).exit == 2);
  CHECK(world.run("greylist pass", [](Request& r) { r.args = {{"subject", "example.org"}, {"for", "0s"}}; }).exit == 2);
  CHECK(world.run("greylist expect", [](Request& r) { r.args = {{"rcpt", "nobody"}, {"time", "15m"}}; }).exit == 1);
  world.store->breaks_at_erase = true;
  const Ending ending = world.run("greylist forget", [](Request& r) { r.args["subject"] = "bob@example.com"; });
  CHECK(ending.exit == 1);
  CHECK(ending.error == "the store is broken; forgotten so far: 1");
  CHECK(world.log.contains("postsuper: greylist: 1 record of bob@example.com forgotten (uid 0)"));
  CHECK(world.run("greylist list").exit == 1);
}

TEST_CASE("what greylist export prints, greylist import takes back") {
  World world;
  greylist::Request mail;
  mail.client = *IpAddress::parse("192.0.2.77");
  mail.client_name = "unknown";
  mail.sender = "a@example.org";
  mail.recipient = "b@example.com";
  test::run(world.io, world.greylister->check(mail));
  CHECK(world.run("greylist export").exit == 0);
  const std::string lines = world.sink.text;
  REQUIRE(std::count(lines.begin(), lines.end(), '\n') >= 1);
  world.store->records.clear();
  world.source.chunks = {lines, "nonsense\n"};
  CHECK(world.run("greylist import").exit == 0);
  CHECK(world.sink.text.find(" imported, 1 skipped: ") != std::string::npos);
  CHECK(world.log.contains(" imported, 1 skipped: not a JSON object (uid 0)"));
  world.source.chunks = {"nonsense\n"};
  CHECK(world.run("greylist import").exit == 1);
  CHECK(world.sink.text.starts_with("0 imported, 1 skipped: "));
  CHECK_FALSE(world.store->records.empty());
  CHECK(world.run("greylist stats").exit == 0);
  CHECK(world.sink.text.find("waiting          1") != std::string::npos);
  world.source.chunks = {lines};
  world.source.broken = true;
  const Ending ending = world.run("greylist import");
  CHECK(ending.exit == 1);
  CHECK(ending.error.starts_with("nothing more came; imported so far: "));
}

TEST_CASE("an import of a postgrey database of which nothing can be taken fails") {
  const test::TempDir dir;
  const std::string path = dir / "postgrey.db";
  const auto write = [&](std::string key, std::string value) {
    DB* database = nullptr;
    REQUIRE(db_create(&database, nullptr, 0) == 0);
    DBT k{}, v{};
    k.data = key.data(), k.size = static_cast<u_int32_t>(key.size());
    v.data = value.data(), v.size = static_cast<u_int32_t>(value.size());
    CHECK(database->open(database, nullptr, path.c_str(), nullptr, DB_BTREE, DB_CREATE, 0600) == 0);
    CHECK(database->put(database, nullptr, &k, &v, 0) == 0);
    CHECK(database->close(database, 0) == 0);
  };
  const auto import = [&] {
    const WallTime now(std::chrono::seconds(1800000000));
    return read_import(dir.path(), {}, std::chrono::minutes(5), now, [](std::string_view) { return true; });
  };
  write("192.0.2.0/a@b.example/c@example.com", "1000000000,1000000400");
  CHECK(import().error().text.starts_with(dir.path() + ": 1 read, 1 skipped: expired"));
  write("192.0.3.0/a@b.example/c@example.com", "1799990000,1799990400");
  CHECK(import().value() == dir.path() + ": 2 read, 1 skipped: expired, ");
}

TEST_CASE("an import that the daemon does not take to its end fails") {
  const test::TempDir dir;
  const std::string path = dir / "export.json";
  std::ofstream(path) << "one\ntwo\n";
  std::vector<std::string> sent;
  const auto take = [&](std::size_t most) {
    sent.clear();
    return read_import(path, {}, std::chrono::minutes(5), {}, [&](std::string_view lines) {
      if (sent.size() < most) sent.emplace_back(lines);
      return sent.size() < most;
    });
  };
  CHECK(take(9));
  CHECK(sent == std::vector<std::string>{"one\n", "two\n"});
  CHECK(take(1).error().text.find("did not take all") != std::string::npos);
}

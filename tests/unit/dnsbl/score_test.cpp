#include "dnsbl/score.hpp"

#include "dns/packet.hpp"
#include "dnsbl_config.hpp"
#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::dnsbl;
using namespace greymx::test;

namespace {

dns::Answer found(std::initializer_list<const char*> addresses) {
  dns::Answer answer;
  answer.outcome = dns::Outcome::found;
  for (const char* address : addresses) answer.addresses.push_back(*IpAddress::parse(address));
  return answer;
}

List list(std::initializer_list<const char*> replies = {}, int weight = 1) {
  config::Dnsbl settings;
  settings.lists = {block_list("bl.test", weight)};
  for (const char* text : replies) settings.lists[0].replies.push_back(*config::Pattern::parse(text));
  return make_lists(settings).front();
}

Outcome outcome(const List& list, std::initializer_list<const char*> addresses) {
  return judge(list, found(addresses)).outcome;
}

ListResult result(std::string zone, int weight, Outcome outcome, std::string reason = {}) {
  ListResult made;
  made.zone = std::move(zone);
  made.subject = "Client host [192.0.2.1]";
  made.weight = weight;
  made.outcome = outcome;
  made.reason = std::move(reason);
  return made;
}

}  // namespace

TEST_CASE("by default any answer in 127/8 lists, but not the errors") {
  CHECK(outcome(list(), {"127.0.0.2"}) == Outcome::listed);
  CHECK(outcome(list(), {"127.9.9.9"}) == Outcome::listed);
  CHECK(outcome(list(), {"127.0.0.255"}) == Outcome::listed);
  for (const char* error : {"127.0.0.1", "127.255.255.252", "127.255.255.254", "127.255.255.255", "127.255.255.0"}) {
    CAPTURE(error);
    CHECK(outcome(list(), {error}) == Outcome::list_error);
    CHECK(outcome(list(), {"127.0.0.2", error}) == Outcome::list_error);
    CHECK_FALSE(judge(list(), found({error})).outside);
  }
}

TEST_CASE("an answer outside 127/8 is an error of its own kind") {
  const Judgement judgement = judge(list(), found({"127.0.0.2", "203.0.113.7"}));
  CHECK(judgement.outcome == Outcome::list_error);
  CHECK(judgement.outside);
  CHECK(judgement.error == "answer 203.0.113.7: outside 127.0.0.0/8");
}

TEST_CASE("127.0.0.255 from an allow list is an error") {
  CHECK(outcome(list({}, -1), {"127.0.0.255"}) == Outcome::list_error);
  CHECK(outcome(list({}, -1), {"127.0.10.3"}) == Outcome::listed);
}

TEST_CASE("with patterns only what they match lists") {
  const List zen = list({"127.0.0.[2..11]", "127.0.1.2"});
  CHECK(outcome(zen, {"127.0.0.4"}) == Outcome::listed);
  CHECK(outcome(zen, {"127.0.1.2"}) == Outcome::listed);
  CHECK(outcome(zen, {"127.0.0.20"}) == Outcome::clean);
  CHECK(outcome(zen, {"127.0.0.20", "127.0.0.2"}) == Outcome::listed);
  CHECK(outcome(list({"127.255.255.[0..255]", "127.0.0.1"}), {"127.255.255.254"}) == Outcome::list_error);
}

TEST_CASE("no answer is clean, trouble is trouble") {
  dns::Answer answer;
  answer.outcome = dns::Outcome::no_domain;
  CHECK(judge(list(), answer).outcome == Outcome::clean);
  answer.outcome = dns::Outcome::no_record;
  CHECK(judge(list(), answer).outcome == Outcome::clean);
  CHECK(judge(list(), dns::failed_answer("timeout")).outcome == Outcome::timeout);
  CHECK(judge(list(), dns::failed_answer("SERVFAIL")).outcome == Outcome::list_error);
  CHECK(judge(list(), dns::failed_answer("SERVFAIL")).error == "SERVFAIL");
}

TEST_CASE("weights add up, the first list with weight gives the reply") {
  const Score score = tally({result("allow.test", -1, Outcome::listed, "trusted"), result("a.test", 1, Outcome::clean),
                             result("b.test", 2, Outcome::listed, "spam"), result("c.test", 2, Outcome::listed, "more"),
                             result("d.test", 9, Outcome::list_error)},
                            3);
  CHECK(score.total == 3);
  CHECK(score.reply_text == "Service unavailable; Client host [192.0.2.1] blocked using b.test; spam");
  CHECK(score.results.size() == 5);
}

TEST_CASE("below the threshold there is no reply; without reason none is quoted") {
  CHECK(tally({result("a.test", 1, Outcome::listed)}, 2).reply_text.empty());
  CHECK(tally({result("a.test", 1, Outcome::listed)}, 1).reply_text ==
        "Service unavailable; Client host [192.0.2.1] blocked using a.test");
  CHECK(tally({}, 0).reply_text.empty());
}

TEST_CASE("scores are combined before the threshold applies") {
  const Score one = tally({result("a.test", 1, Outcome::listed, "one")}, 2);
  const Score two = tally({result("b.test", 1, Outcome::listed, "two")}, 2);
  const Score both = combine({&one, &two}, 2);
  CHECK(both.total == 2);
  CHECK(both.reply_text == "Service unavailable; Client host [192.0.2.1] blocked using a.test; one");
  const Score white = tally({result("w.test", -3, Outcome::listed)}, 2);
  const Score allowed = combine({&both, &white}, 2);
  CHECK(allowed.total == -1);
  CHECK(allowed.reply_text.empty());
}

TEST_CASE("a secret key in a zone is never shown") {
  config::Dnsbl settings;
  settings.lists = {block_list("abcdef0123456789abcdef0123.zen.dq.spamhaus.net"), block_list("zen.spamhaus.org")};
  const std::vector<List> lists = make_lists(settings);
  CHECK(lists[0].shown == "***.zen.dq.spamhaus.net");
  CHECK(lists[1].shown == "zen.spamhaus.org");
  CHECK(reason_text(lists[0], {"see https://x.test/ABCDEF0123456789abcdef0123/why", "abcdef0123456789abcdef0123"}) ==
        "see https://x.test/***/why / ***");
}

TEST_CASE("reasons are joined, printable and bounded") {
  CHECK(reason_text(list(), {"one", "two\r\n\x1b[2J"}) == "one / two???[2J");
  CHECK(reason_text(list(), {std::string(4000, 'x')}).size() == 500);
}

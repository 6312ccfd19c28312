#include "dns/cache.hpp"

#include "dns/packet.hpp"
#include "support/catch.hpp"

using namespace greymx;
using namespace greymx::dns;
using namespace std::chrono_literals;

namespace {

const SteadyTime start{1000h};

Answer answer(Outcome outcome, std::chrono::seconds ttl, std::string text = {}) {
  Answer made;
  made.outcome = outcome;
  made.ttl = ttl;
  if (!text.empty()) made.texts.push_back(std::move(text));
  return made;
}

}  // namespace

TEST_CASE("an answer is kept for its TTL and tells its age") {
  Cache cache{10};
  cache.store("x.test", Type::txt, answer(Outcome::found, 60s, "hello"), start);
  const auto found = cache.find("x.test", Type::txt, start + 59s);
  REQUIRE(found);
  CHECK(found->texts == std::vector<std::string>{"hello"});
  CHECK(found->age == 59s);
  CHECK(found->ttl == 60s);
  CHECK_FALSE(cache.find("x.test", Type::txt, start + 60s));
  CHECK_FALSE(cache.find("x.test", Type::a, start));
  CHECK_FALSE(cache.find("y.test", Type::txt, start));
}

TEST_CASE("a zero TTL is not kept, and replaces what was") {
  Cache cache{10};
  cache.store("x.test", Type::a, answer(Outcome::found, 60s), start);
  cache.store("x.test", Type::a, answer(Outcome::found, 0s), start);
  CHECK_FALSE(cache.find("x.test", Type::a, start));
}

TEST_CASE("found is kept a day at most, negative an hour, failed five seconds") {
  const auto kept = [](Outcome outcome) {
    Cache cache{10};
    cache.store("x.test", Type::a, answer(outcome, std::chrono::days{9}), start);
    std::chrono::seconds last{0};
    for (const std::chrono::seconds at : {4s, 5s, 3599s, 3600s, 86399s, 86400s}) {
      if (cache.find("x.test", Type::a, start + at)) last = at;
    }
    return last;
  };
  CHECK(kept(Outcome::found) == 86399s);
  CHECK(kept(Outcome::no_record) == 3599s);
  CHECK(kept(Outcome::no_domain) == 3599s);
  CHECK(kept(Outcome::failed) == 4s);
}

TEST_CASE("the least recently used answer makes way") {
  Cache cache{3};
  for (const char* name : {"a", "b", "c"}) cache.store(name, Type::a, answer(Outcome::found, 60s), start);
  REQUIRE(cache.find("a", Type::a, start));
  cache.store("d", Type::a, answer(Outcome::found, 60s), start);
  CHECK(cache.size() == 3);
  CHECK(cache.find("a", Type::a, start));
  CHECK_FALSE(cache.find("b", Type::a, start));
}

TEST_CASE("heavy answers push out more than one, and too heavy ones are not kept") {
  Cache cache{8};
  for (const char* name : {"a", "b", "c", "d", "e", "f", "g", "h"}) {
    cache.store(name, Type::a, answer(Outcome::found, 60s), start);
  }
  cache.store("x", Type::txt, answer(Outcome::found, 60s, std::string(1000, 'x')), start);
  CHECK(cache.size() == 4);  // a kilobyte and its string weigh five
  CHECK(cache.find("x", Type::txt, start));
  CHECK(cache.find("h", Type::a, start));
  cache.store("y", Type::txt, answer(Outcome::found, 60s, std::string(4096, 'x')), start);
  CHECK_FALSE(cache.find("y", Type::txt, start));
  CHECK(cache.find("x", Type::txt, start));
  cache.erase("x", Type::txt);
  CHECK_FALSE(cache.find("x", Type::txt, start));
  for (const char* name : {"1", "2", "3", "4", "5"}) cache.store(name, Type::a, answer(Outcome::found, 60s), start);
  CHECK(cache.size() == 8);  // its weight was given back
}

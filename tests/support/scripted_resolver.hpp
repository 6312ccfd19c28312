// A Resolver whose answers are written in the test, one record a line:
//
//   10.2.0.192.bl.test A 127.0.0.2        x.test TXT "reason" "in two strings"      x.test MX 10 mail.x.test
//   y.test CNAME x.test                   x.test 60 AAAA 2001:db8::1   (TTL 60)     2.0.0.127.in-addr.arpa PTR x.test
//   x.test A SERVFAIL | REFUSED | TIMEOUT | NXDOMAIN | NODATA                       x.test ANY SERVFAIL
//
// Unknown names do not exist; known ones have no records of other types. CNAMEs are followed. Answers always come
// through post, never inline. TIMEOUT fails at once; `delay` makes a name wait for the clock.
//
// Thread: one executor's.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "dns/resolver.hpp"

namespace greymx::test {

class ScriptedResolver final : public dns::Resolver {
 public:
  ScriptedResolver() = default;
  explicit ScriptedResolver(std::string_view zone) { add(zone); }

  void add(std::string_view zone);  // adds to what is there; throws std::invalid_argument on a line it cannot read
  void set(const std::string& name, dns::Type type, dns::Answer answer);  // replaces
  void erase(const std::string& name);                                    // the name exists no more
  // From now on, lookups of `name` are answered once `clock` has moved on by `by`, or fail at their deadline if that
  // comes first, as soon as tick() is called after the clock was moved.
  void delay(const std::string& name, std::chrono::microseconds by, const Clock& clock);
  void tick();
  // Answers for `name` seem to come from a cache, fetched this long ago; until forget().
  void set_age(const std::string& name, std::chrono::seconds age);

  // "x.test A", in the order in which it was asked.
  const std::vector<std::string>& asked() const { return asked_; }
  std::size_t count(std::string_view question) const;
  void clear_asked() { asked_.clear(); }

  Task<dns::Answer> lookup(std::string name, dns::Type type, SteadyTime deadline) override;
  void forget(const std::string& name, dns::Type type) override;

 private:
  struct Delay {
    std::chrono::microseconds by;
    const Clock* clock;
  };
  void add_line(std::string_view line);
  dns::Answer answer(std::string name, dns::Type type) const;

  std::map<std::string, std::map<dns::Type, dns::Answer>> zone_;
  std::map<std::string, dns::Answer> any_;
  std::map<std::string, Delay> delays_;
  std::map<std::string, std::chrono::seconds> ages_;
  std::vector<std::string> asked_;
  std::vector<std::weak_ptr<Event>> waiting_;  // owned by the lookups: the resolver may outlive their io_context
};

}  // namespace greymx::test

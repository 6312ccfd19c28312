// What an admin reads: the queue in Postfix's layouts, ages by domain, the primaries. Pure: values in, text or JSON
// out; nothing a stranger chose reaches a terminal unescaped.
#pragma once

#include <array>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "admin/select.hpp"
#include "config/config.hpp"
#include "queue/spool.hpp"
#include "relay/relay.hpp"

namespace greymx::admin {

// Terminal colours, or none.
struct Style {
  bool color = false;
  std::string red(std::string_view text) const { return paint("31", text); }
  std::string yellow(std::string_view text) const { return paint("33", text); }
  std::string green(std::string_view text) const { return paint("32", text); }
  std::string bold(std::string_view text) const { return paint("1", text); }
  // A health or result word in the colour of how good it is.
  std::string verdict(std::string_view word, std::string_view shown) const;

 private:
  std::string paint(std::string_view code, std::string_view text) const;
};

std::string dump(const Json& json);                  // one line; bytes that are not UTF-8 become U+FFFD
std::string human_size(std::uint64_t bytes);         // "312 B", "48.2 MiB"
std::string human_age(WallTime then, WallTime now);  // "2h13m"; "0s" if `then` lies ahead
std::int64_t unix_seconds(WallTime time);

// What is known of the primaries while a listing is made; empty when the daemon is down.
class Primaries {
 public:
  Primaries() = default;
  explicit Primaries(std::vector<relay::PrimaryStatus> all, const config::Config& config = {});
  // The entry that covers the spool's domain `domain`: the name itself, then the longest wildcard; nullptr: not known.
  const relay::PrimaryStatus* find(std::string_view domain) const;
  const std::vector<relay::PrimaryStatus>& all() const { return all_; }

 private:
  std::vector<relay::PrimaryStatus> all_;
  std::string postmasters_;  // whose mail for bare Postmaster is
};

// Held by an admin or an access file, or nothing but refused bounces left in it.
bool is_held(const queue::Message& message);
// Why a recipient still waits; a primary that is not up explains it whatever the last attempt said.
std::string waiting_reason(const queue::Message& message, std::size_t recipient, const Primaries& primaries);

// `mailq` line by line, in the layout of postqueue -p with long queue IDs.
class Mailq {
 public:
  Mailq(bool json, Primaries primaries, const config::Queue& rules, WallTime now)
      : json_(json), primaries_(std::move(primaries)), rules_(rules), now_(now) {}
  std::string add(const queue::Message& message, bool active);  // an entry, the heading before the first
  // "-- 12 Kbytes in 3 Requests."; of an empty queue, as opposed to one where nothing was selected, that it is empty.
  std::string end(bool empty_queue) const;
  Json object(const queue::Message& message, bool active) const;  // fields of postqueue -j, then ours

 private:
  bool json_;
  Primaries primaries_;
  config::Queue rules_;
  WallTime now_;
  std::uint64_t count_ = 0, bytes_ = 0;
};

// Ages by domain, as qshape prints them.
class Shape {
 public:
  void add(const queue::Message& message, const config::Config& config, WallTime now);
  std::string text() const;
  std::vector<Json> objects() const;

 private:
  static constexpr std::array<int, 9> minutes_{5, 10, 20, 40, 80, 160, 320, 640, 1280};
  using Row = std::array<std::uint64_t, minutes_.size() + 1>;
  std::map<std::string, Row> rows_;
};

// A primary and what waits for it; also what waits for a domain without one (our reports, domains taken out).
struct DomainLine {
  std::string domain;
  std::optional<relay::PrimaryStatus> primary;
  queue::DomainSummary queued;  // summed over what a wildcard covers
  bool configured = true;       // stands in relay.conf
  bool asked = true;            // false: there is no daemon to say how the primary is
};
std::set<std::string> our_domains(const config::Config& config);  // as the relay names their primaries
// Domains as relay.conf has them: all that is known without a daemon.
Primaries configured_primaries(const config::Config& config);
void add(queue::DomainSummary& sum, const queue::DomainSummary& more);
std::string line_name(const Primaries& primaries, const std::string& domain);  // of the line under which it counts
std::vector<DomainLine> join_domains(const Primaries& primaries, const std::vector<queue::DomainSummary>& queued);
std::string domains_text(const std::vector<DomainLine>& lines, WallTime now, Style style);
Json domain_json(const DomainLine& line, WallTime now);

// Everything of one message but its content: `cat --envelope`, `export`, `spool dump`.
Json envelope_json(const queue::Message& message);

}  // namespace greymx::admin

#include "admin/greylist_commands.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <fstream>

#include "base/clock.hpp"
#include "base/mailbox.hpp"
#include "config/values.hpp"
#include "greylist/operate.hpp"

namespace greymx::admin {

namespace operate = greylist::operate;

namespace {

Task<bool> show(std::string lines, bool json, WallTime now, Sink& sink) {
  std::string text;
  for (std::size_t begin = 0, end; !json && (end = lines.find('\n', begin)) != lines.npos; begin = end + 1) {
    text += greylist_text(Json::parse(lines.substr(begin, end - begin), nullptr, false), now);
  }
  if (json) text = std::move(lines);
  co_return co_await sink.send(reply::text(text));
}

std::string skipped_text(const greylist::ImportReport& report) {
  std::string text;
  for (const auto& [reason, count] : report.skipped) text += fmt::format(", {} skipped: {}", count, printable(reason));
  return text;
}

void log_change(Services& services, const std::string& text, const std::string& who) {
  services.log.info("postsuper", fmt::format("greylist: {} ({})", text, who));
}

Task<Ending> import_all(Services& services, Source& source, Sink& sink, std::string who) {
  greylist::ImportReport sum;
  std::string trouble;
  for (;;) {
    Result<std::string> lines = co_await source.more();
    if (!lines) trouble = lines.error().text;
    if (!lines || lines->empty()) break;
    const auto report = co_await operate::import_lines(*services.greylister, std::move(*lines));
    if (!report) {
      trouble = report.error().text;
      break;
    }
    sum.read += report->read;
    sum.imported += report->imported;
    for (const auto& [reason, count] : report->skipped) sum.skipped[reason] += count;
  }
  const std::string text = fmt::format("{} imported{}", sum.imported, skipped_text(sum));
  log_change(services, text, who);
  if (!trouble.empty()) co_return failed(fmt::format("{}; imported so far: {}", trouble, sum.imported));
  co_await sink.send(reply::text(text + "\n"));
  co_return sum.read > 0 && sum.imported == 0 ? failed("nothing could be imported") : Ending{};
}

Task<Ending> steer(const Request& request, Services& services, Sink& sink, std::string who) {
  greylist::Greylister& greylister = *services.greylister;
  const std::string& subject = request.arg("subject");
  if (request.command == "greylist forget") {
    const auto [count, done] = co_await operate::forget(greylister, subject);
    if (count == 0) co_return failed(done ? "nothing is known of " + printable(subject, 100) : done.error().text);
    const std::string records = fmt::format("{} record{}", count, count == 1 ? "" : "s");
    log_change(services, fmt::format("{} of {} forgotten", records, printable(subject, 200)), who);
    if (!done) co_return failed(fmt::format("{}; forgotten so far: {}", done.error().text, count));
    co_await sink.send(reply::text(records + " forgotten\n"));
    co_return Ending{};
  }
  const bool expecting = request.command == "greylist expect";
  const char* key = expecting ? "time" : "for";
  const std::string& time = request.arg(key);
  const std::chrono::seconds length = config::parse_duration(time).value_or(std::chrono::seconds(0));
  if (request.args.contains(key) && length.count() == 0)
    co_return Ending{2, "\"" + printable(time, 40) + "\" is not a time such as 15m or 30d"};
  Result<> done;
  if (expecting) {
    done = co_await operate::expect(greylister, request.arg("rcpt"), length);
  } else {
    done = co_await operate::pass(greylister, subject, length, request.arg("comment"));
  }
  if (!done) co_return failed(done.error().text);
  const std::string whom = expecting ? "mail to " + request.arg("rcpt") : subject;
  const std::string until = length.count() == 0 ? "for good" : "for " + human_duration(length);
  const std::string text = fmt::format("{} passes {}", printable(whom, 200), until);
  log_change(services, text, who);
  co_await sink.send(reply::text(text + "\n"));
  co_return Ending{};
}

}  // namespace

Task<Ending> run_greylist(Request request, Services& services, Source& source, Sink& sink, std::string who) {
  using List = Task<Result<>> (*)(greylist::Greylister&, operate::Sink);
  static const std::map<std::string, List> lists{{"greylist list", operate::list},
                                                 {"greylist stats", operate::stats},
                                                 {"greylist report", operate::report},
                                                 {"greylist export", operate::export_all}};
  greylist::Greylister& greylister = *services.greylister;
  if (request.command == "greylist import") {
    co_return co_await import_all(services, source, sink, std::move(who));
  }
  const auto list = lists.find(request.command);
  if (list == lists.end()) {
    co_return co_await steer(request, services, sink, std::move(who));
  }
  const bool json = request.json || request.command == "greylist export";
  operate::Sink each = [&, now = greylister.now()](std::string lines) {
    return show(std::move(lines), json, now, sink);
  };
  const Result<> done = co_await list->second(greylister, std::move(each));
  co_return done ? Ending{} : failed(done.error().text);
}

std::string greylist_text(const Json& line, WallTime now) {
  const auto text = [&](const char* key) {
    const auto found = line.find(key);
    if (found == line.end()) return std::string();
    return found->is_string() ? printable(found->get<std::string>()) : found->dump();
  };
  const auto ago = [&](const char* key) {
    return human_age(WallTime(std::chrono::seconds(line.value(key, std::int64_t{0}))), now);
  };
  const std::string type = line.is_object() ? text("type") : "";
  if (type == "waiting" || type == "never_returned") {
    return fmt::format("{} {:>8} ago, {:>2} tries  {:<24} <{}> -> <{}>\n",
                       type == "waiting" ? "waits" : "never returned", ago("first"), text("tries"), text("client"),
                       text("sender"), text("recipient"));
  }
  if (type == "pass" || type == "expect") {
    const auto until = line.value("until", std::int64_t{0});
    return fmt::format("{:<6} {:<32} {}{}\n", type, text("subject"),
                       until == 0 ? "for good" : "for another " + human_age(now, WallTime(std::chrono::seconds(until))),
                       text("comment").empty() ? "" : "  (" + text("comment") + ")");
  }
  if (type == "proposal") {
    return fmt::format("always comes back: {} ({} passed, from {} networks or more): add it to whitelist_clients\n",
                       text("subject"), text("passed"), text("networks"));
  }
  if (type == "first_retries") {
    std::string all = "first retries within:";
    for (const Json& row : line.value("within", Json::array())) {
      all +=
          fmt::format(" {} {};", human_duration(std::chrono::seconds(row.value("seconds", 0))), row.value("count", 0));
    }
    return all + " later " + text("later") + "\n";
  }
  std::string all;  // stats
  for (const auto& [key, value] : line.items()) all += fmt::format("{:<16} {}\n", key, text(key.c_str()));
  return all;
}

Result<std::string> read_import(const std::string& path, const config::Greylist& config, std::chrono::seconds delay,
                                WallTime now, const std::function<bool(std::string_view lines)>& send) {
  struct stat found{};
  if (stat(path.c_str(), &found) != 0) return fail_errno(errno, path);
  const auto not_taken = fail(ErrorKind::temporary, path + ": greymxd did not take all of it");
  if (S_ISDIR(found.st_mode)) {
    const greylist::ImportRules rules{
        .keys = {config.ipv4_prefix, config.ipv6_prefix, config.lookup_by_host, config.sender_pools},
        .rules = greylist::rules_of(config),
        .delay = delay.count(),
        .now = unix_seconds(now)};
    std::string lines;
    bool taken = true;
    const auto report = greylist::read_postgrey(path, rules, [&](const greylist::Stored& stored) {
      lines += operate::export_line(stored);
      if (lines.size() <= (48 << 10)) return;
      taken = taken && send(lines);
      lines.clear();
    });
    if (!report) return std::unexpected(report.error());
    std::string told = fmt::format("{}: {} read{}", path, report->read, skipped_text(*report));
    if (!report->remark.empty()) told += " (" + report->remark + ")";
    if (report->read > 0 && report->imported == 0) return fail(ErrorKind::invalid, std::move(told));
    if (!taken || !send(lines)) return not_taken;
    return told + ", ";  // the daemon ends the line
  }
  std::ifstream file(path, std::ios::binary);
  for (std::string line; std::getline(file, line);) {
    if (!send(line + "\n")) return not_taken;
  }
  if (file.bad() || !file.eof()) return fail(ErrorKind::temporary, path + ": cannot be read to its end");
  return std::string();
}

}  // namespace greymx::admin

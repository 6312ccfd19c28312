#include "admin/page.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "base/mailbox.hpp"

namespace greymx::admin {

namespace {

std::string clock_time(WallTime time, const char* format) {
  const std::time_t seconds = unix_seconds(time);
  std::tm parts{};
  localtime_r(&seconds, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, format, &parts)};
}

// The sentence that somebody on a phone at night wants first.
std::string headline(const Status& status) {
  const auto pill = [](const char* kind, const std::string& text) {
    return fmt::format("<span class=\"pill {}\">{}</span>", kind, escape_html(text));
  };
  const std::string refused = status.terminating ? "no longer accepted" : "refused (452)";
  if (!status.totals.accepting) return pill("bad", "New mail is " + refused + ": " + status.totals.problem);
  std::string down;
  for (const DomainLine& line : status.domains) {
    if (line.primary && line.primary->health != relay::Health::up) down += (down.empty() ? "" : ", ") + line.domain;
  }
  return down.empty() ? pill("ok", "All is well")
                      : pill("wait", "Mail is kept; primary not up: " + printable(down, 100));
}

std::string figure(const std::string& value, const std::string& label, const std::string& more) {
  return fmt::format("<div><span>{}</span><b>{}</b><span>{}</span></div>\n", label, escape_html(value),
                     escape_html(more));
}

std::string figures(const Status& status) {
  const queue::Totals& totals = status.totals;
  const auto two = [](const std::vector<std::uint64_t>& hour, const std::vector<std::uint64_t>& day,
                      const char* label) {
    return figure(fmt::format("{}", sum(hour)), label, fmt::format("{} in a day", sum(day)));
  };
  return "<section class=\"figures\">\n" +
         figure(fmt::format("{}", totals.messages), "messages waiting",
                human_size(totals.bytes) + (totals.held != 0 ? fmt::format(", {} held", totals.held) : "")) +
         figure(totals.messages != 0 ? human_age(status.oldest(), status.now) : "–", "oldest",
                totals.messages != 0 ? clock_time(status.oldest(), "since %b %e, %H:%M") : "nothing waits") +
         two(status.hour.accepted, status.day.accepted, "accepted in an hour") +
         two(status.hour.rejected, status.day.rejected, "refused in an hour") + "</section>\n";
}

// "down for 2h13m · mx1.example.com:25"
std::string health_text(const relay::PrimaryStatus& primary, WallTime now) {
  std::string text(relay::to_string(primary.health));
  if (primary.since != WallTime{}) text += " for " + human_age(primary.since, now);
  if (!primary.hosts.empty()) text += fmt::format(" · {}", fmt::join(primary.hosts, ", "));
  return escape_html(text);
}

std::string primaries(const Status& status) {
  std::string text = "<section class=\"primaries\"><h2>Primaries</h2>\n";
  for (const DomainLine& line : status.domains) {
    const std::string state(line.primary ? relay::to_string(line.primary->health) : "unknown");
    const std::string waiting = line.queued.messages != 0 ? fmt::format("{} waiting, oldest {}", line.queued.messages,
                                                                        human_age(line.queued.oldest, status.now))
                                                          : "nothing waiting";
    text += fmt::format("<div class=\"primary\"><span class=\"dot {}\"></span><b>{}</b><span>{}</span><p>{}</p>", state,
                        escape_html(line.domain), waiting,
                        line.primary ? health_text(*line.primary, status.now) : "not in relay.conf");
    if (line.primary && line.primary->health != relay::Health::up && !line.primary->last_error.empty()) {
      text += fmt::format("<p class=\"error\">{}</p>", escape_html(printable(line.primary->last_error)));
    }
    text += "</div>\n";
  }
  return text + "</section>\n";
}

// Bars stacked from the bottom, one path a series; over each an invisible area that names its numbers.
std::string chart(const std::string& title, const Charts& charts, WallTime now, std::chrono::minutes each,
                  const char* time_format) {
  struct Series {
    const char* kind;
    const char* label;
    const std::vector<std::uint64_t>& counts;
  };
  const Series series[] = {{"mail", "accepted", charts.accepted},
                           {"grey", "greylisted", charts.greylisted},
                           {"deny", "refused", charts.rejected}};
  const std::size_t bars = charts.accepted.size();
  std::uint64_t most = 4;
  for (std::size_t i = 0; i < bars; ++i) {
    std::uint64_t height = 0;
    for (const Series& one : series) height += one.counts[i];
    most = std::max(most, height);
  }
  const double width = 600.0 / static_cast<double>(bars), scale = 145.0 / static_cast<double>(most);
  std::vector<double> top(bars, 150);
  std::string paths, legend;
  for (const Series& one : series) {
    std::string line;
    for (std::size_t i = 0; i < bars; ++i) {
      if (one.counts[i] == 0) continue;
      const double to = top[i] - static_cast<double>(one.counts[i]) * scale;
      line += fmt::format("M{:.1f} {:.1f}V{:.1f}", (static_cast<double>(i) + 0.5) * width, top[i], to);
      top[i] = to;
    }
    paths += fmt::format("<path class=\"{}\" stroke-width=\"{:.1f}\" d=\"{}\"/>", one.kind, width * 0.72, line);
    legend += fmt::format("<span><i class=\"{}\"></i>{} {}</span>", one.kind, sum(one.counts), one.label);
  }
  for (std::size_t i = 0; i < bars; ++i) {
    paths += fmt::format(
        "<rect x=\"{:.1f}\" width=\"{:.1f}\" height=\"150\"><title>{}: {} accepted, {} greylisted, {} "
        "refused</title></rect>",
        static_cast<double>(i) * width, width, clock_time(now - each * static_cast<int>(bars - 1 - i), "%H:%M"),
        charts.accepted[i], charts.greylisted[i], charts.rejected[i]);
  }
  return fmt::format(
      "<section class=\"half\"><h2>{}</h2><div class=\"axis\"><span>{} {}</span></div>"
      "<svg viewBox=\"0 0 600 150\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">{}</svg>"
      "<div class=\"axis\"><span>{}</span><span>{}</span></div><div class=\"legend\">{}</div></section>\n",
      title, most, each == std::chrono::minutes(1) ? "a minute" : fmt::format("in {} minutes", each.count()), title,
      paths, clock_time(now - each * static_cast<int>(bars - 1), time_format), clock_time(now, time_format), legend);
}

std::string counts_table(const std::string& title, const std::vector<CountRow>& rows, const std::string& note) {
  std::string text =
      fmt::format("<section class=\"half\"><h2>{}</h2><table><tr><th></th><th>hour</th><th>day</th></tr>\n", title);
  for (std::size_t i = 0; i < std::min<std::size_t>(10, rows.size()); ++i) {
    text += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td></tr>\n", escape_html(rows[i].name), rows[i].hour,
                        rows[i].day);
  }
  if (rows.empty()) text += "<tr><td>nothing yet</td><td></td><td></td></tr>\n";
  return text + "</table>" + note + "</section>\n";
}

std::string health_table(const Status& status) {
  std::string text = "<section class=\"half\"><h2>Health</h2><table>\n";
  const auto row = [&](const std::string& name, const std::string& value, bool bad) {
    text += fmt::format("<tr><td>{}</td><td{}>{}</td></tr>\n", escape_html(name), bad ? " class=\"bad\"" : "",
                        escape_html(value));
  };
  row("connections now", fmt::format("{}", status.connections), false);
  row("free for the queue", human_size(status.totals.free_bytes), !status.totals.accepting);
  if (const auto days = status.certificate_days) row("certificate", certificate_text(*days), *days < 14);
  for (const dnsbl::ListStatus& list : status.lists) {
    row(list.zone,
        list.up ? fmt::format("on, {} of {} listed", list.listed, list.lookups) : "off: " + printable(list.reason, 200),
        !list.up);
  }
  return text + "</table></section>\n";
}

std::string events(const Status& status) {
  std::string text = "<section class=\"half events\"><h2>Events</h2><table>\n";
  for (std::size_t i = 0; i < std::min<std::size_t>(12, status.events.size()); ++i) {
    text += fmt::format("<tr><td>{}&ensp;</td><td>{}</td></tr>\n", clock_time(status.events[i].time, "%b %e %H:%M"),
                        escape_html(status.events[i].text));
  }
  if (status.events.empty()) text += "<tr><td></td><td>none since the start</td></tr>\n";
  return text + "</table></section>\n";
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    const char* entity = c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '"' ? "&quot;" : nullptr;
    safe += entity != nullptr ? entity : std::string(1, c);
  }
  return safe;
}

std::string status_page(const Status& status, const std::string& nonce) {
  using std::chrono::minutes;
  const std::string body =
      fmt::format("<header><h1>{}</h1>{}<span class=\"soft\" id=\"when\">{}</span></header>\n",
                  escape_html(status.hostname), headline(status), clock_time(status.now, "%a %b %e, %H:%M:%S")) +
      figures(status) + primaries(status) + chart("Last hour", status.hour, status.now, minutes(1), "%H:%M") +
      chart("Last day", status.day, status.now, minutes(15), "%a %H:%M") +
      counts_table("Why refused", status.rejects, "") + health_table(status) +
      counts_table("Greylist", status.greylist,
                   fmt::format("<p class=\"soft\">{} records</p>", status.greylist_records)) +
      events(status) +
      fmt::format("<footer>greymxd {}, up {}</footer>", status.version, human_age(status.started, status.now));
  std::string page(page_source);
  const auto fill = [&](std::string_view name, std::string_view value) {
    for (std::size_t at = 0; (at = page.find(name, at)) != page.npos; at += value.size())
      page.replace(at, name.size(), value);
  };
  fill("{{title}}", escape_html(status.hostname));  // the body last: nothing in it is a place to fill in
  fill("{{nonce}}", nonce);
  fill("{{body}}", body);
  return page;
}

}  // namespace greymx::admin

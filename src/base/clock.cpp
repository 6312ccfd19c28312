#include "base/clock.hpp"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <ctime>

namespace greymx {

namespace {

constexpr const char* days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
constexpr const char* months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

// Names of days and months are fixed by RFC 5322, whatever the locale, so strftime is not used.
struct LocalTime {
  std::tm tm{};
  long microseconds = 0;

  explicit LocalTime(WallTime time) {
    const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
    microseconds = static_cast<long>((time - seconds).count());
    const std::time_t unix_time = seconds.time_since_epoch().count();
    localtime_r(&unix_time, &tm);
  }
  std::string zone(const char* separator) const {
    const long minutes = std::labs(tm.tm_gmtoff) / 60;
    return fmt::format("{}{:02}{}{:02}", tm.tm_gmtoff < 0 ? '-' : '+', minutes / 60, separator, minutes % 60);
  }
};

}  // namespace

WallTime SystemClock::now() const {
  return std::chrono::floor<std::chrono::microseconds>(std::chrono::system_clock::now());
}

SteadyTime SystemClock::steady() const {
  return std::chrono::steady_clock::now();
}

std::string rfc5322_date(WallTime time) {
  const LocalTime local(time);
  const std::tm& tm = local.tm;
  return fmt::format("{}, {:02} {} {:04} {:02}:{:02}:{:02} {}", days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon],
                     tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec, local.zone(""));
}

std::string iso8601(WallTime time) {
  const LocalTime local(time);
  const std::tm& tm = local.tm;
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}{}", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
                     tm.tm_hour, tm.tm_min, tm.tm_sec, local.microseconds, local.zone(":"));
}

std::string mailq_time(WallTime time) {
  const LocalTime local(time);
  const std::tm& tm = local.tm;
  return fmt::format("{} {} {:2} {:02}:{:02}:{:02}", days[tm.tm_wday], months[tm.tm_mon], tm.tm_mday, tm.tm_hour,
                     tm.tm_min, tm.tm_sec);
}

std::string human_duration(std::chrono::seconds duration) {
  struct Unit {
    char letter;
    std::int64_t seconds;
  };
  static constexpr std::array<Unit, 4> units = {{{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}}};
  std::int64_t rest = std::max<std::int64_t>(duration.count(), 0);
  std::string text;
  int shown = 0;
  for (const Unit& unit : units) {
    const std::int64_t count = rest / unit.seconds;
    if (shown > 0) ++shown;  // the two largest units say enough
    if (shown > 2 || count == 0) continue;
    text += fmt::format("{}{}", count, unit.letter);
    rest %= unit.seconds;
    shown = std::max(shown, 1);
  }
  return text.empty() ? "0s" : text;
}

}  // namespace greymx

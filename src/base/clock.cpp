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
};

// Every log line and Received header has a date; fmt takes nearly four times as long.
class DateText {
 public:
  DateText() { text_.reserve(32); }
  DateText& text(std::string_view piece) {
    text_ += piece;
    return *this;
  }
  DateText& number(long value, int digits) {
    const std::size_t begin = text_.size();
    text_.resize(begin + static_cast<std::size_t>(digits));
    for (std::size_t i = text_.size(); i-- > begin; value /= 10) text_[i] = static_cast<char>('0' + value % 10);
    return *this;
  }
  DateText& time(const std::tm& tm) {
    return number(tm.tm_hour, 2).text(":").number(tm.tm_min, 2).text(":").number(tm.tm_sec, 2);
  }
  DateText& zone(const std::tm& tm, std::string_view separator) {
    const long minutes = std::labs(tm.tm_gmtoff) / 60;
    return text(tm.tm_gmtoff < 0 ? "-" : "+").number(minutes / 60, 2).text(separator).number(minutes % 60, 2);
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

}  // namespace

WallTime SystemClock::now() const {
  return std::chrono::floor<std::chrono::microseconds>(std::chrono::system_clock::now());
}

SteadyTime SystemClock::steady() const {
  return std::chrono::steady_clock::now();
}

std::string rfc5322_date(WallTime time) {
  const std::tm tm = LocalTime(time).tm;
  DateText date;
  date.text(days[tm.tm_wday]).text(", ").number(tm.tm_mday, 2).text(" ").text(months[tm.tm_mon]).text(" ");
  return date.number(tm.tm_year + 1900, 4).text(" ").time(tm).text(" ").zone(tm, "").take();
}

std::string iso8601(WallTime time) {
  const LocalTime local(time);
  const std::tm& tm = local.tm;
  DateText date;
  date.number(tm.tm_year + 1900, 4).text("-").number(tm.tm_mon + 1, 2).text("-").number(tm.tm_mday, 2).text("T");
  return date.time(tm).text(".").number(local.microseconds, 6).zone(tm, ":").take();
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

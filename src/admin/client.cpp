#include "admin/client.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "admin/views.hpp"

namespace greymx::admin {

Printer::Printer(std::FILE* out, bool progress, std::string directory)
    : out_(out), show_progress_(progress), directory_(std::move(directory)) {}

Printer::~Printer() {
  clear_progress();
  close_file();
}

Task<bool> Printer::send(std::string lines) {
  std::string_view rest = lines;
  bool heard = true;
  while (heard && !rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    heard = line(rest.substr(0, end));
    rest.remove_prefix(std::min(rest.size(), end + 1));
  }
  co_return heard;
}

bool Printer::line(std::string_view line) {
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) return true;
  const auto text = [&](const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  const auto number = [&](const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
  };
  if (json.contains("exit")) {
    ending_ = Ending{static_cast<int>(number("exit")), text("error")};
    clear_progress();
    return true;
  }
  if (json.contains("total")) {
    progress(number("done"), number("total"));
    return true;
  }
  if (json.contains("file")) {
    open_file(text("file"));
    return problem_.empty();
  }
  const std::string bytes = json.contains("data") ? decode_base64(text("data")) : text("text");
  std::FILE* to = file_ != nullptr ? file_ : out_;
  if (to == out_) clear_progress();
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), to) == bytes.size() &&
                       (to != out_ || json.contains("data") || std::fflush(out_) == 0);
  if (!written) note_problem(to == out_ ? "standard output" : path_);
  return written;
}

Ending Printer::finish(Ending ending) {
  close_file();
  if (std::fflush(out_) != 0) note_problem("standard output");
  return ending.exit == 0 && !problem_.empty() ? failed(problem_) : ending;
}

void Printer::open_file(const std::string& name) {
  close_file();
  if (name.find('/') != name.npos || name.starts_with('.')) {
    problem_ = "the daemon named a file outside the directory";
    return;
  }
  messages_ += name.ends_with(".eml") ? 1 : 0;
  path_ = directory_ + "/" + name;
  const int descriptor = open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor >= 0) file_ = fdopen(descriptor, "wb");
  if (file_ == nullptr) note_problem(path_, "; choose another directory");
}

void Printer::close_file() {
  if (file_ != nullptr && std::fclose(std::exchange(file_, nullptr)) != 0) note_problem(path_);
}

void Printer::note_problem(const std::string& what, const char* advice) {
  if (problem_.empty()) problem_ = fmt::format("{}: {}{}", what, std::strerror(errno), advice);
}

void Printer::progress(std::uint64_t done, std::uint64_t total) {
  if (!show_progress_ || total == 0) return;
  constexpr std::size_t width = 40;
  const std::size_t filled = std::min<std::size_t>(width, done * width / total);
  fmt::print(stderr, "\r[{:#<{}}{:.<{}}] {}/{}", "", filled, "", width - filled, done, total);
  progress_shown_ = true;
}

void Printer::clear_progress() {
  if (progress_shown_) std::fputs("\r\x1b[K", stderr);
  progress_shown_ = false;
}

Talk talk(const std::string& socket_path, const Request& request, Printer& printer, const Feed& feed) {
  Talk result;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) return result;
  std::memcpy(address.sun_path, socket_path.c_str(), socket_path.size() + 1);
  const int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience{120, 0};
  setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (connect(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == EACCES || errno == EPERM) result.contact = Contact::refused;
    close(descriptor);
    return result;
  }
  result.contact = Contact::answered;
  result.ending = {75, "greymxd closed the connection or did not answer within two minutes"};
  bool taken = true;
  const auto send_all = [&](std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(descriptor, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      taken = sent > 0;
      if (!taken) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  };
  send_all(to_line(request));
  Result<> fed;
  if (feed) fed = feed(send_all);
  if (!fed && taken) {
    close(descriptor);
    result.ending = failed(fed.error().text);
    return result;
  }
  shutdown(descriptor, SHUT_WR);
  std::string buffer(64 << 10, '\0'), pending;
  bool heard = true;
  while (heard && !printer.ending()) {
    const ssize_t got = recv(descriptor, buffer.data(), buffer.size(), 0);
    if (got <= 0) break;
    pending.append(buffer, 0, static_cast<std::size_t>(got));
    std::size_t begin = 0;
    for (std::size_t end; heard && (end = pending.find('\n', begin)) != pending.npos; begin = end + 1) {
      heard = printer.line(std::string_view(pending).substr(begin, end - begin));
    }
    pending.erase(0, begin);
  }
  close(descriptor);
  if (printer.ending()) result.ending = *printer.ending();
  if (!fed && result.ending.exit == 0) result.ending = failed(fed.error().text);  // else: the daemon said why
  if (!heard && !printer.ending()) result.ending = {};                            // the printer knows what it lost
  return result;
}

}  // namespace greymx::admin

// What a program says on stderr when it aborts, for contracts whose breach ends the process.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>

namespace greymx::test {

// Empty if `fn` came back.
template <class Fn>
std::string last_words(Fn fn) {
  int ends[2] = {};
  if (::pipe(ends) != 0) return {};
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    std::signal(SIGABRT, SIG_DFL);  // not the test framework's
    fn();
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string words;
  char buffer[1000];
  for (ssize_t n = 1; n > 0;) {
    n = ::read(ends[0], buffer, sizeof buffer);
    if (n > 0) words.append(buffer, static_cast<std::size_t>(n));
  }
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT ? words : std::string();
}

}  // namespace greymx::test

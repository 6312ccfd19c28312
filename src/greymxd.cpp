// greymxd: reads the configuration, then builds and runs the daemon.
#include <ares.h>
#include <db.h>
#include <fmt/format.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/version.hpp>
#include <csignal>
#include <cstdio>

#include "access/tables.hpp"
#include "config/load.hpp"
#include "daemon/daemon.hpp"
#include "greylist/whitelist.hpp"
#include "smtp/tls_server.hpp"

namespace {

using namespace greymx;

void print_version(bool verbose) {
  fmt::print("greymxd {}\n", GREYMX_VERSION);
  if (!verbose) return;
  fmt::print("{}\nc-ares {}\n{}\nBoost {}.{}.{}\nfmt {}\ncompiler {}\n", OpenSSL_version(OPENSSL_VERSION),
             ares_version(nullptr), db_version(nullptr, nullptr, nullptr), BOOST_VERSION / 100000,
             BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100, FMT_VERSION, __VERSION__);
}

bool complain(const std::string& text) {
  fmt::print(stderr, "{}\n", text);
  return false;
}

// Lines that make no sense are only warned of: the daemon leaves them out.
bool check_whitelist(greylist::Whitelist::Of of, const std::vector<std::string>& files, bool may_be_absent) {
  std::vector<std::string> problems;
  const auto list = greylist::load_whitelist(of, files, may_be_absent, problems);
  for (const std::string& problem : problems) complain(problem);
  return list || complain(list.error().text);
}

// -t: the files that the configuration names, read as the user that will run.
bool check_files(const config::Config& config, const std::optional<daemon::Identity>& identity) {
  if (identity) {
    if (auto dropped = daemon::drop_privileges(*identity); !dropped) return complain(dropped.error().text);
  }
  bool ok = true;
  for (const config::Diagnostic& error : access::Tables::load(config).errors) ok = complain(error.to_string());
  if (auto tls = smtp::TlsServer::check(config.tls); !tls)
    ok = complain(fmt::format("{}: {}", config.file, tls.error().text));
  const config::Greylist& lists = config.greylist;
  using Of = greylist::Whitelist::Of;
  ok = check_whitelist(Of::clients, lists.whitelist_clients, lists.whitelists_are_default) && ok;
  return check_whitelist(Of::addresses, lists.whitelist_recipients, lists.whitelists_are_default) && ok;
}

int run(const std::string& file, bool test) {
  const config::Loaded loaded = config::load(file);
  for (const auto& list : {loaded.errors, loaded.warnings}) {
    for (const config::Diagnostic& diagnostic : list) complain(diagnostic.to_string());
  }
  if (!loaded.config) return 1;
  const config::Config& config = *loaded.config;
  const auto identity = daemon::find_identity(config);
  if (!identity) return complain(fmt::format("{}: {}", config.file, identity.error().text)), 1;
  if (test) {
    if (!check_files(config, *identity)) return 1;
    fmt::print("{}: ok\n", file);
    return 0;
  }
  std::signal(SIGPIPE, SIG_IGN);
  umask(0027);
  if (auto made = daemon::prepare_directories(config, *identity); !made) return complain(made.error().text), 1;
  auto log = open_log(daemon::log_settings(config));
  if (!log) return complain(log.error().text), 1;
  // made as root, but to be reopened (logrotate) as the user
  const bool to_file = config.log.target.find('/') != std::string::npos;
  if (*identity && to_file && chown(config.log.target.c_str(), (*identity)->uid, (*identity)->gid) != 0) {
    return complain(fmt::format("cannot give {} to user {}", config.log.target, config.user)), 1;
  }
  auto running = daemon::Daemon::start(loaded.config, *identity, **log);
  if (!running) {
    (*log)->error("master", running.error().text);
    (*log)->flush();
    if (config.log.target != "stderr") complain(running.error().text);
    return 1;
  }
  (*running)->run();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "greymxd - a secondary MX\n\nRuns in the foreground. SIGHUP reloads the configuration, SIGUSR1 flushes the "
      "queue, SIGTERM finishes what is in flight.\nExample: greymxd -t -c /etc/greymx/relay.conf");
  std::string file = "/etc/greymx/relay.conf";
  bool test = false;
  bool version = false;
  bool verbose = false;
  app.add_option("-c,--config", file, "configuration file")->capture_default_str();
  app.add_flag("-t,--test", test, "check the configuration and the files it names, then exit");
  app.add_flag("--version", version, "print the version");
  app.add_flag("--verbose", verbose, "with --version: the libraries too");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (version) {
    print_version(verbose);
    return 0;
  }
  return run(file, test);
}

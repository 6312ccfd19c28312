// greymxd: reads the configuration, then builds and runs the daemon.
#include <ares.h>
#include <db.h>
#include <fmt/format.h>
#include <idn2.h>
#include <libpsl.h>
#include <openssl/crypto.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <boost/version.hpp>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

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
  fmt::print("{}\nc-ares {}\n{}\nlibpsl {}\nlibidn2 {}\n", OpenSSL_version(OPENSSL_VERSION), ares_version(nullptr),
             db_version(nullptr, nullptr, nullptr), psl_get_version(), idn2_check_version(nullptr));
  fmt::print("{}\nnlohmann-json {}.{}.{}\nCLI11 {}\nBoost {}.{}.{}\nfmt {}\ncompiler {}\n", GREYMX_BUILT_WITH,
             NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH, CLI11_VERSION,
             BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100, FMT_VERSION, __VERSION__);
}

bool complain(const std::string& text) {
  fmt::print(stderr, "{}\n", text);
  return false;
}

// Lines that make no sense are only warned of: the daemon leaves them out.
bool check_whitelist(greylist::Whitelist::Of of, const config::Loaded& loaded) {
  const config::Greylist& lists = loaded.config->greylist;
  const bool clients = of == greylist::Whitelist::Of::clients;
  std::vector<std::string> problems;
  const auto list = greylist::load_whitelist(of, clients ? lists.whitelist_clients : lists.whitelist_recipients,
                                             lists.whitelists_are_default, problems);
  for (const std::string& problem : problems) complain(problem);
  if (list) return true;
  const char* key = clients ? "greylist.whitelist_clients" : "greylist.whitelist_recipients";
  return complain(loaded.about(fmt::format("{}: {}", key, list.error().text)).to_string());
}

// -t: the files that the configuration names, read as the user that will run (as whoever we are if there is none).
bool check_files(const config::Loaded& loaded, const std::optional<Account>& identity) {
  bool ok = true;
  const auto directories = daemon::check_directories(*loaded.config, identity);
  if (!directories) ok = complain(loaded.about(directories.error().text).to_string());
  const auto log = daemon::check_log_as(loaded.config->log, identity);
  if (!log) ok = complain(loaded.about(log.error().text).to_string());
  if (identity) {
    if (auto dropped = daemon::drop_privileges(*identity); !dropped) return complain(dropped.error().text);
  }
  const access::Tables::Loaded tables = access::Tables::load(*loaded.config);
  for (const config::Diagnostic& error : tables.errors) {
    const bool unreadable = error.line == 0;
    ok = complain((unreadable ? loaded.about(error.text) : error).to_string());
  }
  for (const config::Diagnostic& warning : tables.warnings) complain(warning.to_string());
  if (tables.tables) {  // these are warnings
    for (const std::string& text : tables.tables->held_back()) complain(loaded.about(text).to_string());
  }
  if (auto tls = smtp::TlsServer::check(loaded.config->tls); !tls) {
    ok = complain(loaded.about(tls.error().text).to_string());
  } else if (!tls->empty()) {
    complain(loaded.about(*tls).to_string());
  }
  ok = check_whitelist(greylist::Whitelist::Of::clients, loaded) && ok;
  return check_whitelist(greylist::Whitelist::Of::addresses, loaded) && ok;
}

// What threads inherit, so before the first. No limit of files that the system has set is exceeded.
void prepare_process() {
  std::signal(SIGPIPE, SIG_IGN);
  daemon::hold_signals();
  umask(0027);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

int run(const std::string& file, bool test) {
  const config::Loaded loaded = config::load(file);
  for (const auto& list : {loaded.errors, loaded.warnings}) {
    for (const config::Diagnostic& diagnostic : list) complain(diagnostic.to_string());
  }
  if (!loaded.config) return 1;
  const config::Config& config = *loaded.config;
  const auto identity = daemon::find_identity(config);
  if (!identity) complain(loaded.about(identity.error().text).to_string());
  if (test) {
    const bool ok = check_files(loaded, identity.value_or(std::nullopt));
    if (!ok || !identity) return 1;
    fmt::print("{}: ok\n", file);
    return 0;
  }
  if (!identity) return 1;
  prepare_process();
  if (auto made = daemon::prepare_directories(config, *identity); !made) return complain(made.error().text), 1;
  auto log = daemon::open_log_as(config.log, *identity);
  if (!log) return complain(log.error().text), 1;
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

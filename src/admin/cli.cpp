#include "admin/cli.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>

#include "admin/check.hpp"
#include "admin/client.hpp"
#include "admin/greylist_commands.hpp"
#include "base/mailbox.hpp"
#include "config/load.hpp"
#include "config/values.hpp"
#include "queue/reader.hpp"

namespace greymx::admin {

namespace {

enum Takes : unsigned { nothing = 0, json = 1, targets = 2, filters = 4 };

// `words`: further arguments, "SUBJECT" by position, "--for=TIME" by name, "--to=B!" by name and required.
struct Command {
  const char* name;
  const char* help;
  const char* examples;
  unsigned takes = nothing;
  const char* words = "";
};

constexpr Command commands[] = {
    {"mailq", "List the queue, oldest first; after the ID ! marks held mail, * mail in delivery",
     "greymx mailq\ngreymx mailq --domain example.com --older 1d\ngreymx mailq --json | jq -r .queue_id",
     json | targets | filters},
    {"cat", "Print a message as it will be sent", "greymx cat 4jZkTr4dnDz1\ngreymx cat --envelope 4jZkTr4dnDz1",
     targets},
    {"flush", "Try now: everything, one domain, or messages",
     "greymx flush\ngreymx flush example.com\ngreymx flush 4jZkTr4dnDz1", targets},
    {"hold", "Keep messages until they are released", "greymx hold 4jZkTr4dnDz1\ngreymx hold --from @example.org",
     targets | filters},
    {"release", "Let held messages go on; one whose bounce was refused is itself tried again",
     "greymx release 4jZkTr4dnDz1\ngreymx release --domain example.com", targets | filters},
    {"delete", "Delete messages for good; nobody is told",
     "greymx delete 4jZkTr4dnDz1\ngreymx delete --from '<>' --older 3d", targets | filters},
    {"requeue", "Let messages go on and try them now, held or not", "greymx requeue ALL", targets | filters},
    {"bounce", "Return messages to their senders", "greymx bounce 4jZkTr4dnDz1\ngreymx bounce --to gone@example.com",
     targets | filters},
    {"export", "Write messages to a directory: content in ID.eml, envelope in ID.json (ID... or ALL, then DIR)",
     "greymx export ALL /root/rescued", targets | filters},
    {"shape", "Count waiting recipients by domain and age in minutes, as qshape does", "greymx shape", json | filters},
    {"domains", "Show each primary: up or down, since when, last error, what waits",
     "greymx domains\ngreymx domains --json | jq 'select(.state != \"up\")'", json},
    {"greylist list", "List what is greylisted now, and since when", "greymx greylist list", json},
    {"greylist stats", "Count records and those who never came back", "greymx greylist stats", json},
    {"greylist report", "Show who never came back, how long retries take, and what to whitelist",
     "greymx greylist report", json},
    {"greylist pass", "Let a client, network, domain or sender through without waiting",
     "greymx greylist pass example.org --for 30d --comment \"new partner\"\ngreymx greylist pass 192.0.2.0/24", nothing,
     "SUBJECT --for=TIME --comment=TEXT"},
    {"greylist forget", "Forget what is known of a client, network, domain or address",
     "greymx greylist forget example.org", nothing, "SUBJECT"},
    {"greylist expect", "Let everything to one recipient through for a while, for a login code say",
     "greymx greylist expect bob@example.com 15m", nothing, "RCPT TIME"},
    {"greylist import", "Take over a postgrey database, or a file that export wrote",
     "greymx greylist import /var/lib/postgrey --delay 5m", nothing, "DIR --delay=TIME"},
    {"greylist export", "Print all records, one JSON object a line", "greymx greylist export > greylist.json"},
    {"dnsbl", "Ask all block lists about an address", "greymx dnsbl 192.0.2.1", json, "ADDRESS"},
    {"explain", "Run the whole decision on one recipient as a dry run: every check with its result",
     "greymx explain --client 192.0.2.1 --helo mail.example.org --from a@example.org --to b@example.com", json,
     "--client=IP! --name=HOST --helo=H! --from=A! --to=B!"},
    {"check", "Is this machine ready to be an MX? A line for each check, with what to do", "greymx check", json},
    {"status", "Show how everything is", "greymx status\ngreymx status --json | jq .queue", json},
    {"spool verify", "Check every record of the spool's files", "greymx spool verify"},
    {"spool dump", "Print every message, change and end of the log, one JSON object a line",
     "greymx spool dump | jq ."},
    {"reload", "Read relay.conf and all files it names again", "greymxd -t -c /etc/greymx/relay.conf && greymx reload"},
};

// Asked once, at the end: any of the lines before may have been lost.
bool output_written() {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return true;
  fmt::print(stderr, "greymx: standard output: {}\n", errno != 0 ? std::strerror(errno) : "could not be written");
  return false;
}

class Tool {
 public:
  explicit Tool(const std::string& version) : app_("The admin tool of greymx, a secondary MX.", "greymx") {
    app_.set_version_flag("--version", "greymx " + version);
    app_.add_option("-c,--config", file_, "Configuration of the daemon")->type_name("FILE")->capture_default_str();
    app_.require_subcommand(1);
    app_.fallthrough();
    app_.footer(
        "greymx COMMAND --help shows examples. Exit status: 0 done, 1 failed or not found, 2 wrong usage,\n"
        "75 the daemon did not answer. Commands that only read the queue need no daemon. See greymx(1).");
    for (const Command& command : commands) add(command);
  }

  int run(std::vector<std::string> words) {
    std::ranges::reverse(words);  // CLI11 takes them from the back
    try {
      app_.parse(std::move(words));
    } catch (const CLI::ParseError& error) {
      if (error.get_exit_code() == 0) return app_.exit(error);
      const std::vector<std::string> unknown = app_.remaining(true);
      if (unknown.empty() || unknown.front() != "help") return complain({2, explain(error, unknown)});
      fmt::print("{}", app_.help());  // of the command before or after it
      return 0;
    }
    const Ending usage = complete_request();
    if (usage.exit != 0) return complain(usage);
    const config::Loaded loaded = config::load(file_);
    config_ = loaded.config;
    control_ = loaded.control;
    const bool asks = !needs_file(request_.command) && !control_.empty();
    const bool answers = asks && request_.command == "reload";  // with all that is wrong
    errors_ = loaded.errors;
    if (!answers) print_errors();
    return complain(config_ || asks ? execute() : failed(no_configuration));
  }

 private:
  static constexpr const char* no_configuration =
      "no usable configuration (a running greymxd keeps its own); name another with -c FILE";

  // Others only ask the daemon, which keeps its own configuration.
  static bool needs_file(std::string_view command) {
    return command == "check" || command == "greylist import" || command.starts_with("spool ");
  }

  std::string explain(const CLI::ParseError& error, const std::vector<std::string>& unknown) const {
    const CLI::App* at = &app_;
    std::string path;
    while (!at->get_subcommands().empty()) {
      at = at->get_subcommands().front();
      path += at->get_name() + " ";
    }
    std::vector<std::string> known;
    for (const CLI::App* sub : at->get_subcommands([](const CLI::App*) { return true; }))
      known.push_back(sub->get_name());
    if (known.empty() || unknown.empty()) return fmt::format("{}; see greymx {}--help", error.what(), path);
    const std::string meant = config::nearest(unknown.front(), known);
    return fmt::format("unknown {} \"{}\"; {} greymx {}--help", unknown.front().starts_with('-') ? "option" : "command",
                       printable(path + unknown.front(), 100),
                       meant.empty() ? "see" : fmt::format("did you mean \"{}{}\"? See", path, meant), path);
  }

  void print_errors() const {
    for (const auto& wrong : errors_) fmt::print(stderr, "{}\n", wrong.to_string());
  }

  static int complain(const Ending& ending) {
    if (!ending.error.empty()) fmt::print(stderr, "greymx: {}\n", ending.error);
    return ending.exit;
  }

  void add(const Command& command) {
    CLI::App* parent = &app_;
    std::string name = command.name;
    if (const auto space = name.find(' '); space != name.npos) {
      const std::string group = name.substr(0, space);
      if (!groups_.contains(group)) {
        const char* help = group == "spool" ? "Check or show the spool's files" : "Look at and steer the greylist";
        groups_[group] = app_.add_subcommand(group, help)->require_subcommand(1);
      }
      parent = groups_[group];
      name.erase(0, space + 1);
    }
    CLI::App* sub = parent->add_subcommand(name, command.help);
    std::string examples = "Examples:\n";
    for (const std::string& line : CLI::detail::split(command.examples, '\n')) examples += "  " + line + "\n";
    sub->footer(examples);
    sub->callback([this, &command] { request_.command = command.name; });
    if (command.takes & json) sub->add_flag("--json", request_.json, "One JSON object a line");
    if (command.takes & targets) sub->add_option("what", targets_, "Queue IDs, or ALL")->type_name("");
    if (command.takes & filters) {
      add_filter(sub, "--from", "ADDRESS", "Only from this sender, @domain, or <>", request_.select.from);
      add_filter(sub, "--to", "ADDRESS", "Only to this recipient or @domain", request_.select.to);
      add_filter(sub, "--domain", "DOMAIN", "Only to this domain and its subdomains", request_.select.domain);
      add_filter(sub, "--older", "TIME", "Only what arrived longer ago than this, such as 2h or 3d", older_);
    }
    if (std::string_view(command.name) == "cat") sub->add_flag("--envelope", envelope_, "The envelope as JSON instead");
    for (std::string word : CLI::detail::split(command.words, ' ')) {
      if (word.empty()) continue;
      const bool named = word.starts_with("--"), required = !named || word.ends_with('!');
      if (word.ends_with('!')) word.pop_back();
      const std::string type = named ? word.substr(word.find('=') + 1) : word;
      const std::string key = CLI::detail::to_lower(named ? word.substr(2, word.find('=') - 2) : word);
      sub->add_option_function<std::string>(
             named ? "--" + key : key, [this, key](const std::string& value) { request_.args[key] = value; }, "")
          ->type_name(type)
          ->required(required);
    }
  }

  // CLI11 would take an empty text, of a script's unset variable say, for "not given".
  static void add_filter(CLI::App* sub, const char* name, const char* type, const char* help,
                         std::optional<std::string>& into) {
    sub->add_option_function<std::string>(
           name, [&into](const std::string& value) { into = value; }, help)
        ->type_name(type);
  }

  Ending complete_selection() {
    Selection& select = request_.select;
    if (select.from == "") return {2, "--from is empty: give an address, @domain, or <> for the null sender"};
    if (select.to == "") return {2, "--to is empty: give an address or @domain"};
    if (select.domain == "") return {2, "--domain is empty: give a domain"};
    if (older_) select.older = config::parse_duration(*older_);
    if (older_ && !select.older) return {2, "--older \"" + *older_ + "\": not a time such as 90m, 12h or 3d"};
    return {};
  }

  // What CLI11 cannot check.
  Ending complete_request() {
    request_.color = isatty(STDOUT_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr;
    if (envelope_) request_.args["envelope"] = "yes";
    if (Ending wrong = complete_selection(); wrong.exit != 0) return wrong;
    if (request_.command == "export") {
      if (targets_.empty() || targets_.back().empty()) return {2, "export needs a directory"};
      directory_ = targets_.back();
      targets_.pop_back();
    }
    for (const std::string& word : targets_) {
      const auto id = parse_shown_id(word);
      if (word == "ALL") {
        request_.select.all = true;
      } else if (id) {
        request_.select.ids.push_back(*id);
      } else if (request_.command == "flush" && request_.args.empty() && !word.empty()) {
        request_.args["domain"] = word;
      } else if (word.size() >= 6 && std::ranges::all_of(word, [](unsigned char c) { return std::isalnum(c) != 0; })) {
        return failed(word + ": not in the queue");  // another server's ID, or a typing mistake
      } else {
        return {2, word + " is neither a queue ID nor ALL"};
      }
    }
    if (!directory_.empty() && request_.select.empty()) return {2, "export which messages? ALL or queue IDs, then DIR"};
    if (directory_ == "ALL" || parse_shown_id(directory_))
      return {2, "export needs a directory after the queue IDs; one with the name of an ID is ./" + directory_};
    return {};
  }

  Ending execute() {
    const std::string& command = request_.command;
    if (command == "check") return check();
    if (!directory_.empty() && mkdir(directory_.c_str(), 0700) != 0 && errno != EEXIST) {
      return failed(directory_ + ": " + std::strerror(errno));
    }
    Printer printer(stdout, isatty(STDERR_FILENO) != 0, directory_);
    const auto files = system_files();
    if (command == "spool verify") return verify(*files);
    if (command == "spool dump") return dump_log(*files);
    Feed feed;
    if (command == "greylist import") {
      const auto delay = config::parse_duration(request_.arg("delay").empty() ? "5m" : request_.arg("delay"));
      if (!delay) return {2, "--delay " + request_.arg("delay") + ": not a time such as 5m"};
      feed = [this, delay](const auto& send) { return import(*delay, send); };
    }
    Talk talk = admin::talk(control_, request_, printer, feed);
    if (command == "reload" && talk.contact != Contact::answered) print_errors();
    if (talk.contact == Contact::refused) {
      return failed("no right to talk to greymxd at " + control_ + ": be root or in " +
                    (config_ ? "group " + config_->group : "its group"));
    }
    if (talk.contact == Contact::absent) {
      if (is_reading(command) && !config_) {
        talk.ending = failed(no_configuration);
      } else if (is_reading(command)) {
        talk.ending = read_offline(*files, printer);
      } else {
        return {75, fmt::format("greymxd does not answer at {}: start it (systemctl start greymx), or name the "
                                "configuration it runs with: -c FILE; if it runs and listen.control has changed since, "
                                "restart it",
                                control_)};
      }
    }
    talk.ending = printer.finish(std::move(talk.ending));
    if (talk.ending.exit == 0 && command == "export") {
      fmt::print("{} message{} written to {}\n", printer.messages(), printer.messages() == 1 ? "" : "s", directory_);
    }
    return talk.ending;
  }

  Result<> import(std::chrono::seconds delay, const std::function<bool(std::string_view)>& send) {
    const auto read = read_import(request_.arg("dir"), config_->greylist, delay, SystemClock().now(), send);
    if (!read) return std::unexpected(read.error());
    fmt::print("{}", *read);
    return {};
  }

  Ending read_offline(Files& files, Printer& printer) {
    const auto reader = queue::SpoolReader::open(config_->queue_path, files);
    if (!reader) return failed(reader.error().text);
    asio::io_context io;
    asio::thread_pool pool(1);
    Gate gate(io.get_executor());
    Ending ending;
    gate.spawn("read", read(source_of(**reader, config_), pool, printer, ending));
    io.run();
    return ending;
  }

  Task<> read(QueueSource source, asio::thread_pool& pool, Printer& printer, Ending& ending) {
    const WallTime now = SystemClock().now();
    ending = co_await read_queue(request_, std::move(source), now, pool, printer);
  }

  Ending verify(Files& files) {
    const auto report = queue::verify_spool(config_->queue_path, files);
    if (!report) return failed(report.error().text);
    const Style style{request_.color};
    for (const std::string& text : report->failures) fmt::print("{} {}\n", style.red("fail"), text);
    for (const std::string& text : report->warnings) fmt::print("{} {}\n", style.yellow("warn"), text);
    fmt::print("{} segments, {} messages: {} failures, {} warnings\n", report->segments, report->messages,
               report->failures.size(), report->warnings.size());
    return {report->failures.empty() ? 0 : 1, ""};
  }

  Ending dump_log(Files& files) {
    const auto print = [](const std::string& line) { return std::puts(line.c_str()) >= 0; };
    const auto done = queue::dump_spool(config_->queue_path, files, print);
    return done ? Ending{} : failed(done.error().text);
  }

  Ending check() {
    const Style style{request_.color};
    std::size_t failures = 0;
    check_machine(config_, [&](const CheckLine& line) {
      const std::string_view word = to_string(line.result);
      failures += line.result == CheckResult::fail ? 1 : 0;
      if (request_.json) {
        fmt::print("{}\n",
                   dump(Json{{"check", line.name}, {"result", word}, {"text", line.text}, {"remedy", line.remedy}}));
      } else {
        fmt::print("{} {}: {}{}\n", style.verdict(word, fmt::format("{:<4}", word)), line.name, line.text,
                   line.remedy.empty() ? "" : "; " + line.remedy);
      }
      std::fflush(stdout);
    });
    return {failures == 0 ? 0 : 1, ""};
  }

  CLI::App app_;
  std::map<std::string, CLI::App*> groups_;
  std::string file_ = "/etc/greymx/relay.conf";
  std::optional<std::string> older_;
  std::string directory_;
  bool envelope_ = false;
  std::vector<std::string> targets_;
  Request request_;
  config::ConfigPtr config_;  // null: the file has errors
  std::vector<config::Diagnostic> errors_;
  std::string control_;
};

}  // namespace

int run_tool(int argc, char** argv, const std::string& version) {
  std::vector<std::string> words(argv + 1, argv + argc);
  const std::string_view called = argv[0];
  if (called.substr(called.rfind('/') + 1) == "mailq") words.insert(words.begin(), "mailq");
  const int exit = Tool(version).run(std::move(words));
  return exit != 0 || output_written() ? exit : 1;
}

}  // namespace greymx::admin

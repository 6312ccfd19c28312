// The tool's end of the admin socket, and what it does with the reply lines.
#pragma once

#include <cstdio>
#include <string>

#include "admin/commands.hpp"

namespace greymx::admin {

// Prints reply lines: text to `out`, files into `directory`, progress to the terminal if there is one.
class Printer final : public Sink {
 public:
  // `directory` for "export"; created files are 0600 and never overwrite.
  Printer(std::FILE* out, bool progress, std::string directory = {});
  ~Printer() override;
  Printer(const Printer&) = delete;
  Printer& operator=(const Printer&) = delete;

  Task<bool> send(std::string lines) override;  // never waits
  // One line; false: it could not be written, the rest is of no interest.
  bool line(std::string_view line);
  // Closes the last file. Success ends as failure if something, file or standard output, could not be written.
  Ending finish(Ending ending);
  const std::optional<Ending>& ending() const { return ending_; }
  std::uint64_t messages() const { return messages_; }  // written to files

 private:
  void open_file(const std::string& name);
  void close_file();
  void note_problem(const std::string& what, const char* advice = "");  // with errno's text; the first one is kept
  void progress(std::uint64_t done, std::uint64_t total);
  void clear_progress();

  std::FILE* out_;
  bool show_progress_;
  bool progress_shown_ = false;
  std::string directory_;
  std::FILE* file_ = nullptr;
  std::string path_;  // of `file_`
  std::string problem_;
  std::uint64_t messages_ = 0;
  std::optional<Ending> ending_;
};

enum class Contact : std::uint8_t { answered, absent, refused };
struct Talk {
  Contact contact = Contact::absent;  // absent: nobody listens; refused: no right to
  Ending ending;
};
// Sends more after the request, with the function given, which says false once the daemon takes no more.
using Feed = std::function<Result<>(const std::function<bool(std::string_view)>& send)>;
// Sends the request and prints the answer; what the printer could not write is for its finish() to tell. Blocks; a
// daemon that says nothing for two minutes is given up.
Talk talk(const std::string& socket_path, const Request& request, Printer& printer, const Feed& feed = {});

}  // namespace greymx::admin

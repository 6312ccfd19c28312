// `greymx greylist …` on a running daemon, and the tool's half of an import.
#pragma once

#include "admin/commands.hpp"
#include "greylist/postgrey_import.hpp"

namespace greymx::admin {

// `who` asks, for the log of what is changed.
Task<Ending> run_greylist(Request request, Services& services, Source& source, Sink& sink, std::string who);

// One line of greylist/operate.hpp for people. Pure.
std::string greylist_text(const Json& line, WallTime now);

// Reads a postgrey database (a directory) or what export wrote (a file), in the tool, since the daemon may have no
// right to; hands over complete lines as export writes them, and fails if `send` says false. What was read and left
// out, for people: the beginning of a line that the daemon ends with what it imported.
Result<std::string> read_import(const std::string& path, const config::Greylist& config, std::chrono::seconds delay,
                                WallTime now, const std::function<bool(std::string_view lines)>& send);

}  // namespace greymx::admin

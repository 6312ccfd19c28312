// The command line of `greymx`: parses, asks the daemon or reads the spool itself, prints.
#pragma once

#include <string>

namespace greymx::admin {

// Exit status: 0 done, 1 the thing asked for failed or was not found, 2 wrong usage, 75 the daemon did not answer.
int run_tool(int argc, char** argv, const std::string& version);

}  // namespace greymx::admin

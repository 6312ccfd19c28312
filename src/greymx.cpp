// greymx, the admin tool; also called as mailq. See greymx(1).
#include "admin/cli.hpp"

int main(int argc, char** argv) {
  return greymx::admin::run_tool(argc, argv, GREYMX_VERSION);
}

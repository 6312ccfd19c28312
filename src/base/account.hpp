// The rights of another Unix account, for a process that runs as root.
#pragma once

#include <sys/types.h>

#include <functional>
#include <vector>

#include "base/result.hpp"

namespace greymx {

struct Account {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups{};  // further ones
};

// `work` with the account's effective rights, then with ours again, but without our further groups. They are the whole
// process's: not while other threads use theirs. An error of `work`, or that we may not act so, and `work` was not
// done.
Result<> act_as(const Account& account, const std::function<Result<>()>& work);

}  // namespace greymx

#include "base/account.hpp"

#include <grp.h>
#include <unistd.h>

#include <cerrno>

namespace greymx {

Result<> act_as(const Account& account, const std::function<Result<>()>& work) {
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  Result<> result;
  if (setgroups(account.groups.size(), account.groups.data()) == 0 && setegid(account.gid) == 0 &&
      seteuid(account.uid) == 0) {
    result = work();
  } else {
    result = fail_errno(errno, "cannot act as the user that greymxd runs as");
  }
  if (seteuid(uid) != 0 || setegid(gid) != 0) return fail_errno(errno, "cannot act as root again");
  return result;
}

}  // namespace greymx

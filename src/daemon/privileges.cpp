#include "daemon/privileges.hpp"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

namespace greymx::daemon {

Result<std::optional<Identity>> find_identity(const config::Config& config) {
  if (geteuid() != 0) return std::nullopt;
  const passwd* user = getpwnam(config.user.c_str());
  if (user == nullptr) {
    return fail(ErrorKind::invalid,
                fmt::format("user \"{0}\" does not exist: make it (adduser --system --group --home {1} {0}) or set "
                            "user = \"…\"",
                            config.user, config.queue_path));
  }
  Identity identity{.uid = user->pw_uid, .gid = user->pw_gid};
  const group* group = getgrnam(config.group.c_str());
  if (group == nullptr) {
    return fail(ErrorKind::invalid,
                fmt::format("group \"{0}\" does not exist: make it (addgroup --system {0}) or set group = \"…\"",
                            config.group));
  }
  identity.gid = group->gr_gid;
  return identity;
}

namespace {

Result<> prepare(const std::string& path, const std::optional<Identity>& identity) {
  std::error_code code;
  const bool made = std::filesystem::create_directories(path, code);
  if (code) return fail_errno(code.value(), fmt::format("cannot make the directory {}", path));
  if (made && chmod(path.c_str(), 0750) != 0) return fail_errno(errno, path);
  if (!identity || (!made && !std::filesystem::is_empty(path, code))) return {};
  if (chown(path.c_str(), identity->uid, identity->gid) != 0) return fail_errno(errno, path);
  return {};
}

}  // namespace

Result<> prepare_directories(const config::Config& config, const std::optional<Identity>& identity) {
  for (const std::string& path : {config.queue_path, config.state_path}) {
    if (auto made = prepare(path, identity); !made) return made;
  }
  if (config.listen.control.empty()) return {};
  const std::string home = std::filesystem::path(config.listen.control).parent_path();
  // an existing directory (/run, a test's own) keeps its owner
  return std::filesystem::exists(home) ? Result<>{} : prepare(home, identity);
}

Result<> drop_privileges(const Identity& identity) {
  if (setgroups(0, nullptr) != 0) return fail_errno(errno, "setgroups");
  if (setresgid(identity.gid, identity.gid, identity.gid) != 0) return fail_errno(errno, "setresgid");
  if (setresuid(identity.uid, identity.uid, identity.uid) != 0) return fail_errno(errno, "setresuid");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno(errno, "PR_SET_NO_NEW_PRIVS");
  if (identity.uid != 0 && (setuid(0) == 0 || seteuid(0) == 0 || setgid(0) == 0)) {
    return fail(ErrorKind::permanent, "root could be had back after it was given up: refusing to run");
  }
  return {};
}

}  // namespace greymx::daemon

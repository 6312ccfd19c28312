#include "daemon/privileges.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
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

Result<> give(int descriptor, const Identity& identity, const std::string& path) {
  struct stat found{};
  const bool has = fstat(descriptor, &found) == 0 && found.st_uid == identity.uid && found.st_gid == identity.gid;
  const int given = has ? 0 : fchown(descriptor, identity.uid, identity.gid);  // a container's root may lack CAP_CHOWN
  const int error = errno;
  close(descriptor);
  return given == 0 ? Result<>{} : fail_errno(error, path);
}

// Its parents are for everybody to pass through, the directory itself is not.
Result<> prepare(const std::string& path, const std::optional<Identity>& identity) {
  const auto problem = [&](int error) { return fail_errno(error, fmt::format("cannot make the directory {}", path)); };
  std::error_code code;
  const mode_t usual = umask(0022);
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), code);
  umask(usual);
  if (code) return problem(code.value());
  const bool made = mkdir(path.c_str(), 0750) == 0;
  if (!made && errno != EEXIST) return problem(errno);
  if (!made && !std::filesystem::is_directory(path, code)) return problem(ENOTDIR);
  if (!identity || (!made && (std::filesystem::is_symlink(path, code) || !std::filesystem::is_empty(path, code)))) {
    return {};
  }
  const int directory = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  return directory < 0 ? problem(errno) : give(directory, *identity, path);
}

// Or of the first directory above it that is there.
bool is_read_only(std::filesystem::path path) {
  struct statvfs file_system{};
  while (statvfs(path.c_str(), &file_system) != 0) {
    if (errno != ENOENT || !path.has_relative_path()) return false;
    path = path.parent_path();
  }
  return (file_system.f_flag & ST_RDONLY) != 0;
}

// What is there already, and is more than a file of its own, is left to the identity's rights.
Result<> prepare_log_file(const std::string& path, const Identity& identity) {
  constexpr int flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  const int file = open(path.c_str(), flags, 0640);
  if (file < 0) return {};
  struct stat status{};
  const bool plain = fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_nlink == 1;
  if (plain) return give(file, identity, path);
  close(file);
  return {};
}

}  // namespace

Result<> check_directories(const config::Config& config) {
  const std::pair<const char*, const std::string&> all[] = {{"paths.queue", config.queue_path},
                                                            {"paths.state", config.state_path}};
  for (const auto& [key, path] : all) {
    if (!is_read_only(path)) continue;
    return fail(ErrorKind::invalid, fmt::format("{0}: {1} is on a read-only file system; if systemd makes it so "
                                                "(ProtectSystem=), its unit needs ReadWritePaths={1}",
                                                key, path));
  }
  return {};
}

Result<> prepare_directories(const config::Config& config, const std::optional<Identity>& identity) {
  if (auto writable = check_directories(config); !writable) return writable;
  for (const std::string& path : {config.queue_path, config.state_path}) {
    const bool ends_in_slash = path.ends_with('/');
    if (auto made = prepare(path.substr(0, path.size() - ends_in_slash), identity); !made) return made;
  }
  if (config.listen.control.empty()) return {};
  const std::string home = std::filesystem::path(config.listen.control).parent_path();
  // an existing directory (/run, a test's own) keeps its owner
  std::error_code code;
  return std::filesystem::exists(home, code) ? Result<>{} : prepare(home, identity);
}

Result<std::unique_ptr<TargetLog>> open_log_as(const LogSettings& settings, const std::optional<Identity>& identity) {
  // What is below /dev, such as a container's /dev/stdout, only root has put there.
  const bool own_file = settings.target.find('/') != std::string::npos && !settings.target.starts_with("/dev/");
  if (!identity || !own_file) return open_log(settings);
  if (auto prepared = prepare_log_file(settings.target, *identity); !prepared) return std::unexpected(prepared.error());
  const bool lowered = setgroups(0, nullptr) == 0 && setegid(identity->gid) == 0 && seteuid(identity->uid) == 0;
  if (!lowered) return fail_errno(errno, "cannot act as the user that greymxd runs as");
  auto log = open_log(settings);
  if (seteuid(0) != 0 || setegid(0) != 0) return fail_errno(errno, "cannot act as root again");
  return log;
}

Result<> drop_privileges(const Identity& identity) {
  if (setgroups(0, nullptr) != 0) return fail_errno(errno, "setgroups");
  if (setresgid(identity.gid, identity.gid, identity.gid) != 0) return fail_errno(errno, "setresgid");
  if (setresuid(identity.uid, identity.uid, identity.uid) != 0) return fail_errno(errno, "setresuid");
  if (identity.uid != 0 && (setuid(0) == 0 || seteuid(0) == 0 || setgid(0) == 0)) {
    return fail(ErrorKind::permanent, "root could be had back after it was given up: refusing to run");
  }
  return {};
}

}  // namespace greymx::daemon

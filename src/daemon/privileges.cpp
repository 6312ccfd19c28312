#include "daemon/privileges.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/magic.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <set>
#include <tuple>

namespace greymx::daemon {

Result<std::optional<Account>> find_identity(const config::Config& config) {
  if (geteuid() != 0) return std::nullopt;
  return find_account(config);
}

Result<Account> find_account(const config::Config& config) {
  const passwd* user = getpwnam(config.user.c_str());
  if (user == nullptr) {
    return fail(ErrorKind::invalid,
                fmt::format("user \"{0}\" does not exist: make it (adduser --system --group --home {1} {0}) or set "
                            "user = \"…\"",
                            config.user, config.queue_path));
  }
  Account identity{.uid = user->pw_uid, .gid = user->pw_gid};
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

Result<> give(int descriptor, const Account& identity, const std::string& path) {
  struct stat found{};
  const bool has = fstat(descriptor, &found) == 0 && found.st_uid == identity.uid && found.st_gid == identity.gid;
  const int given = has ? 0 : fchown(descriptor, identity.uid, identity.gid);  // a container's root may lack CAP_CHOWN
  const int error = errno;
  close(descriptor);
  return given == 0 ? Result<>{} : fail_errno(error, path);
}

// Its parents are for everybody to pass through, the directory itself is not.
Result<> prepare(const std::string& path, const std::optional<Account>& identity) {
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

// The path, or the first directory above it that is there.
std::filesystem::path existing(std::filesystem::path path) {
  struct stat found{};
  while (path.has_relative_path() && stat(path.c_str(), &found) != 0 && errno == ENOENT) path = path.parent_path();
  return path;
}

// Or one that no directory can be made in.
bool is_read_only(const std::filesystem::path& path) {
  struct statfs file_system{};
  if (statfs(path.c_str(), &file_system) != 0) return false;
  const auto type = static_cast<unsigned long>(file_system.f_type);
  return (file_system.f_flags & ST_RDONLY) != 0 || type == PROC_SUPER_MAGIC || type == SYSFS_MAGIC;
}

std::string without_slash(const std::string& path) {
  return path.substr(0, path.size() - (path.ends_with('/') ? 1 : 0));
}

std::string present_user() {
  const passwd* user = getpwuid(geteuid());
  return user != nullptr ? user->pw_name : fmt::format("{}", geteuid());
}

// Root makes what is missing and gives away what is empty: the identity need only get there. Elsewhere, and without
// root, it must be able to make `inside`.
Result<> check_rights(const std::string& key, const std::filesystem::path& path, const char* inside,
                      const config::Config& config, const std::optional<Account>& identity) {
  const std::filesystem::path found = existing(path);
  std::error_code code;
  if (!std::filesystem::is_directory(found, code))
    return fail_errno(code ? code.value() : ENOTDIR, fmt::format("{}: {}", key, found.native()));
  const bool there = found == path;
  const bool given =
      identity && (!there || (!std::filesystem::is_symlink(path, code) && std::filesystem::is_empty(path, code)));
  const auto check = [&]() -> Result<> {
    const std::filesystem::path needed = !given ? existing(path / inside) : there ? path.parent_path() : found;
    if (eaccess(needed.c_str(), given ? X_OK : W_OK | X_OK) == 0) return {};
    return fail_errno(errno, fmt::format("{}: user {} cannot {} {}", key, identity ? config.user : present_user(),
                                         given ? "enter" : "write to", needed.native()));
  };
  return identity ? act_as(*identity, check) : check();  // who may see more here than a container's root
}

// What is there already, and is more than a file of its own, is left to the identity's rights.
Result<> prepare_log_file(const std::string& path, const Account& identity) {
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

Result<> check_directories(const config::Config& config, const std::optional<Account>& identity) {
  const std::tuple<const char*, const std::string&, const char*> all[] = {
      {"paths.queue", config.queue_path, ""}, {"paths.state", config.state_path, "recipients"}};
  for (const auto& [key, path, inside] : all) {
    if (is_read_only(existing(path))) {
      return fail(ErrorKind::invalid, fmt::format("{0}: {1} is on a read-only file system; if systemd makes it so "
                                                  "(ProtectSystem=), its unit needs ReadWritePaths={1}",
                                                  key, path));
    }
    if (auto rights = check_rights(key, without_slash(path), inside, config, identity); !rights) return rights;
  }
  return {};
}

Result<> prepare_directories(const config::Config& config, const std::optional<Account>& identity) {
  if (auto writable = check_directories(config, identity); !writable) return writable;
  // in order: one within the other comes after it, which is then no longer empty
  for (const std::string& path : std::set{config.queue_path, config.state_path}) {
    if (auto made = prepare(without_slash(path), identity); !made) return made;
  }
  if (config.listen.control.empty()) return {};
  const std::string home = std::filesystem::path(config.listen.control).parent_path();
  // an existing directory (/run, a test's own) keeps its owner
  std::error_code code;
  return std::filesystem::exists(home, code) ? Result<>{} : prepare(home, identity);
}

Result<std::unique_ptr<TargetLog>> open_log_as(const LogSettings& settings, const std::optional<Account>& identity) {
  if (!identity || !in_file(settings)) return open_log(settings);
  if (auto prepared = prepare_log_file(settings.target, *identity); !prepared) return std::unexpected(prepared.error());
  std::unique_ptr<TargetLog> log;
  const auto opened = act_as(*identity, [&]() -> Result<> {
    auto made = open_log(settings);
    if (!made) return std::unexpected(made.error());
    log = std::move(*made);
    return {};
  });
  if (!opened) return std::unexpected(opened.error());
  return log;
}

Result<> check_log_as(const LogSettings& settings, const std::optional<Account>& identity) {
  const Result<> as_root = check_log(settings);
  if (!as_root || !identity || !in_file(settings)) return as_root;
  return act_as(*identity, [&]() -> Result<> {
    struct stat found{};
    const bool there = lstat(settings.target.c_str(), &found) == 0;
    const bool given =  // by open_log_as()
        there ? S_ISREG(found.st_mode) && found.st_nlink == 1 && (found.st_mode & S_IWUSR) != 0 : errno == ENOENT;
    return given ? Result<>{} : check_log(settings);
  });
}

Result<> drop_privileges(const Account& identity) {
  if (setgroups(0, nullptr) != 0) return fail_errno(errno, "setgroups");
  if (setresgid(identity.gid, identity.gid, identity.gid) != 0) return fail_errno(errno, "setresgid");
  if (setresuid(identity.uid, identity.uid, identity.uid) != 0) return fail_errno(errno, "setresuid");
  if (identity.uid != 0 && (setuid(0) == 0 || seteuid(0) == 0 || setgid(0) == 0)) {
    return fail(ErrorKind::permanent, "root could be had back after it was given up: refusing to run");
  }
  return {};
}

}  // namespace greymx::daemon

// Giving up root: only when started as root, after the sockets are bound, for good.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/account.hpp"
#include "base/log.hpp"
#include "base/result.hpp"
#include "config/config.hpp"

namespace greymx::daemon {

// nullopt when not started as root. A missing user or group is an error that names the remedy.
Result<std::optional<Account>> find_identity(const config::Config& config);
// The same once root was given up: whom the next start would find. One thread at a time.
Result<Account> find_account(const config::Config& config);

// Makes the queue, state and control directories where they are missing; as root they become the identity's, unless
// a symbolic link stands there: what it leads to keeps its owner.
Result<> prepare_directories(const config::Config& config, const std::optional<Account>& identity);

// That queue and state are on no read-only file system, as systemd makes all it does not know of, and where the
// identity can use them, or we ourselves if there is none.
Result<> check_directories(const config::Config& config, const std::optional<Account>& identity);

// As root: makes a log file where it is missing and gives it to the identity, then opens it with the identity's rights:
// it is to be reopened with them (logrotate), and a link in its place must not lead to what is root's.
Result<std::unique_ptr<TargetLog>> open_log_as(const LogSettings& settings, const std::optional<Account>& identity);
// Whether open_log_as() could, without making anything.
Result<> check_log_as(const LogSettings& settings, const std::optional<Account>& identity);

// Drops supplementary groups, group and user, then checks that none of it can be had back.
Result<> drop_privileges(const Account& identity);

}  // namespace greymx::daemon

// Which queued messages a command means: IDs, ALL, --from, --to, --domain, --older; several narrow each other down.
// Pure.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "config/config.hpp"
#include "queue/message.hpp"

namespace greymx::admin {

using Json = nlohmann::ordered_json;  // postqueue -j's order of fields is part of what tools rely on

struct Selection {
  std::vector<QueueId> ids;  // sorted, each once
  bool all = false;
  std::optional<std::string> from;    // "user@example.org", "@example.org", or "" (also "<>") for the null sender
  std::optional<std::string> to;      // of any recipient that is still waiting
  std::optional<std::string> domain;  // of any recipient that is still waiting, subdomains included; "*.…": only they
  std::optional<std::chrono::seconds> older;  // than this since arrival

  bool narrows() const { return !ids.empty() || from || to || domain || older; }  // not merely ALL, or nothing
  bool empty() const { return !all && !narrows(); }
  // Everything but the IDs, which decide what is looked at in the first place.
  bool matches(const queue::Message& message, const config::Config& config, WallTime now) const;

  Json to_json() const;
  static Result<Selection> from_json(const Json& json);
};

// "3YzkTr4dnDz1" as mailq prints it, with or without its mark ("!", "*").
std::optional<QueueId> parse_shown_id(std::string_view text);

}  // namespace greymx::admin

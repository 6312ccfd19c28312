// Reads the database of a postgrey of any version, running or not, without ever writing to it: its directory is copied,
// the copy recovered and read; where that cannot be done (its log files are gone, another Berkeley DB wrote them) the
// pages of the copied files are read. Keys of --privacy stay what they are and match by hash.
//
// Blocking; needs no store and no daemon, so that a tool with the rights to read postgrey's directory can do it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "base/result.hpp"
#include "greylist/store.hpp"
#include "greylist/triplet.hpp"

namespace greymx::greylist {

struct ImportReport {
  std::uint64_t read = 0;
  std::uint64_t imported = 0;
  std::map<std::string, std::uint64_t> skipped;  // by reason: "value does not parse", "expired", …
  std::string remark;                            // how it was read, if not the usual way
};

struct ImportRules {
  KeyRules keys;                     // ours: imported keys are brought into this form
  Rules rules;                       // ours
  Stamp delay = 300;                 // postgrey's --delay: what waited that long has passed
  std::uint32_t auto_whitelist = 5;  // postgrey's --auto-whitelist-clients
  Stamp now = 0;
};

// `directory` is postgrey's --dbdir. An error names the remedy; nothing was handed to `sink` then.
Result<ImportReport> read_postgrey(const std::string& directory, const ImportRules& rules,
                                   const std::function<void(Stored)>& sink);

// One record of postgrey.db or postgrey_clients.db in our form; an error's text is the reason to skip it. Pure.
Result<Stored> convert_triplet(std::string_view key, std::string_view value, const ImportRules& rules);
Result<Stored> convert_client(std::string_view key, std::string_view value, const ImportRules& rules);

}  // namespace greymx::greylist

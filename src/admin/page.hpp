// The status page, complete as it comes: scripts only refresh it. Pure; everything that is not ours is escaped.
#pragma once

#include <string>

#include "admin/status.hpp"

namespace greymx::admin {

// `nonce`: of this response's Content-Security-Policy.
std::string status_page(const Status& status, const std::string& nonce);
std::string escape_html(std::string_view text);

extern const std::string_view page_source;  // page.html, embedded at build

}  // namespace greymx::admin

// relay.conf: an admin's, but typed by hand. Whatever it says ends in a Config or in errors that can be shown. A name
// for the host comes first, so that nothing asks the resolver.
#include <cstdlib>
#include <string>

#include "base/mailbox.hpp"
#include "config/load.hpp"

using namespace greymx;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text = "hostname = \"mx2.example.net\"\n" + std::string(reinterpret_cast<const char*>(data), size);
  const config::Loaded loaded = config::parse(text, "/etc/greymx/relay.conf");
  if ((loaded.config == nullptr) == loaded.errors.empty()) std::abort();
  for (const config::Diagnostic& error : loaded.errors) {
    if (error.line == 0 || printable(error.text, error.text.size()) != error.text) std::abort();
  }
  if (!loaded.config) return 0;
  const config::Config& found = *loaded.config;
  if (!config::needs_restart(found, found).empty() || found.domains.empty()) std::abort();
  for (const config::Domain& domain : found.domains) {
    if (found.find_domain(domain.wildcard ? "x." + domain.name : domain.name) == nullptr) std::abort();
  }
  return 0;
}

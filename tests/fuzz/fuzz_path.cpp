// Paths: whatever is taken as one can be written and read again as the same, and holds nothing that is not printable.
#include <cstdlib>

#include "smtp/command.hpp"

using namespace greymx;
using namespace greymx::smtp;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string_view whole = text;
  const auto path = parse_path(text);
  if (!path) return 0;
  const std::string written = path->mailbox.to_string();
  const bool clean = printable(written, std::string::npos) == written;
  const bool bounded = whole.size() - text.size() <= 256 && written.size() <= 254;
  const bool split = path->mailbox.domain.empty() || Mailbox::split(written) == path->mailbox;
  const std::string bracketed = "<" + written + ">";
  std::string_view again = bracketed;
  const auto second = parse_path(again);
  const bool stable = second && second->mailbox == path->mailbox && again.empty() && !second->source_route;
  if (!(clean && bounded && split && stable)) std::abort();
  return 0;
}

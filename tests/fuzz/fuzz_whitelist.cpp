// Whitelist files: any content is taken or reported line by line, and looking things up in it never fails.
#include "greylist/whitelist.hpp"

using namespace greymx;
using namespace greymx::greylist;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0 || size > 4096) return 0;  // larger files take RE2's time, not new paths
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  Whitelist list(data[0] % 2 == 0 ? Whitelist::Of::clients : Whitelist::Of::addresses);
  std::vector<std::string> problems;
  list.add_file(text, "list", problems);
  static_cast<void>(list.compile());
  const std::string_view line = text.substr(0, text.find('\n'));
  for (const char* client : {"192.0.2.1", "2001:db8::1"})
    static_cast<void>(list.has_client(*IpAddress::parse(client), line));
  static_cast<void>(list.has_address(line));
  static_cast<void>(list.has_address("user+a+b@sub.example.com"));
  return 0;
}

// What an import reads: keys and values of a postgrey database, and the pages of a damaged file.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

#include "greylist/bdb.hpp"
#include "greylist/postgrey_import.hpp"

using namespace greymx;
using namespace greymx::greylist;

namespace {

void require(bool what) {
  if (!what) std::abort();
}

void convert(std::string_view key, std::string_view value) {
  const ImportRules rules{.keys = {}, .rules = {}, .now = 1800000000};
  for (const auto& stored : {convert_triplet(key, value, rules), convert_client(key, value, rules)}) {
    if (!stored) continue;
    require(stored->key.size() <= max_key && stored->key.find('/') != std::string::npos);
    require(decode(stored->key, encode(stored->key, stored->record)) == stored->record);
    static_cast<void>(split_key(stored->key));
  }
}

void salvage(std::string_view content, bdb::Pages pages) {
  const int file = memfd_create("pages", 0);
  std::string page(content);
  page.resize((page.size() + 4095) / 4096 * 4096);
  require(write(file, page.data(), page.size()) == static_cast<ssize_t>(page.size()));
  static_cast<void>(bdb::salvage("/proc/self/fd/" + std::to_string(file), convert, pages));
  close(file);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t line = text.find('\n');
  if (line != std::string_view::npos) convert(text.substr(0, line), text.substr(line + 1));
  salvage(text, size % 2 == 0 ? bdb::Pages::plain : bdb::Pages::with_checksum);
  return 0;
}

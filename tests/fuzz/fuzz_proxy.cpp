// PROXY headers: a complete one stays the same with anything behind it, and less of it asks for more.
#include <cstdlib>

#include "smtp/proxy_header.hpp"

using namespace greymx::smtp;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const ProxyHeader header = parse_proxy_header(bytes);
  if (header.status == ProxyHeader::Status::need_more && bytes.size() >= ProxyHeader::max_size) std::abort();
  if (header.status != ProxyHeader::Status::complete) return 0;
  if (header.size == 0 || header.size > bytes.size() || header.size > ProxyHeader::max_size) std::abort();
  const ProxyHeader exact = parse_proxy_header(bytes.substr(0, header.size));
  if (exact.status != header.status || exact.size != header.size || exact.client != header.client) std::abort();
  for (std::size_t i = 0; i < header.size; ++i) {
    if (parse_proxy_header(bytes.substr(0, i)).status != ProxyHeader::Status::need_more) std::abort();
  }
  return 0;
}

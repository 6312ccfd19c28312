// Errors as values. Nothing that waits on the world (disk, network, DNS, stores, files an admin wrote) throws;
// an exception means a bug or no memory.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <utility>

namespace greymx {

enum class ErrorKind : std::uint8_t {
  temporary,  // the world is unwell now: try again later
  permanent,  // trying again will not help
  no_space,   // disk full or below limits.min_free_space
  not_found,
  timed_out,
  invalid,   // input that does not parse or makes no sense
  stopping,  // we are shutting down
};

struct Error {
  ErrorKind kind = ErrorKind::temporary;
  std::string text;  // for the log and the admin, never for the wire
};

template <class T = void>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(ErrorKind kind, std::string text) {
  return std::unexpected(Error{kind, std::move(text)});
}
// "what: strerror(errno)", with ENOSPC/EDQUOT as no_space and ENOENT as not_found.
std::unexpected<Error> fail_errno(int error_number, std::string what);

}  // namespace greymx

#include "base/result.hpp"

#include <cerrno>
#include <system_error>

namespace greymx {

std::unexpected<Error> fail_errno(int error_number, std::string what) {
  what += ": " + std::generic_category().message(error_number);
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return fail(ErrorKind::no_space, std::move(what));
    case ENOENT:
      return fail(ErrorKind::not_found, std::move(what));
    default:
      return fail(ErrorKind::temporary, std::move(what));
  }
}

}  // namespace greymx

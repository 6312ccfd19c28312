#include "base/mail.hpp"

#include <fmt/format.h>

namespace greymx {

std::string Reply::to_string() const {
  return enhanced.empty() ? fmt::format("{} {}", code, text) : fmt::format("{} {} {}", code, enhanced, text);
}

std::string Client::to_string() const {
  return name + "[" + address.to_string() + "]";
}

}  // namespace greymx

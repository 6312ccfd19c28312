#include "base/mail.hpp"

namespace greymx {

std::string Reply::to_string() const {
  return concat({std::to_string(code), " ", enhanced, enhanced.empty() ? "" : " ", text});
}

std::string Client::to_string() const {
  return concat({name, "[", address.to_string(), "]"});
}

}  // namespace greymx

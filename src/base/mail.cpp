#include "base/mail.hpp"

namespace greymx {

std::string Reply::to_string() const {
  return concat({std::to_string(code), " ", enhanced, enhanced.empty() ? "" : " ", text});
}

std::string Client::to_string() const {
  return concat({name, "[", address.to_string(), "]"});
}

std::string DsnNotify::to_string() const {
  if (never) return "NEVER";
  std::string list;
  const auto add = [&list](bool wanted, const char* word) {
    if (wanted) list += (list.empty() ? "" : ",") + std::string(word);
  };
  add(success, "SUCCESS");
  add(failure, "FAILURE");
  add(delay, "DELAY");
  return list;
}

}  // namespace greymx

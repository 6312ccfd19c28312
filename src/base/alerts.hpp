// What needs a person: raised by any part, logged at once, mailed at most once an hour a subject (admin/alerts).
#pragma once

#include <string>
#include <string_view>

namespace greymx {

class Alerts {
 public:
  virtual ~Alerts() = default;
  // `subject` is a stable, short key and title, e.g. "primary of example.com is down"; `text` says what happened and
  // what to do. Any thread, does not block.
  virtual void raise(std::string_view subject, std::string_view text) = 0;
};

}  // namespace greymx

// While it lives the rights of files count for this thread, root or not.
#pragma once

#include <sys/fsuid.h>

namespace greymx::test {

class NotRoot {
 public:
  NotRoot() : before_(setfsuid(nobody)) {}
  NotRoot(const NotRoot&) = delete;
  NotRoot& operator=(const NotRoot&) = delete;
  ~NotRoot() { setfsuid(static_cast<uid_t>(before_)); }

 private:
  static constexpr uid_t nobody = 65534;
  int before_;
};

}  // namespace greymx::test

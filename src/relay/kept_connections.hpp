// Connections to one destination that have served and may soon serve again.
//
// Thread: the relay's.
#pragma once

#include <memory>
#include <vector>

#include "relay/connector.hpp"

namespace greymx::relay {

class KeptConnections {
 public:
  explicit KeptConnections(Gate& background) : background_(background) {}

  void keep(std::unique_ptr<Connection> connection);
  // The one kept last that is still good and leads to none of `avoid`; null: there is none.
  std::unique_ptr<Connection> take(const std::vector<Endpoint>& avoid);
  void expire();                                      // every second: who has been idle for 5 s is told QUIT
  void drop(const Endpoint& host);                    // those to it are cut
  void drop_all() { kept_.clear(); }                  // cut, too
  void quit(std::unique_ptr<Connection> connection);  // politely, in the background
  std::size_t size() const { return kept_.size(); }

 private:
  Gate& background_;
  std::vector<std::unique_ptr<Connection>> kept_;  // the one kept last is at the end
};

}  // namespace greymx::relay

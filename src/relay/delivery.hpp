// Getting messages over connections: one worker, one connection, one message after the other.
#pragma once

#include "relay/destination.hpp"

namespace greymx::relay {

// Delivers what is due at `destination` until nothing is or the worker is not wanted any more.
Task<> deliver_due(Parts& parts, Destination& destination);

}  // namespace greymx::relay

// The look-ups behind a route, with the last known addresses for the hours in which DNS is down with the primary.
#pragma once

#include "relay/route.hpp"

namespace greymx::relay {

// Ends by the deadline. `known`, the hosts of the last good route, stands in for what DNS cannot say now (not for what
// it says no to), and is brought up to date. Everything passed by reference outlives the call.
Task<Route> find_route(RouteRequest request, dns::Resolver& resolver, const Identity& identity,
                       std::vector<Host>& known, std::mt19937& random, SteadyTime deadline);

}  // namespace greymx::relay

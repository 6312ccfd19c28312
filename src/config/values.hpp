// The words inside relay.conf's strings: durations, sizes, rates, hosts. Pure. A duration or size beyond all sense is
// taken for the largest, so that it is told as out of range.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.hpp"

namespace greymx::config {

std::optional<Seconds> parse_duration(std::string_view text);    // "300s" "5m" "1h30m" "5d": falling units
std::optional<std::uint64_t> parse_size(std::string_view text);  // "512B" "1KiB" "50MiB" "2GiB"
std::optional<Rate> parse_count_rate(std::string_view text);     // "60/1m"
std::optional<Rate> parse_byte_rate(std::string_view text);      // "1KiB/1s"
// "host", "host:port", "[v6]", "[v6]:port"; `default_port` where none is named.
std::optional<HostPort> parse_host_port(std::string_view text, std::uint16_t default_port = 25);
std::optional<std::string> parse_fingerprint(std::string_view text);  // 64 hex digits, colons between bytes allowed

std::string size_text(std::uint64_t bytes);  // "50MiB"
// The word of `known` that was probably meant; empty if none is close.
std::string nearest(std::string_view word, const std::vector<std::string>& known);

}  // namespace greymx::config

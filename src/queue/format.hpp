// The numbers of the spool's format, version 1. greymx-spool(5) describes it; writer and readers share nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace greymx::queue {

inline constexpr std::uint32_t format_version = 1;

// A segment is the header, the same header once more, batches of records, and in its last block, once it is sealed,
// the record that tells where its summary stands. A batch begins on a block's border and is padded to the next one,
// so that a torn batch never shares a block with one that was acknowledged.
inline constexpr std::uint64_t block = 4096;
inline constexpr std::uint64_t log_begin = 2 * block;

inline constexpr std::string_view segment_magic = "greymxSP";
inline constexpr std::size_t segment_header_length = 64;
inline constexpr std::size_t record_header_length = 40;
inline constexpr std::uint64_t record_alignment = 8;

enum class RecordType : std::uint8_t {
  padding = 0,  // zeros: nothing more in this batch
  batch = 1,
  message = 2,
  change = 3,
  end = 4,
  summary = 5,
  seal = 6,  // its id and body length tell the offset of the summary and the length of its body
};
// A reader passes over types it does not know from here on, and refuses a segment with any other.
inline constexpr std::uint8_t ignorable_types = 128;

constexpr std::uint64_t round_up(std::uint64_t n, std::uint64_t unit) {
  return (n + unit - 1) / unit * unit;
}

constexpr std::uint64_t record_length(std::uint64_t head, std::uint64_t body) {
  return round_up(record_header_length + head + body, record_alignment);
}

}  // namespace greymx::queue

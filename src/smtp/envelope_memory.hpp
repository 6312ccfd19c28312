// What the recipients of all envelopes under way take of limits.buffer_memory. Thread: any.
#pragma once

#include <atomic>

#include "config/config.hpp"

namespace greymx::smtp {

// One envelope's part of it.
class EnvelopeMemory {
 public:
  explicit EnvelopeMemory(std::atomic<std::uint64_t>& all) : all_(all) {}
  ~EnvelopeMemory() { all_ -= bytes_; }
  EnvelopeMemory(const EnvelopeMemory&) = delete;
  EnvelopeMemory& operator=(const EnvelopeMemory&) = delete;

  // When it is short each connection still has its share.
  bool has_room(std::uint64_t bytes, const config::Limits& limits) const {
    return all_ + bytes <= limits.buffer_memory || bytes_ + bytes <= limits.buffer_memory / limits.connections;
  }
  void add(std::uint64_t bytes) {
    bytes_ += bytes;
    all_ += bytes;
  }

 private:
  std::atomic<std::uint64_t>& all_;
  std::uint64_t bytes_ = 0;
};

}  // namespace greymx::smtp

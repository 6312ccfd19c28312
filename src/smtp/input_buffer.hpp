// Where a session's input waits to be used. Thread: the session's.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace greymx::smtp {

// Memory that the sessions of one thread hand on to each other: for so much at once malloc goes a long way.
class SpareBuffers {
 public:
  static constexpr std::size_t capacity = 16384;
  using Buffer = std::unique_ptr<char[]>;
  Buffer take();
  void give(Buffer buffer);

 private:
  std::vector<Buffer> spare_;
};

// What has been read and not yet used. Holds no memory after release().
class InputBuffer {
 public:
  static constexpr std::size_t capacity = SpareBuffers::capacity;

  explicit InputBuffer(std::shared_ptr<SpareBuffers> spare) : spare_(std::move(spare)) {}
  ~InputBuffer() { release(); }
  InputBuffer(const InputBuffer&) = delete;
  InputBuffer& operator=(const InputBuffer&) = delete;
  std::string_view view() const { return {bytes_.get() + begin_, end_ - begin_}; }
  bool empty() const { return begin_ == end_; }
  void drop_to(std::string_view rest) { begin_ = end_ - rest.size(); }  // `rest`: the end of view()
  std::span<char> space();                                              // behind view(), which moves; never empty…
  void filled(std::size_t bytes) { end_ += bytes; }                     // …unless view() has `capacity` bytes
  void release();                                                       // what is in it, too

 private:
  std::shared_ptr<SpareBuffers> spare_;
  SpareBuffers::Buffer bytes_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}  // namespace greymx::smtp

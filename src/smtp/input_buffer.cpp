#include "smtp/input_buffer.hpp"

#include <cstring>
#include <utility>

namespace greymx::smtp {

namespace {

constexpr std::size_t most_spare = 16;

}  // namespace

SpareBuffers::Buffer SpareBuffers::take() {
  if (spare_.empty()) return std::make_unique_for_overwrite<char[]>(capacity);
  Buffer buffer = std::move(spare_.back());
  spare_.pop_back();
  return buffer;
}

void SpareBuffers::give(Buffer buffer) {
  if (buffer && spare_.size() < most_spare) spare_.push_back(std::move(buffer));
}

void InputBuffer::release() {
  spare_->give(std::move(bytes_));
  begin_ = end_ = 0;
}

std::span<char> InputBuffer::space() {
  if (!bytes_) bytes_ = spare_->take();
  if (begin_ > 0) {
    std::memmove(bytes_.get(), bytes_.get() + begin_, end_ - begin_);
    end_ -= std::exchange(begin_, 0);
  }
  return {bytes_.get() + end_, capacity - end_};
}

}  // namespace greymx::smtp

// Aligned memory that grows and never shrinks, in huge pages where the system has them.
#pragma once

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "types.h"

namespace splitformer {

// Lets go of the pages of a mapped file between two places; they come back if they are read again.
inline void Forget(const void* begin, const void* end) {
  constexpr uintptr_t kPage = 4096;
  const uintptr_t from = reinterpret_cast<uintptr_t>(begin) / kPage * kPage;
  const uintptr_t to = RoundUp(reinterpret_cast<uintptr_t>(end), kPage);
  madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
}

// Bytes for activations or packed weights. Weights are streamed from beginning to end once per
// step, and with 4 KiB pages the address translation alone would cost a tenth of that.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes) { Reserve(bytes); }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  // Makes room for `bytes`; what was there is lost when it grows. New room is zero.
  void Reserve(size_t bytes) {
    if (bytes <= bytes_) return;
    const size_t alignment = bytes >= kHugePage ? kHugePage : 64;
    const size_t rounded = RoundUp(bytes, alignment);
    void* grown = std::aligned_alloc(alignment, rounded);
    if (grown == nullptr) throw std::bad_alloc();
    if (alignment == kHugePage) madvise(grown, rounded, MADV_HUGEPAGE);
    std::memset(grown, 0, rounded);
    std::free(data_);
    data_ = grown;
    bytes_ = rounded;
  }

  template <class T>
  T* As() const {
    return static_cast<T*>(data_);
  }

 private:
  static constexpr size_t kHugePage = size_t{2} << 20;

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace splitformer

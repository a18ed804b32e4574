// Aligned memory that grows and never shrinks, in huge pages where the system has them.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "types.h"

namespace splitformer {

// Lets go of the pages of a mapped file between two places; they come back if they are read again.
inline void Forget(const void* begin, const void* end) {
  constexpr uintptr_t kPage = 4096;
  const uintptr_t from = reinterpret_cast<uintptr_t>(begin) / kPage * kPage;
  const uintptr_t to = RoundUp(reinterpret_cast<uintptr_t>(end), kPage);
  madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
}

constexpr size_t kHugePage = size_t{2} << 20;

// Room that is not zero yet, in huge pages where it fills any; `std::free` gives it back.
inline void* Allocate(size_t bytes) {
  const size_t alignment = bytes >= kHugePage ? kHugePage : 64;
  const size_t rounded = RoundUp(bytes, alignment);
  void* room = std::aligned_alloc(alignment, rounded);
  if (room == nullptr) throw std::bad_alloc();
  if (alignment == kHugePage) madvise(room, rounded, MADV_HUGEPAGE);
  return room;
}

// Pieces that come one by one and go together: a plan's weights. They are streamed from beginning
// to end once per step, and with 4 KiB pages the address translation alone would cost a tenth of
// that; most are too small to fill huge pages of their own. What is not taken is never touched.
class Arena {
 public:
  // Bytes that are zero.
  uint8_t* Take(size_t bytes) {
    bytes = RoundUp(bytes, 64);
    if (bytes > left_) {
      left_ = std::max(bytes, kChunk);
      chunks_.emplace_back(Allocate(left_), &std::free);
      next_ = static_cast<uint8_t*>(chunks_.back().get());
    }
    uint8_t* const taken = std::exchange(next_, next_ + bytes);
    left_ -= bytes;
    std::memset(taken, 0, bytes);
    return taken;
  }

 private:
#ifdef __SANITIZE_ADDRESS__
  static constexpr size_t kChunk = 0;  // every piece by itself, so that its ends are watched
#else
  static constexpr size_t kChunk = 16 * kHugePage;
#endif

  std::vector<std::unique_ptr<void, decltype(&std::free)>> chunks_;
  uint8_t* next_ = nullptr;
  size_t left_ = 0;
};

// Bytes for activations.
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
    void* grown = Allocate(bytes);
    std::memset(grown, 0, bytes);
    std::free(data_);
    data_ = grown;
    bytes_ = bytes;
  }

  template <class T>
  T* As() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace splitformer

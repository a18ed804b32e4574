// The loop around the micro-kernels.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels.h"
#include "matrix.h"

namespace splitformer {

// Rows ready to be multiplied: quantised for 8 bits, floats otherwise.
struct Operand {
  const uint8_t* data;
  size_t stride;        // bytes from row to row
  const float* scales;  // per row, int8 only
  int rows;

  Operand Rows(int first, int count) const {
    return {data + size_t(first) * stride, stride, scales + first, count};
  }
};

// What kernels need of the thread that runs them, for as long as it lives.
class Prepared {
 public:
  explicit Prepared(const KernelSet& kernels) : end_(kernels.end) {
    if (kernels.begin != nullptr) kernels.begin();
  }
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;
  ~Prepared() {
    if (end_ != nullptr) end_();
  }

 private:
  void (*const end_)();
};

// Hands on the sums of a tile: as a whole where kernels use the whole core; else some rows at a
// time, while the products of the next tile are made.
template <class F>
class Taking {
 public:
  Taking(const KernelSet& kernels, size_t groups, F& take)
      : take_(take), apart_(kernels.apart), runs_(static_cast<int>(groups) / kernels.run) {}

  // Where the next tile's sums go; those of the last one are still being taken.
  int32_t* Room() { return tile_[next_]; }

  Work Beside() { return {left_.rows == 0 ? nullptr : Part, this}; }

  // Takes what is left of the last tile, then, at once or later, another; its data are in `Room`.
  void Take(const Sums& sums) {
    Rest();
    left_ = sums;
    const int parts = apart_ ? runs_ * ((sums.columns / kPanel + kWorkPanels - 1) / kWorkPanels) : 1;
    each_ = (sums.rows + parts - 1) / parts;
    if (!apart_) return Rest();
    next_ ^= 1;
  }

  void Rest() {
    while (left_.rows > 0) Part(this);
  }

 private:
  static void Part(void* of) {
    Taking& self = *static_cast<Taking*>(of);
    Sums& left = self.left_;
    if (left.rows == 0) return;
    Sums part = left;
    part.rows = std::min(self.each_, left.rows);
    left.data += part.rows * left.columns;
    left.row += part.rows;
    left.rows -= part.rows;
    self.take_(part);
  }

  alignas(64) int32_t tile_[2][kMaxTileRows * kMaxTilePanels * kPanel];
  F& take_;
  const bool apart_;
  const int runs_;
  int next_ = 0, each_ = 0;
  Sums left_{};
};

// `Packed` holds panels as `Matrix` does.
//
// Multiplies all rows with panels [first, last) and hands every block of sums to `take(sums)`. Row
// blocks run inside: the panels at hand stay in the innermost caches. Each of them asks for its
// part of the panels that come next, so that memory is at work all the time and not with the first
// alone; `after`, if known, is what the thread will read after the last panel.
template <class Packed, class Take>
inline void Multiply(const KernelSet& all, const Operand& a, const Packed& b, int first, int last,
                     const uint8_t* after, Take&& take) {
  const KernelSet& kernels = a.rows <= all.few_rows ? *all.few : all;
  const Prepared prepared(kernels);
  Taking<std::remove_reference_t<Take>> taking(kernels, b.groups(), take);
  const int units = (a.rows + kernels.unit - 1) / kernels.unit;
  const int blocks = (a.rows + kernels.max_rows - 1) / kernels.max_rows;
  const size_t bytes = b.groups() * 64 * size_t(kernels.block_panels);
  const size_t gap = (64 + size_t(blocks) - 1) / size_t(blocks);
  for (int p = first, width; p < last; p += width) {
    width = std::min(kernels.block_panels - p % kernels.block_panels, last - p);
    if (width == 3) width = p % 2 == 0 ? 2 : 1;
    const uint8_t* here = b.panel(p);
    const uint8_t* next = p + width < last ? b.panel(p + width) : after != nullptr ? after : here;
    for (int block = 0; block < blocks; ++block) {
      // Even blocks: seven rows as 4 + 3 take less time than as 6 + 1.
      const int row = ShareBegin(units, block, blocks) * kernels.unit;
      const int end = std::min(a.rows, ShareBegin(units, block + 1, blocks) * kernels.unit);
      const int rows = end - row;
      const Ahead ahead = a.rows <= kernels.hasty_rows
                              ? Ahead{here + kAhead, 64, true}
                              : Ahead{next + bytes / size_t(blocks) * size_t(block), gap, false};
      kernels.tile[rows][width](a.data + size_t(row) * a.stride, a.stride, here, b.groups(),
                                b.start(p), ahead, taking.Beside(), taking.Room());
      taking.Take(Sums{taking.Room(), row, rows, p * kPanel, width * kPanel});
    }
  }
  taking.Rest();
}

}  // namespace splitformer

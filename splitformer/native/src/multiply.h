// The loop around the micro-kernels.
#pragma once

#include <algorithm>

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

// `Packed` holds panels as `Matrix` does.
//
// Multiplies all rows with panels [first, last) and hands every block of sums to `take(sums)`. Row
// blocks run inside: the panels at hand stay in the innermost cache.
template <class Packed, class Take>
inline void Multiply(const KernelSet& kernels, const Operand& a, const Packed& b, int first,
                     int last, Take&& take) {
  alignas(64) int32_t tile[kMaxTileRows * kMaxTilePanels * kPanel];
  const int blocks = (a.rows + kernels.max_rows - 1) / kernels.max_rows;
  for (int p = first, width; p < last; p += width) {
    width = std::min(kernels.block_panels - p % kernels.block_panels, last - p);
    if (width == 3) width = p % 2 == 0 ? 2 : 1;
    for (int block = 0; block < blocks; ++block) {
      // Even blocks: seven rows as 4 + 3 take less time than as 6 + 1.
      const int row = ShareBegin(a.rows, block, blocks);
      const int rows = ShareBegin(a.rows, block + 1, blocks) - row;
      kernels.tile[rows][width](a.data + size_t(row) * a.stride, a.stride, b.panel(p), b.groups(),
                                b.start(p), tile);
      take(Sums{tile, row, rows, p * kPanel, width * kPanel});
    }
  }
}

}  // namespace splitformer

// Micro-kernels: small blocks of a matrix product, one table of them per instruction set.
//
// All kernels see the weights in one layout. A panel holds 16 columns as a run of groups, 64 bytes
// each: per column four 8-bit weights of consecutive k, or one float. The kernel for 8 bits
// computes exact 32-bit sums; the one for floats adds its products in the order of k, with fused
// multiply-add. Either way an element depends on its own row and column only, and on no
// instruction set.
//
// This header is included by code compiled for several instruction sets, so it must define no
// functions: the linker could keep the one that this machine cannot run.
#pragma once

#include <cstddef>
#include <cstdint>

namespace splitformer {

constexpr int kMaxTileRows = 8;
constexpr int kMaxTilePanels = 4;

// Multiplies a few rows of `a` with a few panels of `b`.
//   a: first row; rows are `a_stride` bytes apart, `KernelSet::group_bytes` per group.
//   b: first panel; panels are `panel_stride` bytes apart.
//   start: per column, what the 8-bit sums start from; see KernelSet::offset.
//   tile: where the sums go, (rows, panels * 16): int32 or float by the kernel's precision.
using TileKernel = void (*)(const uint8_t* a, size_t a_stride, const uint8_t* b,
                            size_t panel_stride, size_t groups, const int32_t* start,
                            int32_t* tile);

// The kernels of one precision and instruction set, and the tile shapes at which they are fastest.
struct KernelSet {
  TileKernel tile[kMaxTileRows + 1][kMaxTilePanels + 1];  // [rows][panels]; panels 1, 2 and 4
  int max_rows;
  int few_rows;         // up to this many rows, tiles are `few_rows_panels` wide,
  int few_rows_panels;  // which keeps more weights on their way from memory,
  int panels;           // and this wide otherwise
  int group_bytes;      // bytes of one row of `a` that meet one group of `b`
  int offset;           // added to quantised activations; `start` takes it out again
};

extern const KernelSet kInt8Avx2;
extern const KernelSet kInt8Vnni;
extern const KernelSet kFloatAvx2;
extern const KernelSet kFloatAvx512;

}  // namespace splitformer

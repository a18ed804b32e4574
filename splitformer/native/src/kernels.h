// Micro-kernels: small blocks of a matrix product, one table of them per instruction set.
//
// A panel is 16 columns; a group is what they hold of a few consecutive k in 64 bytes: per column
// four 8-bit weights, or one float. As many panels as a tile is wide make a block and alternate in
// it, one run of groups after the other, so that a tile reads one unbroken stream. Or, by the
// kernel set's choice, a panel holds its columns whole, one behind the other.
//
// The kernel for 8 bits computes exact 32-bit sums; the one for floats adds its products in the
// order of k, with fused multiply-add. Either way an element depends on its own row and column
// only, and on no instruction set.
//
// This header is included by code compiled for several instruction sets, so it must define no
// functions: the linker could keep the one that this machine cannot run.
#pragma once

#include <cstddef>
#include <cstdint>

#include "row_kernels.h"

namespace splitformer {

constexpr int kMaxTileRows = 32;
constexpr int kMaxTilePanels = 4;

// How far ahead of their use weights are asked for, in bytes, where few rows use them up faster
// than they come from memory.
constexpr int kAhead = 8192;

// What a tile asks for on its way: places `gap` bytes apart from `at` on, as many per group as a
// block has panels. What is used at once goes to the innermost cache, the rest to the next one, so
// that it drives out nothing that is at hand.
struct Ahead {
  const uint8_t* at;
  size_t gap;
  bool at_once;
};

// What is to be done while a tile is computed, a part per call; nothing where `part` is nullptr.
struct Work {
  void (*part)(void* of);
  void* of;
};

// Panels of a run of groups of which products are under way when the next part of work is called.
constexpr int kWorkPanels = 2;

// Multiplies a few rows of `a` with a few neighbouring panels of one block.
//   a: first row; rows are `a_stride` bytes apart, `KernelSet::group_bytes` per group.
//   b: first group of the first panel.
//   start: per column, what the 8-bit sums start from; see KernelSet.
//   ahead: what to ask for on the way; kernels for AVX2 go by `kAhead` alone.
//   beside: called for every kWorkPanels of a run of groups, where products are made apart (see
//     KernelSet), else never.
//   tile: where the sums go, (rows, panels * 16): int32 or float by the kernel's precision. Where
//     rows come by the unit (`KernelSet::unit`) whole units of `a` are read and of this written.
using TileKernel = void (*)(const uint8_t* a, size_t a_stride, const uint8_t* b, size_t groups,
                            const int32_t* start, Ahead ahead, const Work& beside, int32_t* tile);

// The kernels of one precision and instruction set.
struct KernelSet {
  TileKernel tile[kMaxTileRows + 1][kMaxTilePanels + 1];  // [rows][panels]; panels 1, 2 and 4
  int max_rows;
  int unit;          // rows that cost as much as one; `max_rows` is a multiple
  int block_panels;  // 4 or 1
  int run;           // groups of a panel that lie together; whole runs make up `whole` elements
  int whole;         // elements that columns are filled up to with zeros, or a multiple
  int group_bytes;   // bytes of one row of `a` that meet one group of `b`
  int offset;        // added to quantised activations; `start` takes it out again
  int hasty_rows;    // up to so many rows use weights up as fast as they come
  bool paired;       // 8-bit sums are of products of sums, see below; columns are held whole
  bool apart;        // a unit of its own makes the products, and the core can work beside it
  const RowKernels* rows;  // of the same instruction set

  // What a thread has to do before and after; nullptr: nothing.
  void (*begin)();
  void (*end)();

  // Kernels for the same weights that multiply up to `few_rows` rows instead of these.
  const KernelSet* few;
  int few_rows;
};

// Paired kernels multiply two elements at once (Winograd 1968, "A New Algorithm for Inner
// Product"):
//   a b + a' b' = (a + b') (a' + b) - a a' - b b'.
// An element meets the one kPairDistance behind it, in blocks of twice as many, so rows and
// columns are filled up with zeros to whole blocks. The sum of b b' belongs to the column and is in
// `start`; that of a a' belongs to the row and is an int32 behind its elements. All of it is exact.
constexpr int kPairDistance = 16;

extern const KernelSet kInt8Avx2;
extern const KernelSet kInt8Vnni;
extern const KernelSet* const kInt8Amx;  // nullptr: the compiler knows no AMX
extern const KernelSet kFloatAvx2;
extern const KernelSet kFloatAvx512;

}  // namespace splitformer

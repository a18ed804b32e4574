// Attention inside a source: all its rows against all its rows, one head.
#pragma once

#include "kernels.h"
#include "types.h"

namespace splitformer {

// Queries, keys and values of one head, (count, width) each; rows are `stride` floats apart.
struct SourceHead {
  const float* queries;
  const float* keys;
  const float* values;
  size_t stride;
  int count;
  int width;
};

// Floats that `scratch` must have room for.
size_t SourceRoom(int positions, int width);

// out = softmax(Q K^T * scale + bias) V, as two matrix products; rows of `out` are `out_stride`
// floats apart. An element is made of its own row's query and of all keys and values in their
// order, so a row's bits depend on its source only.
//   kernels: for floats.
//   bias: per distance from key to query, clamped: `distances - 1` before, itself, `distances - 1`
//     behind (Raffel et al. 2020, relative positions); or nullptr.
//   scratch: aligned to 64 bytes.
void AttendWithin(const KernelSet& kernels, const SourceHead& head, float scale, const float* bias,
                  int distances, float* scratch, float* out, size_t out_stride);

}  // namespace splitformer

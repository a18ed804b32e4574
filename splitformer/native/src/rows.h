// Functions of one row of activations: norms, quantisation, activations.
//
// Rows may be read, and outputs written, up to the next multiple of 8 elements; what is beyond
// `size` never decides anything.
#pragma once

#include <vector>

#include "types.h"

namespace splitformer {

// Normalisation of a row: LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019).
struct Norm {
  NormKind kind = NormKind::kNone;
  float epsilon = 0.0f;
  std::vector<float> gain;  // padded with zeros to whole vectors, as is `shift`
  std::vector<float> shift;
};

// out = norm(x); `out` may be `x`.
void Normalise(const Norm& norm, const float* x, int size, float* out);

// x += y.
void AddRow(float* x, const float* y, int size);

// out = token * scale + position; `position` may be nullptr. Only `size` elements are read.
void EmbedRow(Element element, const void* token, const float* position, float scale, int size,
              float* out);

// Quantises a row to 8 bits by its own largest element, so that no row depends on its neighbours:
// q = round(x * 127 / max|x|), stored as q + 128 in a byte, or as q in 16 bits if `offset` is 0.
// Whole multiples of 32 elements are written; those in 16 bits are zeros beyond `size`, and an
// int32 follows them: the row's share of paired products, see kernels.h. Returns the scale,
// max|x| / 127.
float QuantiseRow(const float* x, int size, int offset, uint8_t* out);

// Applies an activation in place; `count` is a multiple of 8.
void Activate(Activation activation, float* x, int count);

// x *= y; `count` is a multiple of 8.
void MultiplyRow(float* x, const float* y, int count);

}  // namespace splitformer

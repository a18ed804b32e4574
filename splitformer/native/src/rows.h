// Functions of one row of activations that no instruction set makes faster, and norms as plans hold
// them.
//
// Rows may be read, and outputs written, up to the next multiple of 16 elements; what is beyond
// `size` never decides anything.
#pragma once

#include <vector>

#include "row_kernels.h"

namespace splitformer {

// Normalisation of a row: LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019).
struct Norm {
  NormKind kind = NormKind::kNone;
  float epsilon = 0.0f;
  std::vector<float> gain;  // padded with zeros to whole vectors, as is `shift`
  std::vector<float> shift;

  Norm() = default;
  Norm(NormKind of_kind, float small, const float* gains, const float* shifts, int size);

  // See RowKernels::normalise.
  void Apply(const RowKernels& kernels, const float* const* x, int rows, int size,
             float* const* out, float* largest) const {
    kernels.normalise(kind, epsilon, gain.data(), shift.data(), x, rows, size, out, largest);
  }
};

// out = token * scale + position; `position` may be nullptr. Only `size` elements are read.
void EmbedRow(Element element, const void* token, const float* position, float scale, int size,
              float* out);

}  // namespace splitformer

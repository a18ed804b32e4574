// Kernels of rows: what surrounds the matrix products, one table per instruction set.
//
// They are written once, in row_kernels_impl.h, and compiled for each. What rows.h says of reading
// and writing beyond a row's end holds for all.
//
// As kernels.h, this header must define no functions.
#pragma once

#include "types.h"

namespace splitformer {

// A block of a product as the micro-kernels leave it: (rows, columns), contiguous.
struct Sums {
  const int32_t* data;
  int row;
  int rows;
  int column;
  int columns;
};

struct Likeliest {
  float logit;
  int32_t id;
};

// The largest of some logits and the sum of exp(logit - largest) over them.
struct ExponentialSum {
  float largest;
  float sum;
};

// Rows that are normalised together: what one of them waits for the others fill.
constexpr int kRowsAtOnce = 4;

struct RowKernels {
  // out = norm(x) of up to kRowsAtOnce rows; `out` may be `x`. `kind` is not kNone. The largest
  // magnitude of each row that comes out goes to `largest`.
  void (*normalise)(NormKind kind, float epsilon, const float* gain, const float* shift,
                    const float* const* x, int rows, int size, float* const* out, float* largest);

  // x += y and x *= y.
  void (*add)(float* x, const float* y, int size);
  void (*multiply)(float* x, const float* y, int size);

  // Applies an activation in place.
  void (*activate)(Activation activation, float* x, int size);

  // The largest magnitude of a row.
  float (*magnitude)(const float* x, int size);

  // Quantises a row to 8 bits by its own largest element, so that no row depends on its neighbours:
  // q = round(x * 127 / max|x|); `largest` is max|x|. Returns the scale, max|x| / 127. Whole
  // multiples of 32 elements are written, as the micro-kernels of the same instruction set read
  // them: q + 128 in a byte; or q in 16 bits, zeros beyond `size`, and then an int32, the row's
  // share of paired products.
  float (*quantise)(const float* x, int size, float largest, uint8_t* out);

  // Outputs of a block of sums: sum * scale * row's scale + bias in 8 bits, sum + bias of floats.
  // `scale` and `bias` belong to the block's columns, `row_scales` to its rows; an activation comes
  // last. Rows of `out` are `stride` floats apart.
  void (*finish_int8)(const Sums& sums, const float* scale, const float* bias,
                      const float* row_scales, Activation activation, float* out, size_t stride);
  void (*finish_float)(const Sums& sums, const float* bias, Activation activation, float* out,
                       size_t stride);

  // Finds the first of the largest logits, if it exceeds `best`'s, and puts it there; returns the
  // largest. `mask`, added first, is 0 or minus infinity, or nullptr. `count` is a multiple of 16;
  // `base` is the first id.
  float (*update_likeliest)(const float* logits, const float* mask, int count, int base,
                            Likeliest* best);

  // Says which logits exceed another: a bit for each, 64 to a word, the rest zeros; `mask` and
  // `count` are as above.
  void (*find_above)(const float* logits, const float* mask, int count, float least,
                     uint64_t* lanes);

  // The largest logit, likewise.
  float (*largest)(const float* logits, const float* mask, int count);

  // The sum of exp((logit - largest) * rate), likewise.
  float (*sum_exponentials)(const float* logits, const float* mask, int count, float largest,
                            float rate);
};

extern const RowKernels kRowsAvx2;
extern const RowKernels kRowsAvx512;

}  // namespace splitformer

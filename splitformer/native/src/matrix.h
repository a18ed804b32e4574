// The weights of a linear map, packed for the micro-kernels.
#pragma once

#include <vector>

#include "kernels.h"
#include "memory.h"
#include "types.h"

namespace splitformer {

// The kernels that multiply matrices of this precision.
const KernelSet& KernelsFor(Precision precision, InstructionSet isa);

// Rows of a linear map as the caller has them.
struct Weights {
  const void* weight;  // (width, inputs)
  const float* bias;   // (width) or nullptr
  int width;
  Element element = Element::kFloat;
  const float* scale = nullptr;  // (width): of quantised weights, and only of them
  bool mapped = false;           // in a file: pages that have been packed are let go of

  const uint8_t* Row(int row, int inputs) const {
    return static_cast<const uint8_t*>(weight) + size_t(row) * size_t(inputs) * SizeOf(element);
  }
};

// Quantises a row of weights to 8 bits; returns what one step stands for, 0 for a row of zeros.
float QuantiseWeights(const float* row, size_t count, int8_t* out);

class Matrix {
 public:
  // Packs one or more maps of the same inputs side by side.
  //   kernels: what will multiply it.
  //   arena: where the weights go; it outlasts this.
  //   interleaved: alternate their panels, so that the same columns of each come together.
  //   padding_bias: the bias of columns that only fill up the last panel.
  //   multiple: round the number of panels up to a multiple of this.
  Matrix(Precision precision, const KernelSet& kernels, Arena* arena, int inputs,
         const std::vector<Weights>& parts, bool interleaved, float padding_bias, int multiple);

  Precision precision() const { return precision_; }
  int inputs() const { return inputs_; }
  int panels() const { return panels_; }
  int columns() const { return panels_ * kPanel; }
  size_t groups() const { return groups_; }
  const uint8_t* panel(int p) const {
    const size_t block = size_t(p) / block_panels_, within = size_t(p) % block_panels_;
    return data_ + (block * groups_ * block_panels_ + within * run_) * 64;
  }
  const int32_t* start(int p) const { return start_.data() + size_t(p) * kPanel; }

  // Turns sums into outputs, scaled and with bias: row `sums.row` of the product goes to `out`, the
  // next one `stride` floats behind. `row_scales` belong to the product's rows, int8 only.
  void Finish(const Sums& sums, const float* row_scales, float* out, size_t stride,
              Activation activation = Activation::kNone) const;

 private:
  // A column as a row of the map that it comes from; no map where it only fills up.
  struct Column {
    const Weights* part;
    int row;
  };

  void PackInt8(const std::vector<Column>& columns);
  void PackFloat(const std::vector<Column>& columns);

  // Writes the `n`-th column's quantised weights to `out`, and its scale to `scale_`.
  void Read(const Column& column, size_t n, int8_t* out);

  // What the sums of a column start from, given its quantised weights.
  int32_t StartOf(const int8_t* weights) const;

  // Where a column's weights of group `g` are.
  uint8_t* Place(size_t column, size_t g) const;

  Precision precision_;
  const RowKernels& row_kernels_;
  int inputs_;
  size_t block_panels_, run_;
  bool paired_;
  int panels_ = 0;
  size_t groups_ = 0;
  uint8_t* data_ = nullptr;     // (blocks, runs, block_panels_, run_, 64 bytes), or by column
  std::vector<float> scale_;    // per column, int8 only
  std::vector<float> bias_;     // per column
  std::vector<int32_t> start_;  // per column: takes out what kernels put in, see KernelSet
};

}  // namespace splitformer

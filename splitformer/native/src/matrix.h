// The weights of a linear map, packed for the micro-kernels.
#pragma once

#include <vector>

#include "kernels.h"
#include "memory.h"
#include "types.h"

namespace splitformer {

// The kernels that multiply matrices of this precision.
const KernelSet& KernelsFor(Precision precision, InstructionSet isa);

// Rows of a linear map as the caller has them: weight (width, inputs), bias (width) or nullptr.
struct Weights {
  const float* weight;
  const float* bias;
  int width;
};

// A block of a product as the micro-kernels leave it: (rows, columns), contiguous.
struct Sums {
  const int32_t* data;
  int row;
  int rows;
  int column;
  int columns;
};

class Matrix {
 public:
  // Packs one or more maps of the same inputs side by side.
  //   kernels: what will multiply it.
  //   interleaved: alternate their panels, so that the same columns of each come together.
  //   padding_bias: the bias of columns that only fill up the last panel.
  //   multiple: round the number of panels up to a multiple of this.
  Matrix(Precision precision, const KernelSet& kernels, int inputs,
         const std::vector<Weights>& parts, bool interleaved, float padding_bias, int multiple);

  Precision precision() const { return precision_; }
  int inputs() const { return inputs_; }
  int panels() const { return panels_; }
  int columns() const { return panels_ * kPanel; }
  size_t groups() const { return groups_; }
  const uint8_t* panel(int p) const {
    const size_t block = size_t(p) / block_panels_, within = size_t(p) % block_panels_;
    return data_.As<uint8_t>() + (block * groups_ * block_panels_ + within) * 64;
  }
  const int32_t* start(int p) const { return start_.data() + size_t(p) * kPanel; }

  // Turns sums into outputs, scaled and with bias: row `sums.row` of the product goes to `out`, the
  // next one `stride` floats behind. `row_scales` belong to the product's rows, int8 only.
  void Finish(const Sums& sums, const float* row_scales, float* out, size_t stride) const;

 private:
  void PackInt8(const std::vector<const float*>& rows);
  void PackFloat(const std::vector<const float*>& rows);

  // What the sums of a column start from, given its quantised weights.
  int32_t StartOf(size_t column) const;

  // Where a column's weights of group `g` are.
  uint8_t* Place(size_t column, size_t g) const;

  Precision precision_;
  int inputs_;
  size_t block_panels_;
  bool paired_;
  int panels_ = 0;
  size_t groups_ = 0;
  Buffer data_;                 // (blocks, groups, block_panels_, 64 bytes), or by column
  std::vector<float> scale_;    // per column, int8 only
  std::vector<float> bias_;     // per column
  std::vector<int32_t> start_;  // per column: takes out what kernels put in, see KernelSet
};

}  // namespace splitformer

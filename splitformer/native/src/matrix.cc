#include "matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "elements.h"

namespace splitformer {
namespace {

// Lets go of a mapped file's pages once they have been packed, some rows at a time: what has been
// read of it would count as this process's memory otherwise.
void ForgetRead(const Weights& part, int row, int inputs) {
  constexpr size_t kBytes = size_t{1} << 20;
  if (!part.mapped) return;
  const size_t bytes = size_t(inputs) * SizeOf(part.element);
  const size_t every = std::max(size_t{1}, kBytes / bytes), done = size_t(row) + 1;
  if (done % every != 0 && row + 1 != part.width) return;
  const uint8_t* end = part.Row(row + 1, inputs);
  Forget(end - std::min(done, every) * bytes, end);
}

}  // namespace

const KernelSet& KernelsFor(Precision precision, InstructionSet isa) {
  if (precision == Precision::kFloat) {
    return isa == InstructionSet::kAvx2 ? kFloatAvx2 : kFloatAvx512;
  }
  switch (isa) {
    case InstructionSet::kAmx:
      return *kInt8Amx;
    case InstructionSet::kVnni:
      return kInt8Vnni;
    default:
      return kInt8Avx2;
  }
}

Matrix::Matrix(Precision precision, const KernelSet& kernels, Arena* arena, int inputs,
               const std::vector<Weights>& parts, bool interleaved, float padding_bias,
               int multiple)
    : precision_(precision),
      row_kernels_(*kernels.rows),
      inputs_(inputs),
      block_panels_(size_t(kernels.block_panels)),
      run_(size_t(kernels.run)),
      paired_(kernels.paired) {
  std::vector<Column> rows;
  const auto add = [&](const Weights& part, int column) {
    const bool real = column < part.width;
    rows.push_back({real ? &part : nullptr, column});
    bias_.push_back(!real ? padding_bias : part.bias != nullptr ? part.bias[column] : 0.0f);
  };
  const Weights nothing = {nullptr, nullptr, 0};
  if (interleaved) {
    for (int first = 0; first < parts[0].width; first += kPanel) {
      for (const Weights& part : parts) {
        for (int c = 0; c < kPanel; ++c) add(part, first + c);
      }
    }
  } else {
    for (const Weights& part : parts) {
      for (int column = 0; column < part.width; ++column) add(part, column);
    }
  }
  while (rows.size() % size_t(kPanel * multiple) != 0) add(nothing, 0);
  panels_ = static_cast<int>(rows.size()) / kPanel;
  const size_t each = precision == Precision::kInt8 ? 4 : 1;  // elements of a column in a group
  groups_ = RoundUp(size_t(inputs), size_t(kernels.whole)) / each;
  data_ = arena->Take(RoundUp(size_t(panels_), block_panels_) * groups_ * 64);
  start_.assign(rows.size(), 0);
  if (precision == Precision::kInt8) {
    PackInt8(rows);
  } else {
    PackFloat(rows);
  }
}

float QuantiseWeights(const float* row, size_t count, int8_t* out) {
  float largest = 0.0f;
  for (size_t k = 0; k < count; ++k) largest = std::max(largest, std::fabs(row[k]));
  if (!(largest > 1e-30f)) {
    std::memset(out, 0, count);
    return 0.0f;
  }
  for (size_t k = 0; k < count; ++k) {
    const long value = std::lrintf(row[k] * (127.0f / largest));
    out[k] = static_cast<int8_t>(std::clamp(value, -127L, 127L));
  }
  return largest / 127.0f;
}

void Matrix::PackInt8(const std::vector<Column>& columns) {
  scale_.assign(columns.size(), 0.0f);
  std::vector<int8_t> weights(groups_ * 4, 0);
  for (size_t n = 0; n < columns.size(); ++n) {
    if (columns[n].part == nullptr) continue;
    Read(columns[n], n, weights.data());
    ForgetRead(*columns[n].part, columns[n].row, inputs_);
    for (size_t g = 0; g < groups_; ++g) std::memcpy(Place(n, g), &weights[g * 4], 4);
    start_[n] = StartOf(weights.data());
  }
}

void Matrix::Read(const Column& column, size_t n, int8_t* out) {
  const Weights& part = *column.part;
  const size_t count = size_t(inputs_);
  const uint8_t* row = part.Row(column.row, inputs_);
  if (part.element == Element::kInt8) {
    std::memcpy(out, row, count);
    scale_[n] = part.scale[column.row];
    return;
  }
  std::vector<float> wide(count);
  Widen(part.element, row, count, wide.data());
  scale_[n] = QuantiseWeights(wide.data(), count, out);
}

int32_t Matrix::StartOf(const int8_t* weights) const {
  int32_t sum = 0;
  for (size_t k = 0; k < groups_ * 4; ++k) {
    if (!paired_) {
      sum += kInt8Vnni.offset * int32_t{weights[k]};
    } else if (k % (2 * kPairDistance) < kPairDistance) {
      sum += int32_t{weights[k]} * int32_t{weights[k + kPairDistance]};
    }
  }
  return -sum;
}

void Matrix::PackFloat(const std::vector<Column>& columns) {
  std::vector<float> wide(groups_);
  for (size_t n = 0; n < columns.size(); ++n) {
    if (columns[n].part == nullptr) continue;
    const Weights& part = *columns[n].part;
    if (part.element == Element::kInt8) throw std::invalid_argument("weights: are quantised");
    Widen(part.element, part.Row(columns[n].row, inputs_), groups_, wide.data());
    ForgetRead(part, columns[n].row, inputs_);
    for (size_t k = 0; k < groups_; ++k) std::memcpy(Place(n, k), &wide[k], sizeof(float));
  }
}

uint8_t* Matrix::Place(size_t column, size_t g) const {
  if (paired_) return data_ + (column * groups_ + g) * 4;
  const size_t run = g / run_ * run_ * block_panels_;  // groups before it in the block
  return const_cast<uint8_t*>(panel(static_cast<int>(column / kPanel))) + (run + g % run_) * 64 +
         column % kPanel * 4;
}

void Matrix::Finish(const Sums& sums, const float* row_scales, float* out, size_t stride,
                    Activation activation) const {
  const float *bias = bias_.data() + sums.column, *scale = scale_.data() + sums.column;
  if (precision_ == Precision::kFloat) {
    row_kernels_.finish_float(sums, bias, activation, out, stride);
  } else {
    row_kernels_.finish_int8(sums, scale, bias, row_scales + sums.row, activation, out, stride);
  }
}

}  // namespace splitformer

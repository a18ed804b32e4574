#include "matrix.h"

#include <immintrin.h>

#include <algorithm>
#include <cmath>

namespace splitformer {

const KernelSet& KernelsFor(Precision precision, InstructionSet isa) {
  const bool wide = isa == InstructionSet::kVnni;
  if (precision == Precision::kInt8) return wide ? kInt8Vnni : kInt8Avx2;
  return wide ? kFloatAvx512 : kFloatAvx2;
}

Matrix::Matrix(Precision precision, const KernelSet& kernels, int inputs,
               const std::vector<Weights>& parts, bool interleaved, float padding_bias,
               int multiple)
    : precision_(precision),
      inputs_(inputs),
      block_panels_(size_t(kernels.block_panels)),
      paired_(kernels.paired) {
  std::vector<const float*> rows;  // per column; nullptr where it only fills up
  const auto add = [&](const Weights& part, int column) {
    const bool real = column < part.width;
    rows.push_back(real ? part.weight + size_t(column) * size_t(inputs) : nullptr);
    bias_.push_back(!real ? padding_bias : part.bias != nullptr ? part.bias[column] : 0.0f);
  };
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
  while (rows.size() % size_t(kPanel * multiple) != 0) add({nullptr, nullptr, 0}, 0);
  panels_ = static_cast<int>(rows.size()) / kPanel;
  const size_t whole = paired_ ? 2 * kPairDistance : 4;
  groups_ = precision == Precision::kInt8 ? RoundUp(size_t(inputs), whole) / 4 : size_t(inputs);
  data_.Reserve(RoundUp(size_t(panels_), block_panels_) * groups_ * 64);
  start_.assign(rows.size(), 0);
  if (precision == Precision::kInt8) {
    PackInt8(rows);
  } else {
    PackFloat(rows);
  }
}

void Matrix::PackInt8(const std::vector<const float*>& rows) {
  scale_.assign(rows.size(), 0.0f);
  for (size_t n = 0; n < rows.size(); ++n) {
    if (rows[n] == nullptr) continue;
    float largest = 0.0f;
    for (int k = 0; k < inputs_; ++k) largest = std::max(largest, std::fabs(rows[n][k]));
    if (!(largest > 1e-30f)) continue;  // a column of zeros
    scale_[n] = largest / 127.0f;
    for (size_t k = 0; k < size_t(inputs_); ++k) {
      const long value = std::lrintf(rows[n][k] * (127.0f / largest));
      const int8_t quantised = static_cast<int8_t>(std::clamp(value, -127L, 127L));
      Place(n, k / 4)[k % 4] = static_cast<uint8_t>(quantised);
    }
    start_[n] = StartOf(n);
  }
}

int32_t Matrix::StartOf(size_t column) const {
  const auto weight = [&](size_t k) {
    return int32_t{static_cast<int8_t>(Place(column, k / 4)[k % 4])};
  };
  int32_t sum = 0;
  for (size_t k = 0; k < groups_ * 4; ++k) {
    if (!paired_) {
      sum += kInt8Vnni.offset * weight(k);
    } else if (k % (2 * kPairDistance) < kPairDistance) {
      sum += weight(k) * weight(k + kPairDistance);
    }
  }
  return -sum;
}

void Matrix::PackFloat(const std::vector<const float*>& rows) {
  for (size_t n = 0; n < rows.size(); ++n) {
    if (rows[n] == nullptr) continue;
    for (size_t k = 0; k < groups_; ++k) *reinterpret_cast<float*>(Place(n, k)) = rows[n][k];
  }
}

uint8_t* Matrix::Place(size_t column, size_t g) const {
  if (paired_) return data_.As<uint8_t>() + (column * groups_ + g) * 4;
  const size_t panel = column / kPanel, block = panel / block_panels_,
               within = panel % block_panels_;
  return data_.As<uint8_t>() + ((block * groups_ + g) * block_panels_ + within) * 64 +
         column % kPanel * 4;
}

void Matrix::Finish(const Sums& sums, const float* row_scales, float* out, size_t stride) const {
  const float* bias = bias_.data() + sums.column;
  const float* scale = scale_.data() + sums.column;
  const size_t columns = size_t(sums.columns), rows = size_t(sums.rows);
  if (precision_ == Precision::kFloat) {
    const float* data = reinterpret_cast<const float*>(sums.data);
    for (size_t c = 0; c < columns; c += 8) {
      const __m256 shift = _mm256_loadu_ps(bias + c);
      for (size_t r = 0; r < rows; ++r) {
        const __m256 sum = _mm256_loadu_ps(data + r * columns + c);
        _mm256_storeu_ps(out + r * stride + c, _mm256_add_ps(sum, shift));
      }
    }
    return;
  }
  for (size_t c = 0; c < columns; c += 8) {
    const __m256 factor = _mm256_loadu_ps(scale + c), shift = _mm256_loadu_ps(bias + c);
    for (size_t r = 0; r < rows; ++r) {
      const int32_t* data = sums.data + r * columns + c;
      const __m256 sum =
          _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(data)));
      const __m256 row = _mm256_broadcast_ss(row_scales + size_t(sums.row) + r);
      _mm256_storeu_ps(out + r * stride + c,
                       _mm256_fmadd_ps(_mm256_mul_ps(sum, factor), row, shift));
    }
  }
}

}  // namespace splitformer

#include "source_attention.h"

#include <algorithm>
#include <cstring>

#include "attention.h"
#include "multiply.h"

namespace splitformer {
namespace {

// Queries whose scores are held at once.
constexpr int kQueries = 32;

// Most panels that alternate in a block; see kernels.h.
constexpr size_t kPanelStep = kMaxTilePanels * kPanel;

// Floats packed where the micro-kernels look for weights.
class Panels {
 public:
  // Of `columns` columns and `groups` elements in each.
  Panels(float* data, int columns, int groups, int block_panels)
      : data_(data),
        groups_(size_t(groups)),
        count_((columns + kPanel - 1) / kPanel),
        block_(size_t(block_panels)) {}

  static size_t Room(int columns, int groups) {
    return RoundUp(size_t(columns), kPanelStep) * size_t(groups);
  }

  int count() const { return count_; }
  size_t groups() const { return groups_; }
  const int32_t* start(int) const { return nullptr; }  // floats start from zero
  const uint8_t* panel(int p) const { return reinterpret_cast<const uint8_t*>(At(size_t(p), 0)); }

  // Element `group` of the 16 columns of panel `p`.
  float* At(size_t p, size_t group) const {
    return data_ + ((p / block_ * groups_ + group) * block_ + p % block_) * kPanel;
  }

 private:
  float* data_;
  size_t groups_;
  int count_;
  size_t block_;
};

// Keys become columns.
void PackKeys(const SourceHead& head, const Panels& panels) {
  for (int p = 0; p < panels.count(); ++p) {
    const int first = p * kPanel, keys = std::min(kPanel, head.count - first);
    for (size_t k = 0; k < size_t(head.width); ++k) {
      float* to = panels.At(size_t(p), k);
      const float* from = head.keys + size_t(first) * head.stride + k;
      for (int c = 0; c < kPanel; ++c) to[c] = c < keys ? from[size_t(c) * head.stride] : 0.0f;
    }
  }
}

// Values are rows already.
void PackValues(const SourceHead& head, const Panels& panels) {
  for (size_t t = 0; t < size_t(head.count); ++t) {
    for (int p = 0; p < panels.count(); ++p) {
      const int first = p * kPanel, columns = std::min(kPanel, head.width - first);
      float* to = panels.At(size_t(p), t);
      if (columns < kPanel) std::memset(to, 0, kPanel * sizeof(float));
      std::memcpy(to, head.values + t * head.stride + first, size_t(columns) * sizeof(float));
    }
  }
}

Operand Floats(const float* data, size_t stride, int rows) {
  return {reinterpret_cast<const uint8_t*>(data), stride * sizeof(float), data, rows};
}

void AddBias(const float* bias, int distances, int query, int count, float* scores) {
  for (int t = 0; t < count; ++t) {
    scores[t] += bias[std::clamp(t - query, 1 - distances, distances - 1) + distances - 1];
  }
}

}  // namespace

size_t SourceRoom(int positions, int width) {
  const size_t scores = size_t(kQueries) * RoundUp(size_t(positions), kPanel);
  return Panels::Room(positions, width) + Panels::Room(width, positions) + scores + kQueries;
}

void AttendWithin(const KernelSet& kernels, const SourceHead& head, float scale, const float* bias,
                  int distances, float* scratch, float* out, size_t out_stride) {
  const int count = head.count, width = head.width;
  const Panels keys(scratch, count, width, kernels.block_panels);
  scratch += Panels::Room(count, width);
  const Panels values(scratch, width, count, kernels.block_panels);
  scratch += Panels::Room(width, count);
  const size_t stride = RoundUp(size_t(count), kPanel);
  float *scores = scratch, *factors = scratch + size_t(kQueries) * stride;
  PackKeys(head, keys);
  PackValues(head, values);
  for (int first = 0, rows; first < count; first += rows) {
    rows = std::min(kQueries, count - first);
    const auto keep = [&](const Sums& sums) {
      const float* data = reinterpret_cast<const float*>(sums.data);
      for (int r = 0; r < sums.rows; ++r, data += sums.columns) {
        float* to = scores + size_t(sums.row + r) * stride + sums.column;
        for (int c = 0; c < sums.columns; ++c) to[c] = data[c] * scale;
      }
    };
    const float* queries = head.queries + size_t(first) * head.stride;
    Multiply(kernels, Floats(queries, head.stride, rows), keys, 0, keys.count(), nullptr, keep);
    for (int r = 0; r < rows; ++r) {
      float* row = scores + size_t(r) * stride;
      if (bias != nullptr) AddBias(bias, distances, first + r, count, row);
      factors[r] = 1.0f / Exponentiate(row, count);
    }
    const auto put = [&](const Sums& sums) {
      const float* data = reinterpret_cast<const float*>(sums.data);
      const int columns = std::min(sums.columns, width - sums.column);
      for (int r = 0; r < sums.rows; ++r, data += sums.columns) {
        float* to = out + size_t(first + sums.row + r) * out_stride + sums.column;
        for (int c = 0; c < columns; ++c) to[c] = data[c] * factors[sums.row + r];
      }
    };
    Multiply(kernels, Floats(scores, stride, rows), values, 0, values.count(), nullptr, put);
  }
}

}  // namespace splitformer

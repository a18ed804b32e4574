// Kernels one by one, for the tests.
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "api.h"
#include "attention.h"
#include "matrix.h"
#include "memory.h"
#include "multiply.h"
#include "rows.h"

namespace splitformer {
namespace {

// Copies a row to where whole vectors can be read.
float* Padded(const float* x, int size, Buffer* buffer) {
  buffer->Reserve(RoundUp(size_t(size), kRowAlignment) * sizeof(float));
  std::memcpy(buffer->As<float>(), x, size_t(size) * sizeof(float));
  return buffer->As<float>();
}

const RowKernels& RowsFor(int32_t isa) {
  return *KernelsFor(Precision::kFloat, static_cast<InstructionSet>(isa)).rows;
}

}  // namespace
}  // namespace splitformer

using namespace splitformer;

int32_t splitformer_probe_linear(int32_t precision, int32_t isa, const float* x, int32_t rows,
                                 int32_t inputs, const float* weight, const float* bias,
                                 int32_t width, uint8_t* operand, float* scales, int32_t* sums,
                                 float* out) {
  const Precision kind = static_cast<Precision>(precision);
  const KernelSet& kernels = KernelsFor(kind, static_cast<InstructionSet>(isa));
  Arena arena;
  const Matrix matrix(kind, kernels, &arena, inputs, {{weight, bias, width}}, false, 0.0f, 1);
  const size_t stride = RoundUp(size_t(inputs), kRowAlignment) * 4;
  Buffer row;
  for (int r = 0; r < rows; ++r) {
    const float* padded = Padded(x + size_t(r) * size_t(inputs), inputs, &row);
    uint8_t* to = operand + size_t(r) * stride;
    scales[r] = 0.0f;
    if (kind == Precision::kInt8) {
      const float largest = kernels.rows->magnitude(padded, inputs);
      scales[r] = kernels.rows->quantise(padded, inputs, largest, to);
    } else {
      std::memcpy(to, padded, size_t(inputs) * sizeof(float));
    }
  }
  const size_t columns = size_t(matrix.columns());
  const auto put = [&](const Sums& block) {
    const size_t at = size_t(block.row) * columns + size_t(block.column);
    matrix.Finish(block, scales, out + at, columns);
    for (size_t r = 0, count = size_t(block.columns); r < size_t(block.rows); ++r) {
      std::memcpy(sums + at + r * columns, block.data + r * count, count * sizeof(int32_t));
    }
  };
  const Operand rows_of_x = {operand, stride, scales, rows};
  Multiply(kernels, rows_of_x, matrix, 0, matrix.panels(), nullptr, put);
  return kernels.offset;
}

void splitformer_probe_norm(int32_t isa, const splitformer_norm* from, const float* x, int32_t size,
                            float* out) {
  const Norm norm(static_cast<NormKind>(from->kind), from->epsilon, from->gain, from->shift, size);
  Buffer row;
  float* padded = Padded(x, size, &row);
  float largest;
  norm.Apply(RowsFor(isa), &padded, 1, size, &padded, &largest);
  std::memcpy(out, padded, size_t(size) * sizeof(float));
}

void splitformer_probe_activation(int32_t isa, int32_t activation, float* x, int32_t count) {
  Buffer row;
  float* padded = Padded(x, count, &row);
  RowsFor(isa).activate(static_cast<Activation>(activation), padded, count);
  std::memcpy(x, padded, size_t(count) * sizeof(float));
}

int32_t splitformer_probe_logits(int32_t isa, const float* logits, const float* mask, int32_t count,
                                 float* largest, float* sum) {
  const RowKernels& kernels = RowsFor(isa);
  Likeliest best = {-std::numeric_limits<float>::infinity(), -1};
  kernels.update_likeliest(logits, mask, count, 0, &best);
  *largest = kernels.largest(logits, nullptr, count);
  *sum = kernels.sum_exponentials(logits, nullptr, count, *largest, 1.0f);
  return best.id;
}

void splitformer_probe_attention(int32_t cache, const float* query, const float* keys,
                                 const float* values, int32_t positions, int32_t width, float scale,
                                 const float* bias, int32_t distances, float* out) {
  Buffer scores(ScoreRoom(size_t(positions)) * sizeof(float));
  const CacheType type = static_cast<CacheType>(cache);
  Buffer elements(2 * size_t(positions) * size_t(width) * sizeof(float));
  const size_t row_bytes = size_t(width) * ElementBytes(type);
  const size_t half = size_t(positions) * row_bytes;
  StoreElements(type, keys, positions * width, elements.As<char>());
  StoreElements(type, values, positions * width, elements.As<char>() + half);
  std::vector<void*> pages;
  for (int first = 0; first < positions; first += kPagePositions) {
    pages.push_back(elements.As<char>() + size_t(first) * row_bytes);
  }
  const Head head = {pages.data(), nullptr, 0, half, positions};
  Attend(type, head, head, width, query, scale, bias, distances, scores.As<float>(), out);
}

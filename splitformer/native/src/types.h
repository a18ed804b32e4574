// The words that the whole native library shares.
#pragma once

#include <cstddef>
#include <cstdint>

namespace splitformer {

// How the weights of linear maps are held and multiplied.
enum class Precision : int32_t { kFloat = 0, kInt8 = 1 };

// Which kernels work; what is no kernel is compiled once, for AVX2 and FMA.
enum class InstructionSet : int32_t { kNone = 0, kAvx2 = 1, kVnni = 2, kAmx = 3 };

// How keys and values are held.
enum class CacheType : int32_t { kFloat = 0, kHalf = 1 };

constexpr size_t ElementBytes(CacheType type) { return type == CacheType::kHalf ? 2 : 4; }

// How stored numbers are held: the weights of maps and the tables of embeddings.
enum class Element : int32_t { kFloat = 0, kHalf = 1, kBrain = 2, kInt8 = 3 };

constexpr size_t SizeOf(Element element) {
  return element == Element::kFloat ? 4 : element == Element::kInt8 ? 1 : 2;
}

// Positions of a page, the piece in which caches of a sequence's own positions grow.
constexpr int kPagePositions = 32;

enum class Activation : int32_t { kNone = 0, kRelu = 1, kGelu = 2, kGeluTanh = 3, kSilu = 4 };

enum class NormKind : int32_t { kNone = 0, kLayer = 1, kRms = 2 };

// Columns of a packed panel of weights, and of every tile that a micro-kernel computes.
constexpr int kPanel = 16;

// Rows of activations are this many elements apart, or a multiple: whole vectors can be read and
// written anywhere in a row.
constexpr int kRowAlignment = 32;

constexpr size_t RoundUp(size_t value, size_t step) { return (value + step - 1) / step * step; }

// Where the `part`-th of `parts` even contiguous shares of `count` things begins.
constexpr int ShareBegin(int count, int part, int parts) {
  return static_cast<int>(static_cast<int64_t>(count) * part / parts);
}

}  // namespace splitformer

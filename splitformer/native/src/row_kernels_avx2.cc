// Kernels of rows for AVX2 and FMA.
#include <algorithm>
#include <cstring>

#include "kernels.h"
#include "row_kernels_impl.h"

namespace splitformer {
namespace {

// Sixteen quantised elements.
inline __m256i Packed(const float* x, Eight factor) {
  const __m256i first = ToInts(Eight::Load(x) * factor);
  const __m256i last = ToInts(Eight::Load(x + 8) * factor);
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(first, last), 0xD8);
}

inline int32_t SumOfInts(__m256i x) {
  const __m128i half = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  const __m128i quarter = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(quarter, _mm_shuffle_epi32(quarter, 0xB1)));
}

// In 16 bits, with the row's share of paired products.
float Quantise(const float* x, int size, float largest, uint8_t* out) {
  static_assert(kPairDistance == 16, "a vector's elements meet those of the next");
  const Eight factor = Eight::Of(QuantisingFactor(largest));
  __m256i sum = _mm256_setzero_si256();
  alignas(32) float last[32] = {};
  for (int i = 0; i < size; i += 32, out += 64) {
    const float* from = x + i;
    if (i + 32 > size) {
      std::copy(from, x + size, last);
      from = last;
    }
    const __m256i low = Packed(from, factor), high = Packed(from + 16, factor);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32), high);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(low, high));
  }
  const int32_t total = SumOfInts(sum);
  std::memcpy(out, &total, sizeof total);
  return largest / 127.0f;
}

}  // namespace

const RowKernels kRowsAvx2 = {Normalise,   Add,             MultiplyBy, Activate,
                              Magnitude,   Quantise,        FinishInt8, FinishFloat,
                              UpdateLikeliest, FindAbove,   Largest,    SumExponentials};

}  // namespace splitformer

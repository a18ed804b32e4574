// Micro-kernels for AVX2 and FMA.
#include <immintrin.h>

#include "kernels.h"

// Sums stay in registers only if every loop over them is unrolled before anything else is done.
#define UNROLL _Pragma("GCC unroll 8")

namespace splitformer {
namespace {

int32_t Load32(const uint8_t* p) {
  int32_t value;
  __builtin_memcpy(&value, p, sizeof value);
  return value;
}

int64_t Load64(const uint8_t* p) {
  int64_t value;
  __builtin_memcpy(&value, p, sizeof value);
  return value;
}

// 8-bit sums without vpmaddubsw, which saturates at 16 bits and would lose what VNNI keeps. The
// activations come as 16 bits (a group is 8 bytes, its zero is 0), the weights are widened on the
// way; vpmaddwd then adds pairs of exact products. A vector of sums holds four columns, two halves
// each, until the end.
template <int kRows, int kQuarters>
void Int8Columns(const uint8_t* a, size_t a_stride, const uint8_t* b, size_t groups,
                 int32_t* tile) {
  __m256i sums[kRows][kQuarters];
  UNROLL for (int r = 0; r < kRows; ++r) {
    UNROLL for (int q = 0; q < kQuarters; ++q) sums[r][q] = _mm256_setzero_si256();
  }
  for (size_t g = 0; g < groups; ++g, a += 8, b += 64) {
    _mm_prefetch(b + kAhead, _MM_HINT_T0);
    __m256i group[kRows];
    UNROLL for (int r = 0; r < kRows; ++r) group[r] = _mm256_set1_epi64x(Load64(a + r * a_stride));
    UNROLL for (int q = 0; q < kQuarters; ++q) {
      const __m128i narrow = _mm_load_si128(reinterpret_cast<const __m128i*>(b + 16 * q));
      const __m256i weights = _mm256_cvtepi8_epi16(narrow);
      UNROLL for (int r = 0; r < kRows; ++r) {
        sums[r][q] = _mm256_add_epi32(sums[r][q], _mm256_madd_epi16(weights, group[r]));
      }
    }
  }
  UNROLL for (int r = 0; r < kRows; ++r) {
    UNROLL for (int q = 0; q < kQuarters; q += 2) {
      const __m256i halves = _mm256_hadd_epi32(sums[r][q], sums[r][q + 1]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(tile + r * 16 + 4 * q),
                          _mm256_permute4x64_epi64(halves, 0xD8));
    }
  }
}

template <int kRows>
void Int8Tile(const uint8_t* a, size_t a_stride, const uint8_t* b, size_t groups, const int32_t*,
              int32_t* tile) {
  // Three or four rows fill the 16 registers with half a panel, fewer with a whole one.
  constexpr int kQuarters = kRows <= 2 ? 4 : 2;
  for (int q = 0; q < 4; q += kQuarters) {
    Int8Columns<kRows, kQuarters>(a, a_stride, b + 16 * q, groups, tile + 4 * q);
  }
}

template <int kRows>
void FloatTile(const uint8_t* a, size_t a_stride, const uint8_t* b, size_t groups, const int32_t*,
               int32_t* tile) {
  __m256 left[kRows], right[kRows];
  UNROLL for (int r = 0; r < kRows; ++r) left[r] = right[r] = _mm256_setzero_ps();
  for (size_t g = 0; g < groups; ++g, a += 4, b += 64) {
    _mm_prefetch(b + kAhead, _MM_HINT_T0);
    const float* weights = reinterpret_cast<const float*>(b);
    const __m256 first = _mm256_load_ps(weights), second = _mm256_load_ps(weights + 8);
    UNROLL for (int r = 0; r < kRows; ++r) {
      const __m256 x = _mm256_castsi256_ps(_mm256_set1_epi32(Load32(a + r * a_stride)));
      left[r] = _mm256_fmadd_ps(x, first, left[r]);
      right[r] = _mm256_fmadd_ps(x, second, right[r]);
    }
  }
  UNROLL for (int r = 0; r < kRows; ++r) {
    _mm256_storeu_ps(reinterpret_cast<float*>(tile) + r * 16, left[r]);
    _mm256_storeu_ps(reinterpret_cast<float*>(tile) + r * 16 + 8, right[r]);
  }
}

}  // namespace

#define ROW(tile, rows) {nullptr, tile<rows>, nullptr, nullptr, nullptr}
#define ROWS(tile) \
  {{}, ROW(tile, 1), ROW(tile, 2), ROW(tile, 3), ROW(tile, 4), ROW(tile, 5), ROW(tile, 6)}

const KernelSet kInt8Avx2 = {ROWS(Int8Tile), 4, 1, 8, 0};
const KernelSet kFloatAvx2 = {ROWS(FloatTile), 6, 1, 4, 0};

}  // namespace splitformer

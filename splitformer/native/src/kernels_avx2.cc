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
                 size_t tile_stride, int32_t* tile) {
  __m256i sums[kRows][kQuarters];
  UNROLL for (int r = 0; r < kRows; ++r) {
    UNROLL for (int q = 0; q < kQuarters; ++q) sums[r][q] = _mm256_setzero_si256();
  }
  for (size_t g = 0; g < groups; ++g, a += 8, b += kGroupStride) {
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
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(tile + r * tile_stride + 4 * q),
                          _mm256_permute4x64_epi64(halves, 0xD8));
    }
  }
}

template <int kRows, int kPanels>
void Int8Tile(const uint8_t* a, size_t a_stride, const uint8_t* b, size_t groups, const int32_t*,
              int32_t* tile) {
  // Three or four rows fill the 16 registers with half a panel, fewer with a whole one.
  constexpr int kQuarters = kRows <= 2 ? 4 : 2;
  for (int q = 0; q < 4 * kPanels; q += kQuarters) {
    Int8Columns<kRows, kQuarters>(a, a_stride, b + 16 * q, groups, 16 * kPanels, tile + 4 * q);
  }
}

template <int kRows, int kPanels>
void FloatColumns(const uint8_t* a, size_t a_stride, const uint8_t* b, size_t groups,
                  size_t tile_stride, int32_t* tile) {
  __m256 sums[kRows][2 * kPanels];
  UNROLL for (int r = 0; r < kRows; ++r) {
    UNROLL for (int v = 0; v < 2 * kPanels; ++v) sums[r][v] = _mm256_setzero_ps();
  }
  for (size_t g = 0; g < groups; ++g, a += 4, b += kGroupStride) {
    UNROLL for (int p = 0; p < kPanels; ++p) {
      const float* weights = reinterpret_cast<const float*>(b + 64 * p);
      const __m256 left = _mm256_load_ps(weights), right = _mm256_load_ps(weights + 8);
      UNROLL for (int r = 0; r < kRows; ++r) {
        const __m256 x = _mm256_castsi256_ps(_mm256_set1_epi32(Load32(a + r * a_stride)));
        sums[r][2 * p] = _mm256_fmadd_ps(x, left, sums[r][2 * p]);
        sums[r][2 * p + 1] = _mm256_fmadd_ps(x, right, sums[r][2 * p + 1]);
      }
    }
  }
  UNROLL for (int r = 0; r < kRows; ++r) {
    UNROLL for (int v = 0; v < 2 * kPanels; ++v) {
      _mm256_storeu_ps(reinterpret_cast<float*>(tile) + r * tile_stride + 8 * v, sums[r][v]);
    }
  }
}

template <int kRows, int kPanels>
void FloatTile(const uint8_t* a, size_t a_stride, const uint8_t* b, size_t groups, const int32_t*,
               int32_t* tile) {
  constexpr int kAtOnce = kRows == 1 ? kPanels : kRows <= 3 && kPanels > 1 ? 2 : 1;
  UNROLL for (int p = 0; p < kPanels; p += kAtOnce) {
    FloatColumns<kRows, kAtOnce>(a, a_stride, b + 64 * p, groups, 16 * kPanels, tile + 16 * p);
  }
}

}  // namespace

#define ROW(tile, rows) {nullptr, tile<rows, 1>, tile<rows, 2>, nullptr, tile<rows, 4>}
#define ROWS(tile) \
  {{}, ROW(tile, 1), ROW(tile, 2), ROW(tile, 3), ROW(tile, 4), ROW(tile, 5), ROW(tile, 6)}

const KernelSet kInt8Avx2 = {ROWS(Int8Tile), 4, 8, 0};
const KernelSet kFloatAvx2 = {ROWS(FloatTile), 6, 4, 0};

}  // namespace splitformer

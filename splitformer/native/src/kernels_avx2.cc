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

inline __m256i Widened(const uint8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}

inline __m256i Load(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

// The sums of four vectors.
inline __m128i SumFour(const __m256i* v) {
  __m128i s[4];
  UNROLL for (int i = 0; i < 4; ++i) {
    s[i] = _mm_add_epi32(_mm256_castsi256_si128(v[i]), _mm256_extracti128_si256(v[i], 1));
  }
  const __m128i first =
      _mm_add_epi32(_mm_unpacklo_epi32(s[0], s[1]), _mm_unpackhi_epi32(s[0], s[1]));
  const __m128i last =
      _mm_add_epi32(_mm_unpacklo_epi32(s[2], s[3]), _mm_unpackhi_epi32(s[2], s[3]));
  return _mm_add_epi32(_mm_unpacklo_epi64(first, last), _mm_unpackhi_epi64(first, last));
}

// A tile of a few rows and columns; columns are `k` bytes apart. `sums` are by column and row,
// (columns, rows), with room for a multiple of four and aligned for it.
template <int kRows, int kColumns>
inline void PairedSums(const uint8_t* a, size_t a_stride, const uint8_t* b, size_t k,
                       int32_t* sums) {
  constexpr int kCount = kRows * kColumns, kPadded = (kCount + 3) / 4 * 4;
  __m256i v[kPadded];
  UNROLL for (int i = 0; i < kPadded; ++i) v[i] = _mm256_setzero_si256();
  for (size_t i = 0; i < k; i += 2 * kPairDistance, a += 4 * kPairDistance) {
    UNROLL for (int c = 0; c < kColumns; ++c) {
      const uint8_t* weights = b + size_t(c) * k + i;
      _mm_prefetch(weights + kAhead, _MM_HINT_T0);
      const __m256i w = Widened(weights), w_paired = Widened(weights + kPairDistance);
      UNROLL for (int r = 0; r < kRows; ++r) {
        const uint8_t* row = a + size_t(r) * a_stride;
        const __m256i x = _mm256_add_epi16(w_paired, Load(row));
        const __m256i y = _mm256_add_epi16(w, Load(row + 2 * kPairDistance));
        __m256i& sum = v[c * kRows + r];
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x, y));
      }
    }
  }
  // g++ 12 copies every sum once per round of the loop unless it is told that they stay in place.
  UNROLL for (int i = 0; i < kPadded; ++i) asm("" : "+x"(v[i]));
  UNROLL for (int i = 0; i < kPadded; i += 4) {
    _mm_store_si128(reinterpret_cast<__m128i*>(sums + i), SumFour(v + i));
  }
}

// 8-bit sums without vpmaddubsw, which saturates at 16 bits and would lose what VNNI keeps:
// activations come as 16 bits, weights are widened on the way, and vpmaddwd adds pairs of exact
// products. That instruction is the scarce one on processors that start one per cycle or less, and
// pairing halves their number; additions, of which it takes more, find free units.
template <int kRows>
void Int8Tile(const uint8_t* a, size_t a_stride, const uint8_t* b, size_t groups,
              const int32_t* start, Ahead, const Work&, int32_t* tile) {
  constexpr int kColumns = kRows <= 2 ? 4 : kRows <= 4 ? 2 : 1;
  const size_t k = groups * 4;
  int32_t row_start[kRows];
  UNROLL for (int r = 0; r < kRows; ++r) row_start[r] = -Load32(a + size_t(r) * a_stride + 2 * k);
  for (int c = 0; c < 16; c += kColumns, b += size_t(kColumns) * k) {
    alignas(16) int32_t sums[kRows * kColumns + 3];
    PairedSums<kRows, kColumns>(a, a_stride, b, k, sums);
    UNROLL for (int i = 0; i < kColumns; ++i) {
      UNROLL for (int r = 0; r < kRows; ++r) {
        tile[r * 16 + c + i] = sums[i * kRows + r] + start[c + i] + row_start[r];
      }
    }
  }
}

template <int kRows>
void FloatTile(const uint8_t* a, size_t a_stride, const uint8_t* b, size_t groups, const int32_t*,
               Ahead, const Work&, int32_t* tile) {
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
#define SIX_ROWS(tile) \
  {}, ROW(tile, 1), ROW(tile, 2), ROW(tile, 3), ROW(tile, 4), ROW(tile, 5), ROW(tile, 6)

const KernelSet kInt8Avx2 = {{SIX_ROWS(Int8Tile), ROW(Int8Tile, 7), ROW(Int8Tile, 8)},
                             8, 1, 1, 1, 2 * kPairDistance, 8, 0, 0, true, false, &kRowsAvx2,
                             nullptr, nullptr, nullptr, 0};
const KernelSet kFloatAvx2 = {{SIX_ROWS(FloatTile)}, 6, 1, 1, 1, 1, 4, 0, 0, false, false, &kRowsAvx2,
                              nullptr, nullptr, nullptr, 0};

}  // namespace splitformer

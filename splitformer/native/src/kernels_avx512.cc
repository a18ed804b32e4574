// Micro-kernels for AVX-512: VNNI for 8 bits, FMA for floats.
#include <immintrin.h>

#include "kernels.h"

// Sums stay in registers only if every loop over them is unrolled before anything else is done.
#define UNROLL _Pragma("GCC unroll 8")

namespace splitformer {
namespace {

// One group of one row against one panel: 16 columns at once.
struct Int8 {
  using Sums = __m512i;
  static constexpr size_t kRun = 16;
  static Sums Start(const int32_t* start) { return _mm512_loadu_si512(start); }
  static Sums Add(Sums sums, const uint8_t* a, __m512i b) {
    int32_t group;
    __builtin_memcpy(&group, a, sizeof group);
    return _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(group), b);
  }
  static void Store(int32_t* tile, Sums sums) { _mm512_store_si512(tile, sums); }
};

struct Float {
  using Sums = __m512;
  static constexpr size_t kRun = 1;
  static Sums Start(const int32_t*) { return _mm512_setzero_ps(); }
  static Sums Add(Sums sums, const uint8_t* a, __m512i b) {
    float element;
    __builtin_memcpy(&element, a, sizeof element);
    return _mm512_fmadd_ps(_mm512_set1_ps(element), _mm512_castsi512_ps(b), sums);
  }
  static void Store(int32_t* tile, Sums sums) {
    _mm512_store_si512(tile, _mm512_castps_si512(sums));
  }
};

constexpr int kBlockPanels = 4;
constexpr int kHastyRows = 4;

template <class Kind, int kRows, int kPanels>
void Tile(const uint8_t* a, size_t a_stride, const uint8_t* b, size_t groups, const int32_t* start,
          Ahead ahead, const Work&, int32_t* tile) {
  constexpr size_t kSkip = 64 * Kind::kRun * (kBlockPanels - 1);  // the other panels' run
  typename Kind::Sums sums[kRows][kPanels];
  UNROLL for (int p = 0; p < kPanels; ++p) {
    UNROLL for (int r = 0; r < kRows; ++r) sums[r][p] = Kind::Start(start + 16 * p);
  }
  for (size_t g = 0; g < groups; ++g, a += 4, b += 64) {
    if (g % Kind::kRun == 0 && g != 0) b += kSkip;
    __m512i weights[kPanels];
    if (ahead.at_once) {
      UNROLL for (int p = 0; p < kPanels; ++p) _mm_prefetch(ahead.at + p * ahead.gap, _MM_HINT_T0);
    } else {
      UNROLL for (int p = 0; p < kPanels; ++p) _mm_prefetch(ahead.at + p * ahead.gap, _MM_HINT_T1);
    }
    ahead.at += kBlockPanels * ahead.gap;
    UNROLL for (int p = 0; p < kPanels; ++p) {
      weights[p] = _mm512_load_si512(b + 64 * Kind::kRun * p);
      if (kRows > 1) asm("" : "+v"(weights[p]));  // or g++ 12 loads it anew for every row
    }
    UNROLL for (int r = 0; r < kRows; ++r) {
      UNROLL for (int p = 0; p < kPanels; ++p) {
        sums[r][p] = Kind::Add(sums[r][p], a + r * a_stride, weights[p]);
      }
    }
  }
  UNROLL for (int r = 0; r < kRows; ++r) {
    UNROLL for (int p = 0; p < kPanels; ++p) Kind::Store(tile + (r * kPanels + p) * 16, sums[r][p]);
  }
}

}  // namespace

#define ROW(kind, rows) \
  {nullptr, Tile<kind, rows, 1>, Tile<kind, rows, 2>, nullptr, Tile<kind, rows, 4>}
#define ROWS(kind) \
  {{}, ROW(kind, 1), ROW(kind, 2), ROW(kind, 3), ROW(kind, 4), ROW(kind, 5), ROW(kind, 6)}

// Six rows by four panels are 24 of the 32 registers, and fewer loads per product than 8 by 2.
const KernelSet kInt8Vnni = {ROWS(Int8), 6, 1, kBlockPanels, Int8::kRun, 64, 4, 128, kHastyRows,
                             false, false, &kRowsAvx512, nullptr, nullptr, nullptr, 0};
const KernelSet kFloatAvx512 = {ROWS(Float), 6, 1, kBlockPanels, Float::kRun, 1, 4, 0, kHastyRows,
                                false, false, &kRowsAvx512, nullptr, nullptr, nullptr, 0};

}  // namespace splitformer

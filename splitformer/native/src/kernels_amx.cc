// Micro-kernels for AMX: 8 bits, whole tiles of 16 rows, 64 bytes of each, by 16 columns.
//
// A run of a panel's groups is a tile of weights as it lies, so the layout is that of VNNI, whose
// kernels are as good where a few rows wait for weights from memory. Sums are exact in both.
#include "kernels.h"

#ifdef __AMX_INT8__
#include <immintrin.h>

namespace splitformer {
namespace {

constexpr int kTileRows = 16;
constexpr int kBlockPanels = 4;
constexpr size_t kTile = 64 * kTileRows;                 // bytes of a tile of weights
constexpr size_t kStep = kTile * kBlockPanels;           // of weights, that tiles use up at once

void Begin() {
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {kTileRows, kTileRows, kTileRows, kTileRows,
                        kTileRows, kTileRows, kTileRows, kTileRows};
  };
  static constexpr Config kConfig;
  _tile_loadconfig(&kConfig);
}

void End() { _tile_release(); }

// Asks for what belongs to one tile of weights: the tile of its panel that is used kAhead bytes
// later, or its share of what comes next.
inline void Ask(Ahead* ahead, const uint8_t* weights) {
  if (ahead->at_once) {
    for (size_t g = 0; g < kTileRows; ++g) {
      _mm_prefetch(weights + kAhead + 64 * g, _MM_HINT_T0);
    }
  } else {
    const uint8_t* end = ahead->at + kTileRows * ahead->gap;
    for (; ahead->at < end; ahead->at += 64) _mm_prefetch(ahead->at, _MM_HINT_T1);
  }
}

inline void Do(const Work& beside) {
  if (beside.part != nullptr) beside.part(beside.of);
}

// Up to 16 rows.
template <int kPanels>
void Low(const uint8_t* a, size_t a_stride, const uint8_t* b, size_t groups, const int32_t* start,
         Ahead ahead, const Work& beside, int32_t* tile) {
  _tile_loadd(0, start, 0);  // the same line sixteen times
  if constexpr (kPanels > 1) _tile_loadd(1, start + 16, 0);
  if constexpr (kPanels > 2) _tile_loadd(2, start + 32, 0);
  if constexpr (kPanels > 2) _tile_loadd(3, start + 48, 0);
  for (size_t g = 0; g < groups; g += kTileRows, a += 64, b += kStep) {
    Ask(&ahead, b);
    _tile_loadd(4, a, a_stride);
    _tile_loadd(5, b, 64);
    _tile_dpbusd(0, 4, 5);
    if constexpr (kPanels > 1) {
      Ask(&ahead, b + kTile);
      _tile_loadd(6, b + kTile, 64);
      _tile_dpbusd(1, 4, 6);
    }
    Do(beside);
    if constexpr (kPanels > 2) {
      Ask(&ahead, b + 2 * kTile);
      _tile_loadd(7, b + 2 * kTile, 64);
      _tile_dpbusd(2, 4, 7);
      Ask(&ahead, b + 3 * kTile);
      _tile_loadd(5, b + 3 * kTile, 64);
      _tile_dpbusd(3, 4, 5);
      Do(beside);
    }
  }
  constexpr size_t kStride = kPanels * 64;
  _tile_stored(0, tile, kStride);
  if constexpr (kPanels > 1) _tile_stored(1, tile + 16, kStride);
  if constexpr (kPanels > 2) _tile_stored(2, tile + 32, kStride);
  if constexpr (kPanels > 2) _tile_stored(3, tile + 48, kStride);
}

// Up to 32 rows by one panel or two of `kPanels`: two by two, so that a tile is loaded once for two
// products.
template <int kPanels>
inline void Square(const uint8_t* a, size_t a_stride, const uint8_t* b, size_t groups,
                   const int32_t* start, Ahead* ahead, const Work& beside, int32_t* tile) {
  constexpr bool kTwo = kPanels > 1;
  const uint8_t* lower = a + kTileRows * a_stride;
  _tile_loadd(0, start, 0);
  _tile_loadd(1, start, 0);
  if constexpr (kTwo) _tile_loadd(2, start + 16, 0);
  if constexpr (kTwo) _tile_loadd(3, start + 16, 0);
  for (size_t g = 0; g < groups; g += kTileRows, a += 64, lower += 64, b += kStep) {
    Ask(ahead, b);
    _tile_loadd(4, a, a_stride);
    _tile_loadd(6, b, 64);
    _tile_dpbusd(0, 4, 6);
    _tile_loadd(5, lower, a_stride);
    _tile_dpbusd(1, 5, 6);
    if constexpr (kTwo) {
      Ask(ahead, b + kTile);
      _tile_loadd(7, b + kTile, 64);
      _tile_dpbusd(2, 4, 7);
      _tile_dpbusd(3, 5, 7);
    }
    Do(beside);
  }
  constexpr size_t kStride = kPanels * 64;
  int32_t* below = tile + kTileRows * kPanels * 16;
  _tile_stored(0, tile, kStride);
  _tile_stored(1, below, kStride);
  if constexpr (kTwo) _tile_stored(2, tile + 16, kStride);
  if constexpr (kTwo) _tile_stored(3, below + 16, kStride);
}

template <int kPanels>
void High(const uint8_t* a, size_t a_stride, const uint8_t* b, size_t groups, const int32_t* start,
          Ahead ahead, const Work& beside, int32_t* tile) {
  for (int p = 0; p < kPanels; p += 2) {
    Square<kPanels>(a, a_stride, b + kTile * p, groups, start + 16 * p, &ahead, beside,
                    tile + 16 * p);
  }
}

#define LOW {nullptr, Low<1>, Low<2>, nullptr, Low<4>}
#define HIGH {nullptr, High<1>, High<2>, nullptr, High<4>}
#define FOUR(...) __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__
#define SIXTEEN(...) FOUR(FOUR(__VA_ARGS__))

// Up to so many rows VNNI's kernels take less time; up to so many weights are still waited for.
constexpr int kFewRows = 6, kHastyRows = 2 * kTileRows;

const KernelSet kSet = {{{}, SIXTEEN(LOW), SIXTEEN(HIGH)},
                        2 * kTileRows, kTileRows, kBlockPanels, kTileRows, 64, 4, 128, kHastyRows,
                        false, true, &kRowsAvx512, Begin, End, &kInt8Vnni, kFewRows};

}  // namespace

const KernelSet* const kInt8Amx = &kSet;

}  // namespace splitformer

#else

namespace splitformer {

const KernelSet* const kInt8Amx = nullptr;

}  // namespace splitformer

#endif

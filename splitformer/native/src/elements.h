// Numbers as they are stored, and as floats; widening is exact.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "types.h"

namespace splitformer {

// Eight elements as floats.
template <Element kElement>
inline __m256 LoadEight(const void* from) {
  if constexpr (kElement == Element::kFloat) {
    return _mm256_loadu_ps(static_cast<const float*>(from));
  } else {
    const __m128i bits = _mm_loadu_si128(static_cast<const __m128i*>(from));
    if constexpr (kElement == Element::kHalf) return _mm256_cvtph_ps(bits);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
}

// Elements from `i` on, those at or beyond `size` as zeros.
template <Element kElement>
inline __m256 LoadElements(const void* from, size_t i, size_t size) {
  constexpr size_t kBytes = SizeOf(kElement);
  const uint8_t* at = static_cast<const uint8_t*>(from) + i * kBytes;
  if (i + 8 <= size) return LoadEight<kElement>(at);
  uint8_t last[8 * kBytes] = {};
  std::memcpy(last, at, (size - i) * kBytes);
  return LoadEight<kElement>(last);
}

template <Element kElement>
inline void WidenAs(const void* from, size_t count, float* to) {
  for (size_t i = 0; i < count; i += 8) {
    alignas(32) float eight[8];
    _mm256_store_ps(eight, LoadElements<kElement>(from, i, count));
    std::memcpy(to + i, eight, std::min(size_t{8}, count - i) * sizeof(float));
  }
}

// Writes `count` stored numbers, not quantised ones, as floats.
inline void Widen(Element element, const void* from, size_t count, float* to) {
  switch (element) {
    case Element::kHalf:
      return WidenAs<Element::kHalf>(from, count, to);
    case Element::kBrain:
      return WidenAs<Element::kBrain>(from, count, to);
    default:
      std::memcpy(to, from, count * sizeof(float));
  }
}

}  // namespace splitformer

// Floats to 16 bits and back, eight at a time, with the bits that conversion one by one has.

#include <immintrin.h>

#include <cstring>

#include "api.h"

namespace {

constexpr int64_t kLanes = 8;

// The processor marks every NaN as quiet; here it keeps its upper bits, and at least one of them.
uint16_t NarrowNan(uint32_t bits) {
  const uint32_t kept = bits >> 13 & 0x3FF;
  return uint16_t((bits >> 16 & 0x8000) | 0x7C00 | (kept ? kept : 1));
}

uint32_t WidenNan(uint16_t bits) {
  return uint32_t(bits & 0x8000) << 16 | 0x7F800000 | uint32_t(bits & 0x3FF) << 13;
}

void NarrowEight(const float* from, uint16_t* to) {
  const __m256 x = _mm256_loadu_ps(from);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
  int nans = _mm256_movemask_ps(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  for (; nans; nans &= nans - 1) {
    const int lane = __builtin_ctz(nans);
    uint32_t bits;
    std::memcpy(&bits, from + lane, sizeof bits);
    to[lane] = NarrowNan(bits);
  }
}

void WidenEight(const uint16_t* from, float* to) {
  const __m256 x = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  _mm256_storeu_ps(to, x);
  int nans = _mm256_movemask_ps(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  for (; nans; nans &= nans - 1) {
    const int lane = __builtin_ctz(nans);
    const uint32_t bits = WidenNan(from[lane]);
    std::memcpy(to + lane, &bits, sizeof bits);
  }
}

// Converts whole groups where they are, and what is left of them by way of a group of its own.
template <typename From, typename To, void (*kEight)(const From*, To*)>
void Convert(const From* from, int64_t count, To* to) {
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) kEight(from + i, to + i);
  if (whole == count) return;
  From last[kLanes] = {};
  To converted[kLanes];
  std::memcpy(last, from + whole, size_t(count - whole) * sizeof(From));
  kEight(last, converted);
  std::memcpy(to + whole, converted, size_t(count - whole) * sizeof(To));
}

}  // namespace

void splitformer_narrow(const float* from, int64_t count, void* to) {
  Convert<float, uint16_t, NarrowEight>(from, count, static_cast<uint16_t*>(to));
}

void splitformer_widen(const void* from, int64_t count, float* to) {
  Convert<uint16_t, float, WidenEight>(static_cast<const uint16_t*>(from), count, to);
}

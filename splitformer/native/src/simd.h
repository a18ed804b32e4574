// Eight floats at a time: the few functions that intrinsics lack.
//
// Each is one fixed sequence of IEEE operations, without the C library: its bits are the same on
// every machine, which is what promises of exact repetition rest on.
#pragma once

#include <immintrin.h>

#include "types.h"

namespace splitformer {

// All bits set in the first `count` (0 to 8) of eight lanes.
inline __m256i FirstLanes(int count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
}

inline __m256 Abs(__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }

inline __m256 Negate(__m256 x) { return _mm256_xor_ps(_mm256_set1_ps(-0.0f), x); }

inline float Sum(__m256 x) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

inline float Max(__m256 x) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}

// e to the x within 2e-7 of its size; below -87.3, where that would be denormal, e to the -87.3,
// which is lost in any sum that has a 1 in it. Polynomial of Cephes' expf (Moshier).
inline __m256 Exp(__m256 x) {
  x = _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(-87.3f)), _mm256_set1_ps(88.3f));
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.9875691500e-4f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
  p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  const __m256 power = _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  return _mm256_mul_ps(p, power);
}

inline float Exp(float x) { return _mm256_cvtss_f32(Exp(_mm256_set1_ps(x))); }

// Natural logarithm of a positive normal float, to double precision or nearly so.
inline double Log(float x) {
  uint32_t bits = static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_castps_si128(_mm_set_ss(x))));
  // Take the mantissa from [sqrt(1/2), sqrt(2)), where the series is shortest.
  const int exponent =
      static_cast<int>((bits - 0x3F3504F3u) >> 23) - (bits < 0x3F3504F3u ? 512 : 0);
  bits -= static_cast<uint32_t>(exponent) << 23;
  const double m = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(bits))));
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s;
  double series = 0.0;
  for (int i = 19; i >= 1; i -= 2) series = series * s2 + 1.0 / i;  // artanh(s) / s
  return 2.0 * s * series + exponent * 0.69314718055994530942;
}

// Error function within 2e-7 (Abramowitz and Stegun 7.1.26).
inline __m256 Erf(__m256 x) {
  const __m256 one = _mm256_set1_ps(1.0f), size = Abs(x);
  const __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(size, _mm256_set1_ps(0.3275911f), one));
  __m256 p = _mm256_set1_ps(1.061405429f);
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-1.453152027f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(1.421413741f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0.284496736f));
  p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.254829592f));
  p = _mm256_mul_ps(p, _mm256_mul_ps(t, Exp(Negate(_mm256_mul_ps(x, x)))));
  return _mm256_or_ps(_mm256_sub_ps(one, p), _mm256_and_ps(x, _mm256_set1_ps(-0.0f)));
}

inline __m256 Sigmoid(__m256 x) {
  const __m256 one = _mm256_set1_ps(1.0f);
  return _mm256_div_ps(one, _mm256_add_ps(one, Exp(Negate(x))));
}

inline __m256 Relu(__m256 x) { return _mm256_max_ps(x, _mm256_setzero_ps()); }

inline __m256 Silu(__m256 x) { return _mm256_mul_ps(x, Sigmoid(x)); }

inline __m256 Gelu(__m256 x) {
  const __m256 half = _mm256_set1_ps(0.5f);
  const __m256 erf = Erf(_mm256_mul_ps(x, _mm256_set1_ps(0.70710678f)));
  return _mm256_mul_ps(_mm256_mul_ps(x, half), _mm256_add_ps(erf, _mm256_set1_ps(1.0f)));
}

// x * (1 + tanh(u)) / 2 = x * sigmoid(2u), u = sqrt(2 / pi) * (x + 0.044715 x^3).
inline __m256 GeluTanh(__m256 x) {
  const __m256 cube = _mm256_mul_ps(_mm256_mul_ps(x, x), x);
  const __m256 u = _mm256_fmadd_ps(cube, _mm256_set1_ps(0.044715f), x);
  return _mm256_mul_ps(x, Sigmoid(_mm256_mul_ps(u, _mm256_set1_ps(1.5957691f))));
}

}  // namespace splitformer

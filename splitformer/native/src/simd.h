// Eight or sixteen floats at a time, and the few functions of them that intrinsics lack.
//
// Each is one fixed sequence of IEEE operations, without the C library, and lanes never meet but in
// `Sum` and `Max`: bits are the same on every machine and for every instruction set, which is what
// promises of exact repetition rest on.
//
// Everything is local to the file that includes this, as some are compiled for AVX-512: the linker
// must never keep a copy that this machine cannot run.
#pragma once

#include <immintrin.h>

#include "types.h"

namespace splitformer {
namespace {

// All bits set in the first `count` (0 to 8) of eight lanes.
inline __m256i FirstLanes(int count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
}

struct Eight {
  __m256 v;

  static Eight Of(float x) { return {_mm256_set1_ps(x)}; }
  static Eight Load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Eight FromInts(const int32_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  void Store(float* p) const { _mm256_storeu_ps(p, v); }
};

inline Eight operator+(Eight a, Eight b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Eight operator-(Eight a, Eight b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Eight operator*(Eight a, Eight b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Eight operator/(Eight a, Eight b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Eight Fma(Eight a, Eight b, Eight c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Eight Fnma(Eight a, Eight b, Eight c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
inline Eight Min(Eight a, Eight b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Eight Max(Eight a, Eight b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Eight SignOf(Eight x) { return {_mm256_and_ps(x.v, _mm256_set1_ps(-0.0f))}; }
inline Eight Xor(Eight a, Eight b) { return {_mm256_xor_ps(a.v, b.v)}; }
inline Eight Or(Eight a, Eight b) { return {_mm256_or_ps(a.v, b.v)}; }
inline Eight Round(Eight x) {
  return {_mm256_round_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline __m256i ToInts(Eight x) { return _mm256_cvtps_epi32(x.v); }

// 2 to the power of whole numbers from -126 to 127.
inline Eight PowerOfTwo(Eight n) {
  const __m256i exponent = _mm256_add_epi32(ToInts(n), _mm256_set1_epi32(127));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23))};
}

// Of 2 to the power of j / 32 the bits, less j << 18.
alignas(64) constexpr int32_t kRoots[32] = {
    0x3f800000, 0x3f7ecd87, 0x3f7daac3, 0x3f7c980f, 0x3f7b95c2, 0x3f7aa43a,
    0x3f79c3d3, 0x3f78f4f0, 0x3f7837f0, 0x3f778d3a, 0x3f76f532, 0x3f767043,
    0x3f75fed7, 0x3f75a15b, 0x3f75583f, 0x3f7523f6, 0x3f7504f3, 0x3f74fbaf,
    0x3f7508a4, 0x3f752c4d, 0x3f75672a, 0x3f75b9be, 0x3f76248c, 0x3f76a81e,
    0x3f7744fd, 0x3f77fbb8, 0x3f78ccdf, 0x3f79b907, 0x3f7ac0c7, 0x3f7be4ba,
    0x3f7d257d, 0x3f7e83b3
};

// Whole numbers n down to -4032 are added to this to become the last bits of a float.
constexpr float kWhole = 12582912.0f;

// 2 to the power of n / 32, given kWhole + n. The roots' missing part comes with the exponent.
inline Eight RootOfTwo(Eight n) {
  const __m256i bits = _mm256_castps_si256(n.v);
  const __m256i place = _mm256_and_si256(bits, _mm256_set1_epi32(31));
  const __m256i root = _mm256_i32gather_epi32(kRoots, place, 4);
  return {_mm256_castsi256_ps(_mm256_add_epi32(root, _mm256_slli_epi32(bits, 18)))};
}

// x * 2 to the power of n, as of PowerOfTwo; what comes out is no denormal.
inline Eight Scale(Eight x, Eight n) { return x * PowerOfTwo(n); }

// A bit for each lane in which both are equal, or the first is the larger.
inline unsigned EqualLanes(Eight a, Eight b) {
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)));
}
inline unsigned LanesAbove(Eight a, Eight b) {
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)));
}

inline float Sum(Eight x) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

inline float Max(Eight x) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}

#ifdef __AVX512F__

struct Sixteen {
  __m512 v;

  static Sixteen Of(float x) { return {_mm512_set1_ps(x)}; }
  static Sixteen Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  // The first `count` (at most 8), the rest zeros.
  static Sixteen LoadFirst(const float* p, int count) {
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p)};
  }
  static Sixteen FromInts(const int32_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_loadu_si512(p))};
  }
  void Store(float* p) const { _mm512_storeu_ps(p, v); }
  Eight Low() const { return {_mm512_castps512_ps256(v)}; }
  Eight High() const {
    return {_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1))};
  }
};

inline Sixteen operator+(Sixteen a, Sixteen b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Sixteen operator-(Sixteen a, Sixteen b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Sixteen operator*(Sixteen a, Sixteen b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Sixteen operator/(Sixteen a, Sixteen b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Sixteen Fma(Sixteen a, Sixteen b, Sixteen c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Sixteen Fnma(Sixteen a, Sixteen b, Sixteen c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
inline Sixteen Min(Sixteen a, Sixteen b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Sixteen Max(Sixteen a, Sixteen b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Sixteen SignOf(Sixteen x) {
  const __m512i sign = _mm512_set1_epi32(INT32_MIN);
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x.v), sign))};
}
inline Sixteen Xor(Sixteen a, Sixteen b) {
  return {_mm512_castsi512_ps(
      _mm512_xor_si512(_mm512_castps_si512(a.v), _mm512_castps_si512(b.v)))};
}
inline Sixteen Or(Sixteen a, Sixteen b) {
  return {_mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(a.v), _mm512_castps_si512(b.v)))};
}
inline Sixteen Round(Sixteen x) {
  return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Sixteen Scale(Sixteen x, Sixteen n) { return {_mm512_scalef_ps(x.v, n.v)}; }
inline Sixteen RootOfTwo(Sixteen n) {
  const __m512i bits = _mm512_castps_si512(n.v);
  const __m512i root = _mm512_permutex2var_epi32(_mm512_load_si512(kRoots), bits,
                                                 _mm512_load_si512(kRoots + 16));
  return {_mm512_castsi512_ps(_mm512_add_epi32(root, _mm512_slli_epi32(bits, 18)))};
}
inline unsigned EqualLanes(Sixteen a, Sixteen b) {
  return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ);
}
inline unsigned LanesAbove(Sixteen a, Sixteen b) {
  return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ);
}

#else

struct Sixteen {
  Eight low, high;

  static Sixteen Of(float x) { return {Eight::Of(x), Eight::Of(x)}; }
  static Sixteen Load(const float* p) { return {Eight::Load(p), Eight::Load(p + 8)}; }
  static Sixteen LoadFirst(const float* p, int count) {
    return {{_mm256_maskload_ps(p, FirstLanes(count))}, Eight::Of(0.0f)};
  }
  static Sixteen FromInts(const int32_t* p) { return {Eight::FromInts(p), Eight::FromInts(p + 8)}; }
  void Store(float* p) const {
    low.Store(p);
    high.Store(p + 8);
  }
  Eight Low() const { return low; }
  Eight High() const { return high; }
};

inline Sixteen operator+(Sixteen a, Sixteen b) { return {a.low + b.low, a.high + b.high}; }
inline Sixteen operator-(Sixteen a, Sixteen b) { return {a.low - b.low, a.high - b.high}; }
inline Sixteen operator*(Sixteen a, Sixteen b) { return {a.low * b.low, a.high * b.high}; }
inline Sixteen operator/(Sixteen a, Sixteen b) { return {a.low / b.low, a.high / b.high}; }
inline Sixteen Fma(Sixteen a, Sixteen b, Sixteen c) {
  return {Fma(a.low, b.low, c.low), Fma(a.high, b.high, c.high)};
}
inline Sixteen Fnma(Sixteen a, Sixteen b, Sixteen c) {
  return {Fnma(a.low, b.low, c.low), Fnma(a.high, b.high, c.high)};
}
inline Sixteen Min(Sixteen a, Sixteen b) { return {Min(a.low, b.low), Min(a.high, b.high)}; }
inline Sixteen Max(Sixteen a, Sixteen b) { return {Max(a.low, b.low), Max(a.high, b.high)}; }
inline Sixteen SignOf(Sixteen x) { return {SignOf(x.low), SignOf(x.high)}; }
inline Sixteen Xor(Sixteen a, Sixteen b) { return {Xor(a.low, b.low), Xor(a.high, b.high)}; }
inline Sixteen Or(Sixteen a, Sixteen b) { return {Or(a.low, b.low), Or(a.high, b.high)}; }
inline Sixteen Round(Sixteen x) { return {Round(x.low), Round(x.high)}; }
inline Sixteen Scale(Sixteen x, Sixteen n) { return {Scale(x.low, n.low), Scale(x.high, n.high)}; }
inline Sixteen RootOfTwo(Sixteen n) { return {RootOfTwo(n.low), RootOfTwo(n.high)}; }
inline unsigned EqualLanes(Sixteen a, Sixteen b) {
  return EqualLanes(a.low, b.low) | EqualLanes(a.high, b.high) << 8;
}
inline unsigned LanesAbove(Sixteen a, Sixteen b) {
  return LanesAbove(a.low, b.low) | LanesAbove(a.high, b.high) << 8;
}

#endif

inline float Sum(Sixteen x) { return Sum(x.Low() + x.High()); }
inline float Max(Sixteen x) { return Max(Max(x.Low(), x.High())); }

template <class V>
inline V Abs(V x) {
  return Xor(x, SignOf(x));
}

template <class V>
inline V Negate(V x) {
  return Xor(x, V::Of(-0.0f));
}

// e to the x within 2e-7 of its size; below -87.3, where that would be denormal, e to the -87.3,
// which is lost in any sum that has a 1 in it. Polynomial of Cephes' expf (Moshier).
template <class V>
inline V Exp(V x) {
  x = Min(Max(x, V::Of(-87.3f)), V::Of(88.3f));
  const V n = Round(x * V::Of(1.44269504f));
  V r = Fnma(n, V::Of(0.693359375f), x);
  r = Fnma(n, V::Of(-2.12194440e-4f), r);
  V p = V::Of(1.9875691500e-4f);
  p = Fma(p, r, V::Of(1.3981999507e-3f));
  p = Fma(p, r, V::Of(8.3334519073e-3f));
  p = Fma(p, r, V::Of(4.1665795894e-2f));
  p = Fma(p, r, V::Of(1.6666665459e-1f));
  p = Fma(p, r, V::Of(5.0000001201e-1f));
  p = Fma(p, r * r, r + V::Of(1.0f));
  return Scale(p, n);
}

// The sum and e to the x, for x up to 0, within 3e-7 of its size; below -87 as `Exp`. For sums of
// thousands: half the work of `Exp`, by a table of roots (Tang 1989) and a shorter polynomial.
template <class V>
inline V AddExp(V sum, V x) {
  x = Max(x, V::Of(-87.0f));
  const V n = Fma(x, V::Of(46.16624f), V::Of(kWhole));
  const V r = Fnma(n - V::Of(kWhole), V::Of(0.02166085f), x);
  const V p = Fma(Fma(r, V::Of(0.5000049f), V::Of(1.0000147f)), r, V::Of(1.0f));
  return Fma(p, RootOfTwo(n), sum);
}

inline float Exp(float x) { return _mm256_cvtss_f32(Exp(Eight::Of(x)).v); }

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

}  // namespace
}  // namespace splitformer

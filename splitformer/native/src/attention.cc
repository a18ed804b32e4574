#include "attention.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "simd.h"

#define UNROLL _Pragma("GCC unroll 8")

namespace splitformer {
namespace {

constexpr float kLargestHalf = 65504.0f;

// Elements of a cache by the eight, whatever their type.
inline __m256 Load8(const float* p) { return _mm256_loadu_ps(p); }
inline __m256 Load8(const Half* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline __m256 LoadFirst(const float* p, int count) {
  return _mm256_maskload_ps(p, FirstLanes(count));
}
inline __m256 LoadFirst(const Half* p, int count) {
  Half all[8] = {};
  std::memcpy(all, p, size_t(count) * sizeof(Half));
  return Load8(all);
}

// Four dot products at once, each the same sums in the same order.
inline __m128 SumFour(const __m256 (&s)[4]) {
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(s[0], s[1]), _mm256_hadd_ps(s[2], s[3]));
  return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}

// Neighbouring positions of one head: keys or values.
struct Stretch {
  const char* data;
  int positions;
};

// Calls `use(first, stretch, same stretch of `next`)` for a page's positions at a time.
template <class Use>
inline void ForStretches(const Head& head, const Head& next, size_t Head::*which, size_t row_bytes,
                         Use use) {
  const auto at = [which, row_bytes](const Head& h, int first) {
    const char* begin = static_cast<const char*>(
        h.pages != nullptr ? h.pages[first / kPagePositions] : h.base);
    const size_t before = h.pages != nullptr ? 0 : size_t(first) * row_bytes;
    return Stretch{begin + h.*which + before, std::min(kPagePositions, h.positions - first)};
  };
  for (int first = 0; first < head.positions; first += kPagePositions) {
    use(first, at(head, first), first < next.positions ? at(next, first) : Stretch{nullptr, 0});
  }
}

// Asks for some positions of a stretch, if it has the first of them, for the innermost cache but
// one, which has far more misses under way than the innermost. Instructions by name: g++ 12 takes a
// function of nothing but _mm_prefetch for one without effects and drops it.
inline void Prefetch(const Stretch& stretch, int t, int count, size_t row_bytes) {
  if (t >= stretch.positions) return;
  const char* p = stretch.data + size_t(t) * row_bytes;
  for (size_t i = 0; i < size_t(count) * row_bytes; i += 64) {
    asm volatile("prefetcht1 %0" : : "m"(p[i]));
  }
}

// Scores of one stretch. kVectors: width / 8 where that is known at compile time, or 0.
template <int kVectors, class Element>
void Score(const float* query, const Stretch& stretch, int width, float scale,
           const Stretch& ahead, float* scores) {
  const int vectors = kVectors != 0 ? kVectors : width / 8, rest = width - vectors * 8;
  const size_t elements = kVectors != 0 ? 8 * kVectors : size_t(width);
  const Element* keys = reinterpret_cast<const Element*>(stretch.data);
  for (int t = 0; t < stretch.positions; t += 4) {
    __m256 sums[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                      _mm256_setzero_ps()};
    const Element* key[4];
    Prefetch(ahead, t, 4, elements * sizeof(Element));
    UNROLL for (int u = 0; u < 4; ++u) {
      key[u] = keys + size_t(std::min(t + u, stretch.positions - 1)) * elements;
    }
    UNROLL for (int v = 0; v < vectors; ++v) {
      const __m256 q = _mm256_loadu_ps(query + 8 * v);
      UNROLL for (int u = 0; u < 4; ++u) {
        sums[u] = _mm256_fmadd_ps(q, Load8(key[u] + 8 * v), sums[u]);
      }
    }
    if (kVectors == 0 && rest != 0) {
      const __m256 q = LoadFirst(query + 8 * vectors, rest);
      for (int u = 0; u < 4; ++u) {
        sums[u] = _mm256_fmadd_ps(q, LoadFirst(key[u] + 8 * vectors, rest), sums[u]);
      }
    }
    _mm_store_ps(scores + t, _mm_mul_ps(SumFour(sums), _mm_set1_ps(scale)));
  }
}

// out = factor * sum over positions of weights[t] * values[t].
template <int kVectors, class Element>
void Mix(const float* weights, const Head& head, const Head& next, float factor, float* out) {
  constexpr size_t kRowBytes = 8 * kVectors * sizeof(Element);
  __m256 sums[kVectors];
  UNROLL for (int v = 0; v < kVectors; ++v) sums[v] = _mm256_setzero_ps();
  const auto add = [&](int first, const Stretch& stretch, const Stretch& ahead) {
    const Element* values = reinterpret_cast<const Element*>(stretch.data);
    for (int t = 0; t < stretch.positions; ++t, values += 8 * kVectors) {
      const __m256 weight = _mm256_broadcast_ss(weights + first + t);
      Prefetch(ahead, t, 1, kRowBytes);
      UNROLL for (int v = 0; v < kVectors; ++v) {
        sums[v] = _mm256_fmadd_ps(weight, Load8(values + 8 * v), sums[v]);
      }
    }
  };
  ForStretches(head, next, &Head::values, kRowBytes, add);
  UNROLL for (int v = 0; v < kVectors; ++v) {
    _mm256_storeu_ps(out + 8 * v, _mm256_mul_ps(sums[v], _mm256_set1_ps(factor)));
  }
}

template <class Element>
void MixAny(const float* weights, const Head& head, int width, float factor, float* out) {
  const size_t row_bytes = size_t(width) * sizeof(Element);
  for (int i = 0; i < width; i += 8) {
    const int count = std::min(8, width - i);
    __m256 sum = _mm256_setzero_ps();
    const auto add = [&](int first, const Stretch& stretch, const Stretch&) {
      const Element* values = reinterpret_cast<const Element*>(stretch.data) + i;
      for (int t = 0; t < stretch.positions; ++t, values += width) {
        const __m256 weight = _mm256_broadcast_ss(weights + first + t);
        sum = _mm256_fmadd_ps(weight, LoadFirst(values, count), sum);
      }
    };
    ForStretches(head, head, &Head::values, row_bytes, add);
    sum = _mm256_mul_ps(sum, _mm256_set1_ps(factor));
    _mm256_maskstore_ps(out + i, FirstLanes(count), sum);
  }
}

template <int kVectors, class Element>
float AttendAs(const Head& head, const Head& next, int width, const float* query, float scale,
              const float* bias, int distances, float* scores, float* out) {
  const auto score = [&](int first, const Stretch& stretch, const Stretch& ahead) {
    Score<kVectors, Element>(query, stretch, width, scale, ahead, scores + first);
  };
  ForStretches(head, next, &Head::keys, size_t(width) * sizeof(Element), score);
  if (bias != nullptr) {
    for (int t = 0; t < head.positions; ++t)
      scores[t] += bias[std::min(head.positions - 1 - t, distances - 1)];
  }
  const float factor = 1.0f / Exponentiate(scores, head.positions);
  if constexpr (kVectors != 0) {
    Mix<kVectors, Element>(scores, head, next, factor, out);
  } else {
    MixAny<Element>(scores, head, width, factor, out);
  }
  return factor;
}

template <class Element>
float AttendOf(const Head& head, const Head& next, int width, const float* query, float scale,
              const float* bias, int distances, float* scores, float* out) {
  const auto attend = width == 64   ? AttendAs<8, Element>
                      : width == 32 ? AttendAs<4, Element>
                                    : AttendAs<0, Element>;
  return attend(head, next, width, query, scale, bias, distances, scores, out);
}

}  // namespace

float Exponentiate(float* scores, int positions) {
  const int padded = static_cast<int>(RoundUp(size_t(positions), 8));
  for (int t = positions; t < padded; ++t) scores[t] = -std::numeric_limits<float>::infinity();
  Eight largest = Eight::Load(scores);
  for (int t = 8; t < padded; t += 8) largest = Max(largest, Eight::Load(scores + t));
  const Eight top = Eight::Of(Max(largest));
  Eight sum = Eight::Of(0.0f);
  for (int t = 0; t < padded; t += 8) {
    const Eight e = Exp(Eight::Load(scores + t) - top);
    e.Store(scores + t);
    sum = sum + e;
  }
  return Sum(sum);
}

float Attend(CacheType cache, const Head& head, const Head& next, int width, const float* query,
            float scale, const float* bias, int distances, float* scores, float* out) {
  const auto attend = cache == CacheType::kHalf ? AttendOf<Half> : AttendOf<float>;
  return attend(head, next, width, query, scale, bias, distances, scores, out);
}

void StoreElements(CacheType cache, const float* from, int count, void* to) {
  if (cache == CacheType::kFloat) {
    std::memcpy(to, from, size_t(count) * sizeof(float));
    return;
  }
  const __m256 most = _mm256_set1_ps(kLargestHalf), least = _mm256_set1_ps(-kLargestHalf);
  Half* halves = static_cast<Half*>(to);
  for (int i = 0; i < count; i += 8) {
    const int lanes = std::min(8, count - i);
    const __m256 x = lanes == 8 ? Load8(from + i) : LoadFirst(from + i, lanes);
    const __m256 inside = _mm256_min_ps(_mm256_max_ps(x, least), most);
    const __m128i rounded = _mm256_cvtps_ph(inside, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    std::memcpy(halves + i, &rounded, size_t(lanes) * sizeof(Half));
  }
}

}  // namespace splitformer

#include "attention.h"

#include <algorithm>
#include <limits>

#include "simd.h"

namespace splitformer {
namespace {

// How far ahead of the position at hand memory is asked for.
constexpr int kPositionsAhead = 32;

// Elements of a cache by the eight, whatever their type; more types of cache are more overloads.
inline __m256 Load8(const float* p) { return _mm256_loadu_ps(p); }
inline __m256 LoadFirst(const float* p, int count) {
  return _mm256_maskload_ps(p, FirstLanes(count));
}

// Four dot products at once, each the same sums in the same order.
inline __m128 SumFour(const __m256 (&s)[4]) {
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(s[0], s[1]), _mm256_hadd_ps(s[2], s[3]));
  return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}

// Asks for what will be read after the position at hand: the rest of this stream, then the
// beginning of the next. The processor's own prefetching starts anew with each page, and a head is
// only a few pages; the caches of many sequences come from memory, not from a cache of the
// processor.
template <class Element>
class Ahead {
 public:
  Ahead(const Element* here, const Element* next, int positions, int width)
      : here_(here),
        next_(next),
        positions_(positions),
        width_(width),
        distance_(std::min(kPositionsAhead, positions)) {}

  void Prefetch(int t) const {
    t += distance_;
    const Element* p = t < positions_ ? here_ + size_t(t) * size_t(width_)
                                      : next_ + size_t(t - positions_) * size_t(width_);
    for (int i = 0; i < width_; i += static_cast<int>(64 / sizeof(Element))) {
      _mm_prefetch(reinterpret_cast<const char*>(p + i), _MM_HINT_T0);
    }
  }

 private:
  const Element* here_;
  const Element* next_;
  int positions_;
  int width_;
  int distance_;
};

// kVectors: width / 8 where that is known at compile time, or 0.
template <int kVectors, class Element>
void Score(const float* query, const Element* keys, int positions, int width, float scale,
           const Ahead<Element>& ahead, float* scores) {
  const int vectors = kVectors != 0 ? kVectors : width / 8, rest = width - vectors * 8;
  for (int t = 0; t < positions; t += 4) {
    __m256 sums[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                      _mm256_setzero_ps()};
    const Element* key[4];
    for (int u = 0; u < 4; ++u) ahead.Prefetch(t + u);
    for (int u = 0; u < 4; ++u)
      key[u] = keys + size_t(std::min(t + u, positions - 1)) * size_t(width);
    for (int v = 0; v < vectors; ++v) {
      const __m256 q = _mm256_loadu_ps(query + 8 * v);
      for (int u = 0; u < 4; ++u) sums[u] = _mm256_fmadd_ps(q, Load8(key[u] + 8 * v), sums[u]);
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
void Mix(const float* weights, const Element* values, int positions, float factor,
         const Ahead<Element>& ahead, float* out) {
  __m256 sums[kVectors];
  for (int v = 0; v < kVectors; ++v) sums[v] = _mm256_setzero_ps();
  for (int t = 0; t < positions; ++t, values += 8 * kVectors) {
    const __m256 weight = _mm256_broadcast_ss(weights + t);
    ahead.Prefetch(t);
    for (int v = 0; v < kVectors; ++v) {
      sums[v] = _mm256_fmadd_ps(weight, Load8(values + 8 * v), sums[v]);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    _mm256_storeu_ps(out + 8 * v, _mm256_mul_ps(sums[v], _mm256_set1_ps(factor)));
  }
}

template <class Element>
void MixAny(const float* weights, const Element* values, int positions, int width, float factor,
            float* out) {
  for (int i = 0; i < width; i += 8) {
    const int count = std::min(8, width - i);
    __m256 sum = _mm256_setzero_ps();
    for (int t = 0; t < positions; ++t) {
      const __m256 value = LoadFirst(values + size_t(t) * size_t(width) + i, count);
      sum = _mm256_fmadd_ps(_mm256_broadcast_ss(weights + t), value, sum);
    }
    sum = _mm256_mul_ps(sum, _mm256_set1_ps(factor));
    _mm256_maskstore_ps(out + i, FirstLanes(count), sum);
  }
}

}  // namespace

float Exponentiate(float* scores, int positions) {
  const int padded = static_cast<int>(RoundUp(size_t(positions), 8));
  for (int t = positions; t < padded; ++t) scores[t] = -std::numeric_limits<float>::infinity();
  __m256 largest = _mm256_load_ps(scores);
  for (int t = 8; t < padded; t += 8) largest = _mm256_max_ps(largest, _mm256_load_ps(scores + t));
  const __m256 top = _mm256_set1_ps(Max(largest));
  __m256 sum = _mm256_setzero_ps();
  for (int t = 0; t < padded; t += 8) {
    const __m256 e = Exp(_mm256_sub_ps(_mm256_load_ps(scores + t), top));
    _mm256_store_ps(scores + t, e);
    sum = _mm256_add_ps(sum, e);
  }
  return Sum(sum);
}

void Attend(const Head& head, const float* next_keys, const float* query, float scale,
            const float* bias, int distances, float* scores, float* out) {
  const int positions = head.positions, width = head.width;
  const Ahead<float> then_values(head.keys, head.values, positions, width);
  const Ahead<float> then_next(head.values, next_keys, positions, width);
  if (width == 64) {
    Score<8>(query, head.keys, positions, width, scale, then_values, scores);
  } else if (width == 32) {
    Score<4>(query, head.keys, positions, width, scale, then_values, scores);
  } else {
    Score<0>(query, head.keys, positions, width, scale, then_values, scores);
  }
  if (bias != nullptr) {
    for (int t = 0; t < positions; ++t)
      scores[t] += bias[std::min(positions - 1 - t, distances - 1)];
  }
  const float factor = 1.0f / Exponentiate(scores, positions);
  if (width == 64) {
    Mix<8>(scores, head.values, positions, factor, then_next, out);
  } else if (width == 32) {
    Mix<4>(scores, head.values, positions, factor, then_next, out);
  } else {
    MixAny(scores, head.values, positions, width, factor, out);
  }
}

}  // namespace splitformer

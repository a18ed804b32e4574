#include "attention.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "simd.h"

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

// What will be read some heads later, asked for in step with what is read now: position by position
// for the innermost cache but one, which has far more misses under way than the innermost.
class Later {
 public:
  Later(const Head& head, size_t row_bytes) : head_(head), row_bytes_(row_bytes) {}

  Stretch Keys(size_t r) const { return At(head_.keys, r); }
  Stretch Values(size_t r) const { return At(head_.values, r); }

  // Asks for position `t` of a stretch, if it has one. Instructions by name: g++ 12 takes a function
  // of nothing but _mm_prefetch for one without effects and drops it.
  void Prefetch(const Stretch& stretch, int t) const {
    if (t >= stretch.positions) return;
    const char* p = static_cast<const char*>(stretch.data) + size_t(t) * row_bytes_;
    for (size_t i = 0; i < row_bytes_; i += 64) asm volatile("prefetcht1 %0" : : "m"(p[i]));
  }

 private:
  static Stretch At(const std::vector<Stretch>& list, size_t r) {
    return r < list.size() ? list[r] : Stretch{nullptr, 0};
  }

  const Head& head_;
  size_t row_bytes_;
};

// Scores of one stretch. kVectors: width / 8 where that is known at compile time, or 0.
template <int kVectors, class Element>
void Score(const float* query, const Stretch& stretch, int width, float scale, const Later& later,
           const Stretch& ahead, float* scores) {
  const int vectors = kVectors != 0 ? kVectors : width / 8, rest = width - vectors * 8;
  const Element* keys = static_cast<const Element*>(stretch.data);
  for (int t = 0; t < stretch.positions; t += 4) {
    __m256 sums[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                      _mm256_setzero_ps()};
    const Element* key[4];
    for (int u = 0; u < 4; ++u) later.Prefetch(ahead, t + u);
    for (int u = 0; u < 4; ++u)
      key[u] = keys + size_t(std::min(t + u, stretch.positions - 1)) * size_t(width);
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
void Mix(const float* weights, const Head& head, float factor, const Later& later, float* out) {
  __m256 sums[kVectors];
  for (int v = 0; v < kVectors; ++v) sums[v] = _mm256_setzero_ps();
  for (size_t r = 0; r < head.values.size(); ++r) {
    const Stretch stretch = head.values[r], ahead = later.Values(r);
    const Element* values = static_cast<const Element*>(stretch.data);
    for (int t = 0; t < stretch.positions; ++t, ++weights, values += 8 * kVectors) {
      const __m256 weight = _mm256_broadcast_ss(weights);
      later.Prefetch(ahead, t);
      for (int v = 0; v < kVectors; ++v) {
        sums[v] = _mm256_fmadd_ps(weight, Load8(values + 8 * v), sums[v]);
      }
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    _mm256_storeu_ps(out + 8 * v, _mm256_mul_ps(sums[v], _mm256_set1_ps(factor)));
  }
}

template <class Element>
void MixAny(const float* weights, const Head& head, int width, float factor, float* out) {
  for (int i = 0; i < width; i += 8) {
    const int count = std::min(8, width - i);
    const float* weight = weights;
    __m256 sum = _mm256_setzero_ps();
    for (const Stretch& stretch : head.values) {
      const Element* values = static_cast<const Element*>(stretch.data) + i;
      for (int t = 0; t < stretch.positions; ++t, ++weight, values += width) {
        sum = _mm256_fmadd_ps(_mm256_broadcast_ss(weight), LoadFirst(values, count), sum);
      }
    }
    sum = _mm256_mul_ps(sum, _mm256_set1_ps(factor));
    _mm256_maskstore_ps(out + i, FirstLanes(count), sum);
  }
}

template <int kVectors, class Element>
float AttendAs(const Head& head, const Head& next, int width, const float* query, float scale,
              const float* bias, int distances, float* scores, float* out) {
  const Later later(next, size_t(width) * sizeof(Element));
  float* to = scores;
  for (size_t r = 0; r < head.keys.size(); to += head.keys[r++].positions) {
    Score<kVectors, Element>(query, head.keys[r], width, scale, later, later.Keys(r), to);
  }
  if (bias != nullptr) {
    for (int t = 0; t < head.positions; ++t)
      scores[t] += bias[std::min(head.positions - 1 - t, distances - 1)];
  }
  const float factor = 1.0f / Exponentiate(scores, head.positions);
  if constexpr (kVectors != 0) {
    Mix<kVectors, Element>(scores, head, factor, later, out);
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

void Head::Clear() {
  keys.clear();
  values.clear();
  positions = 0;
}

void Head::Add(const void* key, const void* value, int count) {
  keys.push_back({key, count});
  values.push_back({value, count});
  positions += count;
}

void Head::Append(const void* key, const void* value, bool new_stretch) {
  if (new_stretch) return Add(key, value, 1);
  ++keys.back().positions;
  ++values.back().positions;
  ++positions;
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

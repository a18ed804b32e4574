#include "draw.h"

#include <immintrin.h>

#include <algorithm>
#include <cmath>

namespace splitformer {
namespace {

// ln 2 in two parts: products of the first with small integers are exact.
constexpr double kLn2 = 6.93147180369123816490e-01, kLn2Rest = 1.90821492927058770002e-10;
constexpr double kInverseFactorials[] = {
    1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0,
    1.0 / 362880.0, 1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0,
    1.0 / 24.0, 1.0 / 6.0, 1.0 / 2.0, 1.0, 1.0};

// e to the x for four x up to 0, to double precision or nearly so; 0 where that is lost beside a 1.
// One fixed sequence of IEEE operations, as those of simd.h.
__m256d Exp(__m256d x) {
  const auto all = [](double value) { return _mm256_set1_pd(value); };
  const __m256d counts = _mm256_cmp_pd(x, all(-700.0), _CMP_GT_OQ);
  x = _mm256_and_pd(x, counts);
  const __m256d n = _mm256_round_pd(_mm256_mul_pd(x, all(1.4426950408889634)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256d r = _mm256_fmadd_pd(n, all(-kLn2Rest), _mm256_fmadd_pd(n, all(-kLn2), x));
  __m256d series = all(0.0);
  for (const double each : kInverseFactorials) series = _mm256_fmadd_pd(series, r, all(each));
  const __m256i whole = _mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(n));
  const __m256i bits = _mm256_slli_epi64(_mm256_add_epi64(whole, _mm256_set1_epi64x(1023)), 52);
  return _mm256_and_pd(_mm256_mul_pd(series, _mm256_castsi256_pd(bits)), counts);
}

// Tokens in the order in which they count, with their weights.
struct Ordered {
  std::vector<int> places;
  std::vector<double> weights;  // by place in `places`

  Ordered(const Draw& draw, const double* values, int count)
      : places(size_t(count)), weights(size_t(count)) {
    for (int i = 0; i < count; ++i) places[size_t(i)] = i;
    // Transformers' nucleus takes the largest id of equals first.
    for (int begin = 0, end; draw.top_p < 1.0 && begin < count; begin = end) {
      for (end = begin + 1; end < count && values[end] == values[begin];) ++end;
      std::reverse(places.begin() + begin, places.begin() + end);
    }
    for (int i = 0; i < count; ++i) weights[size_t(i)] = values[places[size_t(i)]];
    Weigh(draw, values[0], &weights);
  }

  // How many of the first it takes until their weights reach a part of the total; more than there
  // are if they do not.
  int Nucleus(double part) const {
    double sum = 0.0;
    int fewer = 0;
    for (const double weight : weights) {
      sum += weight;
      if (sum < part) ++fewer;
    }
    return fewer + 1;
  }
};

// How many of the first may be drawn; 0 if others may. `known`: there are no others.
int Drawable(const Draw& draw, const Ordered& ordered, const double* values, int count,
             bool known) {
  int drawable = count;
  const double least = values[count - 1];
  if (draw.top_k > 0.0 && (draw.top_k < count || !known)) {
    if (!(draw.top_k < count)) return 0;
    const double kth = values[static_cast<int>(draw.top_k) - 1];
    if (kth == least && !known) return 0;
    drawable = static_cast<int>(
        std::count_if(values, values + count, [kth](double value) { return value >= kth; }));
    known = true;
  }
  if (draw.top_p < 1.0 && (known || draw.Weighs())) {
    double total = known ? 0.0 : draw.total;
    for (int i = 0; known && i < drawable; ++i) total += ordered.weights[size_t(i)];
    const int enough = ordered.Nucleus(draw.top_p * total);
    if (enough <= drawable &&
        (known || values[ordered.places[size_t(enough - 1)]] > least)) {
      drawable = enough;
      known = true;
    }
  }
  if (draw.min_p >= 0.0) {
    const auto likely = [&](double weight) { return weight >= draw.min_p; };
    const int enough = std::min(drawable, static_cast<int>(std::count_if(ordered.weights.begin(),
                                                                         ordered.weights.end(),
                                                                         likely)));
    if (known || enough < count) {
      drawable = enough;
      known = true;
    }
  }
  return known ? drawable : 0;
}

}  // namespace

float Draw::Rate() const { return static_cast<float>(std::min(1.0 / temperature, 1e30)); }

float Draw::Distance() const { return static_cast<float>(-temperature * std::log(min_p)); }

double Point(uint64_t seed, uint64_t index) {
  constexpr uint64_t kFactors[] = {0xD2E7470EE14C6C93, 0xCA5A826395121157};
  constexpr uint64_t kSteps[] = {0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B};
  uint64_t a = index + 1, b = 0, c = 0, d = 0, key = seed, other = 0;
  for (int round = 0; round < 10; ++round) {
    const auto left = static_cast<unsigned __int128>(a) * kFactors[0];
    const auto right = static_cast<unsigned __int128>(c) * kFactors[1];
    a = static_cast<uint64_t>(right >> 64) ^ b ^ key;
    b = static_cast<uint64_t>(right);
    c = static_cast<uint64_t>(left >> 64) ^ d ^ other;
    d = static_cast<uint64_t>(left);
    key += kSteps[0];
    other += kSteps[1];
  }
  return static_cast<double>(a >> 11) * 0x1p-53;
}

void Weigh(const Draw& draw, double largest, std::vector<double>* values) {
  const __m256d top = _mm256_set1_pd(largest), temperature = _mm256_set1_pd(draw.temperature);
  const size_t count = values->size();
  values->resize(RoundUp(count, 4), largest);
  for (size_t i = 0; i < count; i += 4) {
    double* four = values->data() + i;
    const __m256d below = _mm256_sub_pd(_mm256_loadu_pd(four), top);
    _mm256_storeu_pd(four, Exp(_mm256_div_pd(below, temperature)));
  }
  values->resize(count);
}

int Reached(const double* weights, int count, double part) {
  double sum = 0.0;
  int last = -1;
  for (int i = 0; i < count; ++i) {
    if (!(weights[i] > 0.0)) continue;
    sum += weights[i];
    last = i;
    if (sum > part) break;
  }
  return last;
}

int DrawPlace(const Draw& draw, const double* values, const int32_t* ids, int count,
              bool complete) {
  if (count == 0) return -1;
  Ordered ordered(draw, values, count);
  const int drawable = Drawable(draw, ordered, values, count, complete);
  if (drawable == 0) return -1;
  std::vector<std::pair<int32_t, int>> by_id;  // and place in `ordered`
  by_id.reserve(size_t(drawable));
  for (int i = 0; i < drawable; ++i) by_id.emplace_back(ids[ordered.places[size_t(i)]], i);
  std::sort(by_id.begin(), by_id.end());
  std::vector<double> weights;
  weights.reserve(size_t(drawable));
  for (const auto& [id, i] : by_id) weights.push_back(ordered.weights[size_t(i)]);
  double all = 0.0;
  for (const double weight : weights) all += weight;
  const int reached = Reached(weights.data(), drawable, draw.point * all);
  return ordered.places[size_t(by_id[size_t(std::max(reached, 0))].second)];
}

}  // namespace splitformer

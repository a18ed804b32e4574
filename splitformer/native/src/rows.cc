#include "rows.h"

#include <algorithm>
#include <cstring>

#include "elements.h"
#include "kernels.h"
#include "simd.h"

namespace splitformer {
namespace {

// Eight elements from `i` on, those at or beyond `size` as zeros.
inline __m256 Load(const float* x, int i, int size) {
  if (i + 8 <= size) return _mm256_loadu_ps(x + i);
  return _mm256_maskload_ps(x + i, FirstLanes(size - i));
}

// Sums of f(8 elements) over a row, in one fixed order.
template <class F>
inline float Reduce(const float* x, int size, F f) {
  __m256 even = _mm256_setzero_ps(), odd = even;
  int i = 0;
  for (; i + 16 <= size; i += 16) {
    even = f(even, _mm256_loadu_ps(x + i), 8);
    odd = f(odd, _mm256_loadu_ps(x + i + 8), 8);
  }
  for (; i < size; i += 8) even = f(even, Load(x, i, size), size - i);
  return Sum(_mm256_add_ps(even, odd));
}

float SumOf(const float* x, int size) {
  return Reduce(x, size, [](__m256 sum, __m256 v, int) { return _mm256_add_ps(sum, v); });
}

float SquaresAround(const float* x, int size, float mean) {
  const __m256 centre = _mm256_set1_ps(mean);
  return Reduce(x, size, [centre](__m256 sum, __m256 v, int left) {
    __m256 d = _mm256_sub_ps(v, centre);
    if (left < 8) d = _mm256_and_ps(d, _mm256_castsi256_ps(FirstLanes(left)));
    return _mm256_fmadd_ps(d, d, sum);
  });
}

float MaxAbs(const float* x, int size) {
  __m256 largest = _mm256_setzero_ps();
  for (int i = 0; i < size; i += 8) largest = _mm256_max_ps(largest, Abs(Load(x, i, size)));
  return Max(largest);
}

float SquareRoot(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

inline __m256i Rounded(const float* x, __m256 scale) {
  return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), scale));
}

// Sixteen quantised elements. Packing works within halves of 16 bytes, so the order has to be
// mended afterwards.
inline __m256i Packed(const float* x, __m256 scale) {
  return _mm256_packs_epi32(Rounded(x, scale), Rounded(x + 8, scale));
}

void WriteBytes(const float* x, int size, float factor, uint8_t* out) {
  const __m256 scale = _mm256_set1_ps(factor);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (int i = 0; i < size; i += 32) {
    const __m256i pairs = _mm256_packs_epi16(Packed(x + i, scale), Packed(x + i + 16, scale));
    const __m256i bytes = _mm256_permutevar8x32_epi32(pairs, order);
    const __m256i shifted = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));  // + 128
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), shifted);
  }
}

void WritePaired(const float* x, int size, float factor, uint8_t* out) {
  static_assert(kPairDistance == 16, "a vector's elements meet those of the next");
  const __m256 scale = _mm256_set1_ps(factor);
  __m256i sum = _mm256_setzero_si256();
  alignas(32) float last[32] = {};
  for (int i = 0; i < size; i += 32, out += 64) {
    const float* from = x + i;
    if (i + 32 > size) {
      std::copy(from, x + size, last);
      from = last;
    }
    const __m256i low = _mm256_permute4x64_epi64(Packed(from, scale), 0xD8);
    const __m256i high = _mm256_permute4x64_epi64(Packed(from + 16, scale), 0xD8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 32), high);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(low, high));
  }
  const __m128i half =
      _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  const __m128i quarter = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
  const int32_t total =
      _mm_cvtsi128_si32(_mm_add_epi32(quarter, _mm_shuffle_epi32(quarter, 0xB1)));
  std::memcpy(out, &total, sizeof total);
}

template <__m256 (*kFunction)(__m256)>
void Apply(float* x, int count) {
  for (int i = 0; i < count; i += 8) _mm256_storeu_ps(x + i, kFunction(_mm256_loadu_ps(x + i)));
}

template <Element kElement>
void Embed(const void* token, const float* position, float scale, int size, float* out) {
  const __m256 factor = _mm256_set1_ps(scale);
  for (int i = 0; i < size; i += 8) {
    __m256 v = _mm256_mul_ps(LoadElements<kElement>(token, size_t(i), size_t(size)), factor);
    if (position != nullptr) v = _mm256_add_ps(v, Load(position, i, size));
    _mm256_storeu_ps(out + i, v);
  }
}

}  // namespace

void Normalise(const Norm& norm, const float* x, int size, float* out) {
  const float count = static_cast<float>(size);
  const float mean = norm.kind == NormKind::kLayer ? SumOf(x, size) / count : 0.0f;
  const float variance = SquaresAround(x, size, mean) / count;
  const __m256 factor = _mm256_set1_ps(1.0f / SquareRoot(variance + norm.epsilon));
  const __m256 centre = _mm256_set1_ps(mean);
  for (int i = 0; i < size; i += 8) {
    const __m256 v = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), centre), factor);
    const __m256 gain = _mm256_loadu_ps(norm.gain.data() + i);
    const __m256 shift = _mm256_loadu_ps(norm.shift.data() + i);
    _mm256_storeu_ps(out + i, _mm256_fmadd_ps(v, gain, shift));
  }
}

void AddRow(float* x, const float* y, int size) {
  for (int i = 0; i < size; i += 8) {
    _mm256_storeu_ps(x + i, _mm256_add_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
  }
}

void EmbedRow(Element element, const void* token, const float* position, float scale, int size,
              float* out) {
  switch (element) {
    case Element::kHalf:
      return Embed<Element::kHalf>(token, position, scale, size, out);
    case Element::kBrain:
      return Embed<Element::kBrain>(token, position, scale, size, out);
    default:
      return Embed<Element::kFloat>(token, position, scale, size, out);
  }
}

float QuantiseRow(const float* x, int size, int offset, uint8_t* out) {
  const float largest = MaxAbs(x, size);
  const float factor = largest > 1e-30f ? 127.0f / largest : 0.0f;
  if (offset == 0) {
    WritePaired(x, size, factor, out);
  } else {
    WriteBytes(x, size, factor, out);
  }
  return largest / 127.0f;
}

void Activate(Activation activation, float* x, int count) {
  switch (activation) {
    case Activation::kNone:
      return;
    case Activation::kRelu:
      return Apply<Relu>(x, count);
    case Activation::kGelu:
      return Apply<Gelu>(x, count);
    case Activation::kGeluTanh:
      return Apply<GeluTanh>(x, count);
    case Activation::kSilu:
      return Apply<Silu>(x, count);
  }
}

void MultiplyRow(float* x, const float* y, int count) {
  for (int i = 0; i < count; i += 8) {
    _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
  }
}

}  // namespace splitformer

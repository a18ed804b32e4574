// Kernels of rows, written once: a file per instruction set includes this.
#pragma once

#include <type_traits>

#include "row_kernels.h"
#include "simd.h"

namespace splitformer {
namespace {

// Sums of f(16 elements) over a row, in one fixed order; the last ones come by the eight. `f` gets
// how many elements there are, the others being zeros.
template <class F>
inline float Reduce(const float* x, int size, F f) {
  Sixteen sum = Sixteen::Of(0.0f);
  int i = 0;
  for (; i + 16 <= size; i += 16) sum = f(sum, Sixteen::Load(x + i), 16);
  for (; i < size; i += 8) {
    const int left = size - i < 8 ? size - i : 8;
    sum = f(sum, Sixteen::LoadFirst(x + i, left), left);
  }
  return Sum(sum);
}

inline float SumOf(const float* x, int size) {
  return Reduce(x, size, [](Sixteen sum, Sixteen v, int) { return sum + v; });
}

inline float SquaresAround(const float* x, int size, float mean) {
  alignas(64) static constexpr float kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1};
  const Sixteen centre = Sixteen::Of(mean);
  return Reduce(x, size, [centre](Sixteen sum, Sixteen v, int count) {
    Sixteen d = v - centre;
    if (count < 16) d = d * Sixteen::LoadFirst(kOnes, count);
    return Fma(d, d, sum);
  });
}

inline float SquareRoot(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

// The largest magnitude of a row, that of its first `done` elements being known.
inline float MaxAbs(const float* x, int done, int size, Sixteen known) {
  for (int i = done; i < size; i += 8) {
    known = Max(known, Abs(Sixteen::LoadFirst(x + i, size - i < 8 ? size - i : 8)));
  }
  return Max(known);
}

float Magnitude(const float* x, int size) {
  Sixteen largest[4];  // at once, or each waits for the one before
  for (Sixteen& part : largest) part = Sixteen::Of(0.0f);
  int i = 0;
  for (; i + 64 <= size; i += 64) {
    for (int part = 0; part < 4; ++part) {
      largest[part] = Max(largest[part], Abs(Sixteen::Load(x + i + 16 * part)));
    }
  }
  for (; i + 16 <= size; i += 16) largest[0] = Max(largest[0], Abs(Sixteen::Load(x + i)));
  largest[0] = Max(Max(largest[0], largest[1]), Max(largest[2], largest[3]));
  return MaxAbs(x, i, size, largest[0]);
}

inline float Scaled(const float* gain, const float* shift, float mean, float factor, const float* x,
                    int size, float* out) {
  const Sixteen centre = Sixteen::Of(mean), times = Sixteen::Of(factor);
  Sixteen largest = Sixteen::Of(0.0f);
  const auto scale = [&](int i) {
    const Sixteen v = (Sixteen::Load(x + i) - centre) * times;
    const Sixteen y = Fma(v, Sixteen::Load(gain + i), Sixteen::Load(shift + i));
    y.Store(out + i);
    return y;
  };
  const int whole = size / 16 * 16;
  for (int i = 0; i < whole; i += 16) largest = Max(largest, Abs(scale(i)));
  if (whole < size) scale(whole);
  return MaxAbs(out, whole, size, largest);
}

void Normalise(NormKind kind, float epsilon, const float* gain, const float* shift,
               const float* const* x, int rows, int size, float* const* out, float* largest) {
  const float count = static_cast<float>(size);
  float mean[kRowsAtOnce] = {}, factor[kRowsAtOnce];
  for (int r = 0; r < rows && kind == NormKind::kLayer; ++r) mean[r] = SumOf(x[r], size) / count;
  for (int r = 0; r < rows; ++r) {
    factor[r] = 1.0f / SquareRoot(SquaresAround(x[r], size, mean[r]) / count + epsilon);
  }
  for (int r = 0; r < rows; ++r) {
    largest[r] = Scaled(gain, shift, mean[r], factor[r], x[r], size, out[r]);
  }
}

void Add(float* x, const float* y, int size) {
  for (int i = 0; i < size; i += 16) (Sixteen::Load(x + i) + Sixteen::Load(y + i)).Store(x + i);
}

void MultiplyBy(float* x, const float* y, int size) {
  for (int i = 0; i < size; i += 16) (Sixteen::Load(x + i) * Sixteen::Load(y + i)).Store(x + i);
}

// What elements of a row are multiplied with to become whole numbers up to 127.
inline float QuantisingFactor(float largest) { return largest > 1e-30f ? 127.0f / largest : 0.0f; }

// Activations.

// Error function within 2e-7 (Abramowitz and Stegun 7.1.26).
inline Sixteen Erf(Sixteen x) {
  const Sixteen one = Sixteen::Of(1.0f), size = Abs(x);
  const Sixteen t = one / Fma(size, Sixteen::Of(0.3275911f), one);
  Sixteen p = Sixteen::Of(1.061405429f);
  p = Fma(p, t, Sixteen::Of(-1.453152027f));
  p = Fma(p, t, Sixteen::Of(1.421413741f));
  p = Fma(p, t, Sixteen::Of(-0.284496736f));
  p = Fma(p, t, Sixteen::Of(0.254829592f));
  p = p * (t * Exp(Negate(x * x)));
  return Or(one - p, SignOf(x));
}

inline Sixteen Sigmoid(Sixteen x) {
  const Sixteen one = Sixteen::Of(1.0f);
  return one / (one + Exp(Negate(x)));
}

inline Sixteen Relu(Sixteen x) { return Max(x, Sixteen::Of(0.0f)); }

inline Sixteen Silu(Sixteen x) { return x * Sigmoid(x); }

inline Sixteen Gelu(Sixteen x) {
  const Sixteen erf = Erf(x * Sixteen::Of(0.70710678f));
  return x * Sixteen::Of(0.5f) * (erf + Sixteen::Of(1.0f));
}

// x * (1 + tanh(u)) / 2 = x * sigmoid(2u), u = sqrt(2 / pi) * (x + 0.044715 x^3).
inline Sixteen GeluTanh(Sixteen x) {
  const Sixteen u = Fma(x * x * x, Sixteen::Of(0.044715f), x);
  return x * Sigmoid(u * Sixteen::Of(1.5957691f));
}

inline Sixteen Same(Sixteen x) { return x; }

// Calls `use` with an activation as a type, whose value is the function.
template <class Use>
inline void WithActivation(Activation activation, Use use) {
  using Function = Sixteen (*)(Sixteen);
  switch (activation) {
    case Activation::kNone:
      return use(std::integral_constant<Function, Same>());
    case Activation::kRelu:
      return use(std::integral_constant<Function, Relu>());
    case Activation::kGelu:
      return use(std::integral_constant<Function, Gelu>());
    case Activation::kGeluTanh:
      return use(std::integral_constant<Function, GeluTanh>());
    case Activation::kSilu:
      return use(std::integral_constant<Function, Silu>());
  }
}

void Activate(Activation activation, float* x, int size) {
  WithActivation(activation, [=](auto function) {
    for (int i = 0; i < size; i += 16) function.value(Sixteen::Load(x + i)).Store(x + i);
  });
}

// Blocks of sums, row by row: rows of outputs lie in pages of their own.

void FinishInt8(const Sums& sums, const float* scale, const float* bias, const float* row_scales,
                Activation activation, float* out, size_t stride) {
  WithActivation(activation, [=](auto function) {
    const int32_t* data = sums.data;
    float* to = out;
    for (int r = 0; r < sums.rows; ++r, data += sums.columns, to += stride) {
      const Sixteen row_scale = Sixteen::Of(row_scales[r]);
      for (int c = 0; c < sums.columns; c += 16) {
        const Sixteen scaled = Sixteen::FromInts(data + c) * Sixteen::Load(scale + c);
        function.value(Fma(scaled, row_scale, Sixteen::Load(bias + c))).Store(to + c);
      }
    }
  });
}

void FinishFloat(const Sums& sums, const float* bias, Activation activation, float* out,
                 size_t stride) {
  WithActivation(activation, [=](auto function) {
    const float* data = reinterpret_cast<const float*>(sums.data);
    float* to = out;
    for (int r = 0; r < sums.rows; ++r, data += sums.columns, to += stride) {
      for (int c = 0; c < sums.columns; c += 16) {
        function.value(Sixteen::Load(data + c) + Sixteen::Load(bias + c)).Store(to + c);
      }
    }
  });
}

// Logits.

inline Sixteen Masked(const float* logits, const float* mask, int i) {
  const Sixteen v = Sixteen::Load(logits + i);
  return mask == nullptr ? v : v + Sixteen::Load(mask + i);
}

float Largest(const float* logits, const float* mask, int count) {
  Sixteen even = Masked(logits, mask, 0), odd = even;  // two, as one would wait for itself
  int i = 16;
  for (; i + 16 < count; i += 32) {
    odd = Max(odd, Masked(logits, mask, i));
    even = Max(even, Masked(logits, mask, i + 16));
  }
  if (i < count) odd = Max(odd, Masked(logits, mask, i));
  return Max(Max(even, odd));
}

float UpdateLikeliest(const float* logits, const float* mask, int count, int base,
                      Likeliest* best) {
  const float largest = Largest(logits, mask, count);
  if (!(largest > best->logit)) return largest;
  const Sixteen wanted = Sixteen::Of(largest);
  for (int i = 0; i < count; i += 16) {
    if (const unsigned lanes = EqualLanes(Masked(logits, mask, i), wanted)) {
      *best = {largest, base + i + __builtin_ctz(lanes)};
      break;
    }
  }
  return largest;
}

void FindAbove(const float* logits, const float* mask, int count, float least, uint64_t* lanes) {
  const Sixteen limit = Sixteen::Of(least);
  for (int first = 0; first < count; first += 64) {
    uint64_t found = 0;
    for (int i = first; i < first + 64 && i < count; i += 16) {
      found |= uint64_t{LanesAbove(Masked(logits, mask, i), limit)} << (i - first);
    }
    *lanes++ = found;
  }
}

float SumExponentials(const float* logits, const float* mask, int count, float largest,
                      float rate) {
  const Sixteen top = Sixteen::Of(largest), times = Sixteen::Of(rate);
  Sixteen sum = Sixteen::Of(0.0f);
  if (mask == nullptr && rate == 1.0f) {  // most often
    for (int i = 0; i < count; i += 16) sum = AddExp(sum, Sixteen::Load(logits + i) - top);
    return Sum(sum);
  }
  for (int i = 0; i < count; i += 16) {
    sum = AddExp(sum, (Masked(logits, mask, i) - top) * times);
  }
  return Sum(sum);
}

}  // namespace
}  // namespace splitformer

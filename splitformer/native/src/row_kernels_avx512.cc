// Kernels of rows for AVX-512.
#include "row_kernels_impl.h"

namespace splitformer {
namespace {

// As bytes, 128 added: what VNNI multiplies.
float Quantise(const float* x, int size, float largest, uint8_t* out) {
  const __m512 factor = _mm512_set1_ps(QuantisingFactor(largest));
  const __m128i offset = _mm_set1_epi8(-128);
  const auto write = [&](int i) {
    const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), factor));
    const __m128i bytes = _mm_xor_si128(_mm512_cvtsepi32_epi8(whole), offset);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), bytes);
  };
  for (int i = 0; i < size; i += 32) {
    write(i);
    write(i + 16);
  }
  return largest / 127.0f;
}

}  // namespace

const RowKernels kRowsAvx512 = {Normalise,   Add,             MultiplyBy, Activate,
                                Magnitude,   Quantise,        FinishInt8, FinishFloat,
                                UpdateLikeliest, FindAbove,   Largest,    SumExponentials};

}  // namespace splitformer

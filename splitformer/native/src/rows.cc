#include "rows.h"

#include "elements.h"

namespace splitformer {
namespace {

template <Element kElement>
void Embed(const void* token, const float* position, float scale, int size, float* out) {
  const __m256 factor = _mm256_set1_ps(scale);
  for (size_t i = 0, end = size_t(size); i < end; i += 8) {
    __m256 v = _mm256_mul_ps(LoadElements<kElement>(token, i, end), factor);
    if (position != nullptr) {
      v = _mm256_add_ps(v, LoadElements<Element::kFloat>(position, i, end));
    }
    _mm256_storeu_ps(out + i, v);
  }
}

}  // namespace

Norm::Norm(NormKind of_kind, float small, const float* gains, const float* shifts, int size)
    : kind(of_kind), epsilon(small), gain(gains, gains + size) {
  if (shifts != nullptr) shift.assign(shifts, shifts + size);
  gain.resize(RoundUp(size_t(size), 16), 0.0f);
  shift.resize(gain.size(), 0.0f);
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

}  // namespace splitformer

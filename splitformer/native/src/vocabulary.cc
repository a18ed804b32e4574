#include "vocabulary.h"

#include <algorithm>
#include <limits>

#include "simd.h"

namespace splitformer {
namespace {

inline __m256 Masked(const float* logits, const float* mask, int i) {
  const __m256 v = _mm256_loadu_ps(logits + i);
  return mask == nullptr ? v : _mm256_add_ps(v, _mm256_loadu_ps(mask + i));
}

// Puts an entry behind those that are at least as likely; the last makes room if there is none.
int Insert(Likeliest entry, int room, Likeliest* kept, int held) {
  int place = held < room ? held : room - 1;
  for (; place > 0 && kept[place - 1].logit < entry.logit; --place) kept[place] = kept[place - 1];
  kept[place] = entry;
  return std::min(held + 1, room);
}

}  // namespace

int UpdateCandidates(const float* logits, const float* mask, int count, int base, int room,
                     Likeliest* kept, int held) {
  float least = -std::numeric_limits<float>::infinity();
  for (int i = 0; i < count; i += 8) {
    if (held == room) least = kept[room - 1].logit;
    alignas(32) float v[8];
    const __m256 here = Masked(logits, mask, i);
    const __m256 above = _mm256_cmp_ps(here, _mm256_set1_ps(least), _CMP_GT_OQ);
    unsigned lanes = static_cast<unsigned>(_mm256_movemask_ps(above));
    if (lanes == 0) continue;
    _mm256_store_ps(v, here);
    for (; lanes != 0; lanes &= lanes - 1) {
      const int lane = __builtin_ctz(lanes);
      if (held == room && !(v[lane] > kept[room - 1].logit)) continue;
      held = Insert({v[lane], base + i + lane}, room, kept, held);
    }
  }
  return held;
}

float LogSum(const ExponentialSum* chunks, int count) {
  float largest = chunks[0].largest;
  for (int c = 1; c < count; ++c) largest = std::max(largest, chunks[c].largest);
  float sum = 0.0f;
  for (int c = 0; c < count; ++c) sum += chunks[c].sum * Exp(chunks[c].largest - largest);
  return static_cast<float>(largest + Log(sum));
}

}  // namespace splitformer

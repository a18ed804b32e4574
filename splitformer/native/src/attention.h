// Attention of a single query: softmax(q K^T * scale) V over the positions of one head.
#pragma once

#include "types.h"

namespace splitformer {

// Keys and values of one head, (positions, width) each, contiguous.
struct Head {
  const float* keys;
  const float* values;
  int positions;
  int width;
};

// Floats that `scores` must have room for.
constexpr size_t ScoreRoom(size_t positions) { return RoundUp(positions, 8) + 8; }

// Turns scores into weights that have still to be divided by their sum, which is returned. There must
// be room for `ScoreRoom(positions)`, aligned to 32 bytes.
float Exponentiate(float* scores, int positions);

// Attends from `query` and writes `width` elements to `out`. The order of every sum depends on the
// head's positions and width only.
//   bias: added to the score of the newest position, the one before it, and so on, the last of
//     `distances` standing for all beyond (Raffel et al. 2020, relative positions); or nullptr.
//   scores: scratch, aligned to 32 bytes.
//   next_keys: keys that will be wanted next.
void Attend(const Head& head, const float* next_keys, const float* query, float scale,
            const float* bias, int distances, float* scores, float* out);

}  // namespace splitformer

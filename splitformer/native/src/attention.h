// Attention of a single query: softmax(q K^T * scale) V over the positions of one head.
#pragma once

#include "types.h"

namespace splitformer {

// An element of a cache of keys and values in 16 bits (IEEE 754 binary16).
struct Half {
  uint16_t bits;
};

// Where keys and values of one head are, position by position: in pages of `kPagePositions` each,
// or one behind the other from `base` on.
struct Head {
  void* const* pages = nullptr;  // nullptr: `base`
  const void* base = nullptr;
  size_t keys = 0;  // bytes from the beginning of every page, or from the base
  size_t values = 0;
  int positions = 0;
};

// Floats that `scores` must have room for.
constexpr size_t ScoreRoom(size_t positions) { return RoundUp(positions, 8) + 8; }

// Turns scores into weights that have still to be divided by their sum, which is returned. There
// must be room for `ScoreRoom(positions)`, aligned to 32 bytes.
float Exponentiate(float* scores, int positions);

// Attends from `query` and writes `width` elements to `out`. The order of every sum depends on the
// head's positions and width only.
//   cache: type of the keys' and values' elements.
//   next: what will be attended over some heads later; its memory is asked for.
//   bias: added to the score of the newest position, the one before it, and so on, the last of
//     `distances` standing for all beyond (Raffel et al. 2020, relative positions); or nullptr.
//   scores: scratch, aligned to 32 bytes. It then holds the weights of all positions, which have
//     still to be multiplied by the factor that is returned.
float Attend(CacheType cache, const Head& head, const Head& next, int width, const float* query,
            float scale, const float* bias, int distances, float* scores, float* out);

// Writes elements to a cache, rounded to its type; what 16 bits cannot hold becomes the largest
// number that they can.
void StoreElements(CacheType cache, const float* from, int count, void* to);

}  // namespace splitformer

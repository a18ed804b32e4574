// What is asked of the logits while they are at hand, chunk by chunk of the vocabulary.
#pragma once

#include "types.h"

namespace splitformer {

// Columns of a chunk. Sums over the vocabulary are taken within chunks first, so the size is part
// of what the bits of a log-probability depend on.
constexpr int kChunk = 256;

struct Likeliest {
  float logit;
  int32_t id;
};

// The largest of `count` logits and the sum of exp(logit - largest) over them.
struct ExponentialSum {
  float largest;
  float sum;
};

// Finds the first of the largest logits, if it exceeds `best`'s, and puts it there. `mask`, added
// first, is 0 or minus infinity, or nullptr. `count` is a multiple of 8; `base` is the first id.
void UpdateLikeliest(const float* logits, const float* mask, int count, int base, Likeliest* best);

// Keeps the `room` likeliest of the logits seen so far in `kept`, likeliest first, of equal ones the
// first; returns how many there are now, given that there were `held`. Minus infinity never counts.
// Arguments as above.
int UpdateCandidates(const float* logits, const float* mask, int count, int base, int room,
                     Likeliest* kept, int held);

ExponentialSum SumExponentials(const float* logits, int count);

// Merges chunks in their order: log of the sum of exp over all their logits.
float LogSum(const ExponentialSum* chunks, int count);

}  // namespace splitformer

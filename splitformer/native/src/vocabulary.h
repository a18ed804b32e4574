// What is asked of the logits while they are at hand, chunk by chunk of the vocabulary.
#pragma once

#include "row_kernels.h"

namespace splitformer {

// Columns of a chunk. Sums over the vocabulary are taken within chunks first, so the size is part
// of what the bits of a log-probability depend on.
constexpr int kChunk = 256;

// Keeps the `room` likeliest of the logits seen so far in `kept`, likeliest first, of equal ones
// the first; returns how many there are now, given that there were `held`. Minus infinity never
// counts. `count` is a multiple of 8, the rest as in `RowKernels::update_likeliest`.
int UpdateCandidates(const float* logits, const float* mask, int count, int base, int room,
                     Likeliest* kept, int held);

// Merges chunks in their order: log of the sum of exp over all their logits.
float LogSum(const ExponentialSum* chunks, int count);

}  // namespace splitformer

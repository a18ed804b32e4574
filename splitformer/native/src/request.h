// A step's input and outputs, and an encoder's. The binding lays them out.
#pragma once

#include <cstdint>

#include "draw.h"
#include "row_kernels.h"

namespace splitformer {

// One sequence's part in a step; the binding lays these out.
struct Sequence {
  void* const* own;   // pages, each (layers, 2, heads, kPagePositions, head size)
  int64_t capacity;   // positions that the pages have room for
  int64_t start;      // positions it holds
  int64_t count;      // new positions, in the order of their tokens
  const void* cross;  // (layers, 2, heads, source, head size)
  int64_t source;     // positions of the memory
  int64_t outputs;    // from how many of the last new positions an output is asked
};

// What is asked about one output beyond the likeliest id; the binding lays these out.
struct Question {
  const int32_t* denied;  // further ids ruled out, ascending
  int32_t denied_count;
  int32_t given;       // an id whose logit is wanted; -1: none
  int32_t candidates;  // how many of the likeliest ids are wanted
  int32_t logits;      // 1: all logits are wanted, before masks
  int32_t attention;   // 1: the attention over the memory is wanted
  int32_t unused;
  uint64_t seed;  // of the points of draws
  int64_t first;  // position that the first of them belongs to
  Draw draw;
};

// A step's input, and where its outputs go; those are in the order of sequences and positions.
// The binding lays these out too; what may be nullptr is then not asked for.
struct Request {
  int64_t sequences;
  int64_t outputs;           // sum of the sequences' outputs
  const Sequence* sequence;  // (sequences)
  const int32_t* tokens;     // (sum of counts)
  const float* mask;         // (whole chunks of the vocabulary): 0 or minus infinity; nullptr
  const Question* question;  // (outputs); nullptr
  int32_t* ids;              // (outputs): the likeliest id that is not ruled out, or the one that
                             // was drawn, -1 if others than candidates may matter
  float* log_probability;    // (outputs): of that id, over all ids; nullptr
  float* log_sum;            // (outputs): log of the sum of exp(logit) over all ids; as above
  float* logits;             // (outputs that asked for them, vocabulary), before masks
  Likeliest* candidates;     // (sum of those asked for): likeliest first; id -1: there are no more
  float* given_logit;        // (outputs): of the ids that were given
  float* attention;          // for each that asked as many elements as its memory has positions
  int32_t* focus;            // (outputs): the position of the memory that the last layer looks at
                             // most, in the mean of its heads; nullptr
  float* focus_weight;       // (outputs): that mean; as above
  float* memory;             // of an encoder: (sum of counts, d_model); never the binding's
};

// Sources that an encoder takes in, one behind the other: `counts[i]` tokens each, or where the plan
// has convolutions, frames of features for as many rows of the memory.
struct Sources {
  int count;
  const int64_t* counts;
  const int32_t* tokens;
  const float* features;
};

}  // namespace splitformer

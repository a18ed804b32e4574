// Ranking the continuations of several hypotheses together.
#pragma once

#include "row_kernels.h"

namespace splitformer {

// Hypotheses, each with as many of its likeliest next ids; the binding lays these out.
struct Hypotheses {
  const Likeliest* candidates;  // (count, room): likeliest first; id -1 where there are no more
  const float* log_sum;         // (count): what makes a logit a log-probability
  const double* total;          // (count): sums of log-probabilities
  int32_t count;
  int32_t room;
};

// Where the best continuations go, best first; the binding lays these out too.
struct Continuations {
  double* total;            // what they have to make up for: minus their sums
  double* log_probability;  // of the ids themselves
  int32_t* hypothesis;
  int32_t* id;
  int32_t most;
};

// Finds the best continuations, of equals the first; returns how many there are. A log-probability
// that rounding has lifted above 0 counts as 0 in sums.
int RankTogether(const Hypotheses& hypotheses, const Continuations& to);

}  // namespace splitformer

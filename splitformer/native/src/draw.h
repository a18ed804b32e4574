// Drawing a token from the likeliest ones.
#pragma once

#include <vector>

#include "types.h"

namespace splitformer {

// How to draw, and where; what is not given is not a number. The binding lays this out.
struct Draw {
  double temperature;  // 0: nothing is drawn
  double top_k;
  double top_p;
  double min_p;
  double point;  // in [0, 1): how far to go through the tokens, which belongs to seed and position
  double total;  // weight of all tokens, relative to the likeliest, if that matters: see `Weighs`

  bool Wanted() const { return temperature > 0.0; }

  // Whether it matters how likely all tokens are together; `total` is then a number in a step's
  // request too, whatever it is: the step adds it up.
  bool Weighs() const { return total == total; }
};

// Draws from `count` tokens, the likeliest of all, likeliest first and of equals the smallest id:
// top-k, top-p and min-p one after the other, then in the order of ids until their weights reach
// the point. Returns a place among them; -1 where tokens that are not among them may matter.
int DrawPlace(const Draw& draw, const double* values, const int32_t* ids, int count);

}  // namespace splitformer

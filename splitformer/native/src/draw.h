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
  double point;  // in [0, 1): how far to go through the tokens; a step asks `Point` if not given
  double total;  // weight of all tokens, relative to the likeliest, if that matters: see `Weighs`
  double among;  // in a step's request: from how many candidates, 0: from all tokens

  bool Wanted() const { return temperature > 0.0; }

  // Whether it matters how likely all tokens are together; `total` is then a number in a step's
  // request too, whatever it is: the step adds it up.
  bool Weighs() const { return total == total; }

  // What logits are multiplied with before they become exponents: a finite number.
  float Rate() const;

  // Whether a step draws from all tokens of which only those may be drawn that are near the
  // likeliest.
  bool Near() const { return Wanted() && among == 0.0 && min_p > 0.0; }

  // How much less their logits may be then.
  float Distance() const;
};

// The point in [0, 1) that belongs to a seed and an index: the first of the four numbers that Philox
// makes of them, as numpy has it.
double Point(uint64_t seed, uint64_t index);

// Draws from `count` tokens, the likeliest of all, likeliest first and of equals the smallest id:
// top-k, top-p and min-p one after the other, then in the order of ids until their weights reach
// the point. `complete`: there are no others. Returns a place among them; -1 where tokens that are
// not among them may matter.
int DrawPlace(const Draw& draw, const double* values, const int32_t* ids, int count, bool complete);

// Turns the logits of tokens into their weights beside that of the likeliest.
void Weigh(const Draw& draw, double largest, std::vector<double>* values);

// How far it is through some weights to a part of them all: the first place at which the sum of
// those before and its own exceeds it, else the last that has a weight. -1: none has one.
int Reached(const double* weights, int count, double part);

}  // namespace splitformer

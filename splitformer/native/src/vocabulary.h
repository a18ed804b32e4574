// What is asked of the logits while they are at hand, chunk by chunk of the vocabulary.
#pragma once

#include <immintrin.h>

#include <vector>

#include "row_kernels.h"

namespace splitformer {

// Columns of a chunk. Sums over the vocabulary are taken within chunks first, so the size is part
// of what the bits of a log-probability depend on.
constexpr int kChunk = 256;

// The likeliest of the logits seen so far, and some more: they are sifted only now and then. Chunks
// come in the order of their ids; of equal logits the first count.
class Shortlist {
 public:
  void Begin(int room);

  // The same, for all that are at most so far from the likeliest, however many they are; and some
  // more.
  void BeginWithin(float distance);

  // Takes in the logits of a chunk; minus infinity never counts. `mask`, added first,
  // is 0 or minus infinity, or nullptr; `largest` is then the largest. `count` is a multiple of 8;
  // `base` is the first id.
  void Add(const RowKernels& rows, const float* logits, const float* mask, int count, int base,
           float largest);

  // Takes in what another holds, of later ids.
  void Append(const Shortlist& part);

  // Drops all but as many of the likeliest as there is room for, and some more. There are eight.
  void Sift();

  // Those it holds, in the order of their ids.
  int held() const { return held_; }
  Likeliest operator[](int i) const { return {logits_[size_t(i)], ids_[size_t(i)]}; }

 private:
  void Reserve();
  void Put(__m256 logits, __m256i ids, int lanes);
  void Pad();
  bool Narrow(const float* logits, int count);
  void Drop();
  void DropButEquals(int equals);

  int room_ = 0;
  float distance_ = 0.0f;  // where there is no room to keep to
  int most_ = 0;           // that are held when a chunk comes
  int held_ = 0;
  float least_ = 0.0f;  // what a logit has to exceed
  std::vector<float> logits_;  // in the order of ids; both have room for one chunk more
  std::vector<int32_t> ids_;
};

// Merges shortlists of consecutive parts of the vocabulary: writes the `room` likeliest to `out`,
// likeliest first and of equals the smallest id, with id -1 where there are no more; returns how
// many there are. The first part then holds what all held.
int Rank(const std::vector<Shortlist*>& parts, int room, Likeliest* out);

// Merges chunks in their order: log of the sum of exp over all their logits.
float LogSum(const ExponentialSum* chunks, int count);

}  // namespace splitformer

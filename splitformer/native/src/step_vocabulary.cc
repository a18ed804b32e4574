// Running a plan: the output map, and what is asked of its logits.
#include <algorithm>
#include <cstring>
#include <limits>

#include "plan.h"

namespace splitformer {

void Plan::Execute(const VocabularyOp& op, const Request& request, Member& member) {
  const Operand operand = OperandOf(member);
  const int end = ShareBegin(chunks(), member.index + 1, team_.size());
  const int block = 2 * kernels_.max_rows;  // their logits stay in the innermost cache
  for (int chunk = ShareBegin(chunks(), member.index, team_.size()); chunk < end; ++chunk) {
    const int first = chunk * (kChunk / kPanel);
    const int last = std::min(first + kChunk / kPanel, op.matrix.panels());
    for (int row = 0; row < operand.rows; row += block) {
      const Operand part = operand.Rows(row, std::min(block, operand.rows - row));
      const auto store = [&](const Sums& sums) {
        float* out =
            Scratch(member) + size_t(sums.row) * kLogitsStride + (sums.column - first * kPanel);
        op.matrix.Finish(sums, part.scales, out, kLogitsStride);
      };
      Multiply(kernels_, part, op.matrix, first, last, store);
      for (int i = 0; i < part.rows; ++i) {
        ReduceChunk(request, Scratch(member) + size_t(i) * kLogitsStride, (last - first) * kPanel,
                    chunk, row + i, member);
      }
    }
  }
}

// Takes what is asked for output `i` from its logits in one chunk.
void Plan::ReduceChunk(const Request& request, const float* logits, int columns, int chunk, int i,
                       const Member& member) {
  const int base = chunk * kChunk;
  const float* mask = request.mask == nullptr ? nullptr : request.mask + base;
  alignas(32) float own_mask[kChunk];
  const int denied = request.denied == nullptr ? -1 : request.denied[i] - base;
  if (denied >= 0 && denied < columns) {
    for (int c = 0; c < kChunk; ++c) own_mask[c] = mask == nullptr ? 0.0f : mask[c];
    own_mask[denied] = -std::numeric_limits<float>::infinity();
    mask = own_mask;
  }
  UpdateLikeliest(logits, mask, columns, base, LikeliestOf(i, member.index));
  if (request.log_probabilities) {
    sums_[size_t(i) * size_t(chunks()) + size_t(chunk)] = SumExponentials(logits, columns);
  }
  if (request.logits_row != nullptr && request.logits_row[i] >= 0) {
    const size_t count = size_t(std::min(columns, shape_.vocabulary - base));
    const size_t row = size_t(request.logits_row[i]) * size_t(shape_.vocabulary);
    std::memcpy(request.logits + row + base, logits, count * sizeof(float));
  }
}

void Plan::Conclude(const Request& request, const Member& member) {
  const int end = ShareBegin(request.outputs, member.index + 1, team_.size());
  for (int i = ShareBegin(request.outputs, member.index, team_.size()); i < end; ++i) {
    Likeliest best = *LikeliestOf(i, 0);
    for (int t = 1; t < team_.size();
         ++t) {  // threads hold chunks in their order: ties go to the first id
      if (LikeliestOf(i, t)->logit > best.logit) best = *LikeliestOf(i, t);
    }
    request.ids[i] = best.id;
    if (request.log_probabilities) {
      request.log_sum[i] = LogSum(sums_.data() + size_t(i) * size_t(chunks()), chunks());
      request.log_probability[i] = best.logit - request.log_sum[i];
    }
  }
}

}  // namespace splitformer

// Running a plan: the output map, and what is asked of its logits.
#include <algorithm>
#include <cstring>
#include <limits>

#include "plan.h"

namespace splitformer {
namespace {

// Asks for a row's share of a chunk of weights, behind what products ask for themselves: memory
// would have nothing to do while logits are looked at. More at once would be waited for.
void Ask(const uint8_t* weights, size_t bytes, int row) {
  constexpr size_t kShare = 24 * 64;
  const size_t from = kAhead + size_t(row) * kShare, to = std::min(bytes, from + kShare);
  for (size_t at = from; at < to; at += 64) _mm_prefetch(weights + at, _MM_HINT_T1);
}

}  // namespace

void Plan::Execute(const VocabularyOp& op, const Request& request, Member& member) {
  const Operand operand = OperandOf(member);
  const int end = ShareBegin(chunks(), member.index + 1, team_.size());
  const int parts = (operand.rows + kLogitRows - 1) / kLogitRows;
  for (int chunk = ShareBegin(chunks(), member.index, team_.size()); chunk < end; ++chunk) {
    const int first = chunk * (kChunk / kPanel);
    const int last = std::min(first + kChunk / kPanel, op.matrix.panels());
    for (int i = 0; i < parts; ++i) {
      const int row = ShareBegin(operand.rows, i, parts);
      const Operand part = operand.Rows(row, ShareBegin(operand.rows, i + 1, parts) - row);
      const auto store = [&](const Sums& sums) {
        float* out =
            Scratch(member) + size_t(sums.row) * kLogitsStride + (sums.column - first * kPanel);
        op.matrix.Finish(sums, part.scales, out, kLogitsStride);
      };
      const uint8_t* after = op.matrix.panel(i + 1 < parts ? first : last);
      Multiply(kernels_, part, op.matrix, first, last, after, store);
      const float* mask = MaskOf(request, chunk);
      const bool waits = part.rows <= kernels_.hasty_rows && request.log_sum != nullptr;
      const bool asks = waits && i + 1 == parts && chunk + 1 < end;
      for (int r = 0; r < part.rows; ++r) {
        if (asks) Ask(after, size_t(last - first) * op.matrix.groups() * 64, r);
        ReduceChunk(request, mask, Scratch(member) + size_t(r) * kLogitsStride,
                    (last - first) * kPanel, chunk, row + r, member);
      }
    }
  }
}

// Makes a mask of a chunk for output `i`, if ids of the chunk are denied to it.
bool Plan::MaskDenied(const Request& request, int base, int columns, int i, float* own) const {
  if (request.question == nullptr) return false;
  const Question& question = request.question[i];
  const int32_t* end = question.denied + question.denied_count;
  const int32_t* begin = std::lower_bound(question.denied, end, base);
  if (begin == end || *begin >= base + columns) return false;
  for (int c = 0; c < kChunk; ++c) own[c] = request.mask == nullptr ? 0.0f : request.mask[base + c];
  for (; begin != end && *begin < base + columns; ++begin) {
    own[*begin - base] = -std::numeric_limits<float>::infinity();
  }
  return true;
}

// What is ruled out of a chunk for all outputs; nullptr if nothing is.
const float* Plan::MaskOf(const Request& request, int chunk) const {
  static constexpr float kNothing[kChunk] = {};
  if (request.mask == nullptr) return nullptr;
  const float* mask = request.mask + size_t(chunk) * kChunk;
  return std::memcmp(mask, kNothing, sizeof kNothing) == 0 ? nullptr : mask;
}

// Takes what is asked for output `i` from its logits in one chunk.
void Plan::ReduceChunk(const Request& request, const float* mask, const float* logits, int columns,
                       int chunk, int i, const Member& member) {
  const int base = chunk * kChunk;
  alignas(64) float own_mask[kChunk];
  if (MaskDenied(request, base, columns, i, own_mask)) mask = own_mask;
  const RowKernels& rows = *kernels_.rows;
  const float largest =
      rows.update_likeliest(logits, mask, columns, base, LikeliestOf(i, member.index));
  const Asked* asked = asked_.empty() ? nullptr : &asked_[size_t(i)];
  if (asked != nullptr && asked->room > 0) {
    shortlists_[size_t(member.index)][size_t(i)].Add(rows, logits, mask, columns, base, largest);
  }
  if (asked != nullptr && asked->draw.Near()) {
    near_[size_t(member.index)][size_t(i)].Add(rows, logits, mask, columns, base, largest);
  }
  const size_t place = size_t(i) * size_t(chunks()) + size_t(chunk);
  const bool summed = request.log_sum != nullptr;
  if (summed) {
    const float top = mask == nullptr ? largest : rows.largest(logits, nullptr, columns);
    sums_[place] = {top, rows.sum_exponentials(logits, nullptr, columns, top, 1.0f)};
  }
  if (asked != nullptr && asked->draw.Wanted() && asked->draw.Weighs()) {
    const float rate = asked->draw.Rate();
    weights_of_all_[place] =
        summed && mask == nullptr && rate == 1.0f
            ? sums_[place]
            : ExponentialSum{largest,
                             rows.sum_exponentials(logits, mask, columns, largest, rate)};
  }
  if (asked != nullptr) Copy(request, logits, columns, base, i);
}

// Copies those logits of a chunk that are wanted as they are.
void Plan::Copy(const Request& request, const float* logits, int columns, int base, int i) const {
  const int count = std::min(columns, shape_.vocabulary - base);
  const int given = request.question[i].given - base, row = asked_[size_t(i)].logits_row;
  if (given >= 0 && given < count) request.given_logit[i] = logits[given];
  if (row >= 0) {
    float* to = request.logits + size_t(row) * size_t(shape_.vocabulary);
    std::memcpy(to + base, logits, size_t(count) * sizeof(float));
  }
}

void Plan::Conclude(const Request& request, const Member& member) {
  const int outputs = static_cast<int>(request.outputs);
  const int end = ShareBegin(outputs, member.index + 1, team_.size());
  for (int i = ShareBegin(outputs, member.index, team_.size()); i < end; ++i) {
    const Likeliest best = BestOf(i);
    request.ids[i] = best.id;
    if (request.log_sum != nullptr) {
      request.log_sum[i] = LogSum(sums_.data() + size_t(i) * size_t(chunks()), chunks());
      request.log_probability[i] = best.logit - request.log_sum[i];
    }
    if (request.focus != nullptr) ShowFocus(request, i);
    if (asked_.empty()) continue;
    const Asked& asked = asked_[size_t(i)];
    const int held = asked.room > 0 ? Rank(request, i) : 0;
    if (asked.draw.Wanted()) DrawToken(request, i, held, best, member);
    if (asked.attention >= 0) ShowAttention(request, i);
  }
}

// Of all threads: they hold chunks in their order, so that ties go to the first id.
Likeliest Plan::BestOf(int output) {
  Likeliest best = *LikeliestOf(output, 0);
  for (int t = 1; t < team_.size(); ++t) {
    if (LikeliestOf(output, t)->logit > best.logit) best = *LikeliestOf(output, t);
  }
  return best;
}

// Merges what the threads have kept for an output, and answers with as many candidates as it asked
// for; returns how many were found.
int Plan::Rank(const Request& request, int i) {
  std::vector<Shortlist*> parts;
  parts.reserve(shortlists_.size());
  for (std::vector<Shortlist>& part : shortlists_) parts.push_back(&part[size_t(i)]);
  const Asked& asked = asked_[size_t(i)];
  Likeliest* found = found_.data() + asked.first_found;
  const int held = splitformer::Rank(parts, asked.room, found);
  std::copy_n(found, request.question[i].candidates, request.candidates + asked.first_candidate);
  return held;
}

// The mean of the heads' weights at position `t` of `source`, head by head in their order.
float Plan::MeanWeight(const float* weights, int64_t source, int64_t t) const {
  float sum = 0.0f;
  for (int head = 0; head < shape_.heads; ++head) sum += weights[head * source + t];
  return sum / static_cast<float>(shape_.heads);
}

void Plan::ShowAttention(const Request& request, int i) const {
  const int row = output_row_[size_t(i)];
  const int64_t source = SourceOf(request, row);
  const float* weights = weights_.data() + shown_[size_t(row)];
  float* out = request.attention + asked_[size_t(i)].attention;
  for (int64_t t = 0; t < source; ++t) out[t] = MeanWeight(weights, source, t);
}

// Of equal ones the first.
void Plan::ShowFocus(const Request& request, int i) const {
  const int row = output_row_[size_t(i)];
  const int64_t source = SourceOf(request, row);
  const float* weights = weights_.data() + shown_[size_t(row)];
  request.focus[i] = 0;
  request.focus_weight[i] = MeanWeight(weights, source, 0);
  for (int64_t t = 1; t < source; ++t) {
    const float mean = MeanWeight(weights, source, t);
    if (mean <= request.focus_weight[i]) continue;
    request.focus[i] = static_cast<int32_t>(t);
    request.focus_weight[i] = mean;
  }
}

// Positions of the memory of the sequence to which a row belongs.
int64_t Plan::SourceOf(const Request& request, int row) const {
  const auto after = std::upper_bound(first_row_.begin(), first_row_.end(), row);
  return request.sequence[after - first_row_.begin() - 1].source;
}

}  // namespace splitformer

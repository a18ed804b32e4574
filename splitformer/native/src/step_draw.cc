// Running a plan: drawing tokens from what the output map has left.
#include <algorithm>
#include <limits>

#include "plan.h"

namespace splitformer {

// Puts a drawn token in the likeliest one's place.
void Plan::DrawToken(const Request& request, int i, int held, Likeliest best,
                     const Member& member) {
  const Draw& draw = asked_[size_t(i)].draw;
  const Likeliest drawn = draw.among > 0.0 ? DrawCandidate(i, held, best)
                          : draw.Near()    ? DrawNear(draw, i, best)
                                           : DrawAny(request, i, best, member);
  request.ids[i] = drawn.id;
  if (drawn.id >= 0 && request.log_sum != nullptr) {
    request.log_probability[i] = drawn.logit - request.log_sum[i];
  }
}

// Draws from the likeliest; the id is -1 where others may matter.
Likeliest Plan::DrawCandidate(int i, int held, Likeliest best) const {
  const Asked& asked = asked_[size_t(i)];
  const Likeliest* candidates = found_.data() + asked.first_found;
  Draw draw = asked.draw;
  if (draw.Weighs()) {
    const std::vector<double> of_chunks = WeighChunks(draw, i, best);
    draw.total = 0.0;
    for (const double weight : of_chunks) draw.total += weight;
  }
  std::vector<double> values;
  std::vector<int32_t> ids;
  values.reserve(size_t(held));
  ids.reserve(size_t(held));
  for (int place = 0; place < held; ++place) {
    values.push_back(candidates[place].logit);
    ids.push_back(candidates[place].id);
  }
  const bool complete = held < asked.room || held == shape_.vocabulary;
  const int place = DrawPlace(draw, values.data(), ids.data(), held, complete);
  return place < 0 ? Likeliest{0.0f, -1} : candidates[place];
}

// Draws from those that are likely enough beside the likeliest.
Likeliest Plan::DrawNear(const Draw& draw, int i, Likeliest best) const {
  std::vector<Likeliest> near;
  std::vector<double> weights;
  for (const std::vector<Shortlist>& part : near_) {
    const Shortlist& list = part[size_t(i)];
    for (int k = 0; k < list.held(); ++k) {
      near.push_back(list[k]);
      weights.push_back(list[k].logit);
    }
  }
  Weigh(draw, best.logit, &weights);
  double all = 0.0;
  for (double& weight : weights) {
    if (!(weight >= draw.min_p)) weight = 0.0;
    all += weight;
  }
  const int place = Reached(weights.data(), static_cast<int>(near.size()), draw.point * all);
  return place < 0 ? Likeliest{0.0f, -1} : near[size_t(place)];
}

// Draws from all: first a chunk by its weight, then one of its tokens, whose logits are computed
// once more.
Likeliest Plan::DrawAny(const Request& request, int i, Likeliest best, const Member& member) {
  const Draw& draw = asked_[size_t(i)].draw;
  const std::vector<double> of_chunks = WeighChunks(draw, i, best);
  double all = 0.0, before = 0.0;
  for (const double weight : of_chunks) all += weight;
  const int chunk = Reached(of_chunks.data(), chunks(), draw.point * all);
  if (chunk < 0) return {0.0f, -1};
  for (int c = 0; c < chunk; ++c) before += of_chunks[size_t(c)];
  alignas(64) float own_mask[kChunk];
  const float* logits = Scratch(member);
  const float* mask = MaskOf(request, chunk);
  const int base = chunk * kChunk, columns = ComputeChunk(i, chunk, member);
  if (MaskDenied(request, base, columns, i, own_mask)) mask = own_mask;
  std::vector<double> weights;
  weights.reserve(size_t(columns));
  for (int c = 0; c < columns; ++c) {
    weights.push_back(mask == nullptr ? logits[c] : logits[c] + mask[c]);
  }
  Weigh(draw, best.logit, &weights);
  double sum = 0.0;
  for (const double weight : weights) sum += weight;
  const double part = (draw.point * all - before) / of_chunks[size_t(chunk)];
  const int c = Reached(weights.data(), columns, part * sum);
  return c < 0 ? Likeliest{0.0f, -1} : Likeliest{logits[c], base + c};
}

// The weight of each chunk beside that of the likeliest token.
std::vector<double> Plan::WeighChunks(const Draw& draw, int i, Likeliest best) const {
  const ExponentialSum* of = weights_of_all_.data() + size_t(i) * size_t(chunks());
  std::vector<double> weights;
  weights.reserve(size_t(chunks()));
  for (int c = 0; c < chunks(); ++c) weights.push_back(of[c].largest);
  Weigh(draw, best.logit, &weights);
  for (int c = 0; c < chunks(); ++c) weights[size_t(c)] *= of[c].sum;
  return weights;
}

// Computes an output's logits in one chunk, to the thread's scratch; returns how many there are.
int Plan::ComputeChunk(int i, int chunk, const Member& member) {
  const Matrix& matrix = std::get<VocabularyOp>(ops_.back()).matrix;
  const int first = chunk * (kChunk / kPanel);
  const int last = std::min(first + kChunk / kPanel, matrix.panels());
  const Operand operand = OperandOf(member).Rows(i, 1);
  Multiply(kernels_, operand, matrix, first, last, nullptr, [&](const Sums& sums) {
    float* out = Scratch(member) + (sums.column - first * kPanel);
    matrix.Finish(sums, operand.scales, out, kLogitsStride);
  });
  return (last - first) * kPanel;
}

}  // namespace splitformer

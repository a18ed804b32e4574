// Building a plan, checking requests, and laying out a step's working memory.
#include "plan.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>

#include "attention.h"

namespace splitformer {
namespace {

void Require(bool holds, const std::string& rule) {
  if (!holds) throw std::invalid_argument(rule);
}

std::string Got(int64_t value) { return ", got " + std::to_string(value); }

}  // namespace

Plan::Plan(const Shape& shape, InstructionSet isa, int threads, const std::vector<int>& cores)
    : shape_(shape),
      kernels_(KernelsFor(shape.precision, isa)),
      float_kernels_(KernelsFor(Precision::kFloat, isa)),
      team_(threads, cores) {}

void Plan::SetEmbedding(const void* tokens, Element element, const float* positions, float scale) {
  Require(element != Element::kInt8, "embedding: must not be quantised");
  tokens_ = static_cast<const uint8_t*>(tokens);
  element_ = element;
  positions_ = positions;
  embedding_scale_ = scale;
}

void Plan::SetProjection(const std::vector<Weights>& parts) {
  int width = 0;
  for (const Weights& part : parts) width += part.width;
  Require(width == 2 * shape_.layers * shape_.inner(),
          "projection: must be 2 * layers * heads * head_size wide" + Got(width));
  projection_ = std::make_unique<LinearOp>(
      LinearOp{Matrix(shape_.precision, kernels_, &packed_, shape_.d_model, parts, false, 0.0f, 1),
               Activation::kNone, false, 0});
  widest_input_ = std::max(widest_input_, shape_.d_model);
}

void Plan::Add(RowsOp op) {
  const bool from_linear = op.source == Source::kResidual || op.source == Source::kLinear;
  Require(!from_linear || width_ > 0, "rows: no linear map to start from");
  Require(op.source != Source::kResidual || width_ == shape_.d_model,
          "rows: a residual sum needs d_model elements" + Got(width_));
  Require(op.source != Source::kEmbedding || ops_.empty(), "rows: only the first embeds");
  operand_width_ = op.source == Source::kLinear      ? width_
                   : op.source == Source::kAttention ? shape_.inner()
                                                     : shape_.d_model;
  op.width = operand_width_;
  ops_.emplace_back(std::move(op));
}

void Plan::AddLinear(const std::vector<Weights>& parts, int inputs, Activation activation,
                     bool gated, int segments) {
  Require(inputs == operand_width_, "linear: inputs must be the operand's width (" +
                                        std::to_string(operand_width_) + ")" + Got(inputs));
  if (gated)
    Require(parts.size() == 2 && parts[0].width == parts[1].width,
            "linear: a gate and a map of one width");
  width_ = 0;
  for (const Weights& part : parts) width_ += part.width;
  if (gated) width_ /= 2;
  Require(segments >= 0 && segments <= kMaxSegments, "linear: at most three segments");
  Require(segments == 0 || width_ == segments * shape_.inner(),
          "linear: segments must be heads * head_size wide");
  ops_.emplace_back(
      LinearOp{Matrix(shape_.precision, kernels_, &packed_, inputs, parts, gated, 0.0f,
                      gated ? 2 : 1),
               activation, gated, segments});
  widest_input_ = std::max(widest_input_, inputs);
  widest_output_ = std::max(widest_output_, std::get<LinearOp>(ops_.back()).matrix.columns());
}

void Plan::Add(AttendOp op) {
  const LinearOp* before = ops_.empty() ? nullptr : std::get_if<LinearOp>(&ops_.back());
  Require(before != nullptr && before->segments == (op.over == Over::kMemory ? 1 : 3),
          "attention: must follow a map with as many segments as it needs");
  Require(op.layer >= 0 && op.layer < shape_.layers, "attention: no such layer" + Got(op.layer));
  const int distances = op.over == Over::kSource ? 2 * op.distances - 1 : op.distances;
  Require(op.bias.empty() || op.bias.size() == size_t(distances) * size_t(shape_.heads),
          "attention: bias must be (heads, distances)");
  ops_.emplace_back(std::move(op));
}

void Plan::AddVocabulary(const Weights& weights) {
  Require(operand_width_ == shape_.d_model, "vocabulary: needs an operand of d_model elements");
  Require(weights.width == shape_.vocabulary,
          "vocabulary: must be as wide as the vocabulary" + Got(weights.width));
  // Columns beyond the vocabulary get a logit of minus infinity and so never count.
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  ops_.emplace_back(VocabularyOp{
      Matrix(shape_.precision, kernels_, &packed_, shape_.d_model, {weights}, false, kNever, 1)});
  widest_input_ = std::max(widest_input_, shape_.d_model);
}

void Plan::CheckOrder() {
  Require(!ops_.empty(), "plan: is empty");
  const RowsOp* first = std::get_if<RowsOp>(&ops_.front());
  Require(first != nullptr && first->source == Source::kEmbedding,
          "plan: must begin with an embedding");
  Require((tokens_ == nullptr) == !convolutions_.empty(),
          "plan: needs an embedding table or convolutions");
  const RowsOp* end = std::get_if<RowsOp>(&ops_.back());
  encoder_ = end != nullptr && end->target == Target::kMemory;
  Require(encoder_ || std::holds_alternative<VocabularyOp>(ops_.back()),
          "plan: must end with the vocabulary or the memory");
  const size_t last = ops_.size() - (encoder_ ? 1 : 2);
  Require(last < ops_.size() && std::holds_alternative<RowsOp>(ops_[last]),
          "plan: rows must come before the vocabulary");
  for (size_t i = 0; i < ops_.size(); ++i) {
    const Target wanted = i != last  ? Target::kOperand
                          : encoder_ ? Target::kMemory
                                     : Target::kOutputs;
    const RowsOp* rows = std::get_if<RowsOp>(&ops_[i]);
    Require(rows == nullptr || rows->target == wanted,
            "plan: only the last rows, and they, are outputs or memory");
    const AttendOp* attend = std::get_if<AttendOp>(&ops_[i]);
    Require(attend == nullptr || (attend->over == Over::kSource) == encoder_,
            "plan: encoders, and they, attend over a source");
  }
  int width = convolutions_.empty() ? shape_.d_model : convolutions_[0].channels;
  for (const Convolution& each : convolutions_) {
    Require(encoder_ && each.channels == width, "plan: convolutions must follow one another");
    width = each.width;
  }
  Require(width == shape_.d_model, "plan: the last convolution must be d_model wide" + Got(width));
}

void Plan::Finish() {
  if (!ops_.empty() || projection_ == nullptr) CheckOrder();
  const int widest_row = std::max(shape_.d_model, shape_.inner());
  row_stride_ = RoundUp(size_t(widest_row), kRowAlignment) + kPanel;
  output_stride_ = RoundUp(size_t(widest_output_), kRowAlignment) + kPanel;
  const int group = shape_.precision == Precision::kInt8 ? 4 : 1;  // elements
  operand_stride_ =
      RoundUp(size_t(widest_input_), kRowAlignment) * size_t(kernels_.group_bytes) / size_t(group) +
      64;
  finished_ = true;
}

int Plan::chunks() const { return (shape_.vocabulary + kChunk - 1) / kChunk; }

void Plan::Check(const Request& request) const {
  Require(finished_ && !encoder_ && !ops_.empty(), "plan: takes no steps");
  int64_t rows = 0, outputs = 0;
  for (int s = 0; s < request.sequences; ++s) {
    const Sequence& q = request.sequence[s];
    Require(q.count >= 1, "tokens: at least one per sequence" + Got(q.count));
    Require(q.start >= 0 && q.start + q.count <= shape_.max_positions,
            "positions: at most max_positions (" + std::to_string(shape_.max_positions) + ")" +
                Got(q.start + q.count));
    Require(q.start + q.count <= q.capacity, "positions: beyond the cache's capacity (" +
                                                 std::to_string(q.capacity) + ")" +
                                                 Got(q.start + q.count));
    Require(q.source >= 1 && q.source <= std::numeric_limits<int>::max(),
            "memory: at least one row" + Got(q.source));
    Require(q.outputs >= 1 && q.outputs <= q.count,
            "outputs: at least one, at most one per token" + Got(q.outputs));
    Require(q.own != nullptr && q.cross != nullptr, "caches: must have data");
    CheckTokens(request.tokens + rows, q.count);
    rows += q.count;
    outputs += q.outputs;
  }
  Require(rows >= 1 && rows < std::numeric_limits<int>::max() / 2,
          "tokens: too few or too many rows" + Got(rows));
  Require(outputs == request.outputs, "outputs: do not add up" + Got(outputs));
  for (int i = 0; request.denied != nullptr && i < request.outputs; ++i) {
    CheckDenied(request.denied + (i == 0 ? 0 : request.denied_end[i - 1]),
                request.denied + request.denied_end[i]);
  }
  for (int i = 0; request.given != nullptr && i < request.outputs; ++i) {
    Require(request.given[i] < shape_.vocabulary, "given: no such id" + Got(request.given[i]));
  }
  for (int i = 0; request.room != nullptr && i < request.outputs; ++i) {
    Require(request.room[i] >= 0 && request.room[i] <= shape_.vocabulary,
            "candidates: 0 to as many as there are ids" + Got(request.room[i]));
  }
  for (int i = 0; request.draw != nullptr && i < request.outputs; ++i) {
    const Draw& draw = request.draw[i];
    const int room = request.room == nullptr ? 0 : request.room[i];
    Require(!draw.Wanted() || draw.among <= room, "draws: need candidates");
    Require(!draw.Wanted() || draw.among > 0.0 || draw.Near() != draw.Weighs(),
            "draws: from all tokens either weigh them or keep near the likeliest");
  }
}

void Plan::Check(const Sources& sources) const {
  Require(finished_ && encoder_, "plan: encodes nothing");
  Require((sources.features == nullptr) == convolutions_.empty(),
          "source: must be features if there are convolutions, else tokens");
  int64_t rows = 0;
  for (int s = 0; s < sources.count; ++s) {
    const int64_t count = sources.counts[s];
    Require(count >= 1 && count <= shape_.max_positions, "source: 1 to max_positions (" +
                                                             std::to_string(shape_.max_positions) +
                                                             ") rows" + Got(count));
    if (sources.features == nullptr) CheckTokens(sources.tokens + rows, count);
    rows += count;
  }
}

void Plan::CheckDenied(const int32_t* begin, const int32_t* end) const {
  Require(begin <= end && std::adjacent_find(begin, end, std::greater_equal<int32_t>()) == end,
          "denied: must be ascending");
  Require(begin == end || (begin[0] >= 0 && end[-1] < shape_.vocabulary),
          "denied: no such id" + (begin == end ? "" : Got(begin[0] < 0 ? begin[0] : end[-1])));
}

void Plan::CheckTokens(const int32_t* tokens, int64_t count) const {
  for (int64_t i = 0; i < count; ++i) {
    Require(tokens[i] >= 0 && tokens[i] < shape_.vocabulary,
            "tokens: must be below " + std::to_string(shape_.vocabulary) + Got(tokens[i]));
  }
}

void Plan::Prepare(const Request& request) {
  row_.clear();
  first_row_.clear();
  output_row_.clear();
  shown_.clear();
  int64_t longest = 1, shown = 0;
  for (int s = 0; s < request.sequences; ++s) {
    const Sequence& q = request.sequence[s];
    first_row_.push_back(static_cast<int>(row_.size()));
    longest = std::max({longest, q.start + q.count, q.source});
    for (int64_t i = 0; i < q.count; ++i) {
      const int row = static_cast<int>(row_.size());
      const bool asked = i >= q.count - q.outputs;
      const int32_t token = heard_ == nullptr ? request.tokens[row] : 0;
      row_.push_back({token, static_cast<int32_t>(q.start + i)});
      if (request.attention_from != nullptr) {
        const bool shows = asked && request.attention_from[output_row_.size()] >= 0;
        shown_.push_back(shows ? shown : -1);
        shown += shows ? shape_.heads * q.source : 0;
      }
      if (asked) output_row_.push_back(row);
    }
  }
  weights_.resize(static_cast<size_t>(shown));
  PrepareCandidates(request);
  replicated_ = row_.size() == 1 && !encoder_;
  Reserve(static_cast<int>(row_.size()), static_cast<int>(output_row_.size()),
          static_cast<int>(longest));
}

void Plan::PrepareCandidates(const Request& request) {
  const int outputs = static_cast<int>(output_row_.size());
  if (request.room != nullptr) {
    int sum = 0;
    first_candidate_.clear();
    for (int i = 0; i < outputs; ++i) {
      first_candidate_.push_back(sum);
      sum += request.room[i];
    }
    PrepareLists(&shortlists_, [&](int i, Shortlist* list) { list->Begin(request.room[i]); });
  }
  if (request.draw != nullptr) {
    PrepareLists(&near_, [&](int i, Shortlist* list) {
      if (request.draw[i].Near()) list->BeginWithin(request.draw[i].Distance());
    });
    weights_of_all_.resize(size_t(outputs) * size_t(chunks()));
  }
}

// Makes sure that each thread has a list for each output, and begins them.
template <class F>
void Plan::PrepareLists(std::vector<std::vector<Shortlist>>* lists, F begin) {
  const size_t outputs = output_row_.size();
  lists->resize(size_t(team_.size()));
  for (std::vector<Shortlist>& each : *lists) {
    if (each.size() < outputs) each.resize(outputs);
    for (size_t i = 0; i < outputs; ++i) begin(static_cast<int>(i), &each[i]);
  }
}

void Plan::Reserve(int rows, int outputs, int positions) {
  const size_t threads = size_t(team_.size());
  const size_t slots = RoundUp(std::max(size_t(rows), threads), size_t(kernels_.unit));
  residual_.Reserve(slots * row_stride_ * sizeof(float));
  mixed_.Reserve(size_t(rows) * row_stride_ * sizeof(float));
  for (Buffer& output : output_) output.Reserve(size_t(rows) * output_stride_ * sizeof(float));
  operand_.Reserve(slots * operand_stride_);
  scale_.Reserve(std::max(slots, threads * 16) * sizeof(float));
  // A thread's scratch holds the scores of one query, a row, or a chunk of logits.
  const size_t chunk = size_t(kLogitRows) * kLogitsStride;
  const size_t attention =
      encoder_ ? SourceRoom(positions, head_size()) : ScoreRoom(size_t(positions));
  const size_t scratch = std::max({attention, kRowsAtOnce * row_stride_, output_stride_, chunk});
  scratch_stride_ = RoundUp(scratch, kPanel) + kPanel;
  scratch_.Reserve(threads * scratch_stride_ * sizeof(float));
  sums_.resize(size_t(outputs) * size_t(chunks()));
  likeliest_.assign(size_t(outputs) * threads, {-std::numeric_limits<float>::infinity(), 0});
}

void Plan::SetProfile(bool on) {
  const std::lock_guard<std::mutex> lock(busy_);
  profiling_ = on;
  profile_.fill(0.0);
}

}  // namespace splitformer

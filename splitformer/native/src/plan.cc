// Building a plan.
#include "plan.h"

#include <algorithm>
#include <limits>
#include <string>

#include "attention.h"
#include "require.h"

namespace splitformer {

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

void Plan::SetProfile(bool on) {
  const std::lock_guard<std::mutex> lock(busy_);
  profiling_ = on;
  profile_.fill(0.0);
}

}  // namespace splitformer

// Running a plan that is an encoder.
#include <algorithm>

#include "plan.h"

namespace splitformer {
namespace {

// Rows that go through all layers together: enough for the matrix products to be worth it, few
// enough for activations to stay in the processor's caches. A longer source makes a block alone.
constexpr int64_t kBlockRows = 96;

}  // namespace

void Plan::Encode(const Sources& sources, float* memory) {
  const std::lock_guard<std::mutex> lock(busy_);
  Check(sources);
  if (sources.features != nullptr) return EncodeAudio(sources, memory);
  std::vector<Sequence> block;
  Request request{};
  request.tokens = sources.tokens;
  request.memory = memory;
  for (int s = 0; s < sources.count;) {
    int64_t rows = 0;
    block.clear();
    do {
      block.push_back({nullptr, 0, 0, sources.counts[s], nullptr, 0, 0});
      rows += sources.counts[s++];
    } while (s < sources.count && rows + sources.counts[s] <= kBlockRows);
    request.sequences = static_cast<int64_t>(block.size());
    request.sequence = block.data();
    Run(request);
    request.tokens += rows;
    request.memory += rows * shape_.d_model;
  }
}

void Plan::EncodeAudio(const Sources& sources, float* memory) {
  const float* features = sources.features;
  for (int s = 0; s < sources.count; ++s) {
    const int64_t rows = sources.counts[s], frames = rows * FramesPerRow();
    const Sequence sequence = {nullptr, 0, 0, rows, nullptr, 0, 0};
    Request request{};
    request.sequences = 1;
    request.sequence = &sequence;
    request.memory = memory;
    heard_ = Hear(features, frames);
    Run(request);
    features += frames * convolutions_[0].channels;
    memory += rows * shape_.d_model;
  }
}

void Plan::AttendSource(const AttendOp& op, int64_t count, int first_row, int head,
                        const Member& member) {
  const size_t inner = size_t(shape_.inner()), at = size_t(head) * size_t(head_size());
  const float* queries = Output(first_row, member.parity ^ 1) + at;
  const size_t biases = size_t(head) * size_t(2 * op.distances - 1);
  const float* bias = op.bias.empty() ? nullptr : op.bias.data() + biases;
  const SourceHead rows = {queries,        queries + inner,         queries + 2 * inner,
                           output_stride_, static_cast<int>(count), head_size()};
  AttendWithin(float_kernels_, rows, op.scale, bias, op.distances, Scratch(member),
               Mixed(first_row) + at, row_stride_);
}

}  // namespace splitformer

// Running a plan.
#include <x86intrin.h>

#include <algorithm>
#include <cstring>

#include "attention.h"
#include "plan.h"

namespace splitformer {

void Plan::Step(const Request& request) {
  const std::lock_guard<std::mutex> lock(busy_);
  Check(request);
  Run(request);
}

void Plan::Run(const Request& request) {
  Prepare(request);
  team_.Run([&](int index) {
    Member member{index, static_cast<int>(row_.size()), 0, profiling_ ? __rdtsc() : 0};
    RunStep(request, member);
  });
}

void Plan::RunStep(const Request& request, Member& member) {
  for (const Op& op : ops_) {
    if (const auto* rows = std::get_if<RowsOp>(&op)) {
      Execute(*rows, request, member);
      Tick(member, kRowsTime);
      if (!replicated_) Barrier(member);
    } else if (const auto* linear = std::get_if<LinearOp>(&op)) {
      Execute(*linear, member);
      Tick(member, kLinearTime);
      // Where a thread computes the heads that it will attend with, it need not wait for others.
      if (linear->segments == 0 || !ByHeads()) Barrier(member);
    } else if (const auto* attend = std::get_if<AttendOp>(&op)) {
      Execute(*attend, request, member);
      Tick(member, attend->over == Over::kMemory ? kCrossTime : kOwnTime);
      Barrier(member);
    } else {
      Execute(std::get<VocabularyOp>(op), request, member);
      Tick(member, kVocabularyTime);
      Barrier(member);
      Conclude(request, member);
    }
  }
}

void Plan::Barrier(Member& member) {
  team_.Barrier();
  Tick(member, kWaitTime);
}

void Plan::Tick(Member& member, ProfileEntry entry) {
  if (!profiling_ || member.index != 0) return;
  const uint64_t now = __rdtsc();
  profile_[entry] += static_cast<double>(now - member.clock);
  member.clock = now;
}

// Rows.

void Plan::Execute(const RowsOp& op, const Request& request, Member& member) {
  if (op.target == Target::kOutputs) member.rows = static_cast<int>(output_row_.size());
  const int parts = replicated_ ? 1 : team_.size(), part = replicated_ ? 0 : member.index;
  const int end = ShareBegin(member.rows, part + 1, parts);
  for (int i = ShareBegin(member.rows, part, parts); i < end; ++i) {
    const int row = op.target == Target::kOutputs ? output_row_[size_t(i)] : i;
    const float* x = Begin(op, row, member);
    if (op.prepared.kind != NormKind::kNone) {
      Normalise(op.prepared, x, op.width, Scratch(member));
      x = Scratch(member);
    }
    if (op.target == Target::kMemory) {
      std::memcpy(request.memory + size_t(i) * size_t(op.width), x, size_t(op.width) * sizeof(float));
    } else {
      PrepareOperand(x, op.width, i, member);
    }
  }
}

const float* Plan::Begin(const RowsOp& op, int row, const Member& member) const {
  if (op.source == Source::kAttention) return Mixed(row);
  const float* output = Output(row, member.parity ^ 1);
  if (op.source == Source::kLinear) return output;
  float* residual = Residual(row, member);
  const size_t d = size_t(shape_.d_model);
  if (op.source == Source::kResidual) {
    AddRow(residual, output, shape_.d_model);
  } else {
    const Row& r = row_[size_t(row)];
    const float* position = positions_ == nullptr ? nullptr : positions_ + size_t(r.position) * d;
    EmbedRow(tokens_ + size_t(r.token) * d, position, embedding_scale_, shape_.d_model, residual);
  }
  if (op.stored.kind != NormKind::kNone) {
    Normalise(op.stored, residual, shape_.d_model, residual);
  }
  return residual;
}

void Plan::PrepareOperand(const float* x, int size, int row, const Member& member) const {
  uint8_t* to = operand_.As<uint8_t>() + Slot(row, member) * operand_stride_;
  if (shape_.precision == Precision::kInt8) {
    *ScaleOf(row, member) = QuantiseRow(x, size, kernels_.offset, to);
  } else {
    std::memcpy(to, x, size_t(size) * sizeof(float));
  }
}

Operand Plan::OperandOf(const Member& member) const {
  return {operand_.As<uint8_t>() + Slot(0, member) * operand_stride_, operand_stride_,
          ScaleOf(0, member), member.rows};
}

// Linear maps.

// Whether each thread computes, and attends with, an even share of the heads.
bool Plan::ByHeads() const { return head_size() % kPanel == 0 && shape_.heads % team_.size() == 0; }

// The panels of a map that a thread computes: those of its heads, or an even share.
int Plan::ShareOf(const LinearOp& op, int member, Panels* share) const {
  const int parts = team_.size();
  if (op.segments != 0 && ByHeads()) {
    const int heads = shape_.heads, panels = head_size() / kPanel;
    const int first = ShareBegin(heads, member, parts) * panels;
    const int last = ShareBegin(heads, member + 1, parts) * panels;
    for (int segment = 0; segment < op.segments; ++segment) {
      share[segment] = {segment * heads * panels + first, segment * heads * panels + last};
    }
    return op.segments;
  }
  // Whole blocks where there are enough of them, else pairs, which gates need.
  const int panels = op.matrix.panels();
  const int unit = panels >= 2 * parts * kMaxTilePanels ? kMaxTilePanels : 2;
  const int units = (panels + unit - 1) / unit;
  share[0] = {unit * ShareBegin(units, member, parts),
              std::min(panels, unit * ShareBegin(units, member + 1, parts))};
  return 1;
}

void Plan::Execute(const LinearOp& op, Member& member) {
  const Operand operand = OperandOf(member);
  const Matrix& matrix = op.matrix;
  const int parity = member.parity;
  const auto store = [&](const Sums& sums) {
    float* out = Output(sums.row, parity) + sums.column;
    matrix.Finish(sums, operand.scales, out, output_stride_);
    if (op.activation == Activation::kNone) return;
    for (int r = 0; r < sums.rows; ++r, out += output_stride_) {
      Activate(op.activation, out, sums.columns);
    }
  };
  // Panels alternate between gate and map, and come in this order whatever the tile is.
  const auto store_gated = [&](const Sums& sums) {
    alignas(32) float both[kMaxTileRows * kMaxTilePanels * kPanel];
    matrix.Finish(sums, operand.scales, both, size_t(sums.columns));
    float* piece = both;
    for (int r = 0; r < sums.rows; ++r) {
      for (int c = 0; c < sums.columns; c += kPanel, piece += kPanel) {
        const int panel = (sums.column + c) / kPanel;
        float* out = Output(sums.row + r, parity) + panel / 2 * kPanel;
        if (panel % 2 == 0) {
          Activate(op.activation, piece, kPanel);
          std::memcpy(out, piece, kPanel * sizeof(float));
        } else {
          MultiplyRow(out, piece, kPanel);
        }
      }
    }
  };
  Panels share[kMaxSegments];
  for (int i = 0, count = ShareOf(op, member.index, share); i < count; ++i) {
    if (op.gated) {
      Multiply(kernels_, operand, matrix, share[i].first, share[i].last, store_gated);
    } else {
      Multiply(kernels_, operand, matrix, share[i].first, share[i].last, store);
    }
  }
  // The next map writes the other output: whoever still reads this one is not disturbed.
  member.parity ^= 1;
}

// Attention.

void Plan::Execute(const AttendOp& op, const Request& request, Member& member) {
  const int parts = team_.size();
  int heads = shape_.heads, first_head = 0, item, end;
  if (ByHeads()) {
    first_head = ShareBegin(heads, member.index, parts);
    heads = ShareBegin(heads, member.index + 1, parts) - first_head;
    item = 0;
    end = request.sequences * heads;
  } else {
    item = ShareBegin(request.sequences * heads, member.index, parts);
    end = ShareBegin(request.sequences * heads, member.index + 1, parts);
  }
  for (; item < end; ++item) {
    const int s = item / heads, head = first_head + item % heads;
    if (op.over == Over::kSource) {
      AttendSource(op, request.sequence[s].count, first_row_[size_t(s)], head, member);
      continue;
    }
    const int following = std::min(item + 1, end - 1);
    const Head next =
        HeadOf(op, request.sequence[following / heads], first_head + following % heads);
    AttendHead(op, request.sequence[s], first_row_[size_t(s)], head, next.keys, member);
  }
}

// The cache of one head, with the positions held before the step.
Head Plan::HeadOf(const AttendOp& op, const Sequence& sequence, int head) const {
  const size_t width = size_t(head_size()), heads = size_t(shape_.heads);
  const bool cross = op.over == Over::kMemory;
  const size_t room = size_t(cross ? sequence.source : sequence.capacity) * width;
  const float* keys = (cross ? sequence.cross : sequence.own) +
                      (size_t(op.layer) * 2 * heads + size_t(head)) * room;
  const int64_t positions = cross ? sequence.source : sequence.start;
  return {keys, keys + heads * room, static_cast<int>(positions), static_cast<int>(width)};
}

// One head of all new rows of a sequence, in their order: a row's key and value are in place before
// the rows behind it attend.
void Plan::AttendHead(const AttendOp& op, const Sequence& sequence, int first_row, int head,
                      const float* next_keys, const Member& member) {
  const size_t width = size_t(head_size()), d = size_t(shape_.d_model);
  const float* bias =
      op.bias.empty() ? nullptr : op.bias.data() + size_t(head) * size_t(op.distances);
  Head here = HeadOf(op, sequence, head);
  for (int i = 0; i < sequence.count; ++i) {
    const float* query = Output(first_row + i, member.parity ^ 1) + size_t(head) * width;
    if (op.over == Over::kOwn) {
      const size_t at = size_t(here.keys - sequence.own) + size_t(here.positions) * width;
      std::memcpy(sequence.own + at, query + d, width * sizeof(float));
      std::memcpy(sequence.own + at + size_t(here.values - here.keys), query + 2 * d,
                  width * sizeof(float));
      ++here.positions;
    }
    Attend(here, i + 1 == sequence.count ? next_keys : here.keys, query, op.scale, bias,
           op.distances, Scratch(member), Mixed(first_row + i) + size_t(head) * width);
  }
}

}  // namespace splitformer

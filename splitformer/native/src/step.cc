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
      Execute(*linear, Next(&op, member.index), member);
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
  team_.Barrier(member.index);
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
  const bool kept = op.source == Source::kResidual || op.source == Source::kEmbedding;
  for (int i = ShareBegin(member.rows, part, parts), rows; i < end; i += rows) {
    rows = std::min(kRowsAtOnce, end - i);
    float* x[kRowsAtOnce];
    float* prepared[kRowsAtOnce];
    float largest[kRowsAtOnce];
    for (int r = 0; r < rows; ++r) {
      x[r] = Begin(op, op.target == Target::kOutputs ? output_row_[size_t(i + r)] : i + r, member);
      prepared[r] = Scratch(member) + size_t(r) * row_stride_;
    }
    const bool stored = kept && op.stored.kind != NormKind::kNone;
    if (stored) op.stored.Apply(*kernels_.rows, x, rows, op.width, x, largest);
    float* const* last = x;
    if (op.prepared.kind != NormKind::kNone) {
      op.prepared.Apply(*kernels_.rows, x, rows, op.width, prepared, largest);
      last = prepared;
    } else if (!stored && shape_.precision == Precision::kInt8) {
      for (int r = 0; r < rows; ++r) largest[r] = kernels_.rows->magnitude(x[r], op.width);
    }
    for (int r = 0; r < rows; ++r) {
      if (op.target == Target::kMemory) {
        std::memcpy(request.memory + size_t(i + r) * size_t(op.width), last[r],
                    size_t(op.width) * sizeof(float));
      } else {
        PrepareOperand(last[r], op.width, largest[r], i + r, member);
      }
    }
  }
}

// The row that an operation works on, where the residual stream is its own.
float* Plan::Begin(const RowsOp& op, int row, const Member& member) const {
  if (op.source == Source::kAttention) return Mixed(row);
  float* output = Output(row, member.parity ^ 1);
  if (op.source == Source::kLinear) return output;
  float* residual = Residual(row, member);
  const size_t d = size_t(shape_.d_model);
  if (op.source == Source::kResidual) {
    kernels_.rows->add(residual, output, shape_.d_model);
  } else {
    const Row& r = row_[size_t(row)];
    const float* position = positions_ == nullptr ? nullptr : positions_ + size_t(r.position) * d;
    const void* from = heard_ == nullptr ? TokenRow(r.token) : heard_ + size_t(row) * d;
    EmbedRow(heard_ == nullptr ? element_ : Element::kFloat, from, position, embedding_scale_,
             shape_.d_model, residual);
  }
  return residual;
}

void Plan::PrepareOperand(const float* x, int size, float largest, int row,
                          const Member& member) const {
  uint8_t* to = operand_.As<uint8_t>() + Slot(row, member) * operand_stride_;
  if (shape_.precision == Precision::kInt8) {
    *ScaleOf(row, member) = kernels_.rows->quantise(x, size, largest, to);
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

// The weights that a thread multiplies with next, behind `op`'s; nullptr if there are none.
const uint8_t* Plan::Next(const Op* op, int member) const {
  for (++op; op != ops_.data() + ops_.size(); ++op) {
    if (const auto* vocabulary = std::get_if<VocabularyOp>(op)) {
      return vocabulary->matrix.panel(ShareBegin(chunks(), member, team_.size()) *
                                      (kChunk / kPanel));
    }
    if (const auto* linear = std::get_if<LinearOp>(op)) {
      Panels share[kMaxSegments];
      ShareOf(*linear, member, share);
      return linear->matrix.panel(share[0].first);
    }
  }
  return nullptr;
}

void Plan::Execute(const LinearOp& op, const uint8_t* after, Member& member) {
  const Operand operand = OperandOf(member);
  const Matrix& matrix = op.matrix;
  const int parity = member.parity;
  const auto store = [&](const Sums& sums) {
    float* out = Output(sums.row, parity) + sums.column;
    matrix.Finish(sums, operand.scales, out, output_stride_, op.activation);
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
          kernels_.rows->activate(op.activation, piece, kPanel);
          std::memcpy(out, piece, kPanel * sizeof(float));
        } else {
          kernels_.rows->multiply(out, piece, kPanel);
        }
      }
    }
  };
  Panels share[kMaxSegments];
  for (int i = 0, count = ShareOf(op, member.index, share); i < count; ++i) {
    const auto [first, last] = share[i];
    const uint8_t* next = i + 1 < count ? matrix.panel(share[i + 1].first) : after;
    if (op.gated) {
      Multiply(kernels_, operand, matrix, first, last, next, store_gated);
    } else {
      Multiply(kernels_, operand, matrix, first, last, next, store);
    }
  }
  // The next map writes the other output: whoever still reads this one is not disturbed.
  member.parity ^= 1;
}

// Attention.

void Plan::Execute(const AttendOp& op, const Request& request, Member& member) {
  const int parts = team_.size();
  const int sequences = static_cast<int>(request.sequences);
  int heads = shape_.heads, first_head = 0, item, end;
  if (ByHeads()) {
    first_head = ShareBegin(heads, member.index, parts);
    heads = ShareBegin(heads, member.index + 1, parts) - first_head;
    item = 0;
    end = sequences * heads;
  } else {
    item = ShareBegin(sequences * heads, member.index, parts);
    end = ShareBegin(sequences * heads, member.index + 1, parts);
  }
  for (; item < end; ++item) {
    const int s = item / heads, head = first_head + item % heads, ahead = item + kHeadsAhead;
    const Sequence& sequence = request.sequence[s];
    if (op.over == Over::kSource) {
      AttendSource(op, sequence.count, first_row_[size_t(s)], head, member);
      continue;
    }
    const Head later = ahead >= end ? Head{}
                                    : Look(op, request.sequence[ahead / heads],
                                           first_head + ahead % heads);
    AttendHead(op, sequence, first_row_[size_t(s)], head, Look(op, sequence, head), later, member);
  }
}

// Bytes from the beginning of a cache for so many positions to a head's keys (0) or values (1).
size_t Plan::Offset(int layer, int which, int head, int64_t positions) const {
  const size_t before = (size_t(layer) * 2 + size_t(which)) * size_t(shape_.heads) + size_t(head);
  return before * size_t(positions) * size_t(head_size()) * ElementBytes(shape_.cache);
}

// Where a key (0) or value (1) of the sequence's own stands.
void* Plan::OwnPlace(const AttendOp& op, const Sequence& sequence, int which, int head,
                     int64_t position) const {
  const size_t within = size_t(position % kPagePositions) * size_t(head_size());
  return static_cast<char*>(sequence.own[position / kPagePositions]) +
         Offset(op.layer, which, head, kPagePositions) + within * ElementBytes(shape_.cache);
}

// The keys and values of one head, with the place of the first new ones of the sequence's own.
Head Plan::Look(const AttendOp& op, const Sequence& sequence, int head) const {
  const bool cross = op.over == Over::kMemory;
  const int64_t run = cross ? sequence.source : kPagePositions;
  const int64_t positions = cross ? sequence.source : sequence.start + 1;
  return {cross ? nullptr : sequence.own, sequence.cross, Offset(op.layer, 0, head, run),
          Offset(op.layer, 1, head, run), static_cast<int>(positions)};
}

// One head of all new rows of a sequence, in their order: a row's key and value are in place before
// the rows behind it attend.
void Plan::AttendHead(const AttendOp& op, const Sequence& sequence, int first_row, int head,
                      Head here, const Head& later, const Member& member) {
  const size_t width = size_t(head_size()), inner = size_t(shape_.inner());
  const float* bias =
      op.bias.empty() ? nullptr : op.bias.data() + size_t(head) * size_t(op.distances);
  for (int i = 0; i < sequence.count; ++i) {
    const float* query = Output(first_row + i, member.parity ^ 1) + size_t(head) * width;
    if (op.over == Over::kOwn) {
      const int64_t position = sequence.start + i;
      void* key = OwnPlace(op, sequence, 0, head, position);
      void* value = OwnPlace(op, sequence, 1, head, position);
      StoreElements(shape_.cache, query + inner, head_size(), key);
      StoreElements(shape_.cache, query + 2 * inner, head_size(), value);
      here.positions = static_cast<int>(position + 1);
    }
    const float factor = Attend(shape_.cache, here, i + 1 == sequence.count ? later : here,
                                head_size(), query, op.scale, bias, op.distances, Scratch(member),
                                Mixed(first_row + i) + size_t(head) * width);
    if (const int64_t from = AttentionFrom(op, first_row + i); from >= 0) {
      float* weights = weights_.data() + from + int64_t{head} * sequence.source;
      for (int64_t t = 0; t < sequence.source; ++t) weights[t] = Scratch(member)[t] * factor;
    }
  }
}

// Where the weights of a row's heads go, if they are shown; else -1.
int64_t Plan::AttentionFrom(const AttendOp& op, int row) const {
  const bool last = op.over == Over::kMemory && op.layer == shape_.layers - 1;
  return last && !shown_.empty() ? shown_[size_t(row)] : -1;
}

}  // namespace splitformer

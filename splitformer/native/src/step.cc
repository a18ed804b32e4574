// Running a plan.
#include <x86intrin.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "attention.h"
#include "plan.h"

namespace splitformer {

void Plan::Step(const Request& request) {
  const std::lock_guard<std::mutex> lock(busy_);
  Check(request);
  Prepare(request);
  team_.Run([&](int index) {
    Member member{index, static_cast<int>(row_.size()), 0, profiling_ ? __rdtsc() : 0};
    RunStep(request, member);
  });
}

void Plan::RunStep(const Request& request, Member& member) {
  for (const Op& op : ops_) {
    if (const auto* rows = std::get_if<RowsOp>(&op)) {
      Execute(*rows, member);
      Tick(member, kRowsTime);
      if (!replicated_) Barrier(member);
    } else if (const auto* linear = std::get_if<LinearOp>(&op)) {
      Execute(*linear, member);
      Tick(member, kLinearTime);
      // Where a thread computes the heads that it will attend with, it need not wait for others.
      if (linear->segments == 0 || !ByHeads()) Barrier(member);
    } else if (const auto* attend = std::get_if<AttendOp>(&op)) {
      Execute(*attend, request, member);
      Tick(member, attend->cross ? kCrossTime : kOwnTime);
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

void Plan::Execute(const RowsOp& op, Member& member) {
  if (op.outputs_only) member.rows = static_cast<int>(output_row_.size());
  const int parts = replicated_ ? 1 : team_.size(), part = replicated_ ? 0 : member.index;
  const int end = ShareBegin(member.rows, part + 1, parts);
  for (int i = ShareBegin(member.rows, part, parts); i < end; ++i) {
    const int row = op.outputs_only ? output_row_[size_t(i)] : i;
    const float* x = Begin(op, row, member);
    if (op.prepared.kind != NormKind::kNone) {
      Normalise(op.prepared, x, op.width, Scratch(member));
      x = Scratch(member);
    }
    PrepareOperand(x, op.width, i, member);
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

template <class F>
void Plan::ForPanels(const LinearOp& op, int member, F&& run) const {
  if (op.segments != 0 && ByHeads()) {
    const int heads = shape_.heads, panels = head_size() / kPanel;
    const int first = ShareBegin(heads, member, team_.size()) * panels;
    const int last = ShareBegin(heads, member + 1, team_.size()) * panels;
    for (int segment = 0; segment < op.segments; ++segment) {
      run(segment * heads * panels + first, segment * heads * panels + last);
    }
  } else {
    // Shares are whole blocks where there are enough of them, else pairs, which gates need.
    const int panels = op.matrix.panels(), parts = team_.size();
    const int unit = panels >= 2 * parts * kBlockPanels ? kBlockPanels : 2;
    const int units = (panels + unit - 1) / unit;
    run(unit * ShareBegin(units, member, parts),
        std::min(panels, unit * ShareBegin(units, member + 1, parts)));
  }
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
  const auto store_gated = [&](const Sums& sums) {
    alignas(32) float both[kMaxTileRows * kBlockPanels * kPanel];
    matrix.Finish(sums, operand.scales, both, size_t(sums.columns));
    float* piece = both;
    for (int r = 0; r < sums.rows; ++r) {
      float* out = Output(sums.row + r, parity) + sums.column / 2;
      for (int c = 0; c < sums.columns; c += 2 * kPanel, piece += 2 * kPanel, out += kPanel) {
        Activate(op.activation, piece, kPanel);
        MultiplyRow(piece, piece + kPanel, kPanel);
        std::memcpy(out, piece, kPanel * sizeof(float));
      }
    }
  };
  ForPanels(op, member.index, [&](int first, int last) {
    if (op.gated) {
      Multiply(kernels_, operand, matrix, first, last, store_gated);
    } else {
      Multiply(kernels_, operand, matrix, first, last, store);
    }
  });
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
    AttendHead(op, request.sequence[s], first_row_[size_t(s)], head, member);
  }
}

// The cache of one head, with the positions held before the step.
Head Plan::HeadOf(const AttendOp& op, const Sequence& sequence, int head) const {
  const size_t width = size_t(head_size()), heads = size_t(shape_.heads);
  const size_t room = size_t(op.cross ? sequence.source : sequence.capacity) * width;
  const float* keys = (op.cross ? sequence.cross : sequence.own) +
                      (size_t(op.layer) * 2 * heads + size_t(head)) * room;
  const int64_t positions = op.cross ? sequence.source : sequence.start;
  return {keys, keys + heads * room, static_cast<int>(positions), static_cast<int>(width)};
}

// One head of all new rows of a sequence, in their order: a row's key and value are in place before
// the rows behind it attend.
void Plan::AttendHead(const AttendOp& op, const Sequence& sequence, int first_row, int head,
                      const Member& member) {
  const size_t width = size_t(head_size()), d = size_t(shape_.d_model);
  const float* bias =
      op.bias.empty() ? nullptr : op.bias.data() + size_t(head) * size_t(op.distances);
  Head here = HeadOf(op, sequence, head);
  for (int i = 0; i < sequence.count; ++i) {
    const float* query = Output(first_row + i, member.parity ^ 1) + size_t(head) * width;
    if (!op.cross) {
      const size_t at = size_t(here.keys - sequence.own) + size_t(here.positions) * width;
      std::memcpy(sequence.own + at, query + d, width * sizeof(float));
      std::memcpy(sequence.own + at + size_t(here.values - here.keys), query + 2 * d,
                  width * sizeof(float));
      ++here.positions;
    }
    Attend(here, query, op.scale, bias, op.distances, Scratch(member),
           Mixed(first_row + i) + size_t(head) * width);
  }
}

// Vocabulary.

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

// Beside the step.

void Plan::Project(const float* memory, int rows, float* out) {
  constexpr int kBlock = 64;
  const std::lock_guard<std::mutex> lock(busy_);
  Reserve(kBlock, 1, 1);
  replicated_ = false;
  team_.Run([&](int index) {
    Member member{index, 0, 0, 0};
    for (int first = 0; first < rows; first += kBlock) {
      member.rows = std::min(kBlock, rows - first);
      ProjectRows(memory, first, rows, out, member);
    }
  });
}

void Plan::ProjectRows(const float* memory, int first, int rows, float* out, Member& member) {
  const size_t d = size_t(shape_.d_model), width = size_t(head_size());
  const int end = ShareBegin(member.rows, member.index + 1, team_.size());
  for (int i = ShareBegin(member.rows, member.index, team_.size()); i < end; ++i) {
    std::memcpy(Scratch(member), memory + size_t(first + i) * d, d * sizeof(float));
    PrepareOperand(Scratch(member), shape_.d_model, i, member);
  }
  team_.Barrier();
  const Operand operand = OperandOf(member);
  const Matrix& matrix = projection_->matrix;
  const size_t columns = size_t(shape_.layers) * 2 * d;
  const auto scatter = [&](const Sums& sums) {
    alignas(32) float block[kMaxTileRows * kBlockPanels * kPanel];
    matrix.Finish(sums, operand.scales, block, size_t(sums.columns));
    // Columns count (layer, keys or values, head) and then the head's elements, as the cache does.
    const size_t begin = size_t(sums.column), to = std::min(begin + size_t(sums.columns), columns);
    for (size_t r = 0; r < size_t(sums.rows); ++r) {
      const size_t row = size_t(first + sums.row) + r;
      for (size_t c = begin, n; c < to; c += n) {
        const size_t head = c / width, within = c % width;
        n = std::min(width - within, to - c);
        std::memcpy(out + (head * size_t(rows) + row) * width + within,
                    block + r * size_t(sums.columns) + (c - begin), n * sizeof(float));
      }
    }
  };
  ForPanels(*projection_, member.index, [&](int begin, int last) {
    Multiply(kernels_, operand, matrix, begin, last, scatter);
  });
  team_.Barrier();  // before the next block's rows become the operand
}

void Plan::RunProducts(int rows, int iterations) {
  const std::lock_guard<std::mutex> lock(busy_);
  Reserve(rows, 1, 1);
  replicated_ = false;
  const auto drop = [](const Sums& sums) { asm volatile("" : : "r"(sums.data) : "memory"); };
  team_.Run([&](int index) {
    const Member member{index, rows, 0, 0};
    const Operand operand = OperandOf(member);
    for (int i = 0; i < iterations; ++i) {
      for (const Op& op : ops_) {
        const auto* linear = std::get_if<LinearOp>(&op);
        const auto* vocabulary = std::get_if<VocabularyOp>(&op);
        if (linear == nullptr && vocabulary == nullptr) continue;
        const Matrix& matrix = linear != nullptr ? linear->matrix : vocabulary->matrix;
        const int blocks = (matrix.panels() + kBlockPanels - 1) / kBlockPanels;
        const int first = ShareBegin(blocks, index, team_.size()) * kBlockPanels;
        const int end = ShareBegin(blocks, index + 1, team_.size()) * kBlockPanels;
        const int last = std::min(end, matrix.panels());
        Multiply(kernels_, operand, matrix, first, last, drop);
        team_.Barrier();
      }
    }
  });
}

}  // namespace splitformer

// What a plan does beside its steps: projecting memories, and measuring bare products.
#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "plan.h"

namespace splitformer {

void Plan::Project(const float* memory, int rows, void* out) {
  constexpr int kBlock = 64;
  if (projection_ == nullptr) throw std::invalid_argument("plan: projects nothing");
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

void Plan::ProjectRows(const float* memory, int first, int rows, void* out, Member& member) {
  const size_t d = size_t(shape_.d_model), width = size_t(head_size());
  const int end = ShareBegin(member.rows, member.index + 1, team_.size());
  for (int i = ShareBegin(member.rows, member.index, team_.size()); i < end; ++i) {
    std::memcpy(Scratch(member), memory + size_t(first + i) * d, d * sizeof(float));
    const float largest = kernels_.rows->magnitude(Scratch(member), shape_.d_model);
    PrepareOperand(Scratch(member), shape_.d_model, largest, i, member);
  }
  team_.Barrier(member.index);
  const Operand operand = OperandOf(member);
  const Matrix& matrix = projection_->matrix;
  const size_t columns = size_t(shape_.layers) * 2 * size_t(shape_.inner());
  const auto scatter = [&](const Sums& sums) {
    alignas(32) float block[kMaxTileRows * kMaxTilePanels * kPanel];
    matrix.Finish(sums, operand.scales, block, size_t(sums.columns));
    // Columns count (layer, keys or values, head) and then the head's elements, as the cache does.
    const size_t begin = size_t(sums.column), to = std::min(begin + size_t(sums.columns), columns);
    for (size_t r = 0; r < size_t(sums.rows); ++r) {
      const size_t row = size_t(first + sums.row) + r;
      for (size_t c = begin, n; c < to; c += n) {
        const size_t head = c / width, within = c % width;
        n = std::min(width - within, to - c);
        const size_t to_element = (head * size_t(rows) + row) * width + within;
        StoreElements(shape_.cache, block + r * size_t(sums.columns) + (c - begin),
                      static_cast<int>(n),
                      static_cast<char*>(out) + to_element * ElementBytes(shape_.cache));
      }
    }
  };
  Panels share[kMaxSegments];
  ShareOf(*projection_, member.index, share);
  const uint8_t* again = matrix.panel(share[0].first);  // for the next block
  Multiply(kernels_, operand, matrix, share[0].first, share[0].last, again, scatter);
  team_.Barrier(member.index);  // before the next block's rows become the operand
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
        const int blocks = (matrix.panels() + kMaxTilePanels - 1) / kMaxTilePanels;
        const int first = ShareBegin(blocks, index, team_.size()) * kMaxTilePanels;
        const int end = ShareBegin(blocks, index + 1, team_.size()) * kMaxTilePanels;
        const int last = std::min(end, matrix.panels());
        Multiply(kernels_, operand, matrix, first, last, Next(&op, index), drop);
        team_.Barrier(member.index);
      }
    }
  });
}

}  // namespace splitformer

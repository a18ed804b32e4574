// Running a plan: laying out a step's working memory.
#include <algorithm>
#include <cmath>
#include <limits>

#include "plan.h"

namespace splitformer {

void Plan::Prepare(const Request& request) {
  row_.clear();
  first_row_.clear();
  output_row_.clear();
  int64_t longest = 1;
  for (int s = 0; s < request.sequences; ++s) {
    const Sequence& q = request.sequence[s];
    first_row_.push_back(static_cast<int>(row_.size()));
    longest = std::max({longest, q.start + q.count, q.source});
    for (int64_t i = 0; i < q.count; ++i) {
      const int row = static_cast<int>(row_.size());
      const bool asked = i >= q.count - q.outputs;
      const int32_t token = heard_ == nullptr ? request.tokens[row] : 0;
      row_.push_back({token, static_cast<int32_t>(q.start + i)});
      if (asked) output_row_.push_back(row);
    }
  }
  PrepareAnswers(request);
  PrepareShown(request);
  replicated_ = row_.size() == 1 && !encoder_;
  Reserve(static_cast<int>(row_.size()), static_cast<int>(output_row_.size()),
          static_cast<int>(longest));
}

// Makes ready what outputs are asked, and says where the answers go.
void Plan::PrepareAnswers(const Request& request) {
  asked_.clear();
  if (request.question == nullptr) return;
  int found = 0, candidates = 0, rows = 0;
  int64_t attention = 0;
  for (size_t i = 0; i < output_row_.size(); ++i) {
    const Question& question = request.question[i];
    const size_t row = size_t(output_row_[i]);
    Asked asked{question.draw, question.candidates, found, candidates, -1, -1};
    if (asked.draw.Wanted()) {
      asked.room = std::max(asked.room, static_cast<int>(asked.draw.among));
      if (std::isnan(asked.draw.point)) {
        asked.draw.point = Point(question.seed, uint64_t(row_[row].position - question.first));
      }
    }
    if (question.logits != 0) asked.logits_row = rows++;
    if (question.attention != 0) {
      asked.attention = attention;
      attention += SourceOf(request, output_row_[i]);
    }
    found += asked.room;
    candidates += question.candidates;
    asked_.push_back(asked);
  }
  found_.resize(size_t(found));
  PrepareLists();
}

// Says where the last layer's weights go, of outputs whose attention is asked or that look.
void Plan::PrepareShown(const Request& request) {
  int64_t shown = 0;
  shown_.clear();
  for (size_t i = 0; i < output_row_.size(); ++i) {
    const bool asked = !asked_.empty() && asked_[i].attention >= 0;
    if (!asked && request.focus == nullptr) continue;
    shown_.resize(row_.size(), -1);
    shown_[size_t(output_row_[i])] = shown;
    shown += shape_.heads * SourceOf(request, output_row_[i]);
  }
  weights_.resize(size_t(shown));
}

void Plan::PrepareLists() {
  const auto draws = [](const Asked& asked) { return asked.draw.Wanted(); };
  if (!found_.empty()) {
    BeginLists(&shortlists_, [&](size_t i, Shortlist* list) { list->Begin(asked_[i].room); });
  }
  if (std::any_of(asked_.begin(), asked_.end(), draws)) {
    BeginLists(&near_, [&](size_t i, Shortlist* list) {
      if (asked_[i].draw.Near()) list->BeginWithin(asked_[i].draw.Distance());
    });
    weights_of_all_.resize(asked_.size() * size_t(chunks()));
  }
}

// Makes sure that each thread has a list for each output, and begins them.
template <class F>
void Plan::BeginLists(std::vector<std::vector<Shortlist>>* lists, F begin) {
  lists->resize(size_t(team_.size()));
  for (std::vector<Shortlist>& each : *lists) {
    if (each.size() < asked_.size()) each.resize(asked_.size());
    for (size_t i = 0; i < asked_.size(); ++i) begin(i, &each[i]);
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

}  // namespace splitformer

// Running a plan: whether what is asked of it is in range.
#include <algorithm>
#include <functional>
#include <limits>
#include <string>

#include "plan.h"
#include "require.h"

namespace splitformer {

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
  for (int i = 0; request.question != nullptr && i < request.outputs; ++i) {
    Check(request.question[i]);
  }
}

void Plan::Check(const Question& question) const {
  CheckDenied(question.denied, question.denied + question.denied_count);
  Require(question.given < shape_.vocabulary, "given: no such id" + Got(question.given));
  Require(question.candidates >= 0 && question.candidates <= shape_.vocabulary,
          "candidates: 0 to as many as there are ids" + Got(question.candidates));
  const Draw& draw = question.draw;
  Require(draw.among >= 0.0 && draw.among <= shape_.vocabulary,
          "draws: among 0 to as many as there are ids" + Got(static_cast<int64_t>(draw.among)));
  Require(!draw.Wanted() || draw.among > 0.0 || draw.Near() != draw.Weighs(),
          "draws: from all tokens either weigh them or keep near the likeliest");
}

void Plan::CheckDenied(const int32_t* begin, const int32_t* end) const {
  Require(begin <= end && std::adjacent_find(begin, end, std::greater_equal<int32_t>()) == end,
          "denied: must be ascending");
  Require(begin == end || (begin[0] >= 0 && end[-1] < shape_.vocabulary),
          "denied: no such id" + (begin == end ? "" : Got(begin[0] < 0 ? begin[0] : end[-1])));
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

void Plan::CheckTokens(const int32_t* tokens, int64_t count) const {
  for (int64_t i = 0; i < count; ++i) {
    Require(tokens[i] >= 0 && tokens[i] < shape_.vocabulary,
            "tokens: must be below " + std::to_string(shape_.vocabulary) + Got(tokens[i]));
  }
}

}  // namespace splitformer

#include "ranking.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace splitformer {

int RankTogether(const Hypotheses& hypotheses, const Continuations& to) {
  const int room = hypotheses.room;
  const auto own = [&](int place) {
    return double{hypotheses.candidates[place].logit} - double{hypotheses.log_sum[place / room]};
  };
  std::vector<std::pair<double, int>> found;  // what is to be made up for, and place
  found.reserve(size_t(hypotheses.count) * size_t(room));
  for (int place = 0; place < hypotheses.count * room; ++place) {
    if (hypotheses.candidates[place].id < 0) continue;
    const double value = own(place), before = -hypotheses.total[place / room];
    found.emplace_back(value < 0.0 ? before - value : before, place);
  }
  const int count = std::min(to.most, static_cast<int>(found.size()));
  std::partial_sort(found.begin(), found.begin() + count, found.end());
  for (int i = 0; i < count; ++i) {
    const auto& [total, place] = found[size_t(i)];
    to.total[i] = total;
    to.log_probability[i] = own(place);
    to.hypothesis[i] = place / room;
    to.id[i] = hypotheses.candidates[place].id;
  }
  return count;
}

}  // namespace splitformer
